"""The exercises of lesson 3: inputs, right answers, and each wrong idea with its hint."""

from collections import Counter
from functools import cache

import numpy as np

from workbench.data.texts import characters, jaccard, normalised
from workbench.lessons.checking import exercise
from workbench.lessons.recording import distinct_texts, texts, tokenizer


def _tokens(text, special=False):
    return list(tokenizer().encode(text, add_special_tokens=special).tokens)


def _some(rng):
    """The tokenizer and 80 texts, some of them twice."""
    some = texts(rng, 80)
    return tokenizer(), [*some, *some[:20]]


def _unknown_share(texts, special=False):
    every = [token for text in texts for token in _tokens(text, special)]
    return every.count("[UNK]") / len(every)


exercise(
    "3.1",
    _some,
    lambda _, texts: _unknown_share(texts),
    {
        "the shares of texts were averaged: count all tokens of all texts together.": (
            lambda _, texts: float(np.mean([_unknown_share([text]) for text in texts]))
        ),
        "[CLS] and [SEP] were counted: add_special_tokens=False.": (
            lambda _, texts: _unknown_share(texts, special=True)
        ),
        "texts with an [UNK] were counted: count tokens.": (
            lambda _, texts: float(np.mean(["[UNK]" in _tokens(text) for text in texts]))
        ),
        "repeated texts count each time here: do not drop them.": (
            lambda _, texts: _unknown_share(list(dict.fromkeys(texts)))
        ),
    },
    trials=6,
)


def _alike(rng):
    """The tokenizer and 430 texts, some of them twice, some with the tokens of another."""
    some = texts(rng, 400)
    return tokenizer(), [*some, *some[:30]]


def _sizes(texts, key=tuple):
    return Counter(key(_tokens(text)) for text in dict.fromkeys(texts))


exercise(
    "3.2",
    _alike,
    lambda _, texts: sum(n for n in _sizes(texts).values() if n > 1),
    {
        "groups were counted: count the texts in them.": (
            lambda _, texts: sum(n > 1 for n in _sizes(texts).values())
        ),
        "one text of each group was left out: it cannot be told apart from the others either.": (
            lambda _, texts: sum(n - 1 for n in _sizes(texts).values())
        ),
        "order matters to the model: compare sequences of tokens, not sets.": (
            lambda _, texts: sum(n for n in _sizes(texts, frozenset).values() if n > 1)
        ),
        "one text twice is no two texts: take distinct texts first.": (
            lambda _, texts: sum(
                n for n in Counter(tuple(_tokens(text)) for text in texts).values() if n > 1
            )
        ),
    },
    trials=6,
)


def _set_share(first, second):
    return jaccard(frozenset(first), frozenset(second))


def _multi(first, second):
    one, two = Counter(first), Counter(second)
    return (one & two).total() / max((one | two).total(), 1)


def _known_tokens(text):
    return [token for token in _tokens(text) if token != "[UNK]"]


exercise(
    "3.3",
    lambda rng: (tokenizer(), *texts(rng, 2)),
    lambda _, first, second: _set_share(_tokens(first), _tokens(second)),
    {
        "[CLS] and [SEP] are in every text: leave them out.": (
            lambda _, first, second: _set_share(_tokens(first, True), _tokens(second, True))
        ),
        "[UNK] is a token like others to the model: keep it (dropping it is the next row).": (
            lambda _, first, second: _set_share(_known_tokens(first), _known_tokens(second))
        ),
        "these are characters: the model sees tokens.": (
            lambda _, first, second: jaccard(characters(first), characters(second))
        ),
        "each token counts once: use sets.": (
            lambda _, first, second: _multi(_tokens(first), _tokens(second))
        ),
    },
)


def _twins(function):
    """What is wrong with two texts that the model shall not be able to tell apart."""
    first, second = function()
    plain = normalised
    if first == second:
        return "equal"
    if plain(first) == plain(second):
        return "spelling"
    if _tokens(first) != _tokens(second):
        return "tokens"
    return "sample" if {first, second} <= set(distinct_texts()) else ""


exercise(
    "3.4",
    lambda rng: (),
    lambda: ("打开它", "关掉它"),
    {
        "the two texts are the same: the model is right not to tell them apart.": lambda: ("", ""),
        "the texts differ only in case, width, space or punctuation, not in meaning.": (
            lambda: ("A", "a")
        ),
        "their tokens differ: print the tokens, and look for characters that become [UNK].": (
            lambda: ("一", "二")
        ),
        "both texts are in the sample: write two yourself.": lambda: _same_in_sample(),
    },
    measure=_twins,
    trials=1,
)


@cache
def _same_in_sample():
    groups: dict[tuple[str, ...], list[str]] = {}
    for text in distinct_texts():
        groups.setdefault(tuple(_tokens(text)), []).append(text)
    twins = (texts for texts in groups.values() if len(texts) > 1)
    plain = normalised
    return next(tuple(t[:2]) for t in twins if plain(t[0]) != plain(t[1]))
