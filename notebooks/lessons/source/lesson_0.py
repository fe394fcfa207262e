# %% [markdown]
# # Lesson 0. Is my machine ready?
#
# **10 minutes.** One look at this machine, and how the lessons work.
#
# After this lesson you can
#
# - say whether everything is there,
# - say how long a training would take here (no lesson needs one),
# - use a check.
#
# **You need:** this notebook in JupyterLab: `make lab` in the project's folder, then open
# `notebooks/lessons/exercises/lesson_0.ipynb`. On a web page the cells have been run, but not by you.

# %%
from workbench.lessons import check, stale

print(stale() or "the recorded run fits the sample")

# %% [markdown]
# In a terminal, in the project's folder, `.venv/bin/workbench lessons doctor` prints a line for Python,
# packages, font, disk and the bundled model, and how long a full training would take on this machine.
# Each line begins with OK or FAIL.
#
# ## How an exercise works
#
# A cell has a function whose body raises `NotImplementedError`. Write your code in its place, run it,
# and run the check below it. A check draws **fresh random inputs** each time. If the answer is wrong
# it says what you may have mixed up, and otherwise shows one input with the right value and yours.
# Here is a first one, written already, and wrong on purpose. It is exercise 1.4, Jaccard similarity: the
# characters that two texts share, over all that occur in at least one of them.


# %%
def jaccard(first, second):
    """Shared characters over all characters of the first text."""
    return len(set(first) & set(second)) / len(set(first))


check("1.4", jaccard)

# %% [markdown]
# Run the cell again: the inputs differ, the verdict stays. Now do what the hint says, and run it once
# more: there is a second thing wrong. You will write the whole function in lesson 1.
#
# Predictions (`my_guess = ...`) are for you alone. Write them down before you run the next cell: what
# you expected is half of what you learn.
#
# ## Quiz
#
# [[quiz]]
#
# **The course:** 1 ranking, 2 leaks, 3 tokens, 4 training, 5 loss, 6 differences, 7 probabilities,
# 8 repair, and a project of your own (lesson 9). Lessons 1, 3, 5 and 6 are the heart of it.
