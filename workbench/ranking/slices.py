"""Slices of the queries: where the model is better or worse than the best baseline, and on what."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.data.overlap import characters, jaccard
from workbench.ranking.evaluation import Evaluation
from workbench.ranking.uncertainty import bootstrap_draws, bootstrap_mean, estimate
from workbench.vocabulary.tokens import count_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALL_SLICE = 30  # a slice of fewer independent queries says next to nothing
LOOK_ALIKE = 0.1  # least character overlap at which a negative of unknown origin is a look-alike
EQUAL_OVERLAP = 0.03  # largest difference of two character overlaps that counts as none
BINS = {
    "length": (
        [0, 5, 10, 15, 25, np.inf],
        [f"{span} characters" for span in ("1-5", "6-10", "11-15", "16-25", "26 or more")],
    ),
    "[UNK] share": (
        [-1, 0, 0.25, 0.5, 1],
        ["no token unknown", "up to 25 % unknown", "25-50 % unknown", "over 50 % unknown"],
    ),
    "overlap": ([-1, 0.2, 0.4, 0.6, 1], ["up to 0.2", "0.2 to 0.4", "0.4 to 0.6", "over 0.6"]),
    "characters": ([-1, 0, 1], ["all seen in training", "some never seen"]),
    "positives": ([0, 1, 2, np.inf], ["1 positive", "2 positives", "3 or more positives"]),
}


def query_features(
    lists: Sequence[CandidateList],
    tokenizer: "Tokenizer | None" = None,
    train: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The features that define the slices: one row per list, one column per key of `BINS`.

    Args:
        lists: the candidate lists.
        tokenizer: the model's; without it `[UNK] share` is NaN.
        train: the training pairs; without any `characters` is NaN.

    Returns:
        `length` (characters of the query), `[UNK] share` (of its tokens), `overlap` (the largest
        character Jaccard of a positive with it; NaN without one), `characters` (1 if the query has
        a character that no training text has, else 0), `positives` (relevant candidates).
    """
    queries, positives = [one.query for one in lists], [one.positives() for one in lists]
    frame = pd.DataFrame({"length": [len(query) for query in queries], "[UNK] share": np.nan})
    frame["overlap"] = [
        max((_overlap(query, text) for text in texts), default=np.nan)
        for query, texts in zip(queries, positives, strict=True)
    ]
    frame["characters"] = np.nan
    frame["positives"] = [len(texts) for texts in positives]
    if tokenizer is not None:
        counts = count_tokens(tokenizer, queries)
        shares = counts["unknown"] / counts["tokens"].clip(lower=1)
        frame["[UNK] share"] = shares.reindex(queries).to_numpy()
    if train is not None and len(train):
        known = characters("".join([*train["sentence_0"], *train["sentence_1"]]))
        frame["characters"] = [float(bool(characters(query) - known)) for query in queries]
    return frame


def slice_table(
    evaluation: Evaluation,
    features: pd.DataFrame,
    lists: Sequence[CandidateList],
    seed: int = 42,
    resamples: int = 2000,
) -> pd.DataFrame:
    """nDCG@10 of the model and of the best baseline in each slice, with the paired difference.

    Args:
        evaluation: with a scorer `model` and at least one other.
        features: from `query_features`, one row per list.
        lists: the same lists, for their text groups.
        seed: of the intervals.
        resamples: draws of each interval.

    Returns:
        One row per slice that has a query: `dimension`, `slice`, `queries`, `small` (fewer than
        30 independent groups of queries), `other` (its name), and for `model`, `other` and the
        difference `gap` the mean (under that name, `other_mean` for the second) with `_low` and
        `_high`, the 95 % interval.

    Raises:
        ValueError: there is no scorer called `model`, or nothing to compare it with.
    """
    other = evaluation.best_other()
    if other is None or "model" not in set(evaluation.per_query["scorer"]):
        raise ValueError("slices need a scorer called 'model' and at least one other")
    model, best = evaluation.values("model"), evaluation.values(other)
    values, groups, rows = np.column_stack([model, best, model - best]), query_groups(lists), []
    for dimension, (edges, names) in BINS.items():
        place = pd.cut(features[dimension], edges, labels=names)
        for name in names:
            chosen = (place == name).to_numpy()
            if not (count := int(chosen.sum())):
                continue
            small = len(np.unique(groups[chosen])) < SMALL_SLICE
            row = [dimension, name, count, small, other]
            draws = bootstrap_draws(values[chosen], groups[chosen], resamples, seed)
            for column, drawn in zip(values[chosen].T, draws.T, strict=True):
                row += estimate(column.mean(), drawn)
            rows.append(row)
    columns = ["dimension", "slice", "queries", "small", "other"]
    for name, mean in (("model", "model"), ("other", "other_mean"), ("gap", "gap")):
        columns += [mean, f"{name}_low", f"{name}_high"]
    return pd.DataFrame(rows, columns=columns)


