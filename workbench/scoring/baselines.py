"""Scorers without a neural network: what a fine-tuned model has to beat before any claim.

`BASELINES` has them by name in the order of the ladder. To add one, write a class with `score` and
register it there.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pandas as pd

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList, texts_of
from workbench.data.texts import (
    Float32Array,
    TextPair,
    characters,
    distinct_texts,
    jaccard,
    text_pairs,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from workbench.models import ModelLocation


class Scorer(Protocol):
    """What baselines and models have in common."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """The score of each (query, candidate) pair, float32 of shape (n,), higher is better."""
        ...


class NgramRegression:
    """Logistic regression on the n-grams of characters (n = 1, 2) that two texts share or do not.

    Features: for each n-gram of at least two training texts, whether both texts have it, and
    whether exactly one has; the Jaccard index of n-grams and of characters, and the part of the
    shorter text's characters that is shared.
    """

    log_odds = True  # the score has a probability, so calibration can be measured

    def __init__(self, seed: int = 42, inverse_penalty: float = 0.05) -> None:
        self.seed, self.inverse_penalty = seed, inverse_penalty
        self.counter: Any = None
        self.model: Any = None

    def fit(self, pairs: pd.DataFrame) -> Self:
        """The scorer itself, fitted on pairs with labels in [0, 1].

        Raises:
            ValueError: there is no pair, only one class, or no n-gram that two texts share.
        """
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        positive = (pairs["label"] >= POSITIVE).to_numpy()
        if positive.all() or not positive.any():  # or no pair at all
            raise ValueError(
                f"n-gram regression needs training pairs of both classes; of {len(pairs)} pairs "
                f"{int(positive.sum())} are positive"
            )
        options = {"analyzer": "char", "ngram_range": (1, 2), "min_df": 2, "binary": True}
        self.counter = CountVectorizer(dtype=np.float32, **options)
        try:
            self.counter.fit(distinct_texts(pairs))
        except ValueError as error:  # no two texts share an n-gram
            raise ValueError(f"n-gram regression: {error}") from error
        options = {"solver": "liblinear", "dual": True, "max_iter": 2000}
        options |= {"C": self.inverse_penalty, "random_state": self.seed}
        features = self._features(text_pairs(pairs))
        self.model = LogisticRegression(**options).fit(features, positive)
        return self

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits of shape (n,): the log-odds that the pair is positive.

        Raises:
            ValueError: `fit` has not been called.
        """
        if self.model is None:
            raise ValueError("n-gram regression: call fit(pairs) before score")
        if not pairs:
            return np.empty(0, dtype=np.float32)
        logits = self.model.decision_function(self._features(pairs))
        return np.asarray(logits, dtype=np.float32)

    def _features(self, pairs: Sequence[TextPair]) -> Any:
        """Sparse features, shape (n, 2 * n-grams + 3)."""
        from scipy import sparse

        texts, first, second = text_places(pairs)
        counts, sets = self.counter.transform(texts), [*map(characters, texts)]
        left, right = counts[first], counts[second]
        both, either = left.multiply(right).tocsr(), abs(left - right)
        shared, other = (np.asarray(part.sum(axis=1)).ravel() for part in (both, either))
        set_pairs = [(sets[a], sets[b]) for a, b in zip(first, second, strict=True)]
        contained = [len(a & b) / max(1, min(len(a), len(b))) for a, b in set_pairs]
        overlaps = [jaccard(a, b) for a, b in set_pairs]
        # Twice, so that the penalty on the weights leaves these few strong features some room.
        dense = 2 * np.column_stack([shared / np.maximum(shared + other, 1), overlaps, contained])
        return sparse.hstack([both, either, sparse.csr_matrix(dense, dtype=np.float32)], "csr")


class Bm25:
    """BM25 over characters and pairs of neighbouring characters, by the library bm25s.

    Robertson's formula in Lucene's variant (k1 1.5, b 0.75), with the document frequencies and mean
    length of the collection; candidates outside it are added for the call that scores them.
    """

    def __init__(self, collection: Iterable[str] = ()) -> None:
        self.collection = tuple(dict.fromkeys(collection))
        self.index: Any = _bm25_index(self.collection) if self.collection else None

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,), 0 or more; 0 where query and candidate share no character."""
        texts = tuple(dict.fromkeys([*self.collection, *(text for _, text in pairs)]))
        index = self.index if texts == self.collection else _bm25_index(texts)
        place = {text: number for number, text in enumerate(texts)}
        places = np.array([place[text] for _, text in pairs])
        scores = np.zeros(len(pairs), dtype=np.float32)
        queries = pd.Series([query for query, _ in pairs], dtype=object)
        for query, rows in queries.groupby(queries).indices.items():
            if terms := index.get_tokens_ids(_terms(query)):
                scores[rows] = index.get_scores_from_ids(terms)[places[rows]]
        return scores


class TfidfCosine:
    """Cosine of TF-IDF vectors over character 1- to 3-grams, fitted on the given texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
        self.vectorizer.fit(dict.fromkeys(texts))

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,) in [0, 1]; n-grams never seen in training count for nothing."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        texts, first, second = text_places(pairs)
        vectors = self.vectorizer.transform(texts)
        products = vectors[first].multiply(vectors[second])
        return np.asarray(products.sum(axis=1), dtype=np.float32).ravel()


