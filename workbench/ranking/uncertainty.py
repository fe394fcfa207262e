"""How sure a value is: bootstrap intervals, paired randomisation tests, and what may be claimed.

We resample groups, not queries: queries that share a text are not independent, so they are drawn
together. `groups` has a label for each query; each query is its own group if it is None. Fewer than
`MIN_GROUPS` have no interval, since it would be much too narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from workbench.ranking import metrics
from workbench.ranking.metrics import FloatArray, IntArray

CHUNK = 500  # resamples drawn at a time, which bounds the memory
PERCENTILES = (2.5, 97.5)  # of a 95 % interval
SIGNIFICANT = 0.05  # a difference counts where its corrected p-value is below this
FLIPS_PER_TEST = 20  # at least: with fewer no p-value could be below 0.05 after Holm's correction
MIN_GROUPS = 10  # with fewer there is no interval and no claim
FEW_GROUPS = 20  # with fewer a 95 % interval is too narrow: of 12 groups, 89 % hold the mean
REHEARSAL_GROUPS = 100  # with fewer a result is a rehearsal
MANY_TIED = 0.5  # share of the queries from which a scorer that ties all candidates does not rank


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval; NaN where there is none."""

    mean: float
    low: float
    high: float

    def plain(self) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {n: None if np.isnan(value) else float(value) for n, value in self._asdict().items()}


def format_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """`0.584 [0.555, 0.612]`, or "not defined" where there was nothing to average."""
    if estimate is None or pd.isna(estimate["mean"]):
        return "not defined"
    interval = "" if pd.isna(estimate["low"]) else " [{low:.3f}, {high:.3f}]"
    return ("{mean:.3f}" + interval).format(**estimate)


def bootstrap_draws(
    values: ArrayLike, groups: ArrayLike | None = None, resamples: int = 10_000, seed: int = 42
) -> FloatArray:
    """Means of `values`, shape (queries, columns), over draws of whole groups with replacement.

    All columns see the same draws, so a difference of two is paired. The result has shape
    (resamples, columns); NaN with fewer than `MIN_GROUPS` groups.

    Raises:
        ValueError: there is no query.
    """
    value = np.asarray(values, dtype=float)
    if not len(value):
        raise ValueError("there is no value to take a mean of")
    sums, sizes = _by_group(value, groups)
    if len(sizes) < MIN_GROUPS:
        return np.full((resamples, value.shape[1]), np.nan)
    counts = _group_counts(len(sizes), resamples, seed)
    return np.concatenate([drawn @ sums / (drawn @ sizes)[:, None] for drawn in counts])


def bootstrap_means(values: FloatArray, *how: Any) -> list[Estimate]:
    """The mean of each column with its interval; arguments and errors as of `bootstrap_draws`."""
    draws = bootstrap_draws(values, *how)
    return [*map(estimate, values.mean(axis=0), draws.T)]


def bootstrap_mean(
    values: ArrayLike, resamples: int = 10_000, seed: int = 42, groups: ArrayLike | None = None
) -> Estimate:
    """Mean of per-query values, shape (queries,), and its 95 % percentile interval.

    Example:
        >>> format_estimate(bootstrap_mean([0, 1] * 50)._asdict())
        '0.500 [0.400, 0.600]'
    """
    return bootstrap_means(np.array([values], dtype=float).T, groups, resamples, seed)[0]


def estimate(mean: float, draws: ArrayLike) -> Estimate:
    """A value with the 95 % percentile interval of its draws; NaN draws are left out."""
    drawn = np.asarray(draws, dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, PERCENTILES) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(mean), float(low), float(high))


def randomisation_test(
    differences: ArrayLike, groups: ArrayLike | None = None, resamples: int = 10_000, seed: int = 42
) -> FloatArray:
    """Two-sided p-values that paired differences have mean 0, by flipping signs of whole groups.

    If two scorers were equally good, each group's difference could as well have the other sign
    (Fisher, 1935; Smucker, Allan and Carterette, 2007). p is (1 + flips at least as far from 0 as
    the data) / (1 + resamples). `differences` has shape (queries, columns), the result (columns,).
    """
    sums, distance = _to_beat(differences, groups)
    rng, extreme = np.random.default_rng(seed), np.zeros(len(distance))
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        signs = 2.0 * rng.integers(0, 2, (rows, len(sums)), dtype=np.int8) - 1.0
        extreme += (np.abs(signs @ sums) >= distance).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + resamples), dtype=float)


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values adjusted for testing several hypotheses at once (Holm, 1979), in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    growing = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.asarray(np.minimum(1.0, growing)[np.argsort(order)], dtype=float)


def range_test(
    gaps: ArrayLike, groups: ArrayLike | None = None, resamples: int = 2000, seed: int = 42
) -> FloatArray:
    """p-values of one column's lead over each other, where that column was chosen as the best.

    The values of a query are shuffled among the columns, whole groups alike, and each lead compared
    with the distance of the highest and the lowest mean, which corrects for every comparison of two
    columns (randomised Tukey HSD; Carterette, 2012). `gaps`, the column's values minus those of
    each other, has shape (queries, others), the result (others,).
    """
    sums, distance = _to_beat(gaps, groups)
    columns = np.column_stack([np.zeros(len(sums)), -sums])  # what all share changes no distance
    rng, extreme = np.random.default_rng(seed), np.zeros(len(distance))
    for _ in range(resamples):
        extreme += np.ptp(rng.permuted(columns, axis=1).sum(axis=0)) >= distance
    return np.asarray((1 + extreme) / (1 + resamples), dtype=float)


