"""Texts, and pairs of them: which are equal, connected, or alike by the characters they share."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

QUERIES_AT_ONCE = 64  # bounds the memory

Float32Array = NDArray[np.float32]
TextPair = tuple[str, str]


def text_pairs(frame: pd.DataFrame | Mapping[str, Sequence[str]]) -> list[TextPair]:
    """The texts of columns `sentence_0` and `sentence_1`, one pair per row."""
    return list(zip(frame["sentence_0"], frame["sentence_1"], strict=True))


def distinct_texts(pairs: pd.DataFrame) -> list[str]:
    """The distinct texts of both columns, those of `sentence_0` first."""
    return list(dict.fromkeys([*pairs["sentence_0"], *pairs["sentence_1"]]))


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


def text_groups(pairs: pd.DataFrame) -> np.ndarray:
    """The group of each pair, int array of shape (n,): texts that occur together are connected.

    The groups are the connected components of the graph whose nodes are the distinct texts of both
    columns, normalised, and whose edges are the pairs. Values that are no text count as they are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = pd.concat([pairs["sentence_0"], pairs["sentence_1"]]).astype(object)
    place, distinct = pd.factorize(both)
    plain = [normalised(one) if isinstance(one, str) else one for one in distinct]
    texts = pd.factorize(np.array(plain, dtype=object))[0][place]
    edges = np.split(texts, 2)  # the texts of `sentence_0`, and of `sentence_1`
    graph = coo_array((np.ones(len(pairs), np.int8), edges), shape=(len(distinct),) * 2)
    _, component = connected_components(graph, directed=False)
    return component[edges[0]].astype(np.int64)


def meaning_groups(texts: Sequence[str], positive: pd.DataFrame) -> np.ndarray:
    """A number for each text, shape (texts,), which texts of one meaning share.

    Those are texts that positive pairs connect, and texts that are equal once normalised.
    """
    own = pd.DataFrame({"sentence_0": texts, "sentence_1": texts}, dtype=object)
    return text_groups(pd.concat([own, positive]))[: len(own)]


class OverlapIndex:
    """An inverted index from characters to texts: a query costs the length of its lists only."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        known = sorted({" "}.union(*texts))  # the space, because it must not be empty
        self.counter = CountVectorizer(analyzer=characters, dtype=np.float32, vocabulary=known)
        self.size = np.array([len(characters(text)) for text in texts], dtype=np.float32)
        self.lists = self.counter.transform(texts).T.tocsr()  # characters x texts

    def overlaps(
        self, queries: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """For each query, the places of the texts that share a character, and their Jaccard."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            batch = queries[start : start + QUERIES_AT_ONCE]
            shared = (self.counter.transform(batch) @ self.lists).tocsr()
            for row, query in enumerate(batch):
                part = slice(shared.indptr[row], shared.indptr[row + 1])
                places, both = shared.indices[part].astype(np.int64), shared.data[part]
                yield places, both / (self.size[places] + len(characters(query)) - both)
