"""Wrong answers to lesson 6: function `of_<exercise>_...`, its docstring a part of the hint."""

import numpy as np


def by_group(values, groups, rng, ends):
    rows = np.array([values[groups == group].mean() for group in np.unique(groups)])
    means = [rng.choice(rows, len(rows)).mean() for _ in range(3000)]
    return np.percentile(means, ends)


def of_6_1_single_queries(values, groups, rng):
    """single queries were drawn"""
    means = [rng.choice(values, len(values)).mean() for _ in range(3000)]
    return np.percentile(means, [2.5, 97.5])


def of_6_1_ninety_percent(values, groups, rng):
    """this is a 90 % interval"""
    return by_group(values, groups, rng, [5, 95])


def of_6_1_of_the_values(values, groups, rng):
    """percentiles of the values"""
    return np.percentile(values, [2.5, 97.5])


def of_6_1_without_replacement(values, groups, rng):
    """draw with replacement"""
    means = [rng.permutation(values).mean() for _ in range(100)]
    return np.percentile(means, [2.5, 97.5])


def flipped(differences, rng):
    signs = 1 - 2 * rng.integers(0, 2, (3000, len(differences)))
    return (signs * differences).mean(axis=1)


def of_6_2_zero(differences, rng):
    """p is never 0"""
    return np.mean(np.abs(flipped(differences, rng)) >= abs(differences.mean()))


def of_6_2_one_direction(differences, rng):
    """both directions count"""
    return (1 + np.sum(flipped(differences, rng)[:2000] >= differences.mean())) / 2001


def of_6_2_shuffled(differences, rng):
    """another order changes no mean"""
    means = np.array([rng.permutation(differences).mean() for _ in range(2000)])
    return (1 + np.sum(np.abs(means) >= abs(differences.mean()) - 1e-9)) / 2001


def of_6_3_bonferroni(ps):
    """this is Bonferroni"""
    return [min(1, p * len(ps)) for p in ps]


def of_6_3_not_growing(ps):
    """running maximum"""
    rank = {place: n for n, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__))}
    return [min(1, p * (len(ps) - rank[place])) for place, p in enumerate(ps)]


def of_6_3_sorted(ps):
    """not sorted"""
    found, least = [], 0
    for rank, p in enumerate(sorted(ps)):
        least = max(least, min(1, p * (len(ps) - rank)))
        found.append(least)
    return found


def of_6_4_best_of_each_query(values):
    """is no scorer"""
    return np.mean(values), np.mean([max(column) for column in values.T])


def of_6_4_best_query(values):
    """this is the best single query"""
    return np.mean(values), np.max(values)


def of_6_4_axes(values):
    """the rows are scorers"""
    return np.mean(values), max(np.mean(values, axis=0))
