"""The exercises of lesson 2: inputs, right answers, and each wrong idea with its hint."""

import numpy as np
import pandas as pd

from workbench.data.texts import text_groups
from workbench.lessons.checking import exercise
from workbench.lessons.recording import recorded

COLUMNS = ["sentence_0", "sentence_1", "label"]


def _split(rng):
    """200 random pairs, and 60 others with five of the first and one of two known texts."""
    rows = recorded().pairs.iloc[rng.permutation(2000)[:260]].reset_index(drop=True)
    crossed = rows[:1].assign(sentence_1=rows["sentence_1"][1])
    return rows[:200], pd.concat([rows[200:], rows[:5], crossed], ignore_index=True)


def _known(train, test):
    texts = {*train["sentence_0"], *train["sentence_1"]}
    return test["sentence_0"].isin(texts), test["sentence_1"].isin(texts)


def _leak(train, test):
    first, second = _known(train, test)
    return float((first | second).mean())


def _whole_pairs(train, test):
    seen = set(zip(train["sentence_0"], train["sentence_1"], strict=True))
    return float(np.mean([p in seen for p in zip(test.sentence_0, test.sentence_1, strict=True)]))


exercise(
    "2.1",
    _split,
    _leak,
    {
        "removing repeated pairs is not enough: ONE known text gives a pair away.": _whole_pairs,
        "one known text is enough; you ask for both.": (
            lambda *a: float((_known(*a)[0] & _known(*a)[1]).mean())
        ),
        "a text can be known from either column: compare both columns with both.": (
            lambda train, test: float(test["sentence_0"].isin(set(train["sentence_0"])).mean())
        ),
        "the share is of the TEST pairs; you count training pairs.": (
            lambda train, test: _leak(test, train)
        ),
    },
    trials=8,
)


def _graph(rng):
    """60 pairs of 50 invented texts, in an order that needs several rounds of merging."""
    ends = rng.integers(0, 90, (60, 2))
    rows = [(f"text {a}", f"text {b}", 0.0) for a, b in ends]
    return (pd.DataFrame(rows, columns=COLUMNS),)


def _partition(function, pairs):
    """Labels renamed in the order in which they first occur, so that names do not matter."""
    names: dict[Any, int] = {}
    return [names.setdefault(label, len(names)) for label in list(function(pairs))]


def _one_round(pairs):
    label: dict[str, str] = {}
    for a, b in zip(pairs["sentence_0"], pairs["sentence_1"], strict=True):
        label[a] = label[b] = label.get(a) or label.get(b) or a
    return [label[a] for a in pairs["sentence_0"]]


exercise(
    "2.2",
    _graph,
    text_groups,
    {
        "a text of the second column can be a query elsewhere: connect both columns.": (
            lambda pairs: list(pairs["sentence_0"])
        ),
        "a group is more than one pair: pairs that share a text belong together.": (
            lambda pairs: range(len(pairs))
        ),
        "connections reach further: where a pair joins two groups, ALL their pairs join.": (
            _one_round
        ),
    },
    measure=_partition,
)


def _memory(train, test, unknown=None, sides=(0, 1)):
    label = train["label"].to_numpy()
    both = pd.Series([*label, *label], [*train["sentence_0"], *train["sentence_1"]])
    means = both.groupby(level=0).mean()
    fill = float(label.mean()) if unknown is None else unknown
    return np.mean([test[f"sentence_{side}"].map(means).fillna(fill) for side in sides], axis=0)


exercise(
    "2.3",
    _split,
    _memory,
    {
        "labels of the TEST pairs must not be read: that is the leak itself.": (
            lambda train, test: _memory(test, test)
        ),
        "a text never seen in training tells nothing: give it the mean training label, not 0.": (
            lambda *a: _memory(*a, unknown=0.0)
        ),
        "use both texts of the pair, not the first alone.": lambda *a: _memory(*a, sides=(0,)),
        "take the mean of the two texts' values, not their sum.": lambda *a: 2 * _memory(*a),
    },
    trials=8,
)


def _dirty(rng):
    """Rows of a file, the header first, with six kinds of fault at random places."""
    good = recorded().pairs.iloc[rng.permutation(2000)[:20]].astype(str).to_numpy().tolist()
    faults = [["", "好的", "0"], ["你好", "\u3000 ", "1"], ["a", "b", "2"], ["c", "d", "nan"]]
    faults += [["e", "f", "yes"], ["g", "h", ""], ["i", "j", "-0.1"], list(good[0])]
    rows = good[1:] + faults
    return ([COLUMNS, good[0], *(rows[place] for place in rng.permutation(len(rows)))],)


def _bad_lines(rows, skip="", header=2):
    found, seen = set(), set()
    for line, (first, second, label) in enumerate(rows[1:], start=header):
        try:
            value = float(label)
            bad = not 0 <= value <= 1 and not (skip == "nan" and np.isnan(value))
        except ValueError:
            bad = skip != "text" or not label
        empty = (
            (not first or not second) if skip == "blank" else not (first.strip() and second.strip())
        )
        repeated = (first, second) in seen and skip != "repeated"
        seen.add((first, second))
        if bad or empty or repeated:
            found.add(line)
    return found


exercise(
    "2.4",
    _dirty,
    _bad_lines,
    {
        "the header is line 1, so the first pair is on line 2.": (
            lambda rows: _bad_lines(rows, header=1)
        ),
        "NaN is neither below 0 nor above 1: ask whether 0 <= label <= 1.": (
            lambda rows: _bad_lines(rows, "nan")
        ),
        "a text of white space is empty too: strip it first.": (
            lambda rows: _bad_lines(rows, "blank")
        ),
        "a pair that was there before is a bad row: its label would count twice.": (
            lambda rows: _bad_lines(rows, "repeated")
        ),
    },
)
