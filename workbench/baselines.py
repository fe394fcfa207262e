"""Scorers that need no neural network: what a fine-tuned model has to beat before any claim."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
TextPair = tuple[str, str]


class RandomScorer:
    """Scores drawn uniformly from [0, 1), the same for the same seed and number of pairs."""

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,); the texts play no part."""
        return np.random.default_rng(self.seed).random(len(pairs), dtype=np.float32)


class CharacterJaccard:
    """Shared characters over all characters of the two texts, each counted once."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,) in [0, 1]; 0 where both texts are empty."""
        cached = lru_cache(maxsize=None)(_characters)  # a query stands in many pairs
        overlaps = (_jaccard(cached(first), cached(second)) for first, second in pairs)
        return np.fromiter(overlaps, dtype=np.float32, count=len(pairs))


class TfidfCosine:
    """Cosine of TF-IDF vectors over character 1- to 3-grams, fitted on the training texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
        self.vectorizer.fit(dict.fromkeys(texts))

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,) in [0, 1]; n-grams never seen in training count for nothing."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        row = {text: place for place, text in enumerate(texts)}
        vectors = self.vectorizer.transform(texts)
        first, second = (vectors[[row[pair[side]] for pair in pairs]] for side in (0, 1))
        return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float32).ravel()


def _characters(text: str) -> frozenset[str]:
    return frozenset(text) - {" ", "\t", "\n", "\u3000"}


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 0 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0
