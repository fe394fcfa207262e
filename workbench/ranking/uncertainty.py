"""How sure a figure is: bootstrap intervals, a paired randomisation test, and Holm's correction.

We resample groups, not queries: queries that share a text are not independent, so they are drawn
together. Where no text repeats, every query is its own group.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workbench.ranking import metrics
from workbench.ranking.metrics import FloatArray, IntArray, Ranking

CHUNK = 500  # resamples drawn at a time, which bounds the memory
PERCENTILES = (2.5, 97.5)  # of a 95 % interval
SIGNIFICANT = 0.05  # a difference counts where its Holm-corrected p-value is below this


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def plain(self) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {n: None if np.isnan(value) else float(value) for n, value in self._asdict().items()}


def format_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """`0.584 [0.555, 0.612]`, or "not defined" where there was nothing to average."""
    if estimate is None or estimate["mean"] is None:
        return "not defined"
    interval = "" if estimate["low"] is None else " [{low:.3f}, {high:.3f}]"
    return ("{mean:.3f}" + interval).format(**estimate)


def bootstrap_draws(
    values: ArrayLike, groups: ArrayLike | None = None, resamples: int = 10_000, seed: int = 42
) -> FloatArray:
    """Means of per-query values over resampled queries, whole groups drawn with replacement.

    All columns see the same draws, so a difference of two columns is a paired one. The mean is the
    sum over the drawn queries divided by their number (a ratio, since groups differ in size).

    Args:
        values: shape (queries, columns).
        groups: shape (queries,), the group of each query as a number; each its own if None.
        resamples: number of draws.
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
    counts = _group_counts(len(sizes), resamples, seed)
    return np.concatenate([drawn @ sums / (drawn @ sizes)[:, None] for drawn in counts])


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
    low, high = np.percentile(drawn, PERCENTILES) if len(drawn) else (np.nan, np.nan)
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

    `differences` has shape (queries, columns), the result (columns,); `groups` is as in
    `bootstrap_draws`.
    """
    sums, sizes = _by_group(np.asarray(differences, dtype=float), groups)
    found = np.abs(sums.sum(axis=0))
    slack = 1e-12 * np.abs(sums).sum(axis=0)  # sums in another order differ in the last bits
    rng, extreme = np.random.default_rng(seed), np.zeros(sums.shape[1])
    for rows in _chunks(resamples):
        signs = 2.0 * rng.integers(0, 2, (rows, len(sizes)), dtype=np.int8) - 1.0
        extreme += (np.abs(signs @ sums) >= found - slack).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + resamples), dtype=float)


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values adjusted for testing several hypotheses at once (Holm, 1979); shape kept.

    The smallest is multiplied by their number, the next by one less, and so on; none is then
    smaller than the one before it, and none above 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    growing = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.minimum(1.0, growing)
    return adjusted


def compare(
    names: Sequence[str],
    gaps: FloatArray,
    draws: FloatArray,
    groups: ArrayLike,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Paired differences by name: `mean`, `low`, `high`, `p`, and `p_holm` among all of them.

    `gaps` are the differences, shape (queries, names), and `draws` their means over resampled
    queries, shape (resamples, names). The flips of the test use the seed after that of the draws.
    """
    p = randomisation_test(gaps, groups, resamples, seed + 1)
    intervals = [estimate(gap.mean(), drawn) for gap, drawn in zip(gaps.T, draws.T, strict=True)]
    columns = zip(names, intervals, p.tolist(), holm(p).tolist(), strict=True)
    return {name: {**own.plain(), "p": one, "p_holm": held} for name, own, one, held in columns}


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

    NaN where a metric is not defined (see `pair_values`); draws in which it is not are left out of
    the interval. `scores`, `positive` and `groups` have shape (pairs,). The threshold comes from
    other pairs; `logits` says whether the scores are log-odds, which have a probability.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    ranking, order = metrics.rank(score, right, ties), np.lexsort((right, -score))
    whole = np.arange(len(score))
    probability = sigmoid(score) if logits else None
    group = whole if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]

    def values(ranked: Ranking, drawn: IntArray) -> list[float]:
        chance = None if probability is None else probability[drawn]
        return metrics.pair_values(ranked, score[drawn], right[drawn], threshold, chance)

    draws = []
    for chunk in _group_counts(int(group.max()) + 1, resamples, seed):
        for counts in chunk.astype(np.int64)[:, group]:
            times = counts[order]
            gain, start = np.repeat(ranking.gain, times), np.repeat(ranking.start, times)
            ranked = metrics.tie_blocks(gain, start, ranking.missed)
            draws.append(values(ranked, np.repeat(whole, counts)))
    spread = np.asarray(draws, dtype=float).reshape(-1, len(metrics.PAIR_METRICS)).T
    found = map(estimate, values(ranking, whole), spread)
    return dict(zip(metrics.PAIR_METRICS, found, strict=True))


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


def _group_counts(groups: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each group is drawn in each resample: chunks of shape (rows, groups)."""
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples):
        drawn = rng.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(float)


def _chunks(resamples: int) -> Iterator[int]:
    yield from (min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK))
