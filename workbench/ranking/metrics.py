"""Ranking and pair metrics in numpy: arrays in, one value per query out; means are taken elsewhere.

Ties: under `expected`, the default, each metric is its exact expected value over the random order
of candidates with equal scores; under `worst` the irrelevant ones come first.

Odd queries stay in every mean: a query without a relevant text or without a candidate has 0 in
every metric; relevant texts that are not among the candidates (`missed`) count in every
denominator; with a single candidate, or with relevant ones only, any order is the best one.

A new ranking metric needs an entry in `RANKING_METRICS`; everything else derives from it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.data import POSITIVE

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TIES = ("expected", "worst")


class Ranking(NamedTuple):
    """A query's n candidates from the highest score to the lowest."""

    gain: FloatArray  # relevance at each place, shape (n,)
    start: IntArray  # first place of the tie block that each place belongs to, shape (n,)
    size: IntArray  # number of candidates in that block, shape (n,)
    missed: FloatArray  # relevance of relevant texts that are not among the candidates

    def relevant(self) -> FloatArray:
        """1 at each place with a relevant candidate, else 0."""
        return (self.gain > 0).astype(float)

    def expected(self, values: FloatArray) -> FloatArray:
        """At each place the mean of `values`, shape (n,), over its tie block."""
        firsts = np.flatnonzero(self.start == np.arange(len(values)))
        sizes = self.size[firsts]
        return np.repeat(np.add.reduceat(values, firsts) / sizes, sizes)


def rank(
    scores: ArrayLike, relevance: ArrayLike, ties: str = "expected", missed: ArrayLike = ()
) -> Ranking:
    """Order a query's candidates by score, higher is better; `scores` and `relevance` are (n,).

    Raises:
        ValueError: the shapes differ, a score is NaN or infinite, a relevance is not a number of 0
            or more, or `ties` is not one of `TIES`.
    """
    score, gain = np.asarray(scores, dtype=float), np.asarray(relevance, dtype=float)
    if score.shape != gain.shape or score.ndim != 1:
        raise ValueError(f"{score.shape} scores for {gain.shape} candidates; both must be (n,)")
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; it must be 'expected' or 'worst'")
    for what, values, good, rule in (
        ("score", score, np.isfinite(score), "finite"),
        ("relevance", gain, (gain >= 0) & (gain < np.inf), "0 or more"),
    ):
        if not good.all():
            n = int(np.argmin(good))
            raise ValueError(f"the {what} of candidate {n} is {values[n]}; it must be {rule}")
    order = np.lexsort((gain, -score))  # within a tie the irrelevant first: the worst order
    block = score[order] if ties == "expected" else np.arange(len(order))
    return tie_blocks(gain[order], block, np.asarray(missed, dtype=float))


def tie_blocks(gain: FloatArray, block: NDArray[Any], missed: FloatArray) -> Ranking:
    """A ranking from the relevance and a tie label at each place; equal labels are adjacent."""
    first = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
    sizes = np.diff(np.append(first, len(block)))
    return Ranking(gain, np.repeat(first, sizes), np.repeat(sizes, sizes), missed)


