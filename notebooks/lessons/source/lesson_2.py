# %% [markdown]
# # Lesson 2. Does your split leak?
#
# **40 minutes.** A test says something about the future only if it holds nothing of the past.
#
# After this lesson you can
#
# - see a leak, and measure it,
# - stop it by connected groups,
# - find the rows of a file that must not be trained on.
#
# **You need:** lesson 1; a little pandas.

# %%
import numpy as np
import pandas as pd

import workbench as wb
from workbench.lessons import check, recorded

run = recorded()
pairs = run.pairs

# %% [markdown]
# ## Predict
#
# Split the [[pairs]] pairs at random, 80 % to train and 20 % to test. In how many of the test pairs does
# a text occur that was trained on?

# %% tags=["predict"]
my_leak = None  # a share, from 0 to 1

# %% [markdown]
# ## Exercise 2.1: measure the leak
#
# The share of test pairs of which at least one text, in either column, occurs in training, in either
# column.


# %% tags=["solution"]
def leaked_share(train, test):
    """The share of test pairs with a text that training has seen."""
    # solution
    known = {*train["sentence_0"], *train["sentence_1"]}
    return float((test["sentence_0"].isin(known) | test["sentence_1"].isin(known)).mean())


# %% tags=["check"]
check("2.1", leaked_share)

# %%
order, size = np.random.default_rng(0).permutation(len(pairs)), len(pairs) // 5
test, train = pairs.iloc[order[:size]], pairs.iloc[order[size:]]
known = {*train["sentence_0"], *train["sentence_1"]}
leaked = test["sentence_0"].isin(known) | test["sentence_1"].isin(known)
print(f"random split: {100 * leaked.mean():.1f} %; my guess: {my_leak}")

# %% [markdown]
# [[leak]] with this seed, between [[leak_low]] and [[leak_high]] with others. No pair occurs twice: it is
# the *texts* that recur.
#
# ## Exercise 2.2: groups
#
# Two pairs that share a text belong to one group, and so do pairs that are connected through other pairs.
# Give each pair the name of its group, so that two pairs have the same name exactly if they are connected.
# Any names will do. (Merge again and again until nothing changes, or use union-find.)


# %% tags=["solution"]
def groups(pairs):
    """A name for each pair; equal for pairs that are connected by texts."""
    # solution
    label = {text: text for column in ("sentence_0", "sentence_1") for text in pairs[column]}

    def root(text):
        while label[text] != text:
            text = label[text]
        return text

    for first, second in zip(pairs["sentence_0"], pairs["sentence_1"], strict=True):
        label[root(first)] = root(second)
    return [root(text) for text in pairs["sentence_0"]]


# %% tags=["check"]
check("2.2", groups)

# %% [markdown]
# The workbench finds [[groups]] groups in the sample, the largest of [[largest_group]] pairs (it also
# takes texts for equal that differ only in case, width or punctuation). Each goes to one split whole.
#
# ## Exercise 2.3: a scorer that never reads a text
#
# It only *remembers*: the mean training label of each text. A pair's score is the mean over its two
# texts; a text that training has not seen counts as the mean label of training.


# %% tags=["solution"]
def memory_scores(train, test):
    """Scores of the test pairs from the labels that their texts had in training, shape (n,)."""
    # solution
    labels = pd.concat(
        [pd.Series(train["label"].values, train[c]) for c in ("sentence_0", "sentence_1")]
    )
    means = labels.groupby(level=0).mean()
    sides = [test[c].map(means).fillna(train["label"].mean()) for c in ("sentence_0", "sentence_1")]
    return np.mean(sides, axis=0)


# %% tags=["check"]
check("2.3", memory_scores)

# %% [markdown]
# ## Predict
#
# This scorer reads nothing. What is its ROC AUC on the random split, and on a split by groups?

# %% tags=["predict"]
my_auc = {"by row": None, "by group": None}

# %%
for name, (learn, judge) in {"by row": (train, test), "by group": (run.train, run.test)}.items():
    labels = [pd.Series(learn["label"].values, learn[c]) for c in ("sentence_0", "sentence_1")]
    means = pd.concat(labels).groupby(level=0).mean()
    rest = learn["label"].mean()
    sides = [judge[c].map(means).fillna(rest) for c in ("sentence_0", "sentence_1")]
    auc = wb.ranking.pair_metrics(np.mean(sides, axis=0), judge["label"])["roc_auc"]
    print(f"{name:9} ROC AUC {auc:.3f}, my guess {my_auc[name]}")

# %% [markdown]
# By row it is [[memory_auc]] on average over six seeds. That is *below* one half, so whoever turns the order
# round has [[memory_flipped]], without a glance at a text. By group it is about [[memory_auc_groups]]:
# nothing is left to remember.
#
# *Discuss:* why is it below one half by row? (Most texts have one positive pair at most. If that pair is in
# training, the pairs left for the test are negatives. It comes from how the file was made.)
#
# ## Exercise 2.4: rows that must not be trained on
#
# `rows` are the rows of a file as lists of three texts, the header first. Return the line numbers
# (the header is line 1) of the bad ones: a text that is empty or only white space; a label that is
# not a number from 0 to 1; a pair that occurred before.


# %% tags=["solution"]
def bad_lines(rows):
    """The numbers of the lines that cannot be used, as a set."""
    # solution
    bad, seen = set(), set()
    for line, (first, second, label) in enumerate(rows[1:], start=2):
        first, second = first.strip(), second.strip()
        try:
            good = 0 <= float(label) <= 1
        except ValueError:
            good = False
        if not (good and first and second) or (first, second) in seen:
            bad.add(line)
        seen.add((first, second))
    return bad


# %% tags=["check"]
check("2.4", bad_lines)

# %% [markdown]
# ## Misconceptions
#
# - *"Random is fair."* Random rows share texts; random **groups** are fair.
# - *"It is enough to remove repeated rows."* The sample has none, and leaks all the same.
# - *"Dev may share texts, only the test must not."* Then every choice made on dev is made on memory.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# Do not suspect a leak, measure it: count the known texts. Split by connected groups, and remember
# that dev needs it as much as test. A scorer that reads nothing is the best detector.
#
# **In the workbench:** `notebooks/01_inspect_data.ipynb`, "Would a split leak?".
