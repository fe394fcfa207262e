"""How to train: every setting of a recipe with its type, range, default and help.

This is the only definition of a training parameter: the parameters of a run are built on it
(`runs/parameters.py`), and a test compares the `parameters` cell of notebook 2 with it.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from workbench.machine import on_gpu, quick_in_bfloat16


class Recipe(BaseModel):
    """How to train; the defaults are those of the reference model's card.

    Raises:
        ValidationError: (a `ValueError`) a value has the wrong type or is out of range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = Field(512, ge=8, description="tokens of a pair; longer ones are cut")
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the training pairs")
    batch_size: int = Field(8, ge=1, le=65536, description="pairs per step")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="the highest; falls linearly to 0")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="float32, bfloat16, or auto: the faster one (CPU: only with speed fast)"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="of every random choice")
    warmup_ratio: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0"
    )
    embedding_learning_rate: float = Field(
        0.0, ge=0, le=1, description="of the token embeddings; 0: the same as all other weights"
    )
    speed: Literal["exact", "fast"] = Field(
        "exact", description="exact, or fast: the same batches with little padding (BERT on a CPU)"
    )
    vocabulary: Literal["keep", "unused", "extend"] = Field(
        "keep", description="keep; unused or extend: tokens for characters the base cannot read"
    )
    new_embeddings: Literal["spectral", "random"] = Field(
        "spectral", description="spectral or random: how the embeddings of new tokens start"
    )
    lexical_pairs: int = Field(
        0, ge=0, description="pairs of a warm-up on soft lexical targets before the labels; 0: none"
    )
    lexical_learning_rate: float = Field(2e-4, gt=0, le=1, description="of that warm-up")
    hard_negatives: int = Field(
        0, ge=0, le=100, description="mined look-alikes added for each text of a positive pair"
    )
    symmetric: bool = Field(False, description="add each positive pair in the other order too")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The recipe among other values, such as a notebook's `globals()`; the rest is ignored."""
        return cls(**{name: values[name] for name in cls.model_fields if name in values})

    def resolved_precision(self) -> str:
        """`float32` or `bfloat16`.

        `auto` is bfloat16 on a GPU that has it and, with `speed: fast`, on a processor that is
        faster in it.
        """
        if self.precision != "auto":
            return self.precision
        faster = quick_in_bfloat16() and (self.speed == "fast" or on_gpu())
        return "bfloat16" if faster else "float32"


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
