"""Wrong answers to lesson 2: function `of_<exercise>_...`, its docstring a part of the hint."""

import numpy as np


def of_2_1_repeated_pairs(train, test):
    """removing repeated pairs is not enough"""
    seen = set(map(tuple, train[["sentence_0", "sentence_1"]].to_numpy()))
    return np.mean([tuple(row) in seen for row in test[["sentence_0", "sentence_1"]].to_numpy()])


def of_2_1_both_known(train, test):
    """one known text is enough"""
    known = set(train["sentence_0"]) | set(train["sentence_1"])
    return np.mean([a in known and b in known for a, b in test.iloc[:, :2].to_numpy()])


def of_2_1_queries_only(train, test):
    """compare both columns"""
    known = set(train["sentence_0"])
    return np.mean([query in known for query in test["sentence_0"]])


def of_2_1_share_of_train(train, test):
    """you count training pairs"""
    known = set(test["sentence_0"]) | set(test["sentence_1"])
    return np.mean([a in known or b in known for a, b in train.iloc[:, :2].to_numpy()])


def of_2_2_by_query(pairs):
    """connect both columns"""
    return pairs["sentence_0"].tolist()


def of_2_2_every_pair_alone(pairs):
    """a group is more than one pair"""
    return list(range(len(pairs)))


def of_2_2_one_pass(pairs):
    """ALL their pairs join"""
    group = {}
    for first, second in pairs.iloc[:, :2].to_numpy():
        name = group.get(first) or group.get(second) or first
        group[first] = group[second] = name
    return [group[first] for first in pairs["sentence_0"]]


def means(pairs):
    known = {}
    for first, second, label in pairs.iloc[:, :3].to_numpy():
        known.setdefault(first, []).append(label)
        known.setdefault(second, []).append(label)
    return {text: np.mean(labels) for text, labels in known.items()}


def remembered(train, test, rest=None):
    known, rest = means(train), train["label"].mean() if rest is None else rest
    return np.array([[known.get(text, rest) for text in row] for row in test.iloc[:, :2].values])


def of_2_3_reads_the_test(train, test):
    """that is the leak itself"""
    return remembered(test, test).mean(axis=1)


def of_2_3_zero_for_the_unknown(train, test):
    """not 0"""
    return remembered(train, test, rest=0).mean(axis=1)


def of_2_3_the_sum(train, test):
    """not their sum"""
    return remembered(train, test).sum(axis=1)


def of_2_3_the_query_alone(train, test):
    """not the first alone"""
    return remembered(train, test)[:, 0]


def bad(rows, start=2, number=lambda v: 0 <= v <= 1, strip=str.strip, repeats=True):
    found, seen = set(), []
    for line, (first, second, label) in enumerate(rows[1:], start):
        try:
            fine = number(float(label))
        except ValueError:
            fine = False
        again = repeats and [strip(first), strip(second)] in seen
        seen.append([strip(first), strip(second)])
        if not fine or not strip(first) or not strip(second) or again:
            found.add(line)
    return found


def of_2_4_header_not_counted(rows):
    """the header is line 1"""
    return bad(rows, start=1)


def of_2_4_nan(rows):
    """NaN is neither below 0 nor above 1"""
    return bad(rows, number=lambda value: not (value < 0 or value > 1))


def of_2_4_blank(rows):
    """a text of white space is empty too"""
    return bad(rows, strip=str)


def of_2_4_repeated(rows):
    """its label would count twice"""
    return bad(rows, repeats=False)
