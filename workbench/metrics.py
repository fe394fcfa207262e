"""Ranking and pair metrics: arrays in, per-query values out; aggregation is a separate call.

Ties count against the scorer: among candidates with equal scores the irrelevant ones are ranked
first. A scorer that gives every candidate the same score therefore gains nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def ranked_relevance(scores: ArrayLike, relevance: ArrayLike) -> FloatArray:
    """The relevance of a query's candidates, from the highest score to the lowest; shape (n,).

    Args:
        scores: shape (n,), higher is better.
        relevance: shape (n,), 0 or more.

    Raises:
        ValueError: the shapes differ, or a score is NaN or infinite.
    """
    score, gain = np.asarray(scores, dtype=float), np.asarray(relevance, dtype=float)
    if score.shape != gain.shape or score.ndim != 1:
        raise ValueError(f"{score.shape} scores for {gain.shape} candidates; both must be (n,)")
    if not np.isfinite(score).all():
        place = int(np.flatnonzero(~np.isfinite(score))[0])
        raise ValueError(f"the score of candidate {place} is {score[place]}; it must be finite")
    return gain[np.lexsort((gain, -score))]


def ndcg(ranked: FloatArray, k: int = 10) -> float:
    """Normalised discounted cumulative gain at k, with linear gain.

    sum_{i<=k} gain_i / log2(i + 1), divided by the same sum for the best order (Jarvelin and
    Kekalainen, 2002). A query without a relevant candidate has 0.
    """
    discount = 1.0 / np.log2(np.arange(2, min(k, len(ranked)) + 2))
    best = np.sort(ranked)[::-1][:k] @ discount
    return float(ranked[:k] @ discount / best) if best > 0 else 0.0


def reciprocal_rank(ranked: FloatArray, k: int = 10) -> float:
    """One over the rank of the first relevant candidate; 0 if none is among the first k."""
    hits = np.flatnonzero(ranked[:k] > 0)
    return 1.0 / (hits[0] + 1) if len(hits) else 0.0


def average_precision(ranked: FloatArray) -> float:
    """The mean, over the relevant candidates, of the precision at their rank; 0 without any."""
    hits = np.flatnonzero(ranked > 0)
    return float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1))) if len(hits) else 0.0


RANKING_METRICS: dict[str, Callable[[FloatArray], float]] = {
    "ndcg@10": ndcg,
    "mrr@10": reciprocal_rank,
    "map": average_precision,
}


def rank_metrics(scores: Sequence[ArrayLike], relevance: Sequence[ArrayLike]) -> pd.DataFrame:
    """Every ranking metric of every query: one row a query, one column a metric.

    Args:
        scores: for each query an array of shape (candidates,).
        relevance: the same shapes.

    Raises:
        ValueError: an array does not fit or holds a score that is not finite; names the query.
    """
    rows = []
    for query, (score, gain) in enumerate(zip(scores, relevance, strict=True)):
        try:
            ranked = ranked_relevance(score, gain)
        except ValueError as error:
            raise ValueError(f"query {query}: {error}") from error
        rows.append({name: metric(ranked) for name, metric in RANKING_METRICS.items()})
    return pd.DataFrame(rows, columns=list(RANKING_METRICS))


def pair_metrics(scores: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Average precision (`ap`) and ROC AUC (`roc_auc`) of scores over labelled pairs.

    Args:
        scores: shape (n,), higher is better.
        labels: shape (n,), in [0, 1].
        threshold: labels at or above it count as positive.

    Returns:
        The two values; NaN where only one class is present, since neither is defined then.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    positive = np.asarray(labels, dtype=float) >= threshold
    if positive.all() or not positive.any():
        return {"ap": float("nan"), "roc_auc": float("nan")}
    return {
        "ap": float(average_precision_score(positive, scores)),
        "roc_auc": float(roc_auc_score(positive, scores)),
    }


def bootstrap_mean(values: ArrayLike, resamples: int = 2000, seed: int = 42) -> Estimate:
    """Mean of per-query values and its 95 % percentile interval, queries drawn with replacement.

    Args:
        values: shape (queries,).
        resamples: bootstrap samples.
        seed: of the draws; the same seed draws the same queries, so differences can be paired.
    """
    value = np.asarray(values, dtype=float)
    if not len(value):
        raise ValueError("there is no value to take a mean of")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(value), np.full(len(value), 1 / len(value)), size=resamples)
    low, high = np.percentile(counts @ value / len(value), [2.5, 97.5])
    return Estimate(float(value.mean()), float(low), float(high))


def bootstrap_pair_metrics(
    scores: ArrayLike, labels: ArrayLike, resamples: int = 200, seed: int = 42
) -> dict[str, Estimate]:
    """`pair_metrics` with 95 % percentile intervals, pairs drawn with replacement.

    Resamples that hold one class only are left out; with one class in the pairs all is NaN.
    """
    score, label = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    rng = np.random.default_rng(seed)
    draws = pd.DataFrame(
        pair_metrics(score[drawn], label[drawn])
        for drawn in rng.integers(len(score), size=(resamples, len(score)))
    ).dropna()
    estimates = {}
    for name, value in pair_metrics(score, label).items():
        spread = np.percentile(draws[name], [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
        estimates[name] = Estimate(value, float(spread[0]), float(spread[1]))
    return estimates
