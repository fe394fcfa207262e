# %% [markdown] tags=["lang-en"]
# # Lesson 3. What does the model see?
#
# **50 minutes.** A model does not read characters. It reads the tokens its tokenizer hands over, and
# here the tokenizer was made for English while the texts are Chinese.
#
# After this lesson you can
#
# - read a list of tokens,
# - measure how much of a text is lost before the model starts,
# - tell "can be told apart" from "can be understood".
#
# **You need:** lesson 1. A reader without Chinese loses nothing: the characters are shapes here, and
# that is what they are to the model too.

# %% [markdown] tags=["lang-zh"] of="db60c7b6"
# # 第 3 课　模型看到了什么？
#
# **50 分钟。** 模型读的不是汉字，而是分词器交给它的词元。这里的分词器是为英语做的，而文本是中文。
#
# *中文版尚未经母语教师审阅。*
#
# 学完本课，你能够
#
# - 读懂一串词元，
# - 量出文本在模型开始之前已损失多少，
# - 分清“能区分”和“能理解”。
#
# **需要：** 第 1 课。

# %%
import pandas as pd

import workbench as wb
from workbench.lessons import check, recorded
from workbench.lessons.recording import distinct_texts, tokenizer
from workbench.reports.figures.style import new_axes

run, reader, texts = recorded(), tokenizer(), distinct_texts()

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# Below are three texts: "how do I switch it on", "how do I switch it off", and an English one. Write
# down the tokens you expect for the first, and **the share of all tokens of the sample that are
# `[UNK]`**, the token for everything the vocabulary lacks.

# %% [markdown] tags=["lang-zh"] of="207429f3"
# ## 先猜
#
# 下面有三个文本：两个中文、一个英文。先写下你预计第一个文本的词元，以及**样本的全部词元中 `[UNK]`（未知词元）占多少**。

# %% tags=["predict"]
my_tokens = []
my_share = None  # from 0 to 1

# %%
for text in ["怎么打开它", "怎么关掉它", "how do I switch it on"]:
    print(text, reader.encode(text, add_special_tokens=False).tokens)
print("my guess:", my_tokens)

# %% [markdown] tags=["lang-en"]
# To this model, *switch it on* and *switch it off* are the same sequence, or nearly. No training can
# teach it the difference, because the difference never arrives.
#
# ## Exercise 3.1: the share of unknown tokens
#
# Of all tokens of all texts together, how many are `[UNK]`? Leave special tokens out
# (`add_special_tokens=False`), and count a text that is there twice twice.

# %% [markdown] tags=["lang-zh"] of="4d9d27a8"
# 对这个模型来说，“打开”和“关掉”是同一个序列，或几乎一样。任何训练都教不会它这个区别，因为区别根本没有到达。
#
# ## 练习 3.1：未知词元的比例
#
# 所有文本的全部词元合在一起，`[UNK]` 占多少？不计特殊词元（`add_special_tokens=False`）；出现两次的文本算两次。


# %% tags=["solution"]
def unk_share(tokenizer, texts):
    """The share of [UNK] among all tokens of all texts."""
    # solution
    tokens = [
        token for text in texts for token in tokenizer.encode(text, add_special_tokens=False).tokens
    ]
    return tokens.count("[UNK]") / len(tokens)


# %% tags=["check"]
check("3.1", unk_share)

# %% [markdown] tags=["lang-en"]
# On the [[texts]] different texts of the sample it is **[[unk_share]]**, and [[texts_with_unk]] of
# the texts contain at least one. `[UNK]` is not skipped: it has a place and an embedding. It is one
# vector for thousands of characters.
#
# ## Exercise 3.2: texts that collapse
#
# How many of the different texts have exactly the token sequence of another one?

