"""Wrong answers to lesson 7: function `of_<exercise>_...`, its docstring a part of the hint."""

import numpy as np


def mse(probabilities, positives):
    return np.mean((np.asarray(probabilities) - positives) ** 2)


def of_7_1_brier(probabilities, positives, base_rate):
    """the Brier score itself"""
    return mse(probabilities, positives)


def of_7_1_rate_of_the_test(probabilities, positives, base_rate):
    """comes from training"""
    return 1 - mse(probabilities, positives) / np.var(positives)


def of_7_1_only_the_ratio(probabilities, positives, base_rate):
    """one MINUS the ratio"""
    return mse(probabilities, positives) / mse(base_rate, positives)


def of_7_1_upside_down(probabilities, positives, base_rate):
    """upside down"""
    return 1 - mse(base_rate, positives) / mse(probabilities, positives)


def bins(probabilities, positives):
    for low in range(10):
        inside = np.minimum((probabilities * 10).astype(int), 9) == low
        if inside.any():
            yield low, inside.mean(), probabilities[inside].mean(), positives[inside].mean()


def of_7_2_every_bin_alike(probabilities, positives):
    """weight each bin by its pairs"""
    return np.mean([abs(said - found) for _, _, said, found in bins(probabilities, positives)])


def of_7_2_middle_of_the_bin(probabilities, positives):
    """not with its middle"""
    rows = bins(probabilities, positives)
    return sum(share * abs((low + 0.5) / 10 - found) for low, share, _, found in rows)


def of_7_2_all_together(probabilities, positives):
    """bins can cancel out"""
    return abs(np.mean(probabilities) - np.mean(positives))


def of_7_3_best_f1(scores, positives):
    """best F1"""

    def f1(cut):
        called = scores >= cut
        return 2 * (called & positives).sum() / (called.sum() + positives.sum())

    return max(scores, key=f1)


def of_7_3_one_half(scores, positives):
    """a logit of 0"""
    return 0


def of_7_3_none(scores, positives):
    """only one of the choices"""
    return np.inf


def of_7_3_between_the_means(scores, positives):
    """is no search"""
    return np.mean([scores[positives].mean(), scores[~positives].mean()])
