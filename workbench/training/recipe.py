"""How to train: the settings of a stage, with the reference card's values as defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from workbench.machine import on_gpu, quick_in_bfloat16

PRECISIONS = ("auto", "float32", "bfloat16")


SPEEDS = ("exact", "fast")


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are those of the reference model's card.

    Attributes:
        max_length: tokens of a pair, special tokens included.
        epochs: passes over the training pairs.
        batch_size: pairs a step.
        learning_rate: the highest; it falls linearly to 0.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 on a GPU that has it, and with
            `speed: fast` on a processor that is quicker in it.
        seed: of the new head, new embeddings, mined pairs, the order of the pairs and dropout.
        warmup_ratio: share of the steps over which the learning rate rises from 0.
        embedding_learning_rate: of the token embeddings; 0 for the same as all else.
        speed: `exact`, bit for bit the library's trainer; or `fast`: the same batches, computed
            with hardly any padding and shared among threads (see `bert_training`). The same sums
            in another order, and other random numbers for dropout, which hang on the number of
            threads. On a GPU, in several processes, or for a model other than a BERT, it is
            the library's trainer all the same.
        vocabulary: `keep`, `unused` or `extend` (see `repair_vocabulary`).
        new_embeddings: `spectral`, `masked`, `random` or `mean`: where new embeddings start.
        lexical_pairs: pairs of a lexical warm-up before the labels; 0 for none.
        lexical_learning_rate: of that warm-up.
        hard_negatives: mined look-alikes that are added for each text of a positive pair.
        symmetric: add each positive pair in the other order too.
    """

    max_length: int = 512
    epochs: float = 1.0
    batch_size: int = 8
    learning_rate: float = 5e-5
    precision: str = "auto"
    seed: int = 42
    warmup_ratio: float = 0.0
    embedding_learning_rate: float = 0.0
    speed: str = "exact"
    vocabulary: str = "keep"
    new_embeddings: str = "spectral"
    lexical_pairs: int = 0
    lexical_learning_rate: float = 2e-4
    hard_negatives: int = 0
    symmetric: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe within the parameters of a run; what else they hold is left out."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def resolved_precision(self) -> str:
        """`float32` or `bfloat16`.

        Raises:
            ValueError: `precision` is none of the three words.
        """
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.precision != "auto":
            return self.precision
        quick = quick_in_bfloat16() and (self.speed == "fast" or on_gpu())
        return "bfloat16" if quick else "float32"


def read_stages(stages: str) -> tuple[int, ...]:
    """The training pairs of each stage, 0 for all, from a text such as `2000,0,0`.

    An empty text is one stage with all pairs.

    Raises:
        ValueError: the text is no list of whole numbers.
    """
    parts = [part.strip() for part in stages.split(",")] if stages.strip() else ["0"]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(
            f"stages {stages!r}: must be whole numbers of training pairs, one a stage, separated "
            "by commas; 0 for all of them"
        )
    return tuple(int(part) for part in parts)
