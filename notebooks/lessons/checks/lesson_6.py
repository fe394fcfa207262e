"""The exercises of lesson 6: inputs, right answers, and each wrong idea with its hint."""

import numpy as np

from workbench.lessons.checking import exercise
from workbench.ranking import uncertainty


def grouped(rng):
    """Values that are nearly equal within their group of eight."""
    level = np.repeat(rng.normal(0.5, 0.2, 30), 8)
    return level + rng.normal(0, 0.01, 240), np.repeat(rng.permutation(30), 8), rng


def interval(values, groups, rng, ends=(2.5, 97.5), means=True, replace=True, count=30):
    rows = values.reshape(30, 8)
    if count != 30:
        rows = values.reshape(count, -1)
    if not replace:
        return (values.mean(),) * 2
    drawn = rows[rng.integers(0, count, (4000, count))].reshape(4000, -1)
    return tuple(np.percentile(drawn.mean(axis=1) if means else values, ends))


def relative(function, values, groups, rng):
    """The ends of an interval, in standard errors of the mean of groups."""
    error = values.reshape(30, 8).mean(axis=1).std() / np.sqrt(30)
    return (np.array(function(values, groups, rng), dtype=float) - values.mean()) / error


exercise(
    "6.1",
    grouped,
    interval,
    {
        "single queries were drawn: the interval is too narrow where queries depend on others.": (
            lambda v, g, rng: interval(v, g, rng, count=240)
        ),
        "this is a 90 % interval: take the percentiles 2.5 and 97.5.": (
            lambda v, g, rng: interval(v, g, rng, ends=(5, 95))
        ),
        "these are percentiles of the values; the interval is that of their MEAN.": (
            lambda v, g, rng: interval(v, g, rng, means=False)
        ),
        "draw with replacement: otherwise each draw is the data again.": (
            lambda v, g, rng: interval(v, g, rng, replace=False)
        ),
    },
    measure=relative,
    parts=("the lower end, in standard errors from the mean", "the upper end, likewise"),
    trials=3,
    tolerance=0.22,
)


def gaps(rng):
    """Differences of which some are clearly above 0, as the last of each draw shows."""
    return rng.normal(rng.uniform(-0.06, 0.06), 0.2, 40), rng.normal(1, 0.1, 40), rng


def p_value(differences, rng, one_sided=False, plus=1, shuffle=False):
    signs = rng.choice([-1.0, 1.0], (2000, len(differences)))
    means = (np.abs(signs) if shuffle else signs) * differences
    found, mean = means.mean(axis=1), differences.mean()
    hits = (found >= mean - 1e-12) if one_sided else (np.abs(found) >= abs(mean) - 1e-12)
    return (plus + hits.sum()) / (plus + 2000)


exercise(
    "6.2",
    gaps,
    p_value,
    {
        "p is never 0: count the data itself, (1 + hits) / (1 + flips).": (
            lambda d, rng: p_value(d, rng, plus=0)
        ),
        "both directions count: compare absolute values.": (
            lambda d, rng: p_value(d, rng, one_sided=True)
        ),
        "another order changes no mean: flip signs.": lambda d, rng: p_value(d, rng, shuffle=True),
        "this is the share of flips that are NOT as far from 0.": (
            lambda d, rng: 1 - p_value(d, rng)
        ),
    },
    measure=lambda function, weak, strong, rng: [
        function(weak, rng),
        np.log10(function(strong, rng) + 1e-9),  # tells 1 / 2001 from 0
    ],
    parts=("p of a small difference", "log10 of p where all differences are above 0"),
    trials=10,
    tolerance=0.06,
)


def bonferroni(ps, cap=1.0):
    return np.minimum(cap, np.multiply(ps, len(ps)))


def steps(ps, cap=1.0, growing=True):
    order = np.argsort(ps)
    values = np.asarray(ps)[order] * np.arange(len(ps), 0, -1)
    values = np.minimum(cap, np.maximum.accumulate(values) if growing else values)
    found = np.empty(len(ps))
    found[order] = values
    return found


exercise(
    "6.3",
    lambda rng: (list(rng.uniform(0, 1, 6) ** rng.choice([1, 3])),),
    uncertainty.holm,
    {
        "this is Bonferroni: only the SMALLEST p is multiplied by their number.": bonferroni,
        "none may be smaller than the one before it: take the running maximum.": (
            lambda ps: steps(ps, growing=False)
        ),
        "no p-value is above 1: cap it.": lambda ps: steps(ps, cap=99),
        "return them in the order in which they came, not sorted.": lambda ps: np.sort(steps(ps)),
    },
)

exercise(
    "6.4",
    lambda rng: (rng.random((12, 30)),),
    lambda values: (values.mean(axis=1).mean(), values.mean(axis=1).max()),
    {
        "the best for EACH query is no scorer: take means first, then the best.": (
            lambda values: (values.mean(), values.max(axis=0).mean())
        ),
        "this is the best single query; take the mean of each scorer first.": (
            lambda values: (values.mean(), values.max())
        ),
        "axis: the rows are scorers, the columns queries.": (
            lambda values: (values.mean(), values.mean(axis=0).max())
        ),
    },
)
