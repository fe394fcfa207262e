"""Slices of the queries: where the model is better or worse than the best baseline, and on what."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.data.overlap import characters, jaccard
from workbench.ranking.evaluation import Evaluation
from workbench.ranking.metrics import FloatArray
from workbench.ranking.uncertainty import bootstrap_draws, bootstrap_mean, estimate
from workbench.vocabulary.tokens import count_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALL = 30  # queries under which a slice is too small to say anything


ALIKE = 0.1  # character overlap from which a negative of unknown origin counts as a look-alike


EQUAL = 0.03  # difference of two character overlaps that counts as none


BINS = {
    "length": (
        [0, 5, 10, 15, 25, np.inf],
        [
            "1-5 characters",
            "6-10 characters",
            "11-15 characters",
            "16-25 characters",
            "26 or more characters",
        ],
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
    """What the slices are cut by: one row a list, one column a key of `BINS`.

    Args:
        lists: the candidate lists.
        tokenizer: the model's; without it `[UNK] share` is NaN.
        train: the training pairs; without any `characters` is NaN.

    Returns:
        `length` (characters of the query), `[UNK] share` (of its tokens), `overlap` (the largest
        character Jaccard of a positive with it; NaN without a positive), `characters` (1 if the
        query has a character that no training text has, else 0), `positives` (relevant
        candidates).
    """
    frame = pd.DataFrame(
        {
            "length": [len(one.query) for one in lists],
            "[UNK] share": np.nan,
            "overlap": [
                max((_overlap(one.query, text) for text in one.positives()), default=np.nan)
                for one in lists
            ],
            "characters": np.nan,
            "positives": [len(one.positives()) for one in lists],
        }
    )
    if tokenizer is not None:
        counts = count_tokens(tokenizer, (one.query for one in lists))
        shares = counts["unknown"] / counts["tokens"].clip(lower=1)
        frame["[UNK] share"] = shares.reindex([one.query for one in lists]).to_numpy()
    if train is not None and len(train):
        known = characters("".join([*train["sentence_0"], *train["sentence_1"]]))
        frame["characters"] = [float(bool(characters(one.query) - known)) for one in lists]
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
        features: from `query_features`, one row a list.
        lists: the same lists, for their text groups.
        seed: of the draws.
        resamples: draws of each interval.

    Returns:
        One row a slice that has a query: `dimension`, `slice`, `queries`, `small` (fewer than 30),
        `other` (its name), and for `model`, `other` and the difference `gap` the mean (under that
        name, `other_mean` for the second) with `_low` and `_high`, the 95 % interval.

    Raises:
        ValueError: there is no model, or nothing to compare it with.
    """
    other = evaluation.best_other()
    if other is None or "model" not in set(evaluation.per_query["scorer"]):
        raise ValueError("slices need a scorer called 'model' and at least one other")
    pair = np.column_stack([evaluation.values("model"), evaluation.values(other)])
    groups, rows = query_groups(lists), []
    for dimension, (edges, names) in BINS.items():
        place = pd.cut(features[dimension], edges, labels=names)
        for name in names:
            chosen = (place == name).to_numpy()
            if chosen.any():
                row = {"dimension": dimension, "slice": name, "queries": int(chosen.sum())}
                rows.append(row | _slice(pair[chosen], groups[chosen], seed, resamples))
    table = pd.DataFrame(rows)
    table.insert(3, "small", table["queries"] < SMALL)
    table.insert(4, "other", other)
    return table


def negative_couples(
    evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42, resamples: int = 2000
) -> pd.DataFrame:
    """How often a positive stands above a negative, by the negative's kind; a tie counts half.

    The share is taken within each query over its (positive, negative) couples of that kind, then
    over the queries that have such couples. Where a file does not say where its negatives come
    from, they count as `look_alike` from a character overlap of 0.1 with the query, else as
    `random`. Under ties `worst` a tie counts 0.

    Returns:
        One row a scorer and kind: `scorer`, `kind`, `queries`, `couples`, `mean`, `low`, `high`.
    """

    def names(one: CandidateList, right: np.ndarray) -> np.ndarray:
        return np.broadcast_to(_kinds(one)[~right], (right.sum(), (~right).sum()))

    return _couples(evaluation, lists, names, seed, resamples)


def equal_overlap(
    evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42, resamples: int = 2000
) -> pd.DataFrame:
    """The same for couples that share equally many characters with the query (within 0.03).

    Counting characters can only guess here. A test whose negatives were mined within a band of
    overlap rewards whoever finds the band; this does not.

    Returns:
        As `negative_couples`, with one kind, `equal_overlap`; empty where there is no such couple.
    """

    def names(one: CandidateList, right: np.ndarray) -> np.ndarray:
        overlap = np.array([_overlap(one.query, text) for text in one.candidates])
        near = np.abs(overlap[right][:, None] - overlap[~right][None, :]) <= EQUAL
        return np.where(near, "equal_overlap", "")

    return _couples(evaluation, lists, names, seed, resamples)


def _couples(
    evaluation: Evaluation,
    lists: Sequence[CandidateList],
    names: Callable[[CandidateList, np.ndarray], np.ndarray],
    seed: int,
    resamples: int,
) -> pd.DataFrame:
    """`names(list, relevant)`: of each couple, shape (positives, negatives); "" leaves it out."""
    half = 0.0 if evaluation.metrics["ties"] == "worst" else 0.5
    groups, rows = query_groups(lists), []
    relevant = [np.asarray(one.relevance) > 0 for one in lists]
    named = [names(one, right) for one, right in zip(lists, relevant, strict=True)]
    for scorer, frame in evaluation.ranked.groupby("scorer", sort=False):
        shares: dict[str, list[tuple[int, float]]] = {}
        couples: dict[str, int] = {}
        for number, rows_of in frame.groupby("number"):
            right, kinds = relevant[int(number)], named[int(number)]
            score = rows_of["score"].to_numpy()
            gaps = score[right][:, None] - score[~right][None, :]
            won = (gaps > 0) + half * (gaps == 0)
            for name in filter(None, dict.fromkeys(kinds.ravel().tolist())):
                chosen = won[kinds == name]
                shares.setdefault(name, []).append((int(number), float(chosen.mean())))
                couples[name] = couples.get(name, 0) + chosen.size
        for name, found in sorted(shares.items()):
            numbers, values = zip(*found, strict=True)
            interval = bootstrap_mean(values, resamples, seed, groups[list(numbers)])
            rows.append(
                {
                    "scorer": scorer,
                    "kind": name,
                    "queries": len(values),
                    "couples": couples[name],
                    **interval._asdict(),
                }
            )
    columns = ["scorer", "kind", "queries", "couples", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _slice(pair: FloatArray, groups: np.ndarray, seed: int, resamples: int) -> dict[str, float]:
    values = np.column_stack([pair, pair[:, 0] - pair[:, 1]])
    draws = bootstrap_draws(values, groups, resamples, seed)
    row: dict[str, float] = {}
    for name, column, drawn in zip(("model", "other", "gap"), values.T, draws.T, strict=True):
        mean, low, high = estimate(column.mean(), drawn)
        row |= {
            name if name != "other" else "other_mean": mean,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return row


def _kinds(one: CandidateList) -> np.ndarray:
    known = one.kinds or ("given",) * len(one.candidates)
    return np.array(
        [
            kind
            if kind != "given"
            else "look_alike"
            if _overlap(one.query, text) >= ALIKE
            else "random"
            for kind, text in zip(known, one.candidates, strict=True)
        ],
        dtype=object,
    )


def _overlap(first: str, second: str) -> float:
    return jaccard(characters(first), characters(second))
