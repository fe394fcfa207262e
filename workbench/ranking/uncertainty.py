"""How sure a value is: bootstrap intervals, paired randomisation tests, and what may be claimed.

We resample groups, not queries: queries that share a text are not independent, so they are drawn
together. Where no text repeats, every query is its own group. Fewer than `MIN_GROUPS` have no
interval, since it would be much too narrow: the more alike the groups are, the nearer to a point.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workbench.ranking import metrics
from workbench.ranking.metrics import FloatArray, IntArray, Ranking

CHUNK = 500  # resamples drawn at a time, which bounds the memory
PERCENTILES = (2.5, 97.5)  # of a 95 % interval
SIGNIFICANT = 0.05  # a difference counts where its corrected p-value is below this
FLIPS_PER_TEST = 20  # at least: with fewer no p-value could be below 0.05 after Holm's correction
MIN_GROUPS = 10  # with fewer there is no interval and no claim
FEW_GROUPS = 20  # with fewer a 95 % interval is too narrow: of 12 groups, 89 % hold the mean
REHEARSAL_GROUPS = 100  # with fewer a result is a rehearsal


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
    mean, low = (None if estimate is None else estimate[name] for name in ("mean", "low"))
    if estimate is None or mean is None or np.isnan(mean):
        return "not defined"
    interval = "" if low is None or np.isnan(low) else " [{low:.3f}, {high:.3f}]"
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
        Shape (resamples, columns); NaN with fewer than `MIN_GROUPS` groups.

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


def range_test(
    gaps: ArrayLike, groups: ArrayLike | None = None, resamples: int = 2000, seed: int = 42
) -> FloatArray:
    """p-values of one column's lead over each other, where that column was chosen as the best.

    If all were equally good, the values of a query could have been in any order. So they are
    shuffled among the columns, whole groups alike, and each lead is compared with the distance
    of the highest and the lowest mean (randomised Tukey HSD; Carterette, 2012). That corrects for
    every comparison of two columns. With two it is the `randomisation_test`.

    `gaps`, the column's values minus those of each other, has shape (queries, others), the result
    (others,); `groups` is as in `bootstrap_draws`.
    """
    sums, _ = _by_group(np.asarray(gaps, dtype=float), groups)
    found, slack = np.abs(sums.sum(axis=0)), 1e-12 * np.abs(sums).sum(axis=0)
    columns = np.column_stack([np.zeros(len(sums)), -sums])  # what all share changes no distance
    rng, extreme = np.random.default_rng(seed), np.zeros(len(found))
    for _ in range(resamples):
        extreme += np.ptp(rng.permuted(columns, axis=1).sum(axis=0)) >= found - slack
    return np.asarray((1 + extreme) / (1 + resamples), dtype=float)


def compare(
    names: Sequence[str], gaps: FloatArray, groups: ArrayLike, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Paired differences by name: `mean`, `low`, `high`, `p`, and `p_holm` among all of them.

    `gaps` are the differences, shape (queries, names). The flips of the test use the seed after
    that of the draws; there are at least `FLIPS_PER_TEST` for each name.
    """
    draws = bootstrap_draws(gaps, groups, resamples, seed)
    p = randomisation_test(gaps, groups, max(resamples, FLIPS_PER_TEST * len(names)), seed + 1)
    intervals = [estimate(gap.mean(), drawn) for gap, drawn in zip(gaps.T, draws.T, strict=True)]
    columns = zip(names, intervals, p.tolist(), holm(p).tolist(), strict=True)
    return {name: {**own.plain(), "p": one, "p_holm": held} for name, own, one, held in columns}


def direction(low: float | None, high: float | None, p: float | None) -> int:
    """1 or -1, the sign of a difference that counts; 0 for one that is not shown.

    This is the one rule of report, card and comparison: the 95 % interval excludes 0, and the
    corrected p-value is below `SIGNIFICANT`. Without an interval nothing is shown.
    """
    if low is None or high is None or p is None or not p < SIGNIFICANT:
        return 0
    return int(low > 0) - int(high < 0)


