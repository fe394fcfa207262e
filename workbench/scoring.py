"""Scorers: anything with `score(pairs)`, higher is better. Here the ones that run a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from workbench.baselines import Float32Array, TextPair
from workbench.models import ModelLocation

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Scorer(Protocol):
    """What baselines and models have in common."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """The score of each (query, candidate) pair, float32 of shape (n,), higher is better."""
        ...


def load_cross_encoder(
    location: ModelLocation,
    max_length: int = 512,
    seed: int = 42,
    attention: str | None = None,
) -> "CrossEncoder":
    """Load a model with one output; a base without a classification head gets a seeded random one.

    Args:
        location: from `find_model`; only its safetensors weights are read, none of its code.
        max_length: tokens of a pair, special tokens included; longer pairs are truncated.
        seed: of the random head, so that the same base is the same model every time.
        attention: which kernels, `eager` or `sdpa`; None for the library's choice.
    """
    from sentence_transformers import CrossEncoder
    from transformers import set_seed
    from transformers.utils import logging

    set_seed(seed)
    # The library's report of a missing head tells what the docstring says, at length.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # loading and saving take a moment; training has its own bar
    try:
        return CrossEncoder(
            str(location.path),
            num_labels=1,
            max_length=max_length,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "attn_implementation": attention},
        )
    finally:
        logging.set_verbosity(verbosity)


class ModelScorer:
    """A cross-encoder as a scorer; the score is the logit, before any sigmoid."""

    log_odds = True  # the score has a probability, so calibration can be measured

    def __init__(self, model: "CrossEncoder", batch_size: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size

    @classmethod
    def load(
        cls, location: ModelLocation, max_length: int = 512, batch_size: int = 64, seed: int = 42
    ) -> "ModelScorer":
        """Load the model at `location`; see `load_cross_encoder`."""
        return cls(load_cross_encoder(location, max_length, seed), batch_size)

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits, float32 of shape (n,); equal pairs are scored once, in batches of like length."""
        from torch.nn import Identity

        if not len(pairs):
            return np.empty(0, dtype=np.float32)
        distinct = sorted({(first, second) for first, second in pairs})
        distinct.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        logits = self.model.predict(
            distinct,
            batch_size=self.batch_size,
            activation_fn=Identity(),
            show_progress_bar=False,
        )
        score = dict(zip(distinct, np.asarray(logits, dtype=np.float32).ravel(), strict=True))
        ordered = (score[first, second] for first, second in pairs)
        return np.fromiter(ordered, np.float32, count=len(pairs))
