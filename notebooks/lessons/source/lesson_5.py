# %% [markdown] tags=["lang-en"]
# # Lesson 5. What can a loss tell, and what not?
#
# **45 minutes.** A falling loss is the picture everybody knows, and the one that fools most people.
#
# After this lesson you can
#
# - put the line into a loss curve that gives it a meaning,
# - tell noise from progress,
# - refuse a conclusion that a curve does not support.
#
# **You need:** lesson 1. Lesson 4 explains where the loss comes from, but is not needed here.

# %% [markdown] tags=["lang-zh"] of="1ee71bbc"
# # 第 5 课　损失能说明什么，不能说明什么？
#
# **45 分钟。** 下降的损失曲线人人熟悉，也最容易骗人。
#
# *中文版尚未经母语教师审阅。*
#
# 学完本课，你能够
#
# - 给损失曲线加上一条让它有意义的参考线，
# - 分清噪声与进步，
# - 拒绝曲线不支持的结论。
#
# **需要：** 第 1 课。第 4 课讲损失从何而来，但本课不依赖它。

# %%
import numpy as np

import workbench as wb
from workbench.lessons import check, recorded
from workbench.reports.figures.style import new_axes

run = recorded()
log = run.log.dropna(subset="loss")
loss = log["loss"].to_numpy()
size = run.batch * int(log["step"].diff().median())  # pairs in a line of the log

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# A cross-encoder is trained on [[train_pairs]] pairs for one epoch. The log has [[log_lines]] lines,
# each the mean loss of [[line_pairs]] pairs. It starts at [[first_loss]] and ends at [[last_loss]]. Which shape
# do you expect: (a) a smooth fall, (b) a fast fall, then flat, (c) up and down, (d) flat?

# %% [markdown] tags=["lang-zh"] of="cda9291d"
# ## 先猜
#
# 一个交叉编码器在 [[train_pairs]] 对数据上训练一个轮次。日志有 [[log_lines]] 行，每行是 [[line_pairs]] 对的平均损失，从 [[first_loss]] 开始，到 [[last_loss]] 结束。你预计是哪种形状：(a) 平滑下降，(b) 快速下降后变平，(c) 上下波动，(d) 基本不变？

# %% tags=["predict"]
my_shape = "?"

# %%
ax = new_axes(size=(6.5, 2.8))
ax.plot(log["step"], loss, marker="o")
ax.set(xlabel="step", ylabel=f"mean loss of {size} pairs", title="The loss of the recorded run")
wb.show(ax)
print("my guess:", my_shape)

# %% [markdown] tags=["lang-en"]
# Up and down. Whoever smooths it, or picks two of its points, can tell any story. Did the model learn
# anything? The picture cannot say: the line that gives it a scale is missing.
#
# ## Exercise 5.1: the loss of knowing nothing
#
# A model that gives **every** pair the base rate `p` has the mean loss
#
# $$H(p) = -p \ln p - (1 - p) \ln(1 - p)$$
#
# Write a function that draws this as a horizontal line into the axes it is given.

# %% [markdown] tags=["lang-zh"] of="dc0dc7e6"
# 上下波动。只要平滑一下，或者挑两个点，什么故事都能讲。模型学到东西了吗？这张图说不了，因为它缺一条给出尺度的线。
#
# ## 练习 5.1：一无所知的损失
#
# 对**每一对**都回答基准率 `p` 的模型，平均损失是
#
# $$H(p) = -p \ln p - (1 - p) \ln(1 - p)$$
#
# 写一个函数，把它作为水平线画进给定的坐标轴。


# %% tags=["solution"]
def base_rate_line(ax, p):
    """Draw the loss of a model that says p to every pair, as a horizontal line."""
    # solution
    ax.axhline(-p * np.log(p) - (1 - p) * np.log(1 - p), color="black", linestyle="--")


# %% tags=["check"]
check("5.1", base_rate_line)

