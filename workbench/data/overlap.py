"""Texts compared by the characters they share."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

QUERIES_AT_ONCE = 64  # bounds the memory


def characters(text: str) -> frozenset[str]:
    """The different characters of a text, white space of any kind left out."""
    return frozenset("".join(text.split()))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 0 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def normalised(text: str) -> str:
    """The text without case, width (NFKC), punctuation, white space and invisible characters.

    Letters, digits and the marks on them are left; without any, the text is unchanged.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] == "M") or text


class OverlapIndex:
    """An inverted index from characters to texts: a query costs the length of its lists only."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self.counter = CountVectorizer(analyzer=characters, binary=True, dtype=np.float32)
        self.size = np.array([len(characters(text)) for text in texts], dtype=np.float32)
        self.lists = None
        if self.size.any():
            self.lists = self.counter.fit_transform(texts).T.tocsr()  # characters x texts

    def overlaps(
        self, queries: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """For each query, the places of the texts that share a character, and their Jaccard."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            batch = queries[start : start + QUERIES_AT_ONCE]
            if self.lists is None:
                yield from ((np.empty(0, np.int64), np.empty(0, np.float32)) for _ in batch)
                continue
            shared = (self.counter.transform(batch) @ self.lists).tocsr()
            for row, query in enumerate(batch):
                part = slice(shared.indptr[row], shared.indptr[row + 1])
                places, both = shared.indices[part].astype(np.int64), shared.data[part]
                yield places, both / (self.size[places] + len(characters(query)) - both)
