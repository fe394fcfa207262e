# %% [markdown]
# # Lesson 4. Train a cross-encoder with your hands
#
# **60 minutes.** What goes in, what comes out, and what a step does, in code that you write.
#
# After this lesson you can
#
# - say what a cross-encoder reads, number by number,
# - write its loss so that it survives large numbers,
# - write a training step, and name what happens if one of its lines is missing.
#
# **You need:** lesson 3; a little torch.

# %%
import numpy as np
import torch

from workbench.lessons import check, recorded
from workbench.lessons.recording import tokenizer

run, reader = recorded(), tokenizer()

# %% [markdown]
# ## What goes in
#
# A bi-encoder reads each text alone and compares two vectors. A cross-encoder reads both texts as
# **one** sequence, so that each token can look at each token of the other:
#
# `[CLS]` query `[SEP]` candidate `[SEP]`
#
# It reads each token as a number, its *id*: the place of the token in the vocabulary. A second list, the
# *segments*, says which text a token belongs to: 0 up to and with the first `[SEP]`, 1 after it. For a
# query of two tokens and a candidate of one the segments are 0 0 0 0 1 1.
#
# ## Exercise 4.1: encode a pair
#
# Return two lists, the ids and the segments. `tokenizer.encode(text, add_special_tokens=False).ids`
# gives the ids of one text, `tokenizer.token_to_id("[SEP]")` that of a special token. To try it:
# `encode_pair(reader, "hello", "hello there")`.


# %% tags=["solution"]
def encode_pair(tokenizer, first, second):
    """Ids and segment numbers of a pair, as a cross-encoder reads it."""
    # solution
    start, end = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    one, two = (tokenizer.encode(t, add_special_tokens=False).ids for t in (first, second))
    ids = [start, *one, end, *two, end]
    return ids, [0] * (len(one) + 2) + [1] * (len(two) + 1)


# %% tags=["check"]
check("4.1", encode_pair)

# %% [markdown]
# ## What comes out
#
# One number, the logit $x$: any number from minus to plus infinity. The sigmoid makes a probability of
# it, and binary cross-entropy a loss, small where the label $y$ (1 or 0) had a high probability:
#
# $$p = \frac{1}{1 + e^{-x}} \qquad \mathrm{loss} = -y \ln p - (1 - y) \ln(1 - p)$$
#
# ## Predict
#
# What is the loss before the first step, where the model says about 0.5 to everything? And that of a
# model that always says [[train_rate]], the share of positives?

# %% tags=["predict"]
my_losses = [None, None]

# %% [markdown]
# ## Exercise 4.2: a loss that survives
#
# Write binary cross-entropy of a **logit** and a label. It has to be right for logits of 1,000 and
# -1,000 as well, where the probability is exactly 1 or 0 in a computer and its logarithm fails.
#
# Put the sigmoid into the loss: for label 1 it becomes $\ln(1 + e^{-x})$, for label 0
# $\ln(1 + e^{x})$. Both are $\ln(1 + e^{z})$, and that equals $\max(z, 0) + \ln(1 + e^{-|z|})$, in which
# no exponent is above 0, so that nothing overflows. (`np.log1p(t)` is the logarithm of 1 + t.)


# %% tags=["solution"]
def bce(logit, label):
    """Binary cross-entropy of a logit for a label of 0 or 1."""
    # solution
    return max(logit, 0) - logit * label + np.log1p(np.exp(-abs(logit)))


# %% tags=["check"]
check("4.2", bce)

# %% [markdown]
# ## Exercise 4.3: the loss of knowing nothing
#
# The mean loss over `labels` of the best constant: a model that gives each pair the share of
# positives.


# %% tags=["solution"]
def base_rate_loss(labels):
    """Mean binary cross-entropy of the constant that fits the labels best."""
    # solution
    p = np.mean(labels)
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


# %% tags=["check"]
check("4.3", base_rate_loss)

# %%
print("a coin:", round(np.log(2), 4), "this training split:", end=" ")
p = run.train["label"].mean()
print(round(-p * np.log(p) - (1 - p) * np.log(1 - p), 4), "my guesses:", my_losses)

# %% [markdown]
# So [[coin_loss]] and [[base_rate_loss]]. To get from the first to the second, a model has to learn one
# number, the share of positives.
#
# ## Exercise 4.4: the training loop
#
# One epoch over `batches` of (inputs, labels). First put the model into training mode (`train()`). For
# each batch: empty the gradients (`zero_grad()` of the optimizer), compute
# `loss_function(model(inputs), labels)`, go `backward()` from it, and let the optimizer `step()`. At the
# end put the model into evaluation mode (`eval()`), and return the losses as plain numbers (`item()`).
#
# If the check is content, take out one line at a time and run it again: what does the hint say?


# %% tags=["solution"]
def train_epoch(model, optimizer, loss_function, batches):
    """One epoch; the loss of each batch as a list of floats."""
    # solution
    losses = []
    model.train()
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = loss_function(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


# %% tags=["check"]
check("4.4", train_epoch)

# %% [markdown]
# ## The same loop on a toy
#
# Two layers that see four numbers of a pair: shared characters, the two lengths, and how far these are
# apart. It is no cross-encoder, but the loop around it is yours, and five epochs take a second.

# %%
torch.manual_seed(0)
both = [[set(a), set(b)] for a, b in run.train[["sentence_0", "sentence_1"]].to_numpy()]
numbers = [[len(a & b), len(a), len(b), abs(len(a) - len(b))] for a, b in both]
inputs = torch.tensor(numbers, dtype=torch.float32) / 10
labels = torch.tensor(run.train["label"].to_numpy(), dtype=torch.float32)
toy = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(toy.parameters(), lr=0.02)
for _ in range(5):
    for place in torch.randperm(len(labels)).split(64):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            toy(inputs[place])[:, 0], labels[place]
        )
        loss.backward()
        optimizer.step()
with torch.no_grad():
    logits = toy(inputs)[:, 0]
print("loss:", torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item())

# %% [markdown]
# It is below [[base_rate_loss]]: on the training pairs four numbers about characters say more than the
# recorded cross-encoder has learned from its tokens.
#
# *Optional, some minutes:* `notebooks/02_fine_tune.ipynb` shows model, loss and trainer of the real
# training as three lines that you can change.
#
# ## Misconceptions
#
# - *"The logit is a probability."* It has no bounds; the sigmoid of it is one.
# - *"A cross-encoder compares two vectors."* That is a bi-encoder.
# - *"Steps are pairs."* A step takes a batch: [[train_pairs]] pairs in batches of [[batch]] are [[steps]]
#   steps.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# A cross-encoder reads both texts at once and gives one logit. Its loss is binary cross-entropy, and
# that of knowing nothing is the entropy of the base rate. The loop is five lines, and leaving out any
# of them gives a training that runs and does not learn.
#
# **In the workbench:** `notebooks/02_fine_tune.ipynb`.
