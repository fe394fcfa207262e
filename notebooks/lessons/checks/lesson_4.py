"""The exercises of lesson 4: inputs, right answers, and each wrong idea with its hint."""

import numpy as np

from workbench.lessons.checking import exercise
from workbench.lessons.recording import texts, tokenizer

CLS, SEP = 101, 102


def pair(tokenizer, first, second, end=True, middle=0, start=False, segments=True):
    one, two = (tokenizer.encode(t, add_special_tokens=False).ids for t in (first, second))
    ids = [CLS, *one, SEP, *([CLS] if start else []), *two, *([SEP] if end else [])]
    before = len(one) + 2
    kinds = [0] * (before - 1) + [middle] + [1] * (len(ids) - before)
    return ids, kinds if segments else [0] * len(ids)


def joined(function, *arguments):
    """Ids and segments as one list."""
    ids, segments = function(*arguments)
    return [*map(int, ids), *map(int, segments)]


exercise(
    "4.1",
    lambda rng: (tokenizer(), *texts(rng, 2)),
    pair,
    {
        "[SEP] ends BOTH texts: one is missing at the end.": lambda *a: pair(*a, end=False),
        "segments: the second text and its [SEP] have 1.": lambda *a: pair(*a, segments=False),
        "the [SEP] between the texts belongs to the first: segment 0.": (
            lambda *a: pair(*a, middle=1)
        ),
        "[CLS] stands at the beginning only, not before the second text.": (
            lambda *a: pair(*a, start=True)
        ),
    },
    measure=joined,
)


def loss(logit, label):
    return np.maximum(logit, 0) - logit * label + np.log1p(np.exp(-np.abs(logit)))


def naive(logit, label):
    p = 1 / (1 + np.exp(-logit))
    return -label * np.log(p) - (1 - label) * np.log(1 - p)


exercise(
    "4.2",
    lambda rng: (
        float(rng.choice([rng.normal(0, 4), rng.normal(0, 4), -1000.0, 1000.0])),
        int(rng.integers(0, 2)),
    ),
    loss,
    {
        "log(0): the probability is rounded to 0 or 1. Use the form with log1p.": naive,
        "negatives cost too: where the label is 0, the loss is -log(1 - p).": (
            lambda logit, label: label * loss(logit, 1)
        ),
        "the sign is turned: a loss is never negative.": lambda *a: -loss(*a),
        "these are bits: use the natural logarithm.": lambda *a: loss(*a) / np.log(2),
        "the labels are swapped: 1 means positive.": lambda x, label: loss(x, 1 - label),
    },
    trials=60,
)


def entropy(labels):
    p = np.mean(labels)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


exercise(
    "4.3",
    lambda rng: (rng.permutation(np.arange(200) < rng.integers(10, 90)).astype(float),),
    entropy,
    {
        "this is the loss of saying 0.5; the best constant is the share of positives.": (
            lambda labels: np.log(2)
        ),
        "these are bits: use the natural logarithm.": lambda labels: entropy(labels) / np.log(2),
        "negatives cost too: add (1 - p) times -log(1 - p).": (
            lambda labels: -np.mean(labels) * np.log(np.mean(labels))
        ),
        "this is the Brier score of the constant, not its cross-entropy.": (
            lambda labels: np.mean(labels) * (1 - np.mean(labels))
        ),
    },
)


def watched(function, seed):
    """What a training loop did: losses, weights, whether it trained and ended in the right mode."""
    import torch

    torch.manual_seed(seed)
    model, modes = torch.nn.Linear(3, 1), []
    model.eval()
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.randn(8, 3), torch.rand(8, 1).round()) for _ in range(4)]
    losses = function(model, optimizer, torch.nn.BCEWithLogitsLoss(), batches)
    plain = all(type(value) is float for value in losses)
    weights = [float(value) for value in model.weight.detach().flatten()]
    numbers = [value if type(value) is float else float(value.detach()) for value in losses]
    return [*numbers, *weights, all(modes), not model.training, plain, len(modes)]


def loop(model, optimizer, loss_function, batches, skip=""):
    losses = []
    if skip != "train":
        model.train()
    for inputs, labels in batches:
        if skip != "zero":
            optimizer.zero_grad()
        found = loss_function(model(inputs), labels)
        found.backward()
        if skip != "step":
            optimizer.step()
        losses.append(found if skip == "item" else found.item())
    if skip != "eval":
        model.eval()
    return losses


exercise(
    "4.4",
    lambda rng: (int(rng.integers(1000)),),
    loop,
    {
        "gradients add up: empty them before each batch.": lambda *a: loop(*a, skip="zero"),
        "the weights did not move: backward(), then step(), and no zero_grad() between them.": (
            lambda *a: loop(*a, skip="step")
        ),
        "the model was not in training mode (dropout would be off): model.train().": (
            lambda *a: loop(*a, skip="train")
        ),
        "the model was left in training mode: model.eval() at the end.": (
            lambda *a: loop(*a, skip="eval")
        ),
        "return plain numbers, loss.item(): a tensor keeps the whole graph alive.": (
            lambda *a: loop(*a, skip="item")
        ),
    },
    measure=watched,
    parts=(
        *["the loss of each batch"] * 4,
        *["the weights at the end"] * 3,
        "the model is in training mode during the loop",
        "the model is in evaluation mode at the end",
        "the losses are plain numbers",
        "the number of times the model was used",
    ),
    trials=3,
)
