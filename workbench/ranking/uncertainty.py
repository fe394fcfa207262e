"""How sure a figure is: bootstrap intervals, a paired randomisation test, and Holm's correction.

What is drawn anew is the group, not the query: queries that share a text are not independent, so
they are drawn together. Where no text repeats, every query is a group of its own.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.ranking.metrics import (
    FloatArray,
    IntArray,
    Ranking,
    accuracy,
    average_precision,
    brier,
    calibration_error,
    f1,
    rank,
    roc_auc,
    tie_blocks,
)

CHUNK = 500  # resamples drawn at a time, which bounds the memory


LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def plain(self) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {n: None if np.isnan(value) else float(value) for n, value in self._asdict().items()}


def bootstrap_draws(
    values: ArrayLike, groups: ArrayLike | None = None, resamples: int = 10_000, seed: int = 42
) -> FloatArray:
    """Means of per-query values over resampled queries, whole groups drawn with replacement.

    All columns see the same draws, so a difference of two columns is a paired one. The mean is the
    sum over the queries drawn divided by their number (a ratio: groups differ in size).

    Args:
        values: shape (queries, columns).
        groups: shape (queries,), the group of each query as a number; each its own if None.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        Shape (resamples, columns).

    Raises:
        ValueError: there is no query.
    """
    value = np.asarray(values, dtype=float)
    if not len(value):
        raise ValueError("there is no value to take a mean of")
    sums, sizes = _by_group(value, groups)
    draws = [
        counts @ sums / (counts @ sizes)[:, None]
        for counts in _group_counts(len(sizes), resamples, seed)
    ]
    return np.concatenate(draws)


def bootstrap_mean(
    values: ArrayLike, resamples: int = 10_000, seed: int = 42, groups: ArrayLike | None = None
) -> Estimate:
    """Mean of per-query values, shape (queries,), and its 95 % percentile interval."""
    value = np.asarray(values, dtype=float)
    draws = bootstrap_draws(value[:, None], groups, resamples, seed)[:, 0]
    return estimate(value.mean(), draws)


def estimate(mean: float, draws: ArrayLike) -> Estimate:
    """A value with the 95 % percentile interval of its draws; NaN draws are left out."""
    drawn = np.asarray(draws, dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, LEVEL) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(mean), float(low), float(high))


def randomisation_test(
    differences: ArrayLike,
    groups: ArrayLike | None = None,
    resamples: int = 10_000,
    seed: int = 42,
) -> FloatArray:
    """Two-sided p-values that paired differences have mean 0, by flipping signs of whole groups.

    If two scorers were equally good, either could have had either value, so each group's difference
    could as well have the other sign (Fisher, 1935; Smucker, Allan and Carterette, 2007). The
    p-value is (1 + flips at least as far from 0 as the data) / (1 + resamples), never 0.

    Args:
        differences: shape (queries, columns); each column is tested for itself.
        groups: shape (queries,); each query its own group if None.
        resamples: how many random flips.
        seed: of the flips.

    Returns:
        Shape (columns,).
    """
    sums, sizes = _by_group(np.asarray(differences, dtype=float), groups)
    found = np.abs(sums.sum(axis=0))
    slack = 1e-12 * np.abs(sums).sum(axis=0)  # sums in another order differ in the last bits
    rng = np.random.default_rng(seed)
    extreme = np.zeros(sums.shape[1])
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        signs = 2.0 * rng.integers(0, 2, (rows, len(sizes)), dtype=np.int8) - 1.0
        extreme += (np.abs(signs @ sums) >= found - slack).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + resamples), dtype=float)


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values adjusted for testing several hypotheses at once (Holm, 1979); shape kept.

    The smallest is multiplied by their number, the next by one less, and so on; none is then
    smaller than one before it, and none above 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def bootstrap_pairs(
    scores: ArrayLike,
    positive: ArrayLike,
    ties: str = "expected",
    threshold: float = float("nan"),
    logits: bool = False,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Every pair metric with its interval, whole groups of pairs drawn with replacement.

    Args:
        scores: shape (pairs,), higher is better.
        positive: shape (pairs,), true where the pair is positive.
        ties: `expected` or `worst`, for `roc_auc` and `ap`.
        threshold: for `accuracy` and `f1`, fitted on other pairs; NaN where none could be.
        logits: whether the scores are log-odds, so that they have a probability.
        groups: shape (pairs,), as numbers; each pair its own if None.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        `roc_auc`, `ap`, `accuracy`, `f1`, `brier`, `ece`. NaN is what is not defined: the first two
        where one class is missing (such draws are left out of the interval), the next two without
        a threshold, the last two without log-odds.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    ranking, order = rank(score, right, ties), np.lexsort((right, -score))
    whole = np.arange(len(score))
    probability = sigmoid(score) if logits else None
    group = whole if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]

    def values(ranked: Ranking, drawn: IntArray) -> list[float]:
        mixed = ranked.gain.any() and not ranked.gain.all()
        nothing, called = float("nan"), not np.isnan(threshold)
        return [
            roc_auc(ranked),
            average_precision(ranked) if mixed else nothing,
            accuracy(score[drawn], right[drawn], threshold) if called else nothing,
            f1(score[drawn], right[drawn], threshold) if called else nothing,
            brier(probability[drawn], right[drawn]) if probability is not None else nothing,
            calibration_error(probability[drawn], right[drawn])
            if probability is not None
            else nothing,
        ]

    draws = []
    for chunk in _group_counts(int(group.max()) + 1, resamples, seed):
        for counts in chunk.astype(np.int64)[:, group]:
            times = counts[order]
            gain, start = np.repeat(ranking.gain, times), np.repeat(ranking.start, times)
            draws.append(values(tie_blocks(gain, start, ranking.missed), np.repeat(whole, counts)))
    names = ("roc_auc", "ap", "accuracy", "f1", "brier", "ece")
    spread = np.asarray(draws, dtype=float).reshape(-1, len(names)).T
    return {
        name: estimate(mean, drawn)
        for name, mean, drawn in zip(names, values(ranking, whole), spread, strict=True)
    }


def sigmoid(logits: ArrayLike) -> FloatArray:
    """Probabilities of log-odds, without overflow; shape kept."""
    return np.asarray((1 + np.tanh(np.asarray(logits, dtype=float) / 2)) / 2, dtype=float)


def _by_group(values: FloatArray, groups: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Sums of the values in each group, shape (groups, columns), and the groups' sizes."""
    if groups is None:
        return values, np.ones(len(values))
    place = np.unique(np.asarray(groups), return_inverse=True)[1]
    columns = [np.bincount(place, weights=column) for column in values.T]
    return np.column_stack(columns), np.bincount(place).astype(float)


def _group_counts(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each group is drawn in each resample: chunks of shape (rows, groups)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = rng.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(float)


SIGNIFICANT = 0.05  # Holm-corrected p-value under which a difference counts


def format_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """`0.584 [0.555, 0.612]`, or "not defined" where there was nothing to average."""
    if estimate is None or estimate["mean"] is None:
        return "not defined"
    if estimate["low"] is None:
        return f"{estimate['mean']:.3f}"
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
