"""Wrong answers to lesson 5: function `of_<exercise>_...`, its docstring a part of the hint."""

import math

import numpy as np


def of_5_1_at_the_rate(ax, p):
    """at the LOSS of saying p"""
    ax.axhline(y=p, color="red")


def of_5_1_coin(ax, p):
    """this is ln 2"""
    ax.plot([0, 1], [math.log(2)] * 2)


def of_5_1_bits(ax, p):
    """these are bits"""
    ax.axhline(-p * math.log2(p) - (1 - p) * math.log2(1 - p))


def of_5_1_positives_only(ax, p):
    """negatives cost too"""
    ax.axhline(-p * math.log(p))


def losses(rng, p, shape, rate=None):
    positive = rng.random(shape) < (p if rate is None else rate)
    return np.where(positive, -math.log(p), -math.log(1 - p))


def of_5_2_single_pairs(rng, p, lines=19, size=80):
    """these are single pairs"""
    return losses(rng, p, lines)


def of_5_2_no_noise(rng, p, lines=19, size=80):
    """labels have to be drawn at random"""
    return np.full(lines, -p * math.log(p) - (1 - p) * math.log(1 - p))


def of_5_2_coin_labels(rng, p, lines=19, size=80):
    """labels come with rate p"""
    return losses(rng, p, (lines, size), 0.5).mean(axis=1)


def of_5_2_sums(rng, p, lines=19, size=80):
    """divide the sum"""
    return losses(rng, p, (lines, size)).sum(axis=1)


def between(log, low, high):
    return ((log >= low) & (log <= high)).mean()


def of_5_3_other_axis(log, simulated):
    """taken over the runs"""
    return between(log, np.quantile(simulated, 0.05, axis=1), np.quantile(simulated, 0.95, axis=1))


def of_5_3_whole_range(log, simulated):
    """this is the whole range"""
    return between(log, simulated.min(axis=0), simulated.max(axis=0))


def of_5_3_outside(log, simulated):
    """OUTSIDE"""
    low, high = np.percentile(simulated, [5, 95], axis=0)
    return ((log < low) | (log > high)).mean()
