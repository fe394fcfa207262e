"""More pairs from the training side: look-alikes as hard negatives, and soft targets for them.

Public sets of labelled pairs hold mostly easy negatives. A ranking test holds look-alikes: texts
that share many characters with the query and mean something else. They are found here among the
training texts, and only there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.overlap import OverlapIndex
from workbench.data.pairs import POSITIVE, text_pairs
from workbench.data.splits import text_groups
from workbench.scoring.baselines import CharacterJaccard, NgramRegression
from workbench.vocabulary.repair import training_texts

BAND = (0.1, 0.45)  # character Jaccard of a look-alike; what is nearer is often a paraphrase


POOL = 20_000  # texts that each block of queries is compared with


BLOCK = 4096  # queries that share a sample


LIKELY = 0.6  # a mined pair that the regression holds for positive with more than this is left out


def mine_look_alikes(
    queries: Sequence[str], texts: Sequence[str], count: int, seed: int = 42
) -> pd.DataFrame:
    """For each query the `count` texts nearest to it by character overlap within `BAND`.

    Args:
        queries: distinct texts.
        texts: where to look; where there are more than `POOL`, each block of queries looks through
            a fresh random sample of that size, which keeps the work linear.
        count: the most look-alikes a query gets.
        seed: of the samples.

    Returns:
        Columns `sentence_0` (the query), `sentence_1`, `overlap` (character Jaccard).
    """
    rng = np.random.default_rng(seed)
    first, second, overlaps = [], [], []
    for start in range(0, len(queries), BLOCK):
        block, pool = queries[start : start + BLOCK], list(texts)
        if len(texts) > POOL:
            pool = [texts[n] for n in rng.choice(len(texts), POOL, replace=False)]
        for query, (near, overlap) in zip(block, OverlapIndex(pool).overlaps(block), strict=True):
            inside = (overlap >= BAND[0]) & (overlap <= BAND[1])
            near, overlap = near[inside], overlap[inside]
            best = np.lexsort((near, -overlap))[:count]
            first += [query] * len(best)
            second += [pool[place] for place in near[best]]
            overlaps += overlap[best].tolist()
    return pd.DataFrame({"sentence_0": first, "sentence_1": second, "overlap": overlaps})


def hard_negatives(train: pd.DataFrame, each: int, seed: int = 42) -> pd.DataFrame:
    """Look-alikes of the texts of positive pairs, with label 0.

    Left out are texts that positive pairs connect with the query, and pairs that an n-gram
    regression trained on the same labels holds for positive (`LIKELY`): many of them are.

    Args:
        train: columns `sentence_0`, `sentence_1`, `label`; the training side alone.
        each: look-alikes for each text of a positive pair.
        seed: of sampling and regression.

    Returns:
        Columns `sentence_0`, `sentence_1`, `label`.

    Raises:
        ValueError: all labels are of one class, so that there is no regression.
    """
    positive = train[train["label"] >= POSITIVE]
    mined = _mined(train, training_texts(positive), each, seed)
    likely = _sigmoid(NgramRegression(seed).fit(train).score(text_pairs(mined)))
    return mined[likely <= LIKELY].assign(label=0.0)[["sentence_0", "sentence_1", "label"]]


def lexical_pairs(train: pd.DataFrame, count: int, seed: int = 42) -> pd.DataFrame:
    """Pairs with soft labels that teach a model to compare characters, before it sees a label.

    Seven of ten are mined look-alikes, the rest labelled pairs. The target is the mean of two cheap
    scores in [0, 1]: the character Jaccard, and the probability of an n-gram regression trained on
    the labels and on as many look-alikes taken as negatives.

    Args:
        train: columns `sentence_0`, `sentence_1`, `label`; the training side alone.
        count: pairs to make, at most.
        seed: of every choice.

    Returns:
        Columns `sentence_0`, `sentence_1`, `label` (the soft target).
    """
    rng = np.random.default_rng(seed)
    texts = training_texts(train)
    asked = [texts[n] for n in rng.permutation(len(texts))[: max(1, count // 2)]]
    mined = _mined(train, asked, 4, seed)
    mined = mined.sample(min(len(mined), int(0.7 * count)), random_state=seed).assign(label=0.0)
    columns = ["sentence_0", "sentence_1", "label"]
    teacher = NgramRegression(seed).fit(pd.concat([train[columns], mined[columns]]))
    labelled = train[columns].sample(min(len(train), count - len(mined)), random_state=seed)
    pairs = pd.concat([mined[columns], labelled], ignore_index=True)
    rows = text_pairs(pairs)
    # Logits are softened, so that the order among unlikely pairs is learned as well.
    soft = (_sigmoid(teacher.score(rows) / 1.5) + CharacterJaccard().score(rows)) / 2
    return pairs.assign(label=soft.astype(float))


def _mined(train: pd.DataFrame, queries: list[str], each: int, seed: int) -> pd.DataFrame:
    """Look-alikes that neither are labelled with the query nor connected to it by positives."""
    mined = mine_look_alikes(queries, training_texts(train), each, seed)
    positive = train[train["label"] >= POSITIVE]
    groups = text_groups(positive)
    group = dict(zip(positive["sentence_0"], groups, strict=True))
    group |= dict(zip(positive["sentence_1"], groups, strict=True))
    left, right = (mined[c].map(group).fillna(-1) for c in ("sentence_0", "sentence_1"))
    labelled = set(zip(train["sentence_0"], train["sentence_1"], strict=True))
    given = [(a, b) in labelled or (b, a) in labelled for a, b in text_pairs(mined)]
    connected = (left == right) & (left >= 0)
    return mined[~connected & ~np.array(given, dtype=bool)]


def _sigmoid(logits: Any) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(logits), dtype=float)
