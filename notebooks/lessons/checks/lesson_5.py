"""The exercises of lesson 5: inputs, right answers, and each wrong idea with its hint."""

import numpy as np
from matplotlib.figure import Figure

from workbench.lessons.checking import exercise


def line_height(function, p):
    """Where the function draws a horizontal line; NaN where it draws none."""
    ax = Figure().subplots()
    function(ax, p)
    heights = [np.unique(line.get_ydata()) for line in ax.get_lines()]
    return next((float(height[0]) for height in heights if len(height) == 1), float("nan"))


def entropy(p):
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


exercise(
    "5.1",
    lambda rng: (rng.uniform(0.05, 0.45),),
    lambda ax, p: ax.axhline(entropy(p)),
    {
        "the line is at p itself: it has to be at the LOSS of saying p.": (
            lambda ax, p: ax.axhline(p)
        ),
        "this is ln 2, the loss of saying 0.5: a coin knows less than the base rate.": (
            lambda ax, p: ax.axhline(np.log(2))
        ),
        "these are bits (log2); the loss is in nats (the natural logarithm).": (
            lambda ax, p: ax.axhline(entropy(p) / np.log(2))
        ),
        "negatives cost too: add (1 - p) times -ln(1 - p).": (
            lambda ax, p: ax.axhline(-p * np.log(p))
        ),
        "there is no horizontal line in the axes: use ax.axhline.": lambda ax, p: None,
    },
    measure=lambda function, p: [line_height(function, p)],
    parts=("the height of the line",),
    trials=6,
    tolerance=1e-3,
)


def moments(function, rng, p, size):
    """Mean and spread of 20,000 simulated lines, the spread as a multiple of what it should be."""
    found = np.asarray(function(rng, p, 20_000, size), dtype=float)
    spread = np.sqrt(p * (1 - p) / size) * np.log((1 - p) / p)
    ratios = [found.mean() / entropy(p), found.std() / spread, found.shape == (20_000,)]
    return np.minimum(ratios, 3)  # how far off does not matter


def simulate(rng, p, lines, size):
    rare = rng.binomial(size, p, lines) / size
    return -rare * np.log(p) - (1 - rare) * np.log(1 - p)


def drawn(rng):
    seed = int(rng.integers(2**32))
    return np.random.default_rng(seed), rng.uniform(0.1, 0.35), int(rng.integers(40, 120))


exercise(
    "5.2",
    drawn,
    simulate,
    {
        "each line is the MEAN of `size` pairs; these are single pairs, which scatter more.": (
            lambda rng, p, lines, size: simulate(rng, p, lines, 1)
        ),
        "labels have to be drawn at random in each line; here no line differs from another.": (
            lambda rng, p, lines, size: np.full(lines, entropy(p))
        ),
        "labels come with rate p, not one half.": (
            lambda rng, p, lines, size: (
                -np.log(p) * (r := rng.binomial(size, 0.5, lines) / size) - (1 - r) * np.log(1 - p)
            )
        ),
        "each line is a mean: divide the sum by `size`.": (
            lambda rng, p, lines, size: size * simulate(rng, p, lines, size)
        ),
    },
    measure=moments,
    parts=("the mean, over the right one", "the spread, over the right one", "shape (lines,)"),
    trials=4,
    tolerance=0.09,
)


def band(log, simulated, low=5, high=95, axis=0):
    ends = np.percentile(simulated, [low, high], axis=axis)
    return float(np.mean((log >= ends[0]) & (log <= ends[1])))


def logs(rng):
    """A log of 19 lines and 19 simulated ones, so that both axes have the same length."""
    level = rng.uniform(0.3, 0.6, 19)
    return level + rng.normal(0, 0.06, 19), level + rng.normal(0, 0.04, (19, 19))


exercise(
    "5.3",
    logs,
    band,
    {
        "the percentiles are taken over the runs (axis 0), not over the lines of a run.": (
            lambda *a: band(*a, axis=1)
        ),
        "this is the whole range; take the 5th and the 95th percentile.": (
            lambda *a: band(*a, low=0, high=100)
        ),
        "this is the share OUTSIDE the band.": lambda *a: 1 - band(*a),
        "one band for all lines hides that lines differ: one for each line.": (
            lambda log, simulated: band(log, simulated.ravel())
        ),
    },
)
