"""The exercises of lesson 8: inputs, right answers, and each wrong idea with its hint."""

import re
from functools import cache

import numpy as np

from workbench.lessons.checking import exercise
from workbench.lessons.recording import texts, tokenizer


def mixed(rng):
    """Chinese texts, with capitals and spaces among them."""
    return tokenizer(), [*texts(rng, 30), f"APP {rng.integers(9)} Ａ "]


@cache
def listed():
    return set(tokenizer().get_vocab())


def missing(reader, some):
    every = {c for text in some for c in text if not c.isspace()}
    return {c for c in every if "[UNK]" in reader.encode(c, add_special_tokens=False).tokens}


exercise(
    "8.1",
    mixed,
    missing,
    {
        "capitals are lowered first, so 'A' is not missing: ask the tokenizer.": (
            lambda reader, some: {c for c in "".join(some) if not c.isspace()} - listed()
        ),
        "these are all characters: keep those that become [UNK].": (
            lambda reader, some: {c for c in "".join(some) if not c.isspace()}
        ),
        "these are the texts or words: take single characters.": (
            lambda reader, some: {
                t for t in some if "[UNK]" in reader.encode(t, add_special_tokens=False).tokens
            }
        ),
    },
    trials=8,
)


def small(rng):
    names = [f"t{n}" for n in range(12)]
    return dict(zip(names, range(12), strict=True)), rng.normal(0.5, 1, (12, 6)), ["x", "a"], rng


def looked_at(function, vocabulary, matrix, new, rng):
    """Which of the parts below hold."""
    before, rows = vocabulary, matrix
    vocabulary, matrix = dict(before), rows.copy()  # what a wrong answer may change
    names, found = function(vocabulary, matrix, new, rng)
    found = np.asarray(found)
    kept = vocabulary == before and np.array_equal(matrix, rows)
    numbers = all(names.get(token) == place for token, place in before.items())
    follow = [names.get(token) for token in new] == [12, 13]
    old, fresh = np.array_equal(found[:12], rows), found[12:]
    apart = len(fresh) == len(new) and not np.allclose(fresh[0], fresh[1], atol=1e-9)
    central = len(fresh) > 0 and np.abs(fresh - rows.mean(axis=0)).max() < 0.3
    return [kept, numbers, follow, old, found.shape == (14, 6), apart, central]


def grown(vocabulary, matrix, new, rng, rows=None):
    noise = rng.normal(0, 0.02, (len(new), matrix.shape[1]))
    added = matrix.mean(axis=0) + noise if rows is None else rows
    return {**vocabulary, **{t: 12 + n for n, t in enumerate(new)}}, np.vstack([matrix, added])


def in_place(vocabulary, matrix, new, rng):
    names, rows = grown(vocabulary, matrix, new, rng)
    vocabulary.update(names)
    return vocabulary, rows


def sorted_again(vocabulary, matrix, new, rng):
    names = {token: n for n, token in enumerate(sorted([*vocabulary, *new]))}
    return names, grown(vocabulary, matrix, new, rng)[1]


exercise(
    "8.2",
    small,
    grown,
    {
        "sorting the vocabulary again gives old tokens other numbers, and so other vectors.": (
            sorted_again
        ),
        "all new rows are equal: the model could not tell the new tokens apart.": (
            lambda v, m, new, rng: grown(v, m, new, rng, [m.mean(axis=0)] * len(new))
        ),
        "new rows are far from the old ones: begin at the mean of the rows, with a little noise.": (
            lambda v, m, new, rng: grown(v, m, new, rng, 5 + rng.normal(0, 9, (len(new), 6)))
        ),
        "the argument was changed: make a new dictionary.": in_place,
        "the matrix lacks rows for the new tokens.": (
            lambda v, m, new, rng: (grown(v, m, new, rng)[0], m)
        ),
    },
    measure=looked_at,
    parts=(
        "the arguments stay as they were",
        "old tokens keep their numbers",
        "new tokens have the next numbers, in their order",
        "old rows stay as they were",
        "there is a row for each token",
        "new rows differ from each other",
        "new rows are near the mean of the old ones",
    ),
)


def outcome(rng):
    mean, half = rng.uniform(-0.1, 0.1), rng.uniform(0.02, 0.08)
    names = {"model": f"model-{rng.integers(99)}", "baseline": f"scorer-{rng.integers(99)}"}
    numbers = {"mean": mean, "low": mean - half, "high": mean + half}
    return ({**names, **numbers, "queries": int(rng.integers(20, 900))},)


def said(function, result):
    """Which parts of an honest claim a sentence has."""
    text = str(function(result))
    low, high = result["low"], result["high"]
    return [
        result["model"] in text,
        result["baseline"] in text,
        f"[{low:.3f}, {high:.3f}]" in text,
        re.search(rf"n = {result['queries']}\b", text) is not None,
        "improves" not in text or low > 0,
        "no difference was shown" in text or not low <= 0 <= high,
    ]


def sentence(result, baseline=True, interval=True, n=True, boast=False):
    low, high = result["low"], result["high"]
    text = f"{result['model']} against {result['baseline'] if baseline else 'others'}"
    text += f" [{low:.3f}, {high:.3f}]" if interval else ""
    text += f" n = {result['queries']}" if n else ""
    text += " no difference was shown" if low <= 0 <= high and not boast else ""
    return text + (" improves" if boast and result["mean"] > 0 else "")


exercise(
    "8.3",
    outcome,
    sentence,
    {
        "against what? A claim names its baseline.": lambda r: sentence(r, baseline=False),
        "a mean alone is no claim: give the interval, [low, high], with three decimals.": (
            lambda r: sentence(r, interval=False)
        ),
        "on how many queries? Say n = ...": lambda r: sentence(r, n=False),
        "the interval holds 0: do not say *improves*, say that no difference was shown.": (
            lambda r: sentence(r, boast=True)
        ),
    },
    measure=said,
    parts=(
        "the sentence names the model",
        "the sentence names the baseline",
        "the interval is there, as [low, high] with three decimals",
        "the number of queries is there, as n = ...",
        "*improves* is said only where the interval is above 0",
        "*no difference was shown* is said where the interval holds 0",
    ),
)
