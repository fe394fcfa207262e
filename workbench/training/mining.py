"""More pairs from the training split: look-alikes as hard negatives, and soft lexical targets.

Public sets of labelled pairs hold mostly easy negatives. A ranking test holds look-alikes: texts
that share many characters with the query but differ in meaning. They are mined here, from the
training texts alone.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from workbench.data import POSITIVE
from workbench.data.overlap import OverlapIndex
from workbench.data.pairs import text_pairs
from workbench.data.splits import meaning_groups
from workbench.scoring.baselines import CharacterJaccard, NgramRegression, Scorer
from workbench.training.recipe import Recipe
from workbench.vocabulary.repair import training_texts

COLUMNS = ["sentence_0", "sentence_1", "label"]
BAND = (0.1, 0.45)  # character Jaccard of a look-alike; above it, many are paraphrases
POOL = 20_000  # texts that each block of queries is compared with
BLOCK = 4096  # queries that share a sample
EACH_QUERY = 5  # soft pairs of one query
RANDOM_SHARE = 0.2  # of the soft pairs
LABELLED_SHARE = 0.25  # of the pairs of a warm-up
MAX_PROBABILITY = 0.6  # of a positive, by the regression, that a hard negative may have


def mine_look_alikes(
    queries: Sequence[str], texts: Sequence[str], count: int, seed: int = 42
) -> pd.DataFrame:
    """For each query the `count` texts nearest to it by character overlap within `BAND`.

    Of more than `POOL` texts, each block of queries searches another random sample of that size,
    which keeps the work linear.

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

    Left out are texts that positive pairs connect with the query, and pairs that are likely
    positives (`MAX_PROBABILITY`) for an n-gram regression trained on the same labels.

    Args:
        train: the training split, and nothing else; columns `COLUMNS`, as in the result.
        each: look-alikes for each text of a positive pair, at most.
        seed: of sampling and regression.

    Raises:
        ValueError: all labels are of one class, so that no regression can be fitted.
    """
    mined = _mined(train, training_texts(train[train["label"] >= POSITIVE]), each, seed)
    probability = expit(NgramRegression(seed).fit(train).score(text_pairs(mined))).astype(float)
    return mined[probability <= MAX_PROBABILITY]


def lexical_pairs(
    train: pd.DataFrame, count: int, seed: int = 42, similarity: Scorer | None = None
) -> pd.DataFrame:
    """Pairs that teach a model to compare texts before it is trained on the labels alone.

    A quarter are labelled pairs. The others cover all character overlaps evenly, a fifth of them
    random texts, and have a soft label: the mean of two cheap scores in [0, 1], the probability by
    an n-gram regression trained on the labels, and the base's own similarity or, without one, the
    character Jaccard.

    Args:
        train: the training split, and nothing else; columns `COLUMNS`, as in the result.
        count: pairs to make.
        seed: of every choice.
        similarity: the untrained base as a scorer; its scores are moved to [0, 1], so that two
            random texts have 0 on average and equal ones 1.
    """
    texts, rng = training_texts(train), np.random.default_rng(seed)
    labelled = train.sample(min(len(train), round(LABELLED_SHARE * count)), random_state=seed)
    count -= len(labelled)
    queries = [texts[n] for n in rng.integers(len(texts), size=-(-count // EACH_QUERY))]
    pool = [texts[n] for n in rng.permutation(len(texts))[:POOL]]
    rows: list[tuple[str, str]] = []
    for query, (near, overlap) in zip(queries, OverlapIndex(pool).overlaps(queries), strict=True):
        overlap = np.where([pool[place] == query for place in near], np.inf, overlap)
        for wanted in rng.random(EACH_QUERY):
            other = texts[rng.integers(len(texts))]
            if len(near) > 1 and rng.random() >= RANDOM_SHARE:
                other = pool[near[np.abs(overlap - wanted).argmin()]]
            rows.append((query, other) if rng.random() < 0.5 else (other, query))
    rows = rows[:count]
    if similarity is None:
        alike = CharacterJaccard().score(rows).astype(float)
    else:
        first, second = zip(*rows, strict=True)
        mixed = list(zip(first, rng.permutation(second).tolist(), strict=True))
        equal = [(text, text) for text in first[:EACH_QUERY]]
        scores = similarity.score([*rows, *mixed, *equal]).astype(float)  # each text read once
        found, apart, same = np.split(scores, [len(rows), 2 * len(rows)])
        alike = (found - apart.mean()) / max(same.mean() - apart.mean(), 1e-9)
        alike = np.clip(alike, 0, 1)
    likely = expit(NgramRegression(seed).fit(train).score(rows)).astype(float)
    soft = pd.DataFrame(rows, columns=COLUMNS[:2]).assign(label=(alike + likely) / 2)
    return pd.concat([soft, labelled[COLUMNS]], ignore_index=True)


def _mined(train: pd.DataFrame, queries: list[str], each: int, seed: int) -> pd.DataFrame:
    """Look-alikes, label 0, that are neither labelled nor connected with their query."""
    texts = training_texts(train)
    mined = mine_look_alikes(queries, texts, each, seed).assign(label=0.0)[COLUMNS]
    groups = meaning_groups(texts, train[train["label"] >= POSITIVE])
    group = dict(zip(texts, groups.tolist(), strict=True))
    labelled = {frozenset((group[left], group[right])) for left, right in text_pairs(train)}
    kept = [
        group[left] != group[right] and frozenset((group[left], group[right])) not in labelled
        for left, right in text_pairs(mined)
    ]
    return mined[np.array(kept, dtype=bool)]


def with_mined(labelled: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, int]]:
    """The labelled pairs and those the recipe adds to them, with counts of the added ones."""
    parts, added = [labelled[COLUMNS]], {}
    if recipe.symmetric:
        positive = labelled[labelled["label"] >= POSITIVE]
        swapped = {"sentence_0": "sentence_1", "sentence_1": "sentence_0"}
        parts.append(positive[COLUMNS].rename(columns=swapped))
        added["swapped_positives"] = len(positive)
    if recipe.hard_negatives:
        parts.append(hard_negatives(labelled, recipe.hard_negatives, recipe.seed))
        added["hard_negatives"] = len(parts[-1])
    return pd.concat(parts, ignore_index=True), added
