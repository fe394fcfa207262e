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
# 1. *Reproduce:* the quickstart, `.venv/bin/workbench run notebooks/parameters/quickstart.yaml --name mine`,
#    or one row of `docs/measurements.md` whose command you can run.
# 2. *Your pairs:* the same command with `-p pairs my_pairs.csv` (columns `sentence_0`, `sentence_1`,
#    `label`).
# 3. *Doubt:* the quickstart with three seeds, and what varies. Copy `quickstart.yaml` to `doubt.yaml`, with
#    a first line `base:`, the old lines indented below it, and a last line `seeds: [1, 2, 3]`. Then
#    `.venv/bin/workbench sweep doubt.yaml --name doubt`, and notebook 5 with `run_dir` set to `runs/doubt`.
#
# A run of the quickstart takes minutes (`workbench lessons doctor` says how many); have lunch meanwhile.
#
# ## Write down
#
# A line in `notebooks/lessons/REPRODUCTIONS.md`: date, commit, machine, command, the figure with its
# interval, and the difference from the figure that you reproduced.
#
# The figure is a paired difference, as the `result` below: give that to your function of exercise 8.3, and
# it is a sentence. For a run of yours the values are in notebook 4, in the table of differences, and in
# `model_minus` of `runs/mine/evaluation/metrics.json`.

# %%
import workbench as wb
from workbench.lessons import recorded

run, overlap = recorded(), wb.scoring.CharacterJaccard()
scores = {"model": run.list_logits, "Jaccard": [overlap.score(one.pairs()) for one in run.lists]}
gains = [one.relevance for one in run.lists]
found = {name: wb.ranking.rank_metrics(given, gains)["ndcg@10"] for name, given in scores.items()}
lead = wb.ranking.bootstrap_mean(
    found["model"] - found["Jaccard"], groups=wb.data.query_groups(run.lists)
)
result = {"model": "the recorded model", "baseline": "Jaccard", "queries": len(gains)}
result |= {"mean": lead.mean, "low": lead.low, "high": lead.high}
print(result)

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
