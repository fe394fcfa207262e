"""Wrong answers to lesson 8: function `of_<exercise>_...`, its docstring a part of the hint."""

import numpy as np


def of_8_1_list_of_tokens(tokenizer, texts):
    """capitals are lowered first"""
    known = set(tokenizer.get_vocab())
    return {c for text in texts for c in text if c.strip() and c not in known}


def of_8_1_all_characters(tokenizer, texts):
    """these are all characters"""
    return set("".join(texts)) - set(" \u3000")


def of_8_1_texts(tokenizer, texts):
    """take single characters"""
    return {t for t in texts if "[UNK]" in tokenizer.encode(t).tokens}


def added(vocabulary, tokens):
    return vocabulary | {token: place for place, token in enumerate(tokens, len(vocabulary))}


def of_8_2_sorted(vocabulary, matrix, new_tokens, rng):
    """sorting the vocabulary again"""
    rows = matrix.mean(axis=0) + rng.normal(0, 0.01, (len(new_tokens), matrix.shape[1]))
    names = sorted(vocabulary.keys() | set(new_tokens))
    return {name: place for place, name in enumerate(names)}, np.concatenate([matrix, rows])


def of_8_2_one_vector(vocabulary, matrix, new_tokens, rng):
    """all new rows are equal"""
    rows = np.tile(matrix.mean(axis=0), (len(new_tokens), 1))
    return added(vocabulary, new_tokens), np.concatenate([matrix, rows])


def of_8_2_argument_changed(vocabulary, matrix, new_tokens, rng):
    """the argument was changed"""
    for token in new_tokens:
        vocabulary[token] = len(vocabulary)
    rows = matrix.mean(axis=0) + rng.normal(0, 0.01, (len(new_tokens), matrix.shape[1]))
    return vocabulary, np.concatenate([matrix, rows])


def of_8_2_far_away(vocabulary, matrix, new_tokens, rng):
    """far from the old ones"""
    rows = rng.normal(0, 10, (len(new_tokens), matrix.shape[1])) + 20
    return added(vocabulary, new_tokens), np.concatenate([matrix, rows])


def honest(result):
    holds = result["low"] <= 0 <= result["high"]
    text = "{model} minus {baseline}: [{low:.3f}, {high:.3f}], n = {queries}".format(**result)
    return text + (", no difference was shown" if holds else "")


def of_8_3_no_baseline(result):
    """names its baseline"""
    return honest(result).replace(result["baseline"], "the old one")


def of_8_3_no_interval(result):
    """a mean alone is no claim"""
    return honest(result).replace("[", "(")


def of_8_3_no_number(result):
    """on how many queries?"""
    return honest(result).replace("n = ", "")


def of_8_3_boasting(result):
    """the interval holds 0"""
    text = "{model} improves on {baseline}: [{low:.3f}, {high:.3f}], n = {queries}"
    return (
        text.format(**result) if result["mean"] > 0 else honest(result).replace("no diff", "a diff")
    )
