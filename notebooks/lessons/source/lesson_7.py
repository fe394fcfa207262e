# %% [markdown]
# # Lesson 7. Scores, probabilities, cut-offs
#
# **40 minutes.** A ranking needs an order. A cut-off needs more, and there a model can look good by
# saying nothing.
#
# After this lesson you can
#
# - tell a calibrated model from one that knows something,
# - fit a threshold, and say how sure it is,
# - say which metrics survive a change of scale.
#
# **You need:** lessons 1 and 4 (logit, sigmoid).

# %%
import numpy as np

import workbench as wb
from workbench.lessons import check, recorded
from workbench.reports.figures.style import new_axes

run = recorded()
positive = run.test["label"].to_numpy() >= 0.5
probability = 1 / (1 + np.exp(-run.test_logits))

# %% [markdown]
# ## Predict
#
# The recorded model has an expected calibration error of [[ece]] on the test pairs: on average, its
# probabilities are that far from the shares of positives. Is it a good model?

# %% tags=["predict"]
my_judgement = "?"

# %%
ax = new_axes(size=(6, 2.4))
ax.hist(probability, bins=np.linspace(0, 1, 41))
ax.axvline(positive.mean(), color="black", linestyle="--", label="share of positives")
ax.set(xlabel="probability", ylabel="test pairs", title="What the model says")
ax.legend()
wb.show(ax)
print("my judgement:", my_judgement)

# %% [markdown]
# All probabilities lie between [[least_probability]] and [[most_probability]]. It says about the same
# of every pair, and that is about the base rate: so it is calibrated, **because it says nothing**.
#
# ## Exercise 7.1: skill
#
# The Brier score is the mean squared difference of probability and outcome. Skill compares it with a
# constant: 1 - Brier / Brier of the constant `base_rate`, which comes from training.


# %% tags=["solution"]
def brier_skill(probabilities, positives, base_rate):
    """One minus the Brier score over that of the constant."""
    # solution
    brier = np.mean((np.asarray(probabilities) - positives) ** 2)
    return 1 - brier / np.mean((base_rate - np.asarray(positives, dtype=float)) ** 2)


# %% tags=["check"]
check("7.1", brier_skill)

# %% [markdown]
# The model's Brier score is [[brier]], that of the constant [[brier_constant]]: a skill of
# **[[brier_skill]]**. One number would have done.
#
# ## Exercise 7.2: calibration error
#
# Put the probabilities into bins of equal width. In each bin that is not empty: the gap between the
# mean probability and the share of positives. Average the gaps, weighted by the pairs in the bin.


# %% tags=["solution"]
def calibration_error(probabilities, positives, bins=10):
    """The expected calibration error (ECE)."""
    # solution
    probabilities, positives = np.asarray(probabilities), np.asarray(positives, dtype=float)
    place, total = np.minimum((probabilities * bins).astype(int), bins - 1), 0.0
    for number in np.unique(place):
        inside = place == number
        gap = abs(probabilities[inside].mean() - positives[inside].mean())
        total += inside.mean() * gap
    return total


# %% tags=["check"]
check("7.2", calibration_error)

# %% [markdown]
# ## Exercise 7.3: a threshold
#
# Return a threshold with the highest **accuracy**: pairs with a score at or above it are called
# positive. It may also call none positive.


# %% tags=["solution"]
def best_threshold(scores, positives):
    """A cut-off with the highest accuracy on these pairs."""
    # solution
    choices = [*np.unique(scores), np.max(scores) + 1]
    return max(choices, key=lambda cut: np.mean((scores >= cut) == positives))


# %% tags=["check"]
check("7.3", best_threshold)

# %% [markdown]
# ## Predict
#
# A threshold is fitted on the [[dev_pairs]] dev pairs ([[dev_positives]] positive), for F1, and used
# on the [[test_pairs]] test pairs. What accuracy? Calling nothing positive has [[majority]].

# %% tags=["predict"]
my_accuracy = None

# %%
rng, found = np.random.default_rng(0), []
dev = run.dev["label"].to_numpy() >= 0.5
for _ in range(500):
    drawn = rng.integers(0, len(dev), len(dev))
    cut = wb.ranking.metrics.fit_threshold(run.dev_logits[drawn], dev[drawn])
    if np.isfinite(cut):  # dev as drawn has positives and negatives
        found.append(np.mean((run.test_logits >= cut) == positive))
ax = new_axes(size=(6, 2.4))
ax.hist(found, bins=np.linspace(0, 1, 41))
ax.axvline(1 - positive.mean(), color="black", linestyle="--", label="calling nothing positive")
ax.set(xlabel="accuracy on the test", ylabel="draws of dev", title="One threshold, many dev splits")
ax.legend()
wb.show(ax)
print("my guess:", my_accuracy)

# %% [markdown]
# With the dev pairs as they are the accuracy is [[threshold_accuracy]]. Had the same number of dev
# pairs been drawn again, it would be between [[threshold_low]] and [[threshold_high]] in nine of ten
# cases. An interval over the *test* pairs does not show that: the uncertainty lies in dev.
#
# ## Which metrics see the scale?
#
# Double all logits and add 3: the order is the same.

# %%
for name, logits in {"as is": run.test_logits, "2 x + 3": 2 * run.test_logits + 3}.items():
    auc = wb.ranking.pair_metrics(logits, positive)["roc_auc"]
    brier = np.mean((1 / (1 + np.exp(-logits)) - positive) ** 2)
    print(f"{name:8} ROC AUC {auc:.4f}   Brier {brier:.4f}")

# %% [markdown]
# Metrics of an order (nDCG, MRR, AP, ROC AUC) do not move; those of probabilities (Brier, ECE) do.
#
# ## Misconceptions
#
# - *"A small calibration error is a good model."* A constant at the base rate has none.
# - *"A threshold is part of the model."* It is a choice made on pairs; with few pairs it is uncertain.
# - *"Accuracy shows what a model can do."* Where positives are rare, saying no is hard to beat.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# Show calibration only together with skill, and accuracy with that of the majority. A threshold is fitted on
# dev or not at all, and its uncertainty is that of dev. A ranking needs neither.
#
# **In the workbench:** `notebooks/04_evaluate_ranking.ipynb`, the reliability plot.
