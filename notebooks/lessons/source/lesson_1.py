# %% [markdown] tags=["lang-en"]
# # Lesson 1. What is a ranking worth?
#
# **45 minutes.** Before any model: you write the two numbers by which every ranking in this course
# is judged, and find out what a scorer that knows nothing is worth.
#
# After this lesson you can
#
# - compute reciprocal rank and nDCG@10 by hand,
# - say what a tie is worth, and why a stable sort is not neutral,
# - beat chance with one line of code.
#
# **You need:** Python and a little numpy. Run the cells from top to bottom; where a cell raises
# `NotImplementedError`, write your code. It does no harm to run all cells first.

# %% [markdown] tags=["lang-zh"] of="8dbfc9a2"
# # 第 1 课　一个排序值多少分？
#
# **45 分钟。** 先不谈模型：你将亲手写出本课程评判一切排序的两个指标，并弄清一个什么都不懂的打分器值多少分。
#
# *中文版尚未经母语教师审阅。*
#
# 学完本课，你能够
#
# - 手算倒数排名与 nDCG@10，
# - 说明并列值多少分，以及为什么“稳定排序”并不中立，
# - 用一行代码胜过随机。
#
# **需要：** Python 和少许 numpy。请从上到下运行；出现 `NotImplementedError` 的地方由你来写。先运行全部单元格也不会出错。

# %%
import numpy as np
import pandas as pd

import workbench as wb
from workbench.lessons import check, recorded
from workbench.reports.figures.style import new_axes

run = recorded()

# %% [markdown] tags=["lang-en"]
# ## One candidate list
#
# The test has [[lists]] queries, each with [[candidates]] candidates. Each candidate has a label, its
# relevance: 1 if it asks the same thing as the query, 0 if not. (Usually people give these labels; here
# the program did that wrote the sample.) A scorer gives each candidate a number; the ranking is the order of these numbers. The texts are Chinese;
# their meaning in English is next to them.

# %% [markdown] tags=["lang-zh"] of="d75c57fd"
# ## 一份候选列表
#
# 测试有 [[lists]] 个查询，每个查询有 [[candidates]] 个候选。标注给出每个候选的相关性：与查询问的是同一件事为 1，否则为 0。（通常由人来标注；这里由生成样本的程序标注。）打分器给每个候选一个数；按这些数从高到低就是排序。文本旁边是英文释义。

# %%
one = run.lists[0]
query = pd.DataFrame({"query": [one.query]})
candidates = pd.DataFrame({"relevance": one.relevance, "candidate": one.candidates})
wb.show(wb.vocabulary.with_gloss(query, "query"))
wb.show(wb.vocabulary.with_gloss(candidates, "candidate"))

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# A scorer gives **the same score, 0, to every candidate**. What is its mean nDCG@10 over the
# [[lists]] lists? Write a number between 0 and 1 before you go on.

# %% [markdown] tags=["lang-zh"] of="c9e95810"
# ## 先猜
#
# 一个打分器给**所有候选同样的 0 分**。它在 [[lists]] 个列表上的平均 nDCG@10 是多少？继续之前先写下 0 到 1 之间的一个数。

# %% tags=["predict"]
my_guess = None  # a number from 0 to 1

# %% [markdown] tags=["lang-en"]
# ## Exercise 1.1: reciprocal rank
#
# One divided by the place of the first relevant candidate, if it is among the first `k`; else 0.
# Places are counted from 1, which has the highest score.
#
# `scores` and `relevance` are numpy arrays with a number for each candidate, both in the order of the
# file. A candidate is relevant if its relevance is above 0.

# %% [markdown] tags=["lang-zh"] of="867fe2df"
# ## 练习 1.1：倒数排名
#
# 第一个相关候选若在前 `k` 名之内，值为 1 除以它的名次，否则为 0。名次从 1 数起，分数最高者为第 1 名。
#
# `scores` 和 `relevance` 是 numpy 数组，每个候选一个数，都按文件中的顺序。相关性大于 0 即为相关。


# %% tags=["solution"]
def reciprocal_rank(scores, relevance, k=10):
    """1 / place of the first relevant candidate among the first k; 0 if there is none."""
    # solution
    order = np.argsort(-np.asarray(scores), kind="stable")
    places = np.flatnonzero(np.asarray(relevance)[order][:k] > 0)
    return 1 / (places[0] + 1) if len(places) else 0.0


# %% tags=["check"]
check("1.1", reciprocal_rank)

# %% [markdown] tags=["lang-en"]
# ## Exercise 1.2: nDCG@10
#
# Reciprocal rank sees one candidate only. nDCG sees ten, and lets later places count less:
#
# $$\mathrm{DCG} = \sum_{i=1}^{k} \frac{\mathrm{relevance}_i}{\log_2(i + 1)}$$
#
# Here $\mathrm{relevance}_i$ is that of the candidate at place $i$; it may be above 1. nDCG divides the
# sum by the DCG of the best possible order of **all** candidates, and is 0 if none is relevant. A
# candidate of relevance 1 counts 1 at place 1, [[second_place]] at place 2 and [[tenth_place]] at place
# 10. A list may have fewer than `k` candidates.

