"""The best metrics that any model behind a tokenizer can reach.

Items with equal token sequences form a *class*, and a model gives all of them the same score. The
functions here give the best value over all scores of the classes: no training, no size and no
amount of data exceeds it.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList


def best_accuracy(classes: ArrayLike, positive: ArrayLike) -> float:
    """The best accuracy: every class gets its more frequent label.

    Args:
        classes: shape (n,); items with equal values look the same to the model.
        positive: bool, shape (n,).
    """
    _, hits, misses = _counts(classes, positive)
    return float(np.maximum(hits, misses).sum() / (hits + misses).sum())


def best_roc_auc(classes: ArrayLike, positive: ArrayLike) -> float:
    """The best area under the ROC curve; NaN where only one label is present.

    The best order of the classes is by falling share of positives (the likelihood ratio order of
    Neyman and Pearson, 1933); a positive and a negative of one class are tied and count one half.
    Arguments as for `best_accuracy`.
    """
    _, hits, misses = _counts(classes, positive)
    if not hits.sum() or not misses.sum():
        return float("nan")
    order = np.argsort(-hits / (hits + misses), kind="stable")
    hits, misses = hits[order], misses[order]
    below = misses.sum() - np.cumsum(misses)
    return float((hits * (below + misses / 2)).sum() / hits.sum() / misses.sum())


def best_ndcg(classes: ArrayLike, relevance: ArrayLike, k: int = 10) -> float:
    """The best nDCG at k of one candidate list, ties at their expected value.

    Each place of a tied block has the block's mean gain in expectation, so the best order is by
    falling mean gain (rearrangement inequality). A list without a relevant candidate has 0.

    Args:
        classes: shape (n,); candidates with equal values look the same to the model.
        relevance: shape (n,), 0 or more.
        k: the last rank that counts.
    """
    gain = np.asarray(relevance, dtype=float)
    _, place = np.unique(np.asarray(classes), return_inverse=True)
    mean = np.bincount(place, weights=gain) / np.bincount(place)
    discount = np.zeros(len(gain))
    discount[:k] = 1.0 / np.log2(np.arange(2, min(k, len(gain)) + 2))
    ideal = float(np.sort(gain)[::-1] @ discount)
    return float(np.sort(mean[place])[::-1] @ discount) / ideal if ideal > 0 else 0.0


def pair_ceilings(pairs: pd.DataFrame, counts: pd.DataFrame) -> dict[str, Any]:
    """The best accuracy and ROC AUC on labelled pairs.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows.
        counts: what `count_tokens` gave for these texts.

    Returns:
        `accuracy`, `roc_auc` (None where only one label is present), and `conflicting_pairs`, the
        number of pairs that look to the model like a pair of other texts with the other label.
    """
    positive = (pairs["label"] >= POSITIVE).to_numpy()
    classes = input_classes(counts, pairs["sentence_0"], pairs["sentence_1"])
    place, hits, misses = _counts(classes, positive)
    mixed = ((hits > 0) & (misses > 0))[place]
    # Pairs of the very same texts contradict each other behind any tokenizer.
    conflicts = pairs.loc[mixed, ["sentence_0", "sentence_1"]].assign(place=place[mixed])
    distinct = conflicts.drop_duplicates().groupby("place").size()
    auc = best_roc_auc(classes, positive)
    return {
        "accuracy": best_accuracy(classes, positive),
        "roc_auc": None if np.isnan(auc) else auc,
        "conflicting_pairs": int((conflicts["place"].map(distinct) > 1).sum()),
    }


def list_ceiling(lists: Iterable[CandidateList], counts: pd.DataFrame, k: int = 10) -> float:
    """The best mean nDCG at k on candidate lists; NaN without any list.

    This is exact, or an upper bound where the *queries* of two lists look the same as well: then
    one model may not reach both. `counts` is what `count_tokens` gave for the candidates.
    """
    sequence = counts["sequence"].to_dict()
    values = [
        best_ndcg([sequence[text] for text in one.candidates], one.relevance, k) for one in lists
    ]
    return float(np.mean(values)) if values else float("nan")


def input_classes(
    counts: pd.DataFrame, first: Iterable[str], second: Iterable[str]
) -> NDArray[np.int64]:
    """A number for each pair, shape (n,), which pairs of equal token sequences share."""
    sequence = counts["sequence"]
    left, right = (sequence.reindex(list(column)).to_numpy(np.int64) for column in (first, second))
    return left * (int(sequence.max()) + 1) + right


def _counts(
    classes: ArrayLike, positive: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """The class of each item as a place from 0, and positives and negatives of each class."""
    _, place = np.unique(np.asarray(classes), return_inverse=True)
    hit = np.asarray(positive, dtype=bool)
    hits, misses = (np.bincount(place, weights=one).astype(float) for one in (hit, ~hit))
    return place, hits, misses