# %% [markdown] tags=["lang-en"]
# In this training split [[train_rate]] of the pairs are positive, so the line is at
# **[[base_rate_loss]]**. A model that has not begun says 0.5 to everything: [[coin_loss]]. The way
# from [[coin_loss]] to [[base_rate_loss]] is the discovery that positives are rare. It takes one
# number, and no reading at all.
#
# ## Exercise 5.2: noise
#
# How much does a log move if *nothing* is learned? Simulate the log of a model that says `p` to
# every pair: `lines` means of the loss, each of `size` pairs with random labels of rate `p`.

# %% [markdown] tags=["lang-zh"] of="b186e5da"
# 这个训练集中正例占 [[train_rate]]，所以这条线在 **[[base_rate_loss]]**。还没开始学的模型对一切都说 0.5，损失为 [[coin_loss]]。从 [[coin_loss]] 到 [[base_rate_loss]]，只是发现“正例很少”。这只需要一个数，根本不用读文本。
#
# ## 练习 5.2：噪声
#
# 如果*什么都没学到*，日志会波动多大？模拟一个对每一对都说 `p` 的模型：`lines` 行，每行是 `size` 对随机标签（正例率 `p`）的平均损失。


# %% tags=["solution"]
def constant_log(rng, p, lines, size):
    """Mean losses of a model that says p to every pair, shape (lines,)."""
    # solution
    labels = rng.random((lines, size)) < p
    return np.where(labels, -np.log(p), -np.log(1 - p)).mean(axis=1)


# %% tags=["check"]
check("5.2", constant_log)

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# Into the next figure go twenty such simulated logs, in grey, with the real one. In how many of
# [[log_lines]] lines will the real log leave the grey ones?

# %% [markdown] tags=["lang-zh"] of="014a1968"
# ## 先猜
#
# 下一张图用灰色画出二十条这样的模拟日志，再加上真实的一条。[[log_lines]] 行中，真实日志有几行会离开灰色区域？

# %% tags=["predict"]
my_lines = None

# %%
p, rng = run.train["label"].mean(), np.random.default_rng(0)
level = -p * np.log(p) - (1 - p) * np.log(1 - p)
ax = new_axes(size=(6.5, 3))
for _ in range(20):
    rare = rng.binomial(size, p, len(loss)) / size
    ax.plot(log["step"], -rare * np.log(p) - (1 - rare) * np.log(1 - p), color="0.8", zorder=1)
ax.plot(log["step"], loss, marker="o", label="the recorded run")
ax.axhline(level, color="black", linestyle="--", label="knowing nothing but the base rate")
ax.set(
    xlabel="step", ylabel=f"mean loss of {size} pairs", title="One run, twenty that learn nothing"
)
ax.legend()
wb.show(ax)
print("my guess:", my_lines)

# %% [markdown] tags=["lang-en"]
# Means of a constant model scatter with a standard deviation of [[constant_sd]], 90 % of them between
# [[constant_low]] and [[constant_high]]; in [[constant_falls]] of such logs the last line is below
# the first. Of the real log [[log_inside]] of [[log_lines]] lines lie in that band, [[log_above]] above
# it and [[log_below]] below: it moves up and down a little more, and its mean, [[mean_loss]], is not
# below [[base_rate_loss]]. **Nothing in this log shows more than learning that positives are rare.**
#
# ## Exercise 5.3: inside the band
#
# Write that as a function: `simulated` has shape (runs, lines). For each line, take the 5th and
# 95th percentile over the runs; return the share of the log's lines that lie between.

# %% [markdown] tags=["lang-zh"] of="2549c786"
# 常数模型的各行平均，标准差为 [[constant_sd]]，90 % 落在 [[constant_low]] 与 [[constant_high]] 之间；[[constant_falls]] 的这种日志末行低于首行。真实日志 [[log_lines]] 行中有 [[log_inside]] 行在这个范围内，[[log_above]] 行在其上，[[log_below]] 行在其下：波动略大，平均 [[mean_loss]] 并不低于 [[base_rate_loss]]。**这份日志所显示的，不超过“学会正例很少”。**
#
# ## 练习 5.3：在带内
#
# 把它写成函数：`simulated` 的形状是 (runs, lines)。对每一行，取所有模拟的第 5 与第 95 百分位；返回日志中位于其间的行的比例。