# %% [markdown] tags=["lang-zh"] of="c74c3b0d"
# ## 练习 1.2：nDCG@10
#
# 倒数排名只看一个候选。nDCG 看前十个，名次越靠后权重越小：
#
# $$\mathrm{DCG} = \sum_{i=1}^{k} \frac{\mathrm{relevance}_i}{\log_2(i + 1)}$$
#
# 其中 $\mathrm{relevance}_i$ 是第 $i$ 名候选的相关性，可以大于 1。再除以**全部**候选最佳顺序的 DCG，就是 nDCG；若没有相关候选，则为 0。相关性为 1 的候选在第 1 名计 1，第 2 名计 [[second_place]]，第 10 名计 [[tenth_place]]。列表可以不足 `k` 个候选。


# %% tags=["solution"]
def ndcg(scores, relevance, k=10):
    """nDCG of the first k places; 0 where nothing is relevant."""
    # solution
    gain = np.asarray(relevance, dtype=float)[np.argsort(-np.asarray(scores), kind="stable")]
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(gain)[::-1][:k] @ discount[: len(gain)]
    return gain[:k] @ discount[: len(gain)] / best if best else 0.0


# %% tags=["check"]
check("1.2", ndcg)

# %% [markdown] tags=["lang-en"]
# ## The scorer that knows nothing
#
# Something has to decide the order of equal scores. A *stable sort* leaves them in the order in which it
# finds them, so here the file decides. Now count the constant scorer three times: by a stable sort
# of a file that has the relevant candidates first, by a stable sort of the file as it is, and as the
# workbench counts it.

# %% [markdown] tags=["lang-zh"] of="64ab9d72"
# ## 什么都不懂的打分器
#
# 分数相等时，总得由什么来决定先后。*稳定排序*保持它们原来的先后，也就是由文件来决定。现在把常数打分器算三遍：对相关候选排在最前的文件做稳定排序、对文件原来的顺序做稳定排序、以及本工具的算法。

# %%
equal = [np.zeros(len(one.candidates)) for one in run.lists]
gains = [np.array(one.relevance) for one in run.lists]
places = [-np.arange(len(gain)) for gain in gains]  # what a stable sort makes of equal scores
first = wb.ranking.rank_metrics(places, [np.sort(gain)[::-1] for gain in gains])
as_given = wb.ranking.rank_metrics(places, gains)
fair = wb.ranking.rank_metrics(equal, gains)
for name, found in {"relevant first": first, "as given": as_given, "ties fair": fair}.items():
    print(f"{name:15} {found['ndcg@10'].mean():.3f}")
print("my guess:", my_guess)

# %% [markdown] tags=["lang-en"]
# The same scorer, which knows nothing, gets [[constant_first]] or [[constant_shuffled]], by the order
# in which somebody happened to write the file. **A stable sort is not neutral: it lets the file
# decide.** The fair value is the mean over all orders of the tied candidates: [[constant_expected]].
# That is chance on these lists; it is neither 0 nor one half.
#
# ## Exercise 1.3: repair your nDCG
#
# Candidates with equal scores form a block. Give each place of a block the *mean* relevance of the
# block. (The check draws `scores` with many equal values.)

# %% [markdown] tags=["lang-zh"] of="9d787ec6"
# 同一个什么都不懂的打分器，得 [[constant_first]] 还是 [[constant_shuffled]]，全看写文件的人碰巧用了什么顺序。**稳定排序并不中立：它让文件来决定。** 公平的值是并列候选所有顺序的平均：[[constant_expected]]。这就是这些列表上的随机水平；既不是 0，也不是一半。
#
# ## 练习 1.3：修好你的 nDCG
#
# 分数相等的候选构成一块。让块内每个名次都取该块相关性的*平均值*。（检查所用的 `scores` 有许多相等的值。）


# %% tags=["solution"]
def fair_ndcg(scores, relevance, k=10):
    """nDCG in which a tie counts as the mean over all orders of the tied candidates."""
    # solution
    scores, relevance = np.asarray(scores), np.asarray(relevance, dtype=float)
    mean = {score: relevance[scores == score].mean() for score in scores}
    gain = np.array([mean[score] for score in sorted(scores, reverse=True)])
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(relevance)[::-1][:k] @ discount[: len(gain)]
    return gain[:k] @ discount[: len(gain)] / best if best else 0.0


# %% tags=["check"]
check("1.3", fair_ndcg)

# %% [markdown] tags=["lang-en"]
# ## Exercise 1.4: beat chance with one line
#
# Jaccard similarity of two texts: the number of distinct characters that both have, divided by the
# number of distinct characters that at least one of them has. White space does not count. If there is
# no character at all, it is 0.

