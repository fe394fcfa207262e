"""Wrong answers to lesson 4: function `of_<exercise>_...`, its docstring a part of the hint."""

import math

import numpy as np


def of_4_1_no_last_sep(tokenizer, first, second):
    """one is missing at the end"""
    ids = tokenizer.encode(first, second).ids[:-1]
    return ids, tokenizer.encode(first, second).type_ids[:-1]


def of_4_1_two_sequences(tokenizer, first, second):
    """not before the second text"""
    one, two = tokenizer.encode(first).ids, tokenizer.encode(second).ids
    return one + two, [0] * len(one) + [1] * len(two)


def of_4_1_one_segment(tokenizer, first, second):
    """the second text and its [SEP] have 1"""
    ids = tokenizer.encode(first, second).ids
    return ids, [0 for _ in ids]


def of_4_1_sep_of_the_second(tokenizer, first, second):
    """belongs to the first"""
    found = tokenizer.encode(first, second)
    kinds = list(found.type_ids)
    kinds[kinds.index(1) - 1] = 1
    return found.ids, kinds


def of_4_2_logarithm_of_the_sigmoid(logit, label):
    """log(0)"""
    p = 1 / (1 + np.exp(-np.float64(logit)))
    return -(label * np.log(p) + (1 - label) * np.log(1 - p))


def stable(logit, label):
    return math.log1p(math.exp(-abs(logit))) + max(logit, 0) - logit * label


def of_4_2_positives_only(logit, label):
    """negatives cost too"""
    return stable(logit, 1) if label else 0.0


def of_4_2_wrong_sign(logit, label):
    """never negative"""
    return -stable(logit, label)


def of_4_2_bits(logit, label):
    """natural logarithm"""
    return stable(logit, label) / math.log(2)


def of_4_3_coin(labels):
    """this is the loss of saying 0.5"""
    return math.log(2)


def of_4_3_bits(labels):
    """natural logarithm"""
    p = sum(labels) / len(labels)
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def of_4_3_brier(labels):
    """this is the Brier score"""
    return np.var(labels)


def epoch(model, optimizer, loss_function, batches, zero=True, backward=True, step=True):
    for inputs, labels in batches:
        if zero:
            optimizer.zero_grad()
        loss = loss_function(model(inputs), labels)
        if backward:
            loss.backward()
        if step:
            optimizer.step()
        yield loss.item()


def in_training_mode(model, *rest, **options):
    model.train()
    losses = list(epoch(model, *rest, **options))
    model.eval()
    return losses


def of_4_4_gradients_add_up(*given):
    """gradients add up"""
    return in_training_mode(*given, zero=False)


def of_4_4_no_step(*given):
    """the weights did not move"""
    return in_training_mode(*given, step=False)


def of_4_4_no_backward(*given):
    """backward(), then step()"""
    return in_training_mode(*given, backward=False)


def of_4_4_not_in_training_mode(model, *rest):
    """not in training mode"""
    losses = list(epoch(model, *rest))
    model.eval()
    return losses


def of_4_4_left_in_training_mode(model, *rest):
    """left in training mode"""
    model.train()
    return list(epoch(model, *rest))
