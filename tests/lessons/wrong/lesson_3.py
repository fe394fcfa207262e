"""Wrong answers to lesson 3: function `of_<exercise>_...`, its docstring a part of the hint."""

from collections import Counter

import numpy as np


def cut(tokenizer, text, special=False):
    return tokenizer.encode(text, add_special_tokens=special).tokens


def of_3_1_mean_of_texts(tokenizer, texts):
    """the shares of texts were averaged"""
    shares = [[t == "[UNK]" for t in cut(tokenizer, text)] for text in texts]
    return np.mean([np.mean(share) for share in shares])


def of_3_1_special_tokens(tokenizer, texts):
    """[CLS] and [SEP] were counted"""
    tokens = [token for text in texts for token in cut(tokenizer, text, True)]
    return tokens.count("[UNK]") / len(tokens)


def of_3_1_texts(tokenizer, texts):
    """count tokens"""
    return sum("[UNK]" in cut(tokenizer, text) for text in texts) / len(texts)


def of_3_1_hard_coded(tokenizer, texts):
    """yours is 0.7266"""
    return 0.7266


def counted(tokenizer, texts, key=tuple):
    return Counter(key(cut(tokenizer, text)) for text in texts)


def of_3_2_groups(tokenizer, texts):
    """groups were counted"""
    return len([n for n in counted(tokenizer, set(texts)).values() if n > 1])


def of_3_2_one_left_out(tokenizer, texts):
    """one text of each group was left out"""
    return len(set(texts)) - len(counted(tokenizer, set(texts)))


def of_3_2_sets(tokenizer, texts):
    """order matters"""
    return sum(n for n in counted(tokenizer, set(texts), frozenset).values() if n > 1)


def of_3_2_texts_twice(tokenizer, texts):
    """take distinct texts first"""
    return sum(n for n in counted(tokenizer, texts).values() if n > 1)


def of_3_3_special_tokens(tokenizer, first, second):
    """leave them out"""
    one, two = set(cut(tokenizer, first, True)), set(cut(tokenizer, second, True))
    return len(one & two) / len(one | two)


def of_3_3_without_unk(tokenizer, first, second):
    """[UNK] is a token like others"""
    one, two = (set(cut(tokenizer, text)) - {"[UNK]"} for text in (first, second))
    return len(one & two) / len(one | two) if one | two else 0.0


def of_3_3_characters(tokenizer, first, second):
    """these are characters"""
    return len(set(first) & set(second)) / len(set(first) | set(second))


def of_3_4_the_same_text():
    """the two texts are the same"""
    return "我要借伞", "我要借伞"


def of_3_4_only_spelling():
    """not in meaning"""
    return "我要借伞", "我要借伞。"


def of_3_4_other_tokens():
    """their tokens differ"""
    return "我上班", "我下班"