class CharacterJaccard:
    """Shared characters over all characters of the two texts, each counted once."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,) in [0, 1]; 0 where both texts are empty."""
        pieces = lru_cache(maxsize=None)(self.pieces)  # a query occurs in many pairs
        overlaps = (jaccard(pieces(first), pieces(second)) for first, second in pairs)
        return np.fromiter(overlaps, dtype=np.float32, count=len(pairs))

    def pieces(self, text: str) -> frozenset[str]:
        """What is counted of a text."""
        return characters(text)


class TokenJaccard(CharacterJaccard):
    """Shared tokens of a model over all of them; all that the vocabulary lacks is one token."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer

    def pieces(self, text: str) -> frozenset[str]:
        """The different tokens of a text, special tokens left out."""
        return frozenset(self.tokenizer.encode(text, add_special_tokens=False).tokens)


class CandidateOrder:
    """The order in which the candidates came: a first-stage search's ranking, or a shuffled one."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,): 0, -1, -2, ... along each run of pairs with the same query."""
        groups = (tuple(group) for _, group in groupby(pairs, key=lambda pair: pair[0]))
        return np.array([-place for group in groups for place in range(len(group))], np.float32)


class RandomScorer:
    """Scores drawn uniformly from [0, 1), the same for the same seed and number of pairs."""

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Scores of shape (n,); the texts play no part."""
        return np.random.default_rng(self.seed).random(len(pairs), dtype=np.float32)


def text_places(pairs: Sequence[TextPair]) -> tuple[list[str], list[int], list[int]]:
    """The texts of pairs, each once, and the places there of the first and the second of each."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: number for number, text in enumerate(texts)}
    first, second = ([place[pair[column]] for pair in pairs] for column in (0, 1))
    return texts, first, second


def _bm25_index(texts: Iterable[str]) -> Any:
    import bm25s

    index = bm25s.BM25()
    index.index([_terms(text) for text in texts], show_progress=False)
    return index


def _terms(text: str) -> list[str]:
    """The characters of a text and its pairs of neighbours, in lower case."""
    lower = text.lower()
    return [*lower, *map("".join, pairwise(lower))]


def _base_dictionary(
    train: pd.DataFrame,
    lists: Sequence[CandidateList],
    seed: int,
    base: "ModelLocation | None" = None,
    dictionary: str = "",
    **_: Any,
) -> Scorer | None:
    from workbench.models import load_tokenizer
    from workbench.scoring.cross_encoder import ZeroShot, load_cross_encoder
    from workbench.vocabulary.dictionary import HAN, letters_of, read_dictionary
    from workbench.vocabulary.repair import repair_model

    if base is None:
        return None
    letters = letters_of(read_dictionary(dictionary)) if dictionary else HAN  # the package's
    if not any(map(re.compile(f"[{letters}]").search, texts_of(lists))):
        raise ValueError("no text has a character of those in which the dictionary is written")
    texts = list(dict.fromkeys([*texts_of(lists), *distinct_texts(train)]))
    model = load_cross_encoder(base, 512, seed)
    repair_model(model, load_tokenizer(base), texts, "words", "dictionary", dictionary, seed)
    return ZeroShot(model, base.head, texts)


# Each builds a scorer from `train`, `lists`, `seed`, the model's `tokenizer`, its `base` and the
# `dictionary`; it gives None without what it needs, and raises `ValueError` if it cannot be built.
BASELINES: dict[str, Callable[..., Scorer | None]] = {
    "base_dictionary": _base_dictionary,
    "ngram_regression": lambda train, seed, **_: NgramRegression(seed).fit(train),
    "bm25": lambda lists, **_: Bm25(text for one in lists for text in one.candidates),
    "tfidf_cosine": lambda train, lists, **_: TfidfCosine(
        distinct_texts(train) or [text for one in lists for text in one.candidates]
    ),
    "char_jaccard": lambda **_: CharacterJaccard(),
    "token_jaccard": lambda tokenizer=None, **_: tokenizer and TokenJaccard(tokenizer),
    "candidate_order": lambda **_: CandidateOrder(),
    "random": lambda seed, **_: RandomScorer(seed),
}
