"""Wrong answers to lesson 1: function `of_<exercise>_...`, its docstring a part of the hint."""

import numpy as np


def ordered(scores, relevance):
    return [gain for _, gain in sorted(zip(scores, relevance, strict=True), key=lambda p: -p[0])]


def of_1_1_counts_from_zero(scores, relevance, k=10):
    """places are counted from 1"""
    for place, gain in enumerate(ordered(scores, relevance)[:k]):
        if gain > 0:
            return 1 / place
    return 0.0


def of_1_1_lowest_first(scores, relevance, k=10):
    """you sort from the lowest"""
    order = np.argsort(scores)
    hits = [n for n, place in enumerate(order[:k], 1) if relevance[place] > 0]
    return 1 / hits[0] if hits else 0


def of_1_1_adds_all(scores, relevance, k=10):
    """only the first relevant candidate counts"""
    places = enumerate(ordered(scores, relevance)[:k], 1)
    return sum(1 / place for place, gain in places if gain > 0)


def of_1_1_never_cuts(scores, relevance, k=10):
    """cut at k"""
    hits = [n for n, gain in enumerate(ordered(scores, relevance), 1) if gain > 0]
    return 1 / min(hits) if hits else 0.0


def dcg(gains):
    return sum(gain / np.log2(place + 1) for place, gain in enumerate(gains, 1))


def of_1_2_not_divided(scores, relevance, k=10):
    """this is DCG"""
    return dcg(ordered(scores, relevance)[:k])


def of_1_2_ideal_of_the_first_ten(scores, relevance, k=10):
    """the ideal order is that of ALL candidates"""
    gains = ordered(scores, relevance)[:k]
    ideal = dcg(sorted(gains, reverse=True))
    return dcg(gains) / ideal if ideal else 0.0


def of_1_2_nothing_is_relevant(scores, relevance, k=10):
    """do not divide"""
    gains = ordered(scores, relevance)
    return dcg(gains[:k]) / dcg(sorted(gains, reverse=True)[:k])


def of_1_2_divided_by_k(scores, relevance, k=10):
    """not by k"""
    return dcg(ordered(scores, relevance)[:k]) / k


def of_1_2_exponential_gain(scores, relevance, k=10):
    """another definition"""
    gains = [2**gain - 1 for gain in ordered(scores, relevance)]
    ideal = dcg(sorted(gains, reverse=True)[:k])
    return dcg(gains[:k]) / ideal if ideal else 0.0


def of_1_2_log_of_the_place(scores, relevance, k=10):
    """log2(1) is 0"""
    gains = np.array(ordered(scores, relevance))
    weights = 1 / np.log2(np.arange(1, len(gains) + 1))
    ideal = np.sort(gains)[::-1]
    if not ideal.any():
        return 0.0
    return float((gains * weights)[:k].sum() / (ideal * weights)[:k].sum())


def plain(scores, relevance, k=10):
    gains = ordered(scores, relevance)
    ideal = dcg(sorted(gains, reverse=True)[:k])
    return dcg(gains[:k]) / ideal if ideal else 0.0


def of_1_3_stable_sort(scores, relevance, k=10):
    """keeps the order of the file"""
    return plain(scores, relevance, k)


def of_1_3_relevant_first(scores, relevance, k=10):
    """ties help the scorer"""
    order = np.lexsort((-np.asarray(relevance), -np.asarray(scores)))
    return plain(-np.arange(len(order)), np.asarray(relevance)[order])


def of_1_3_worst_order(scores, relevance, k=10):
    """the worst order, not the mean"""
    order = np.lexsort((relevance, -np.asarray(scores)))
    return plain(-np.arange(len(order)), np.asarray(relevance)[order])


def different(text):
    return set(text.replace(" ", ""))


def of_1_4_by_one_text(first, second):
    """UNION"""
    return len(different(first) & different(second)) / len(different(first))


def of_1_4_dice(first, second):
    """Dice coefficient"""
    one, two = different(first), different(second)
    return 2 * len(one & two) / (len(one) + len(two))


def of_1_4_space_counts(first, second):
    """white space"""
    return len(set(first) & set(second)) / len(set(first) | set(second))
