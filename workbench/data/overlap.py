"""Texts compared by the characters they share."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def characters(text: str) -> frozenset[str]:
    """The different characters of a text, white space left out."""
    return frozenset(text) - {" ", "\t", "\n", "\u3000"}


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 0 for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


BATCH = 64  # queries looked up at a time, which bounds the memory


class OverlapIndex:
    """An inverted index: for each character the texts that have it.

    A query costs the length of its characters' lists, not the number of texts there are.
    """

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
        """For each query the places of the texts that share a character with it, and the Jaccard.

        Jaccard is shared over all characters, each counted once, white space left out.
        """
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            if self.lists is None:
                for _ in batch:
                    yield np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
                continue
            shared = (self.counter.transform(batch) @ self.lists).tocsr()
            for row, query in enumerate(batch):
                part = slice(shared.indptr[row], shared.indptr[row + 1])
                places, both = shared.indices[part].astype(np.int64), shared.data[part]
                yield places, both / (self.size[places] + len(characters(query)) - both)


def normalised(text: str) -> str:
    """The text without case, width, punctuation and white space; the text itself if none is left.

    Width and compatibility forms follow Unicode's NFKC.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in folded if sign.isalnum()) or text