# %% [markdown] tags=["lang-zh"] of="07f4e108"
# ## 练习 1.4：一行代码胜过随机
#
# 两个文本的杰卡德相似度：两者共有的不同字数，除以至少出现在其中一个里的不同字数。空白不算。若一个字都没有，则为 0。


# %% tags=["solution"]
def jaccard(first, second):
    """Shared characters over all characters, each counted once, without white space."""
    # solution
    one, two = ({c for c in text if not c.isspace()} for text in (first, second))
    return len(one & two) / len(one | two) if one | two else 0.0


# %% tags=["check"]
check("1.4", jaccard)

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# Three scorers on the same [[lists]] lists: random numbers, Jaccard, and a **fine-tuned
# cross-encoder** of 22 million weights, trained on [[train_pairs]] labelled pairs. Write down your
# order, best first.

# %% [markdown] tags=["lang-zh"] of="30f65ad6"
# ## 先猜
#
# 同样的 [[lists]] 个列表，三个打分器：随机数、杰卡德，以及在 [[train_pairs]] 对标注数据上**微调过的交叉编码器**（2200 万个权重）。写下你认为的名次，最好的在前。

# %% tags=["predict"]
my_order = ["?", "?", "?"]

# %%
overlap = wb.scoring.CharacterJaccard()
scores = {
    "random": [np.random.default_rng(n).random(len(gain)) for n, gain in enumerate(gains)],
    "Jaccard": [overlap.score(one.pairs()) for one in run.lists],
    "fine-tuned model": run.list_logits,
}
means = {
    name: wb.ranking.rank_metrics(given, gains)["ndcg@10"].mean() for name, given in scores.items()
}
ax = new_axes(size=(6, 2.2))
ax.barh(list(means), list(means.values()))
ax.axvline(fair["ndcg@10"].mean(), color="black", linestyle="--", label="all candidates equal")
ax.set(xlabel="mean nDCG@10", xlim=(0, 1), title="Three scorers on the same lists")
ax.legend()
wb.show(ax)
print("my order:", my_order)

# %% [markdown] tags=["lang-en"]
# Counting shared characters reaches [[jaccard]]; the fine-tuned model [[model]], where knowing
# nothing gives [[constant_expected]]. Nothing in its training said that something had gone wrong.
# Lesson 3 shows why it went wrong, and lesson 5 why the loss did not tell.
#
# And chance itself moves: 50 random scorers have a mean of [[luck_mean]], a standard deviation of
# [[luck_sd]], and the best of them has [[luck_best]]. Lesson 6 asks what may be said about that one.
#
# ## Misconceptions
#
# - *"nDCG is accuracy."* It is 1 for a perfect order, but half of it is not "half right".
# - *"0.5 is chance."* Chance depends on how many candidates are relevant: here [[constant_expected]].
# - *"The order among the irrelevant matters."* No metric here sees it.
# - *"A stable sort is neutral."* It hands the decision to the file.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# A ranking metric says where the relevant candidates are, and nothing else. Ties have to count as
# the average of all orders, or the file becomes a scorer. Know what chance is worth on your lists
# before you praise a number.
#
# **In the workbench:** open `notebooks/04_evaluate_ranking.ipynb` and find the rows `random`,
# `candidate_order` and `char_jaccard` in its table of nDCG@10. Why do the first two differ, though
# neither reads a text?

# %% [markdown] tags=["lang-zh"] of="99057b2b"
# 数共有的字能得 [[jaccard]]；微调过的模型得 [[model]]，而一无所知得 [[constant_expected]]。训练过程中没有任何迹象说明出了问题。第 3 课说明为什么会这样，第 5 课说明为什么损失看不出来。
#
# 随机本身也会波动：50 个随机打分器的平均是 [[luck_mean]]，标准差 [[luck_sd]]，其中最好的是 [[luck_best]]。对这“最好的一个”可以说什么，见第 6 课。
#
# ## 常见误解
#
# - *“nDCG 就是准确率。”* 完美顺序为 1，但一半并不等于“对了一半”。
# - *“0.5 是随机水平。”* 随机水平取决于有多少候选相关：这里是 [[constant_expected]]。
# - *“无关候选之间的顺序也有影响。”* 这里没有一个指标看得到它。
# - *“稳定排序是中立的。”* 它把决定权交给了文件。
#
# ## 小测验
#
# [[quiz]]
#
# ## 要点
#
# 排序指标只说明相关候选排在哪里，别无其他。并列必须按所有顺序的平均来算，否则文件本身就成了打分器。夸奖一个数之前，先弄清随机水平是多少。
#
# **在工具中：** 打开 `notebooks/04_evaluate_ranking.ipynb`，在 nDCG@10 的表里找到 `random`、`candidate_order` 和 `char_jaccard` 三行。前两个都不读文本，为什么结果不同？
