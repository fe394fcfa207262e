# %% [markdown]
# # Lesson 9. A project of your own
#
# **90 minutes.** Reproduce a figure, or measure one on your own pairs, and write it down so that
# somebody else can.
#
# After this lesson you can
#
# - make a run, read its report, and state its result,
# - say what another person needs to get the same figure,
# - judge such a statement by a rubric.
#
# **You need:** lessons 1, 3, 5 and 6.
#
# ## Choose
#
# 1. *Reproduce:* one row of `docs/measurements.md` whose command you can run, or the quickstart.
# 2. *Your pairs:* `workbench run notebooks/parameters/quickstart.yaml -p pairs my_pairs.csv`.
# 3. *Doubt:* the quickstart with three seeds (`workbench sweep`), and what varies.
#
# ## Write down
#
# A line in `notebooks/lessons/REPRODUCTIONS.md`: date, commit, machine, command, the figure with its
# interval, and the difference from the figure that you reproduced. The claim itself passes the check
# of exercise 8.3.

# %%
import workbench as wb
from workbench.lessons import recorded

run = recorded()
gains = [one.relevance for one in run.lists]
mine = wb.ranking.rank_metrics(run.list_logits, gains)["ndcg@10"]
print("nDCG@10 {:.3f} [{:.3f}, {:.3f}]".format(*wb.ranking.bootstrap_mean(mine)))

# %% [markdown]
# ## Rubric: ten points, given by two peers
#
# | points | for |
# | --- | --- |
# | 2 | the question was written down before the run |
# | 2 | the split: groups, sizes, positives, leak measured |
# | 2 | at least two baselines on the same lists |
# | 2 | an interval, a paired difference, the number of queries |
# | 1 | what was tried and is not reported, with the number of tries |
# | 1 | commit, command and machine, so that it can be repeated |
#
# A result of "no difference was shown" gets as many points as any other.
