"""The exercises of lesson 1: inputs, right answers, and each wrong idea with its hint."""

from collections import Counter

import numpy as np

from workbench.data.texts import characters, jaccard
from workbench.lessons.checking import exercise
from workbench.lessons.recording import texts
from workbench.ranking import metrics


def _list(rng, ties=False):
    """Scores and graded relevance of 3 to 25 candidates; in a fifth of the lists all of it is 0."""
    size = int(rng.integers(3, 26))
    scores = rng.integers(0, 4, size) if ties else rng.permutation(size)
    return scores.astype(float), rng.choice([0.0, 0, 0, 1, 2], size) * (rng.random() > 0.2)


def _sparse(rng):
    """A list in which the first relevant candidate may come late, or never."""
    size = int(rng.integers(3, 40))
    return rng.permutation(size).astype(float), rng.choice([0.0, 0, 1], size, p=[0.5, 0.42, 0.08])


def _by_score(scores, relevance):
    return np.asarray(relevance)[np.argsort(-np.asarray(scores), kind="stable")]


def _rr(scores, relevance, cut=10, start=1, step=1):
    places = np.flatnonzero(_by_score(np.multiply(step, scores), relevance)[:cut] > 0) + start
    return 1 / int(places[0]) if len(places) else 0.0


def _all_rr(scores, relevance):
    return sum(1 / (n + 1) for n in np.flatnonzero(_by_score(scores, relevance)[:10] > 0))


exercise(
    "1.1",
    _sparse,
    _rr,
    {
        "places are counted from 1: the first candidate has 1 / 1.": lambda *a: _rr(*a, start=0),
        "the first place already counts 1: you start counting at 2.": lambda *a: _rr(*a, start=2),
        "the highest score comes first; you sort from the lowest.": lambda *a: _rr(*a, step=-1),
        "only the first relevant candidate counts, not each of them.": _all_rr,
        "a relevant candidate after place 10 counts 0: cut at k.": lambda *a: _rr(*a, cut=99),
    },
    trials=100,
)


def _dcg(gain, k=10, offset=2):
    first = np.asarray(gain, dtype=float)[:k]
    return float(np.sum(first / np.log2(np.arange(offset, offset + len(first)))))


def _ndcg(scores, relevance, k=10, offset=2):
    gain = _by_score(scores, relevance)
    best = _dcg(np.sort(gain)[::-1], k, offset)
    return _dcg(gain, k, offset) / best if gain.any() else 0.0


def _ideal_of_cut(scores, relevance):
    gain = _by_score(scores, relevance)[:10]
    return _ndcg(-np.arange(len(gain)), gain)


exercise(
    "1.2",
    _list,
    _ndcg,
    {
        "where nothing is relevant the ideal DCG is 0: nDCG is 0 there, do not divide.": (
            lambda *a: _ndcg(*a) if np.any(a[1]) else np.nan
        ),
        "the discount is log2(place + 1): log2(1) is 0, so place 1 would be divided by 0.": (
            lambda *a: _ndcg(*a, offset=1)
        ),
        "the ideal order is that of ALL candidates, not of the ten that were ranked first.": (
            _ideal_of_cut
        ),
        "nDCG is divided by the ideal DCG, not by k.": lambda *a: _dcg(_by_score(*a)) / 10,
        "this is DCG: divide by the DCG of the ideal order.": lambda *a: _dcg(_by_score(*a)),
        "this gain is 2 ** relevance - 1, another definition; here the gain is the relevance.": (
            lambda scores, relevance: _ndcg(scores, 2 ** np.asarray(relevance) - 1)
        ),
    },
    trials=60,
)


def _expected_ndcg(scores, relevance):
    return metrics.ndcg(metrics.rank(scores, relevance))


exercise(
    "1.3",
    lambda rng: _list(rng, ties=True),
    _expected_ndcg,
    {
        "a stable sort keeps the order of the file: among equal scores the file decides.": _ndcg,
        "among equal scores you put the relevant ones first: ties help the scorer.": (
            lambda scores, gain: _ndcg(np.asarray(scores) + np.asarray(gain) / 10, gain)
        ),
        "among equal scores you put the irrelevant ones first: the worst order, not the mean.": (
            lambda scores, gain: _ndcg(np.asarray(scores) - np.asarray(gain) / 10, gain)
        ),
    },
)


def _spaced(rng):
    """Two texts that share characters, some repeated, with a space in each."""
    first, second = texts(rng, 2)
    return f"{first} {first[:3]}", f"{second[:4]} {first[2:6]}"


def _share(first, second):
    one, two = characters(first), characters(second)
    return len(one & two), len(one), len(two)


def _counted(first, second):
    one, two = (Counter(text.replace(" ", "")) for text in (first, second))
    return (one & two).total() / (one | two).total()


exercise(
    "1.4",
    _spaced,
    lambda first, second: jaccard(characters(first), characters(second)),
    {
        "divide by the UNION of the characters, not by those of one text.": (
            lambda first, second: _share(first, second)[0] / _share(first, second)[1]
        ),
        "this is the Dice coefficient; Jaccard divides by the size of the union.": (
            lambda *a: 2 * _share(*a)[0] / sum(_share(*a)[1:])
        ),
        "each character counts once: use sets, not counts.": _counted,
        "leave white space out: a space in both texts is no common ground.": (
            lambda first, second: jaccard(frozenset(first), frozenset(second))
        ),
    },
)
