"""Where the model is better or worse: slices of queries, kinds of negatives, a blend of scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.data.lists import CandidateList
from workbench.data.texts import characters, jaccard
from workbench.files import percent, write_json
from workbench.ranking.evaluation import Evaluation, rank_lists, split_scores
from workbench.ranking.metrics import MAIN_METRIC
from workbench.ranking.uncertainty import bootstrap_mean, bootstrap_means, compare, format_estimate
from workbench.run_folder import RunFolder
from workbench.vocabulary.tokens import count_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RESAMPLES = 2000  # of slices and kinds of negatives, which are hints
SMALL_SLICE = 30  # a slice of fewer independent queries says next to nothing
LOOK_ALIKE = 0.1  # least character overlap at which a negative of unknown origin is a look-alike
PARTS = ("model", "ngram_regression", "char_jaccard")  # of a blend
MIN_DEV_PAIRS = 20  # of each class; with fewer, three weights are a matter of luck
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

    `length` is in characters, `overlap` the largest character Jaccard of a positive with the query,
    `characters` 1 if it has one that no training text has. What cannot be known is NaN.
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


def slice_table(evaluation: Evaluation, features: pd.DataFrame, seed: int = 42) -> pd.DataFrame:
    """nDCG@10 of the model and of the best other scorer in each slice that has a query.

    Returns:
        `dimension`, `slice`, `queries`, `small` (fewer than 30 independent groups of queries),
        `other` (its name), and `model`, `other_mean` and their difference `gap`, each with `_low`
        and `_high` of the 95 % interval.

    Raises:
        ValueError: there is no scorer called `model`, or nothing to compare it with.
    """
    other = evaluation.best_other()
    if other is None or "model" not in set(evaluation.per_query["scorer"]):
        raise ValueError("slices need a scorer called 'model' and at least one other")
    model, best = evaluation.values("model"), evaluation.values(other)
    values, groups, rows = np.column_stack([model, best, model - best]), evaluation.groups, []
    for dimension, (edges, names) in BINS.items():
        place = pd.cut(features[dimension], edges, labels=names)
        for name in place.cat.categories[place.cat.categories.isin(place)]:
            chosen = (place == name).to_numpy()
            small = len(np.unique(groups[chosen])) < SMALL_SLICE
            found = bootstrap_means(values[chosen], groups[chosen], RESAMPLES, seed)
            rows.append((dimension, name, int(chosen.sum()), small, other, *np.ravel(found)))
    columns = ["dimension", "slice", "queries", "small", "other"]
    for name, mean in (("model", "model"), ("other", "other_mean"), ("gap", "gap")):
        columns += [mean, f"{name}_low", f"{name}_high"]
    return pd.DataFrame(rows, columns=columns)


def pairwise_orders(evaluation: Evaluation, seed: int = 42) -> pd.DataFrame:
    """How often a positive is ranked above a negative, by the negative's kind; a tie counts half.

    The share is taken within each query over its (positive, negative) pairs of that kind, whose
    number is `orders`, then over the queries that have any. Negatives of unknown origin count as
    `look_alike` from a character overlap of 0.1 with the query, else as `random`. Under ties
    `worst` a tie counts 0.
    """
    both = _orders(evaluation)
    guessed = np.where(both["overlap_other"] >= LOOK_ALIKE, "look_alike", "random")
    both["kind"] = both["kind_other"].mask(both["kind_other"] == "given", guessed)
    return _shares(both, evaluation.groups, seed)


def equal_overlap(evaluation: Evaluation, seed: int = 42) -> pd.DataFrame:
    """`pairwise_orders` of pairs whose Jaccard with the query is equal (within 0.03), if any.

    Plain Jaccard can only guess here, unlike a scorer that weighs characters or reads their order.
    """
    both = _orders(evaluation)
    near = both[(both["overlap"] - both["overlap_other"]).abs() <= EQUAL_OVERLAP]
    return _shares(near.assign(kind="equal_overlap"), evaluation.groups, seed)


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


def _shares(both: pd.DataFrame, groups: np.ndarray, seed: int) -> pd.DataFrame:
    """The mean of `won` within each query, then over queries, for each scorer and kind."""
    rows = []
    for scorer, orders in both.groupby("scorer", sort=False):
        for kind, part in orders.groupby("kind"):
            won = part.groupby("number")["won"].mean()
            interval = bootstrap_mean(won, RESAMPLES, seed, groups[won.index])
            rows.append((scorer, kind, len(won), len(part), *interval))
    columns = ["scorer", "kind", "queries", "orders", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


class Blend(NamedTuple):
    """How a weighted sum of the model's score and two lexical ones ranks, beside its parts.

    It asks whether the model already knows what shared characters tell, and is never the model: to
    reach its figures, all parts have to be run.
    """

    problem: str = ""  # why there is no blend
    shares: Mapping[str, float] = {}  # weights of standardised scores, of absolute sum 1; by name
    means: Mapping[str, dict[str, Any]] = {}  # nDCG@10 of each part and of `blend`
    minus: Mapping[str, dict[str, Any]] = {}  # the blend's minus that of each part, see `compare`

    def table(self) -> pd.DataFrame:
        """One row per scorer, the best first: its share in the blend, nDCG@10, the blend's lead."""
        columns = {
            "share": {name: percent(share, 0) for name, share in self.shares.items()},
            MAIN_METRIC: {name: format_estimate(mean) for name, mean in self.means.items()},
            "blend minus it": {name: format_estimate(gap) for name, gap in self.minus.items()},
            "p (Holm)": {name: f"{gap['p_holm']:.2g}" for name, gap in self.minus.items()},
        }
        order = sorted(self.means, key=lambda name: -self.means[name]["mean"])
        return pd.DataFrame(columns, index=pd.Index(order, name="scorer")).fillna("")


def try_blend(run_dir: str | Path, evaluation: Evaluation, seed: int = 42) -> Blend:
    """Fit a blend on dev, rank the lists with it, and write `evaluation/blend.json` of the run.

    Nothing is scored again: the evaluation has the scores of these lists and of the dev pairs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dev, given = evaluation.dev, evaluation.metrics
    positive = dev.loc[dev["scorer"] == "model", "positive"].to_numpy(dtype=bool)
    if (fewer := int(min(positive.sum(), (~positive).sum()))) < MIN_DEV_PAIRS:
        blend = Blend(
            f"it takes the model's scores of {MIN_DEV_PAIRS} dev pairs of each class, and there "
            f"are {fewer} of one; use more pairs or a larger dev_share"
        )
    else:
        names = [name for name in PARTS if name in set(dev["scorer"])]
        lists, groups = evaluation.lists, evaluation.groups
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        fitted.fit(_columns(dev, names), positive)
        scores = fitted.decision_function(_columns(evaluation.ranked, names))
        values = rank_lists(split_scores(scores, lists), lists, given["ties"])[MAIN_METRIC]
        gaps = np.column_stack([values - evaluation.values(name) for name in names])
        means = {row["scorer"]: row[MAIN_METRIC] for row in given["rows"] if row["scorer"] in names}
        means["blend"] = bootstrap_mean(values, given["resamples"], seed, groups).plain()
        (weights,) = fitted[-1].coef_
        shares = dict(zip(names, (weights / (np.abs(weights).sum() or 1.0)).tolist(), strict=True))
        blend = Blend("", shares, means, compare(names, gaps, groups, given["resamples"], seed))
    write_json(RunFolder(run_dir).blend, {"schema": 2, **blend._asdict()})
    return blend


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The scores of the named scorers, shape (pairs, names)."""
    return np.column_stack([frame.loc[frame["scorer"] == name, "score"] for name in names])