# %% [markdown] tags=["lang-zh"] of="da798af8"
# 在样本的 [[texts]] 个不同文本上，这个比例是 **[[unk_share]]**，有 [[texts_with_unk]] 的文本至少含一个。`[UNK]` 并不会被跳过：它占一个位置，也有嵌入向量——几千个汉字共用的同一个向量。
#
# ## 练习 3.2：被压扁的文本
#
# 不同的文本中，有多少个的词元序列与另一个文本完全相同？


# %% tags=["solution"]
def collapsed(tokenizer, texts):
    """The number of different texts that share their token sequence with another one."""
    # solution
    groups = {}
    for text in set(texts):
        tokens = tuple(tokenizer.encode(text, add_special_tokens=False).tokens)
        groups.setdefault(tokens, []).append(text)
    return sum(len(group) for group in groups.values() if len(group) > 1)


# %% tags=["check"]
check("3.2", collapsed)

# %% [markdown] tags=["lang-en"]
# On the whole sample [[collapsed]] texts ([[collapsed_share]]) fall into [[collapsed_groups]] groups.
# Here are four of these groups, two texts of each. The model cannot tell the two apart:

# %% [markdown] tags=["lang-zh"] of="12e349c7"
# 在整个样本上，[[collapsed]] 个文本（[[collapsed_share]]）落入 [[collapsed_groups]] 组。下面是其中四组，每组两个文本，模型分不开它们：

# %%
groups = {}
for text in texts:
    tokens = tuple(reader.encode(text, add_special_tokens=False).tokens)
    groups.setdefault(tokens, []).append(text)
large = sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)
table = pd.DataFrame([group[:2] for group in large[:4]], columns=["one text", "another one"])
wb.show(wb.vocabulary.with_gloss(table, "one text", "another one"))

# %% [markdown] tags=["lang-en"]
# The vocabulary holds [[chinese_tokens]] Chinese characters, and [[inner_tokens]] more with `##`
# before them, which can never occur: this tokenizer puts space around every Chinese character, so
# that each begins a word.
#
# ## Exercise 3.3: put on the tokenizer's glasses
#
# In lesson 1 Jaccard over characters reached [[jaccard]]. Write it over **tokens**, `[UNK]` among
# them, so that it sees what the model sees.

# %% [markdown] tags=["lang-zh"] of="5dacc393"
# 词表里有 [[chinese_tokens]] 个汉字，另有 [[inner_tokens]] 个带 `##` 前缀，却永远用不到：这个分词器在每个汉字两边加空格，所以每个汉字都是词首。
#
# ## 练习 3.3：戴上分词器的眼镜
#
# 第 1 课里，按字计算的杰卡德相似度得 [[jaccard]]。现在改成按**词元**（包括 `[UNK]`）计算，让它看到模型所看到的。


# %% tags=["solution"]
def token_jaccard(tokenizer, first, second):
    """Shared tokens over all tokens of two texts, each counted once."""
    # solution
    one, two = (
        set(tokenizer.encode(text, add_special_tokens=False).tokens) for text in (first, second)
    )
    return len(one & two) / len(one | two)


# %% tags=["check"]
check("3.3", token_jaccard)

# %% [markdown] tags=["lang-en"]
# ## Predict
#
# Jaccard over characters has [[jaccard]], knowing nothing [[constant_expected]]. What remains through
# the tokenizer's glasses? And if `[UNK]` is dropped?

# %% [markdown] tags=["lang-zh"] of="ce8be63c"
# ## 先猜
#
# 按字的杰卡德相似度得 [[jaccard]]，一无所知得 [[constant_expected]]。戴上分词器的眼镜后还剩多少？如果去掉 `[UNK]` 呢？

# %% tags=["predict"]
my_glasses = None

# %%
seen = {text: set(reader.encode(text, add_special_tokens=False).tokens) for text in texts}
gains = [one.relevance for one in run.lists]


def ranked(sets):
    """Mean nDCG@10 of Jaccard over the sets of each text."""
    both = [[(sets(a), sets(b)) for a, b in one.pairs()] for one in run.lists]
    scores = [[len(a & b) / max(len(a | b), 1) for a, b in pairs] for pairs in both]
    return wb.ranking.rank_metrics(scores, gains)["ndcg@10"].mean()