def ndcg(ranking: Ranking, k: int = 10) -> float:
    """sum_{i<=k} gain_i / log2(i + 1), over the same sum for the best order (linear gain).

    Jarvelin and Kekalainen, 2002; with the mean gain of each tie block, McSherry and Najork, 2008.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.sort(np.append(ranking.gain, ranking.missed))[::-1][:k]
    ideal = best @ discount[: len(best)]
    gain = ranking.expected(ranking.gain)[:k]
    return float(gain @ discount[: len(gain)] / ideal) if ideal > 0 else 0.0


def reciprocal_rank(ranking: Ranking, k: int = 10) -> float:
    """One over the rank of the first relevant candidate; 0 if none is among the first k."""
    first = _first_hit(ranking)[:k]
    return float(first @ (1.0 / np.arange(1, len(first) + 1)))


def success(ranking: Ranking, k: int = 5) -> float:
    """1 if a relevant candidate is among the first k, else 0; with ties, the probability of it."""
    return float(min(1.0, _first_hit(ranking)[:k].sum()))


def average_precision(ranking: Ranking) -> float:
    """The mean, over the relevant texts, of the precision at their rank; missed ones give 0.

    In a tie block of m candidates, r of them relevant, below c relevant ones, place j (from 0) is
    relevant with probability r / m, and is then the c + 1 + j (r - 1) / (m - 1)th on average.
    """
    relevant = ranking.relevant()
    if not relevant.any():
        return 0.0
    share, place = ranking.expected(relevant), np.arange(len(relevant))
    above = np.append(0.0, np.cumsum(relevant))[ranking.start]
    others = (share * ranking.size - 1) * (place - ranking.start) / np.maximum(ranking.size - 1, 1)
    found = (share * (above + 1 + others) / (place + 1)).sum()
    return float(found / (relevant.sum() + len(ranking.missed)))


def recall(ranking: Ranking, k: int = 10) -> float:
    """The share of the relevant texts that are among the first k (below 1 where k is too few)."""
    total = ranking.relevant().sum() + len(ranking.missed)
    return float(ranking.expected(ranking.relevant())[:k].sum() / total) if total else 0.0


def precision(ranking: Ranking, k: int = 1) -> float:
    """The share of relevant candidates among the first k places; empty places count as 0."""
    return float(ranking.expected(ranking.relevant())[:k].sum() / k)


RANKING_METRICS: dict[str, Callable[[Ranking], float]] = {
    "ndcg@10": ndcg,
    "mrr@10": reciprocal_rank,
    "map": average_precision,
    "recall@10": recall,
    "precision@1": precision,
    "success@5": success,
}
PAIR_METRICS = ("roc_auc", "ap", "accuracy", "f1", "brier", "brier_skill", "ece")
METRICS = (*RANKING_METRICS, *PAIR_METRICS)
MAIN_METRIC = "ndcg@10"  # of every comparison and verdict
LOWER_IS_BETTER = ("brier", "ece", "dev_loss")


def rank_metrics(
    scores: Sequence[ArrayLike],
    relevance: Sequence[ArrayLike],
    ties: str = "expected",
    missed: Sequence[ArrayLike] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, FloatArray]:
    """Every ranking metric of every query: for each metric an array of shape (queries,).

    The arguments are as in `rank`, one of each per query; errors name the query.

    Example:
        >>> rank_metrics([[0.9, 0.1, 0.4]], [[0, 0, 1]])["mrr@10"]
        array([0.5])
    """
    absent = missed if missed is not None else [()] * len(relevance)
    values = np.zeros((len(RANKING_METRICS), len(relevance)))
    for query, (score, gain, extra) in enumerate(zip(scores, relevance, absent, strict=True)):
        try:
            ranking = rank(score, gain, ties, extra)
        except ValueError as error:
            name = f" ({names[query]!r})" if names else ""
            raise ValueError(f"query {query}{name}: {error}") from error
        values[:, query] = [metric(ranking) for metric in RANKING_METRICS.values()]
    return dict(zip(RANKING_METRICS, values, strict=True))


def pair_values(
    ranking: Ranking,
    score: FloatArray,
    positive: NDArray[np.bool_],
    threshold: float = float("nan"),
    probability: FloatArray | None = None,
) -> list[float]:
    """The values of `PAIR_METRICS`, NaN where not defined, of arrays of shape (pairs,).

    `ranking` holds all pairs as one list.
    """
    nan, mixed = float("nan"), positive.any() and not positive.all()
    ordered = (roc_auc(ranking), average_precision(ranking)) if mixed else (nan, nan)
    called = (nan, nan) if np.isnan(threshold) else at_threshold(score, positive, threshold)
    likely = (nan, nan, nan) if probability is None else calibration(probability, positive)
    return [*ordered, *called, *likely]


def pair_metrics(scores: ArrayLike, labels: ArrayLike, ties: str = "expected") -> dict[str, float]:
    """`roc_auc` and `ap` (average precision) of scores over labelled pairs, both of shape (n,).

    NaN where there is only one class, which `POSITIVE` divides.

    Example:
        >>> pair_metrics([0.9, 0.8, 0.1], [1, 0, 0])
        {'roc_auc': 1.0, 'ap': 1.0}
    """
    score, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float) >= POSITIVE
    found = pair_values(rank(score, positive, ties), score, positive)
    return dict(zip(PAIR_METRICS[:2], found, strict=False))


def roc_auc(ranking: Ranking) -> float:
    """The share of (positive, negative) pairs in the right order; a tie counts one half.

    Under `worst` a tie counts 0. NaN where there is only one class (Hanley and McNeil, 1982).
    """
    relevant = ranking.relevant()
    positives, negatives = relevant.sum(), (1 - relevant).sum()
    if not positives or not negatives:
        return float("nan")
    above = np.append(0.0, np.cumsum(1 - relevant))[ranking.start]  # negatives above the block
    tied = ranking.size * ranking.expected(1 - relevant)
    return float((relevant * (negatives - above - tied / 2)).sum() / (positives * negatives))


def fit_threshold(scores: ArrayLike, positive: ArrayLike) -> float:
    """The highest of the thresholds with the best F1, half-way between two adjacent scores.

    Scores, shape (n,), at or above it are called positive. NaN where there is only one class.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if right.all() or not right.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(right[order])[ends]
    best = int(np.argmax(2 * hits / (ends + 1 + right.sum())))
    low, high = score[order[min(ends[best] + 1, len(score) - 1)]], score[order[ends[best]]]
    return float((low + high) / 2)


