"""The exercises of lesson 7: inputs, right answers, and each wrong idea with its hint."""

import numpy as np

from workbench.lessons.checking import exercise
from workbench.ranking import metrics


def forecast(rng):
    probability = rng.beta(1, 3, 200)
    return probability, rng.random(200) < probability, rng.uniform(0.1, 0.4)


def brier(probability, positive):
    return float(np.mean((probability - positive) ** 2))


def skill(probability, positive, rate):
    return 1 - brier(probability, positive) / brier(rate, positive)


exercise(
    "7.1",
    forecast,
    skill,
    {
        "this is the Brier score itself: divide by that of the constant.": (
            lambda p, y, rate: brier(p, y)
        ),
        "the constant comes from training (`base_rate`), not from the pairs that are judged.": (
            lambda p, y, rate: skill(p, y, y.mean())
        ),
        "one MINUS the ratio: 0 is knowing nothing.": lambda *a: 1 - skill(*a),
        "the ratio is upside down: the model's score over the constant's.": (
            lambda *a: 1 - 1 / (1 - skill(*a))
        ),
    },
)


def gap(probability, positive, weighted=True, centre=False, empty=False):
    sizes, said, found = metrics.reliability(probability, positive)
    said = (np.arange(10) + 0.5) / 10 if centre else said
    gaps = np.abs(np.nan_to_num(said) - np.nan_to_num(found))
    full = sizes > 0
    if weighted:
        return float((sizes * gaps)[full].sum() / sizes.sum())
    return float(gaps.mean() if empty else gaps[full].mean())


exercise(
    "7.2",
    lambda rng: forecast(rng)[:2],
    gap,
    {
        "weight each bin by its pairs: a bin of one pair must not count like one of a hundred.": (
            lambda *a: gap(*a, weighted=False)
        ),
        "compare with the MEAN probability in the bin, not with its middle.": (
            lambda *a: gap(*a, centre=True)
        ),
        "weight by pairs; and an empty bin has no gap, it is left out.": (
            lambda *a: gap(*a, weighted=False, empty=True)
        ),
        "this is the gap of all pairs together: bins can cancel out.": (
            lambda p, y: abs(p.mean() - y.mean())
        ),
    },
)


def scored(rng):
    """Scores with few positives, so that F1 and accuracy want other thresholds, F1 a single one."""
    positive = rng.random(120) < 0.2
    scores = rng.normal(0, 1, 120) + 0.7 * positive - 0.5
    called = scores >= scores[:, None]  # row: a cut
    f1 = np.sort((called & positive).sum(1) / (called.sum(1) + positive.sum()))
    return (scores, positive) if f1[-2] < f1[-1] else scored(rng)


def reached(function, scores, positive):
    return [np.mean((scores >= function(scores, positive)) == positive)]


def most_accurate(scores, positive):
    cuts = [*scores, scores.max() + 1]
    return max(cuts, key=lambda cut: np.mean((scores >= cut) == positive))


exercise(
    "7.3",
    scored,
    most_accurate,
    {
        "this threshold has the best F1: accuracy was asked for.": metrics.fit_threshold,
        "a logit of 0 is a probability of 0.5, but the best cut may be elsewhere: search.": (
            lambda scores, positive: 0.0
        ),
        "half-way between the two means is no search: try every score as a cut.": (
            lambda scores, positive: (scores[positive].mean() + scores[~positive].mean()) / 2
        ),
        "calling nothing positive is only one of the choices.": (
            lambda scores, positive: scores.max() + 1
        ),
    },
    measure=reached,
    parts=("the accuracy with your threshold",),
)