def pairwise_orders(
    evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42, resamples: int = 2000
) -> pd.DataFrame:
    """How often a positive is ranked above a negative, by the negative's kind; a tie counts half.

    The share is taken within each query over its (positive, negative) pairs of that kind, then
    over the queries that have such pairs. Where a file does not say where its negatives come
    from, they count as `look_alike` from a character overlap of 0.1 with the query, else as
    `random`. Under ties `worst` a tie counts 0.

    Returns:
        One row per scorer and kind: `scorer`, `kind`, `queries`, `orders` (the number of pairs),
        `mean`, `low`, `high`.
    """

    def names(one: CandidateList, right: np.ndarray) -> np.ndarray:
        kinds = np.array(one.kinds or ("given",) * len(one.candidates), dtype=object)
        for place in np.flatnonzero(kinds == "given"):
            alike = _overlap(one.query, one.candidates[place]) >= LOOK_ALIKE
            kinds[place] = "look_alike" if alike else "random"
        return np.broadcast_to(kinds[~right], (right.sum(), (~right).sum()))

    return _orders(evaluation, lists, names, seed, resamples)


def equal_overlap(
    evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42, resamples: int = 2000
) -> pd.DataFrame:
    """`pairwise_orders` of pairs whose Jaccard with the query is equal (within 0.03).

    Plain Jaccard can only guess here; a scorer that weighs characters or reads their order need
    not. A test whose negatives were mined within a band of overlap rewards a scorer that finds the
    band; this one does not. Empty if there is no such pair.
    """

    def names(one: CandidateList, right: np.ndarray) -> np.ndarray:
        overlap = np.array([_overlap(one.query, text) for text in one.candidates])
        near = np.abs(np.subtract.outer(overlap[right], overlap[~right])) <= EQUAL_OVERLAP
        return np.where(near, "equal_overlap", "")

    return _orders(evaluation, lists, names, seed, resamples)


def _orders(
    evaluation: Evaluation,
    lists: Sequence[CandidateList],
    names: Callable[[CandidateList, np.ndarray], np.ndarray],
    seed: int,
    resamples: int,
) -> pd.DataFrame:
    """`names(list, relevant)`: of each pair, shape (positives, negatives); "" leaves it out."""
    half = 0.0 if evaluation.metrics["ties"] == "worst" else 0.5
    groups, rows = query_groups(lists), []
    relevant = [np.asarray(one.relevance) > 0 for one in lists]
    named = [names(one, right) for one, right in zip(lists, relevant, strict=True)]
    for scorer, frame in evaluation.ranked.groupby("scorer", sort=False):
        found = []
        for number, scores in frame.groupby("number")["score"]:
            score, right, kinds = scores.to_numpy(), relevant[number], named[number]
            gaps = np.subtract.outer(score[right], score[~right])
            won = (gaps > 0) + half * (gaps == 0)
            for name in filter(None, np.unique(kinds.astype(str))):
                chosen = won[kinds == name]
                found.append((name, number, chosen.mean(), chosen.size))
        table = pd.DataFrame(found, columns=["kind", "number", "share", "orders"])
        for name, part in table.groupby("kind"):
            interval = bootstrap_mean(part["share"], resamples, seed, groups[part["number"]])
            rows.append((scorer, name, len(part), part["orders"].sum(), *interval))
    columns = ["scorer", "kind", "queries", "orders", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _overlap(first: str, second: str) -> float:
    return jaccard(characters(first), characters(second))