class Claim(NamedTuple):
    """What may be claimed of a model; the other scorers by name, the highest nDCG@10 first.

    Attributes:
        state: `nothing` to compare; too `few` groups of queries; `worse` than another; `tied`: no
            ranking in most queries; `coarse`: too few resamples for any p-value to count;
            `unclear`, or `better` than all.
        others: all other scorers.
        ahead: those that rank better than the model.
        unclear: those that are not shown to rank better or worse.
    """

    state: str
    others: list[str]
    ahead: list[str]
    unclear: list[str]


def claim(record: Mapping[str, Any]) -> Claim:
    """What may be claimed of the scorer `model`, by the content of `metrics.json`."""
    means = {row["scorer"]: row[metrics.MAIN_METRIC]["mean"] for row in record["rows"]}
    gaps = record.get("model_minus", {})
    if "model" not in means or not gaps:
        return Claim("nothing", [], [], [])
    others = sorted(gaps, key=lambda name: -means[name])
    found = {n: direction(g["low"], g["high"], g.get("p_holm")) for n, g in gaps.items()}
    ahead, unclear = ([n for n in others if found[n] == sign] for sign in (-1, 0))
    flips = record.get("flips", record.get("resamples", np.inf))
    states = {
        "few": record.get("query_groups", record["queries"]) < MIN_GROUPS,
        "worse": ahead,
        "tied": record.get("queries_all_tied", {}).get("model", 0) > 0.5,
        "coarse": unclear and len(gaps) >= SIGNIFICANT * (1 + flips),
        "unclear": unclear,
    }
    state = next((name for name, holds in states.items() if holds), "better")
    return Claim(state, others, ahead, unclear)


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

    NaN where a metric is not defined (see `pair_values`); draws in which it is not are left out of
    the interval. `scores`, `positive` and `groups` have shape (pairs,). The first of the
    `thresholds`, which come from other pairs, is that of the values; each draw takes the next one,
    so that intervals cover how uncertain the threshold is. `logits` says whether the scores are
    log-odds, which have a probability.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    ranking, order = metrics.rank(score, right, ties), np.lexsort((right, -score))
    whole = np.arange(len(score))
    probability = sigmoid(score) if logits else None
    group = whole if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    limits = np.resize(np.asarray(thresholds, dtype=float), 1 + resamples)

    def values(ranked: Ranking, drawn: IntArray, limit: float) -> list[float]:
        chance = None if probability is None else probability[drawn]
        return metrics.pair_values(ranked, score[drawn], right[drawn], limit, chance)

    own, draws = values(ranking, whole, limits[0]), []
    enough = group.max() + 1 >= MIN_GROUPS
    drawn = (row for chunk in _group_counts(group.max() + 1, resamples, seed) for row in chunk)
    for row, limit in zip(drawn if enough else (), limits[1:], strict=False):
        counts = row.astype(np.int64)[group]
        times = counts[order]
        gain, start = np.repeat(ranking.gain, times), np.repeat(ranking.start, times)
        ranked = metrics.tie_blocks(gain, start, ranking.missed)
        draws.append(values(ranked, np.repeat(whole, counts), limit))
    spread = np.asarray(draws, dtype=float).reshape(-1, len(metrics.PAIR_METRICS)).T
    found = [estimate(mean, drawn) for mean, drawn in zip(own, spread, strict=True)]
    held = (one._replace(low=min(one.low, one.mean), high=max(one.high, one.mean)) for one in found)
    return dict(zip(metrics.PAIR_METRICS, held, strict=True))


def threshold_draws(
    scores: ArrayLike, positive: ArrayLike, groups: ArrayLike, resamples: int, seed: int = 42
) -> FloatArray:
    """The threshold of highest F1 on these pairs, then on each resample of their groups.

    Shape (1 + resamples,); NaN where there is one class only, and alone if that is so of all pairs.
    """
    score, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    found = [metrics.fit_threshold(score, right)]
    if not np.isnan(found[0]):
        place = np.unique(np.asarray(groups), return_inverse=True)[1]
        for chunk in _group_counts(place.max() + 1, resamples, seed):
            for row in chunk:
                drawn = np.repeat(np.arange(len(score)), row.astype(np.int64)[place])
                found.append(metrics.fit_threshold(score[drawn], right[drawn]))
    return np.array(found)


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