# %% tags=["solution"]
def inside_band(log, simulated):
    """The share of a log's lines within the middle 90 % of simulated logs."""
    # solution
    low, high = np.percentile(simulated, [5, 95], axis=0)
    return float(np.mean((log >= low) & (log <= high)))


# %% tags=["check"]
check("5.3", inside_band)

# %% [markdown] tags=["lang-en"]
# ## Two trainings, from their losses alone
#
# On 97,230 public pairs the same base was trained twice with the same small budget
# (`docs/measurements.md`). Training A ends at a loss of [[keep_loss]], training B at [[extend_loss]].
# *Which one ranks better, and is that certain from the losses?* Write a sentence, then open:
#
# <details><summary>What was measured</summary>
#
# A kept the vocabulary: nDCG@10 [[keep_ndcg]]. B repaired it: [[extend_ndcg]]. Here the lower loss
# ranks better, and by much more than the losses suggest. It need not be so: with another vocabulary
# the loss was *higher* than A's at the same ranking, and the published recipe's loss falls from stage
# to stage while its ranking does not rise. A good answer says: *likely B, but a loss on labelled
# pairs is no measurement of a ranking*.
#
# </details>
#
# ## "The model has begun to memorise"
#
# The dev loss of the run rises and falls as well. Before you call a rise overfitting, count:
# dev has [[dev_pairs]] pairs with [[dev_positives]] positives, and this is the first epoch: no pair
# has been seen twice. What has not been seen twice cannot have been memorised. The loss of
# [[dev_pairs]] pairs moves by chance.
#
# ## Misconceptions
#
# - *"First minus last is the progress."* Both are noisy; under a constant the last is lower in
#   [[constant_falls]] of logs.
# - *"Dev goes up, so it overfits."* Not within the first epoch, and not by [[dev_pairs]] pairs.
# - *"A lower loss ranks better."* Perhaps, on the same data. Across data sets the base rate alone
#   moves the loss.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# A loss has no meaning without the loss of knowing nothing. Judge a curve by how far curves move
# when nothing happens. And a loss is not a ranking: measure the ranking.
#
# **In the workbench:** `notebooks/03_plot_loss.ipynb` draws the curve of your own run. Which of its
# sentences would you now sign?

# %% [markdown] tags=["lang-zh"] of="24ec6252"
# ## 只看损失，比较两次训练
#
# 在 97,230 对公开数据上，同一个基础模型用同样的小预算训练了两次（见 `docs/measurements.md`）。训练 A 的损失停在 [[keep_loss]]，训练 B 停在 [[extend_loss]]。*哪个排序更好？仅凭损失能肯定吗？* 写一句话，再打开：
#
# <details><summary>测量结果</summary>
#
# A 保留原词表：nDCG@10 为 [[keep_ndcg]]；B 修补了词表：[[extend_ndcg]]。这里损失低的排序更好，而且差距比损失所暗示的大得多。但未必总是如此：用另一种词表时，损失比 A *高*，排序却一样；而已发表的训练方法，损失逐阶段下降，排序却没有上升。好的回答是：*可能是 B，但标注对上的损失并不是对排序的测量*。
#
# </details>
#
# ## “模型开始死记了”
#
# 这次训练的开发集损失也有升有降。先别把上升叫作过拟合，数一数：开发集只有 [[dev_pairs]] 对，其中 [[dev_positives]] 个正例；而且这是第一个轮次，没有一对被看过两次。没看过两次的，不可能被死记。[[dev_pairs]] 对上的损失自己就会波动。
#
# ## 常见误解
#
# - *“首尾之差就是进步。”* 两者都有噪声；常数模型的日志有 [[constant_falls]] 末行更低。
# - *“开发集损失上升，所以过拟合。”* 在第一个轮次内不是，凭 [[dev_pairs]] 对也不行。
# - *“损失越低排序越好。”* 同一数据上也许如此；换了数据，单是基准率就会改变损失。
#
# ## 小测验
#
# [[quiz]]
#
# ## 要点
#
# 没有“一无所知的损失”作参照，损失没有意义。判断曲线要看什么都没发生时曲线会波动多少。损失不是排序：要测排序。
#
# **在工具中：** `notebooks/03_plot_loss.ipynb` 画出你自己的训练曲线。其中哪些句子你现在愿意签字？
