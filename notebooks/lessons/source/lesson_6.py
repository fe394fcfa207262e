# %% [markdown]
# # Lesson 6. Is the difference real?
#
# **60 minutes.** Two means always differ. What may be said about it?
#
# After this lesson you can
#
# - put an interval around a mean of queries that are not independent,
# - test a paired difference, and correct for having tested several,
# - say what the luck of the best is worth.
#
# **You need:** lesson 1.

# %%
import numpy as np

import workbench as wb
from workbench.lessons import check, recorded
from workbench.reports.figures.style import new_axes

run = recorded()
gains = [one.relevance for one in run.lists]


def values(scorer):
    """nDCG@10 of each query."""
    scores = [scorer.score(one.pairs()) for one in run.lists]
    return wb.ranking.rank_metrics(scores, gains)["ndcg@10"]


texts = [*run.train["sentence_0"], *run.train["sentence_1"]]
tfidf = values(wb.scoring.TfidfCosine(texts))
bm25 = values(wb.scoring.Bm25([text for one in run.lists for text in one.candidates]))
overlap = values(wb.scoring.CharacterJaccard())
groups = wb.data.query_groups(run.lists)

# %% [markdown]
# ## Predict
#
# On [[lists]] queries TF-IDF has [[tfidf]], BM25 [[bm25]] and Jaccard [[jaccard]]. Which of the
# differences would you publish: TF-IDF over BM25? TF-IDF over Jaccard? Both? None?

# %% tags=["predict"]
my_claims = "?"

# %% [markdown]
# ## Exercise 6.1: an interval by bootstrap
#
# Draw **groups** with replacement, as many as there are; take the mean over all queries in the drawn
# groups; do that `resamples` times; return the 2.5th and 97.5th percentile of the means. Queries that
# share a text are in one group: they succeed or fail together.


# %% tags=["solution"]
def bootstrap(values, groups, rng, resamples=2000):
    """The ends of the 95 % interval of the mean, whole groups drawn."""
    # solution
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(members), len(members))
        means.append(values[np.concatenate([members[place] for place in drawn])].mean())
    return tuple(np.percentile(means, [2.5, 97.5]))


# %% tags=["check"]
check("6.1", bootstrap)

# %%
rows = {"TF-IDF": tfidf, "BM25": bm25, "Jaccard": overlap, "TF-IDF minus Jaccard": tfidf - overlap}
ax = new_axes(size=(6.5, 2.4))
for place, found in enumerate(rows.values()):
    mean, low, high = wb.ranking.bootstrap_mean(found, groups=groups)
    ax.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color="C0")
ax.set(yticks=range(len(rows)), yticklabels=rows, xlabel="nDCG@10", title="Means with intervals")
wb.show(ax)
print("my claims:", my_claims)

# %% [markdown]
# The intervals of TF-IDF and Jaccard overlap, and yet their *paired* difference is clearly above 0:
# [[tfidf_minus_jaccard]]. Queries are easy or hard for both; the difference of each query takes that
# away. Overlapping intervals decide nothing.
#
# ## Exercise 6.2: the flip test
#
# If two scorers were equally good, each query's difference could as well have the other sign. Flip
# signs at random, `flips` times: how often is the mean at least as far from 0 as the one found? Count
# the data itself as one flip, (1 + hits) / (1 + flips), so that p is never 0.


# %% tags=["solution"]
def flip_test(differences, rng, flips=2000):
    """Two-sided p-value that the paired differences have mean 0."""
    # solution
    signs = rng.choice([-1.0, 1.0], (flips, len(differences)))
    means = np.abs((signs * differences).mean(axis=1))
    hits = (means >= abs(np.mean(differences)) - 1e-12).sum()
    return (1 + hits) / (1 + flips)


# %% tags=["check"]
check("6.2", flip_test)

# %%
for pair, gap in {"TF-IDF - BM25": tfidf - bm25, "TF-IDF - Jaccard": tfidf - overlap}.items():
    p = wb.ranking.randomisation_test(gap[:, None], groups)[0]
    print(f"{pair:17} {gap.mean():+.3f}  p = {p:.4f}")

# %% [markdown]
# TF-IDF over BM25: p = [[p_bm25]]. TF-IDF over Jaccard: p = [[p_jaccard]].
#
# ## Exercise 6.3: Holm's correction
#
# A single test is wrong in one of twenty cases where nothing differs; of seven tests, one is wrong far more
# often. Holm: multiply the smallest p by the number of tests, the next by one less, and so on; none may be
# smaller than the one before it, none above 1. Return them in the order in which they came.


# %% tags=["solution"]
def holm(ps):
    """Corrected p-values, in the order given."""
    # solution
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps)):
        least = max(least, min(1.0, ps[place] * (len(ps) - rank)))
        corrected[place] = least
    return corrected


# %% tags=["check"]
check("6.3", holm)

# %% [markdown]
# With 10,000 flips p cannot be below [[p_floor]]; times seven comparisons that is [[p_floor_seven]]. A table
# in which each of seven p-values is [[p_floor_seven]] says: all have reached the smallest possible value.
#
# ## Exercise 6.4: the luck of the best
#
# `values` has shape (scorers, queries). Return the mean over the scorers of their means, and the mean
# of the best scorer.


# %% tags=["solution"]
def luck(values):
    """The average scorer's mean, and the best scorer's mean."""
    # solution
    means = np.mean(values, axis=1)
    return means.mean(), means.max()


# %% tags=["check"]
check("6.4", luck)

# %% [markdown]
# 50 random scorers on our lists: [[luck_mean]] on average, the best [[luck_best]]. *Write the sentence
# that may be published about the best one.* (None, without a second test set: it was chosen on this
# one.)
#
# ## Misconceptions
#
# - *"Overlapping intervals mean no difference."* Look at the paired difference.
# - *"p is the probability that there is no difference."* It is how often luck alone does as much.
# - *"Not significant means equal."* It means: not shown with this many queries.
# - *"More resamples make the interval narrower."* They make its ends steadier. Only more queries make
#   it narrower.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# A difference needs an interval that excludes 0 and a test that is corrected for the number of tests.
# Compare by query, and draw together what belongs together. What was chosen on a test cannot be judged by
# it.
#
# **In the workbench:** `notebooks/04_evaluate_ranking.ipynb`, the table of differences.
