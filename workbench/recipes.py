"""How to train: the settings of a stage, with the reference card's values as defaults."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

PRECISIONS = ("auto", "float32", "bfloat16")
SPEEDS = ("exact", "fast")
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86-64 and of ARM
WORTH_IT = 1.2  # the least gain over float32 for which training is made less exact


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


def on_gpu() -> bool:
    """Whether a model is trained on a GPU here."""
    import torch

    return torch.cuda.is_available()


def quick_in_bfloat16() -> bool:
    """Whether a model is trained faster in bfloat16 than in float32 here; a GPU says so itself."""
    import torch

    return torch.cuda.is_bf16_supported() if on_gpu() else processor_quick_in_bfloat16()


def processor_quick_in_bfloat16() -> bool:
    """Whether the processor multiplies matrices faster in bfloat16 than in float32.

    One without instructions of its own for bfloat16 is slower in it; with them it may be either:
    of two that name `avx512_bf16`, one was 2.5 times as fast as in float32, the other half as
    fast. So there, a product of a model's size is timed.
    """
    known = processor_capabilities()
    return any(known.get(name, False) for name in CPU_BFLOAT16) and _gain_of_bfloat16() > WORTH_IT


def processor_capabilities() -> Mapping[str, Any]:
    """What the processor can do, by torch's names; an older torch does not say."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", dict)
    known: Mapping[str, Any] = ask()
    return known


@cache
def _gain_of_bfloat16() -> float:
    """How many times as fast as in float32 a feed-forward layer's product is, in 30 ms."""
    import torch

    rows, weight = torch.zeros(1024, 384), torch.zeros(1536, 384)
    seconds: dict[torch.dtype, float] = {}
    with torch.inference_mode():
        for _ in range(6):  # in turns, and the best of each, so that other work hardly matters
            for dtype in (torch.float32, torch.bfloat16):
                left, right = rows.to(dtype), weight.to(dtype)
                start = time.perf_counter()
                torch.nn.functional.linear(left, right)
                took = time.perf_counter() - start
                seconds[dtype] = min(took, seconds.get(dtype, took))
    return seconds[torch.float32] / seconds[torch.bfloat16]