rows = {
    "characters": ranked(set),
    "tokens": ranked(seen.get),
    "tokens without [UNK]": ranked(lambda text: seen[text] - {"[UNK]"}),
    "fine-tuned model": wb.ranking.rank_metrics(run.list_logits, gains)["ndcg@10"].mean(),
}
ax = new_axes(size=(6, 2.4))
ax.barh(list(rows), list(rows.values()))
ax.set(xlim=(0, 1), xlabel="mean nDCG@10", title="The same idea, with and without the glasses")
wb.show(ax)
print("my guess:", my_glasses)

# %% [markdown] tags=["lang-en"]
# Through the glasses, Jaccard falls from [[jaccard]] to [[glasses]] ([[glasses_known]] without
# `[UNK]`). That is cause and effect: the information was taken away, and the ranking
# became worse. What the tokenizer leaves would still be enough for [[glasses]]; the fine-tuned
# model has [[model]], so [[train_pairs]] pairs did not even teach it to use what is left.
#
# ## Exercise 3.4: twins
#
# Write two texts of your own that mean opposite things and that the model cannot tell apart: their
# tokens are equal. (Collect those of the class.)

# %% [markdown] tags=["lang-zh"] of="03913ded"
# 戴上眼镜后，杰卡德相似度从 [[jaccard]] 降到 [[glasses]]（去掉 `[UNK]` 为 [[glasses_known]]）。这不是两个数字碰巧相似，而是因果：信息被拿走，排序就变差。分词器留下的信息本来还够得 [[glasses]]；微调后的模型只有 [[model]]，可见 [[train_pairs]] 对数据连剩下的信息都没教会它用。
#
# ## 练习 3.4：双胞胎
#
# 自己写两个意思相反、模型却分不开的文本：词元完全相同。（全班的可以收集起来。）


# %% tags=["solution"]
def twins():
    """Two texts of different meaning with equal tokens."""
    # solution
    return "我要借伞", "我要还伞"  # I want to borrow, to return an umbrella


# %% tags=["check"]
check("3.4", twins)

# %% [markdown] tags=["lang-en"]
# ## Misconceptions
#
# - *"[UNK] is skipped."* It is a token like any other, with a place and a vector.
# - *"Most texts can still be told apart, so the vocabulary is fine."* Telling texts apart is enough
#   to memorise them. Understanding needs to know *which* characters are there.
# - *"Fine-tuning will learn the missing characters."* They share one vector; there is nothing to learn
#   them with.
#
# ## Quiz
#
# [[quiz]]
#
# ## Take away
#
# Look at tokens before you look at anything else. [[unk_share]] of what the model reads here is one
# and the same symbol. No training recovers what the tokenizer has thrown away; lesson 8 repairs it.
#
# **In the workbench:** `notebooks/01_inspect_data.ipynb` shows tokens beside texts, the groups that
# collapse, and the ceiling of a model that cannot tell them apart.

# %% [markdown] tags=["lang-zh"] of="11bc4b7a"
# ## 常见误解
#
# - *“[UNK] 会被跳过。”* 它和别的词元一样，占位置，有向量。
# - *“大多数文本仍能区分，所以词表没问题。”* 能区分只够死记；理解需要知道究竟是*哪些*字。
# - *“微调会学会缺少的字。”* 它们共用一个向量，没有东西可以用来学。
#
# ## 小测验
#
# [[quiz]]
#
# ## 要点
#
# 先看词元，再看别的。这里模型读到的 [[unk_share]] 是同一个符号。分词器丢掉的，训练找不回来；第 8 课来修补它。
#
# **在工具中：** `notebooks/01_inspect_data.ipynb` 把词元与文本并排显示，列出被压扁的文本组，以及分不开它们的模型的上限。