def compare(
    names: Sequence[str], gaps: FloatArray, groups: ArrayLike, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Paired differences by name: `mean`, `low`, `high`, `p`, and `p_holm` among all of them.

    `gaps` are the differences, shape (queries, names); the flips use the seed after the draws' one.
    """
    intervals = bootstrap_means(gaps, groups, resamples, seed)
    p = randomisation_test(gaps, groups, max(resamples, FLIPS_PER_TEST * len(names)), seed + 1)
    columns = zip(names, intervals, p.tolist(), holm(p).tolist(), strict=True)
    return {name: {**own.plain(), "p": one, "p_holm": held} for name, own, one, held in columns}


def direction(low: float | None, high: float | None, p: float | None) -> int:
    """1 or -1, the sign of a difference that counts; 0 for one that is not shown.

    The rule of every claim: the 95 % interval excludes 0, and the corrected p is significant.
    """
    if low is None or high is None or p is None or not p < SIGNIFICANT:
        return 0
    return int(low > 0) - int(high < 0)


class Claim(NamedTuple):
    """What may be claimed of a model."""

    state: str  # the first of those in `claim` that holds
    signs: dict[str, int]  # 1 if it ranks better than that scorer, -1 if worse, 0 if not shown


def group_count(record: Mapping[str, Any]) -> int:
    """How many independent observations an evaluation (`metrics.json`) has."""
    return int(record.get("query_groups", record["queries"]))


def claim(record: Mapping[str, Any]) -> Claim:
    """What may be claimed of the scorer `model` beside each other, the highest nDCG@10 first.

    `record` is the content of `metrics.json`.
    """
    means = {row["scorer"]: row[metrics.MAIN_METRIC]["mean"] for row in record["rows"]}
    gaps = {name: gap for name, gap in record.get("model_minus", {}).items() if name in means}
    ordered = sorted(gaps.items(), key=lambda item: -means[item[0]])
    signs = {name: direction(g["low"], g["high"], g.get("p_holm")) for name, g in ordered}
    unclear = 0 in signs.values()
    flips = record.get("flips", record.get("resamples", np.inf))
    states = {
        "nothing": "model" not in means or not gaps,
        "few": group_count(record) < MIN_GROUPS,
        "worse": -1 in signs.values(),
        "tied": record.get("queries_all_tied", {}).get("model", 0) > MANY_TIED,
        "coarse": unclear and len(gaps) >= SIGNIFICANT * (1 + flips),  # no p-value could count
        "unclear": unclear,
        "better": True,
    }
    return Claim(next(name for name, holds in states.items() if holds), signs)


def bootstrap_pairs(
    scores: ArrayLike,
    positive: ArrayLike,
    ties: str = "expected",
    thresholds: ArrayLike = float("nan"),
    logits: bool = False,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 42,
) -> dict[str, Estimate]:
    """Every pair metric with its interval, whole groups of pairs drawn with replacement.

    Draws in which a metric is not defined (see `pair_values`) are left out. The values have the
    first of the `thresholds`, each draw the next one. `logits`: the scores are log-odds.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    ranking, order = metrics.rank(score, right, ties), np.lexsort((right, -score))
    whole, limits = np.arange(len(score)), np.resize(thresholds, 1 + resamples)
    group = whole if groups is None else groups
    draws = _row_counts(group, resamples if len(np.unique(group)) >= MIN_GROUPS else 0, seed)
    values = []
    for counts, limit in zip(chain([np.ones_like(whole)], draws), limits, strict=False):
        times, drawn = counts[order], np.repeat(whole, counts)
        gain, start = np.repeat(ranking.gain, times), np.repeat(ranking.start, times)
        ranked = metrics.tie_blocks(gain, start, ranking.missed)
        chance = expit(score[drawn]) if logits else None
        values.append(metrics.pair_values(ranked, score[drawn], right[drawn], limit, chance))
    own, *spread = np.asarray(values, dtype=float)
    found = map(estimate, own, np.reshape(spread, (-1, len(own))).T)
    held = (one._replace(low=min(one.low, one.mean), high=max(one.high, one.mean)) for one in found)
    return dict(zip(metrics.PAIR_METRICS, held, strict=True))


def threshold_draws(
    scores: ArrayLike, positive: ArrayLike, groups: ArrayLike, resamples: int, seed: int = 42
) -> FloatArray:
    """The threshold of highest F1 on these pairs, then on each of `resamples` of their groups.

    NaN where there is one class only, and alone if that is so of all pairs.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    first = metrics.fit_threshold(score, right)
    draws = [] if np.isnan(first) else _row_counts(groups, resamples, seed)
    rows = (np.repeat(np.arange(len(score)), counts) for counts in draws)
    return np.array([first, *(metrics.fit_threshold(score[one], right[one]) for one in rows)])


def _by_group(values: FloatArray, groups: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Sums of the values in each group, shape (groups, columns), and the groups' sizes."""
    if groups is None:
        return values, np.ones(len(values))
    _, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, place, values)
    return sums, sizes.astype(float)


def _to_beat(differences: ArrayLike, groups: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Sums in each group, and how far those of all are from 0, less what rounding may add to it."""
    sums, _ = _by_group(np.asarray(differences, dtype=float), groups)
    return sums, np.abs(sums.sum(axis=0)) - 1e-12 * np.abs(sums).sum(axis=0)


def _group_counts(groups: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each group is drawn in each resample: chunks of shape (rows, groups)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = rng.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(float)


def _row_counts(groups: ArrayLike, resamples: int, seed: int) -> Iterator[IntArray]:
    """How often each row is drawn, with its group, in each resample; shape (rows,)."""
    place = np.unique(np.asarray(groups), return_inverse=True)[1]
    for chunk in _group_counts(place.max() + 1, resamples, seed):
        yield from chunk.astype(np.int64)[:, place]
