"""Slices of the queries: where the model is better or worse than the best baseline, and on what."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.data.overlap import characters, jaccard
from workbench.ranking.evaluation import Evaluation
from workbench.ranking.uncertainty import bootstrap_mean, bootstrap_means
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

    They are `length` (in characters), `[UNK] share` (of its tokens; NaN without a tokenizer),
    `overlap` (the largest character Jaccard of a positive with it), `characters` (1 if it has one
    that no training text has; NaN without training pairs), and `positives` (how many).
    """
    queries, positives = [one.query for one in lists], [one.positives() for one in lists]
    shares = known = pd.Series(dtype=float)
    if tokenizer is not None:
        counts = count_tokens(tokenizer, queries)
        shares = counts["unknown"] / counts["tokens"].clip(lower=1)
    if train is not None and len(train):
        seen = characters("".join([*train["sentence_0"], *train["sentence_1"]]))
        known = pd.Series({query: float(bool(characters(query) - seen)) for query in queries})
    return pd.DataFrame(
        {
            "length": [len(query) for query in queries],
            "[UNK] share": shares.reindex(queries).to_numpy(),
            "overlap": [
                max((jaccard(characters(query), characters(t)) for t in texts), default=np.nan)
                for query, texts in zip(queries, positives, strict=True)
            ],
            "characters": known.reindex(queries).to_numpy(),
            "positives": [len(texts) for texts in positives],
        }
    )


def slice_table(
    evaluation: Evaluation,
    features: pd.DataFrame,
    lists: Sequence[CandidateList],
    seed: int = 42,
    resamples: int = 2000,
) -> pd.DataFrame:
    """nDCG@10 of the model and of the best baseline in each slice, with the paired difference.

    `features` are from `query_features` for the same `lists`.

    Returns:
        One row per slice that has a query: `dimension`, `slice`, `queries`, `small` (fewer than 30
        independent groups of queries), `other` (its name), and `model`, `other_mean` and `gap`,
        their difference, with `_low` and `_high` of the 95 % intervals.

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
        for name in place.cat.categories[place.cat.categories.isin(place)]:
            chosen = (place == name).to_numpy()
            small = len(np.unique(groups[chosen])) < SMALL_SLICE
            found = bootstrap_means(values[chosen], groups[chosen], resamples, seed)
            rows.append((dimension, name, int(chosen.sum()), small, other, *np.ravel(found)))
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
    `random`. Under ties `worst` a tie counts 0. Columns: `scorer`, `kind`, `queries`, `orders` (the
    number of pairs), `mean`, `low`, `high`.
    """
    both = _orders(evaluation)
    guessed = np.where(both["overlap_other"] >= LOOK_ALIKE, "look_alike", "random")
    both["kind"] = both["kind_other"].mask(both["kind_other"] == "given", guessed)
    return _shares(both, lists, seed, resamples)


def equal_overlap(
    evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42, resamples: int = 2000
) -> pd.DataFrame:
    """`pairwise_orders` of pairs whose Jaccard with the query is equal (within 0.03).

    Plain Jaccard can only guess here; a scorer that weighs characters or reads their order need
    not. Empty if there is no such pair.
    """
    both = _orders(evaluation)
    near = both[(both["overlap"] - both["overlap_other"]).abs() <= EQUAL_OVERLAP]
    return _shares(near.assign(kind="equal_overlap"), lists, seed, resamples)


def _orders(evaluation: Evaluation) -> pd.DataFrame:
    """Each positive with each negative (`_other`) of its list, by scorer: was it ranked above?"""
    texts = evaluation.ranked[["query", "candidate"]].drop_duplicates()
    sets = texts.map(characters).to_numpy()
    texts = texts.assign(overlap=[jaccard(first, second) for first, second in sets])
    ranked = evaluation.ranked.merge(texts, "left", ["query", "candidate"])
    relevant = ranked["relevance"] > 0
    by = ["scorer", "number"]
    both = ranked[relevant].merge(ranked[~relevant], on=by, suffixes=("", "_other"))
    tie = 0.0 if evaluation.metrics["ties"] == "worst" else 0.5
    tied = both["score"] == both["score_other"]
    return both.assign(won=(both["score"] > both["score_other"]) + tie * tied)


def _shares(
    both: pd.DataFrame, lists: Sequence[CandidateList], seed: int, resamples: int
) -> pd.DataFrame:
    """The mean of `won` within each query, then over queries, for each scorer and kind."""
    groups, rows = query_groups(lists), []
    for scorer, orders in both.groupby("scorer", sort=False):
        for kind, part in orders.groupby("kind"):
            won = part.groupby("number")["won"].mean()
            interval = bootstrap_mean(won, resamples, seed, groups[won.index])
            rows.append((scorer, kind, len(won), len(part), *interval))
    columns = ["scorer", "kind", "queries", "orders", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