def at_threshold(scores: ArrayLike, positive: ArrayLike, threshold: float) -> tuple[float, float]:
    """Accuracy and F1 (0 without any positive) with scores at or above the threshold positive."""
    called, right = np.asarray(scores) >= threshold, np.asarray(positive, dtype=bool)
    both = called.sum() + right.sum()
    return float(np.mean(called == right)), float(2 * (called & right).sum() / max(both, 1))


def calibration(probabilities: ArrayLike, positive: ArrayLike) -> tuple[float, float, float]:
    """Brier score, Brier skill and expected calibration error of probabilities, shape (pairs,).

    The mean squared error (Brier, 1950); its gain on a constant at the share of positives (1 is
    perfect, NaN for one class); the bins' gaps of `reliability`, by their pairs (Naeini, 2015).
    """
    chance, right = np.asarray(probabilities, float), np.asarray(positive, float)
    brier, share = np.mean((chance - right) ** 2), right.mean()
    skill = 1 - brier / (share * (1 - share)) if 0 < share < 1 else np.nan
    sizes, meant, found = reliability(chance, right)
    error = np.nansum(sizes * np.abs(meant - found)) / sizes.sum()
    return float(brier), float(skill), float(error)


def reliability(
    probabilities: ArrayLike, positive: ArrayLike, bins: int = 10
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Pairs, mean probability and share of positives (NaN without pairs) of bins of equal width."""
    probability, right = np.asarray(probabilities, float), np.asarray(positive, float)
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    count = partial(np.bincount, place, minlength=bins)
    sizes = count()
    safe = np.where(sizes > 0, sizes, np.nan)
    return sizes, count(weights=probability) / safe, count(weights=right) / safe


def _first_hit(ranking: Ranking) -> FloatArray:
    """At each place the probability that it holds the first relevant candidate; shape (n,)."""
    chance = np.zeros(len(ranking.gain))
    hits = np.flatnonzero(ranking.gain > 0)
    if not len(hits):
        return chance
    start, size = int(ranking.start[hits[0]]), int(ranking.size[hits[0]])
    relevant = int((ranking.gain[start : start + size] > 0).sum())
    place = np.arange(1, size - relevant + 1)
    still = np.append(1.0, np.cumprod((size - place + 1 - relevant) / (size - place + 1)))
    chance[start : start + len(still)] = still * relevant / (size - np.append(0, place))
    return chance
