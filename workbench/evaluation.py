"""Rank candidate lists with several scorers and measure each, with intervals and paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.candidates import query_groups, suspect_negatives
from workbench.claims import format_estimate
from workbench.lists import CandidateList, count_lists
from workbench.metrics import RANKING_METRICS, FloatArray, rank_metrics
from workbench.pair_scores import PairScores
from workbench.scoring import Expecting, Scorer, backends_used
from workbench.uncertainty import (
    LEVEL,
    Estimate,
    bootstrap_draws,
    holm,
    randomisation_test,
)

MAIN_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: the content of `metrics.json`.
        per_query: one row a scorer and query: `scorer`, `number` (of the list), `query`, and each
            ranking metric.
        ranked: one row a scorer, query and candidate: `scorer`, `number`, `query`, `candidate`,
            `relevance`, `kind`, `score`, `rank` (1 is best; in a tie the irrelevant come first).
        pairs: one row a scorer and labelled pair: `scorer`, `positive`, `score`.
        dev: the same of the dev pairs.
    """

    metrics: dict[str, Any]
    per_query: pd.DataFrame
    ranked: pd.DataFrame
    pairs: pd.DataFrame
    dev: pd.DataFrame

    def table(self, part: str = "all") -> pd.DataFrame:
        """One row a scorer, best first; each metric as its mean with the interval beside it.

        Args:
            part: `ranking` metrics, metrics of `pairs`, or `all`.
        """
        rows = []
        for row in self.metrics["rows"]:
            shown = {"scorer": row["scorer"]}
            for name, value in row.items():
                kind = "ranking" if name in RANKING_METRICS else "pairs"
                if name != "scorer" and part in ("all", kind):
                    shown[name] = format_estimate(value)
            rows.append((-row[MAIN_METRIC]["mean"], shown))
        rows.sort(key=lambda row: row[0])
        return pd.DataFrame([shown for _, shown in rows]).set_index("scorer")

    def differences(self) -> pd.DataFrame:
        """One row a scorer but the model: nDCG@10 of the model minus its own, interval, p-values.

        The scorer that the model gains least on comes first.
        """
        rows = [
            {"scorer": name, "model minus it": format_estimate(gap), "p": gap["p"],
             "p (Holm)": gap["p_holm"]}
            for name, gap in sorted(self.metrics["model_minus"].items(),
                                    key=lambda item: item[1]["mean"])
        ]  # fmt: skip
        columns = ["scorer", "model minus it", "p", "p (Holm)"]
        return pd.DataFrame(rows, columns=columns).set_index("scorer")

    def best_other(self) -> str | None:
        """The scorer with the highest nDCG@10 that is not `model`; None if there is no other."""
        means = {row["scorer"]: row[MAIN_METRIC]["mean"] for row in self.metrics["rows"]}
        means.pop("model", None)
        return max(means, key=lambda name: means[name]) if means else None

    def values(self, scorer: str) -> FloatArray:
        """nDCG@10 of each query under a scorer, shape (queries,)."""
        rows = self.per_query[self.per_query["scorer"] == scorer]
        return rows[MAIN_METRIC].to_numpy(dtype=float)

    def scored(self, scorer: str = "model") -> pd.DataFrame:
        """`positive` and `score` of the labelled pairs, or of the candidates where there are none.

        One row a pair, under the given scorer.
        """
        if len(self.pairs):
            return self.pairs[self.pairs["scorer"] == scorer][["positive", "score"]]
        ranked = self.ranked[self.ranked["scorer"] == scorer]
        return pd.DataFrame({"positive": ranked["relevance"] > 0, "score": ranked["score"]})


def score_lists(scorer: Scorer, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of every list's candidates: for each list a float32 array of shape (candidates,)."""
    return split_scores(scorer.score([pair for one in lists for pair in one.pairs()]), lists)


def split_scores(scores: ArrayLike, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of all candidates, one list after another, given back to their lists, as float32."""
    ends = np.cumsum([len(one.candidates) for one in lists])[:-1]
    return list(np.split(np.asarray(scores, dtype=np.float32), ends))


def rank_lists(
    scores: Sequence[ArrayLike], lists: Sequence[CandidateList], ties: str
) -> dict[str, FloatArray]:
    """Every ranking metric of every list, see `rank_metrics`; scores as from `score_lists`."""
    return rank_metrics(
        scores,
        [one.relevance for one in lists],
        ties,
        [one.missed for one in lists],
        [one.query for one in lists],
    )


def evaluate(
    scorers: Mapping[str, Scorer],
    lists: Sequence[CandidateList],
    pairs: pd.DataFrame,
    seed: int = 42,
    ties: str = "expected",
    resamples: int = 10_000,
    dev: pd.DataFrame | None = None,
    **stated: Any,
) -> Evaluation:
    """Measure every scorer on the same candidate lists and on the same labelled pairs.

    Ranking metrics are means over the lists with 95 % bootstrap intervals, whole text groups drawn
    (`query_groups`). Each scorer's nDCG@10 is compared with that of the one named `model`, if there
    is one: the difference from the same draws, and a paired randomisation test, Holm-corrected.

    Pair metrics are over `pairs`. The threshold of `accuracy` and `f1` is the one with the highest
    F1 on `dev`; without dev pairs of both classes the two are not defined, for a threshold fitted
    on the test pairs themselves would flatter. `brier` and `ece` are defined for scorers that
    give log-odds (`log_odds` is true of them).

    Args:
        scorers: by name.
        lists: the ranking test; at least one.
        pairs: labelled test pairs, columns `sentence_0`, `sentence_1`, `label`; may be empty.
        seed: of every draw.
        ties: `expected` or `worst`; see `workbench.metrics`.
        resamples: draws of the bootstrap and flips of the test.
        dev: labelled pairs of the dev side.
        stated: anything else that `metrics.json` is to say, such as the recipe of the lists.

    Raises:
        ValueError: there is no list, or a score is not finite (names scorer and query).
    """
    if not lists:
        raise ValueError("there is no candidate list to rank")
    names, labelled = list(scorers), PairScores(pairs, dev, ties, resamples, seed)
    values, per_query, ranked, tied = [], [], [], {}
    pair_rows: list[dict[str, Any]] = []
    thresholds: dict[str, float | None] = {}
    to_score = sum(len(one.candidates) for one in lists) + len(pairs)
    to_score += 0 if dev is None else len(dev)
    for name, scorer in scorers.items():
        if isinstance(scorer, Expecting):
            scorer.expect(to_score)
        scores = score_lists(scorer, lists)
        try:
            found = rank_lists(scores, lists, ties)
        except ValueError as error:
            raise ValueError(f"scorer {name!r}: {error}") from error
        values.append(np.column_stack(list(found.values())))
        frame = pd.DataFrame({"scorer": name, "number": range(len(lists)),
                              "query": [one.query for one in lists], **found})  # fmt: skip
        per_query.append(frame)
        ranked.append(_ranked(name, lists, scores))
        tied[name] = float(np.mean([len(s) > 1 and s.min() == s.max() for s in scores]))
        thresholds[name], estimates = labelled.measure(name, scorer)
        pair_rows.append(estimates)
    groups = query_groups(lists)
    every = np.column_stack(values)
    draws = bootstrap_draws(every, groups, resamples, seed)
    rows = _rows(names, every, draws, pair_rows)
    counts = count_lists(lists)
    metrics = {
        "schema": 1,
        "ties": ties,
        "interval": "95 % bootstrap",
        "resamples": resamples,
        "queries": len(lists),
        "query_groups": len(np.unique(groups)),
        "candidates": counts["candidates"],
        "odd_queries": counts["odd_queries"],
        "suspect_negatives": suspect_negatives(lists)["reason"].value_counts().to_dict(),
        "pairs": len(pairs),
        "dev_pairs": 0 if dev is None else len(dev),
        "thresholds": thresholds,
        "queries_all_tied": tied,
        "backends": backends_used(scorers),
        **stated,
        "rows": rows,
        "model_minus": _differences(names, every, draws, groups, resamples, seed),
    }
    queries, ranks = (pd.concat(frames, ignore_index=True) for frames in (per_query, ranked))
    return Evaluation(metrics, queries, ranks, labelled.scores(), labelled.scores(dev=True))


def _rows(
    names: Sequence[str], values: FloatArray, draws: FloatArray, pair_rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    low, high = np.percentile(draws, LEVEL, axis=0)
    plain = iter(map(Estimate, values.mean(axis=0).tolist(), low.tolist(), high.tolist()))
    return [
        {"scorer": name, **{metric: next(plain).plain() for metric in RANKING_METRICS}, **pairs}
        for name, pairs in zip(names, pair_rows, strict=True)
    ]


def _ranked(name: str, lists: Sequence[CandidateList], scores: list[np.ndarray]) -> pd.DataFrame:
    lengths = [len(score) for score in scores]
    ranks = []
    for one, score in zip(lists, scores, strict=True):
        order = np.lexsort((np.asarray(one.relevance), -score))
        place = np.empty(len(order), dtype=int)
        place[order] = np.arange(1, len(order) + 1)
        ranks.append(place)
    return pd.DataFrame(
        {
            "scorer": name,
            "number": np.repeat(np.arange(len(lists)), lengths),
            "query": np.repeat(np.array([one.query for one in lists], dtype=object), lengths),
            "candidate": [text for one in lists for text in one.candidates],
            "relevance": np.concatenate([one.relevance for one in lists]),
            "kind": [k for one in lists for k in one.kinds or ("given",) * len(one.candidates)],
            "score": np.concatenate(scores),
            "rank": np.concatenate(ranks),
        }
    )


def _differences(
    names: Sequence[str],
    values: FloatArray,
    draws: FloatArray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """nDCG@10 of `model` minus that of every other scorer, query by query."""
    others = [name for name in names if name != "model"]
    if "model" not in names or not others:
        return {}
    step, main = len(RANKING_METRICS), list(RANKING_METRICS).index(MAIN_METRIC)
    column = {name: number * step + main for number, name in enumerate(names)}
    places = [column[name] for name in others]
    gaps, gap_draws = (a[:, [column["model"]]] - a[:, places] for a in (values, draws))
    return compared(others, gaps, gap_draws, groups, resamples, seed)


def compared(
    names: Sequence[str],
    gaps: FloatArray,
    draws: FloatArray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Paired differences, each with its interval and its p-value, alone and among all of them.

    Args:
        names: of what one scorer is compared with.
        gaps: the differences, shape (queries, names).
        draws: their means over resampled queries, shape (resamples, names).
        groups: of the queries, shape (queries,).
        resamples: flips of the test.
        seed: of the evaluation.

    Returns:
        By name `mean`, `low`, `high`, `p`, `p_holm`.
    """
    p = randomisation_test(gaps, groups, resamples, seed + 1)
    low, high = np.percentile(draws, LEVEL, axis=0)
    return {
        name: {**Estimate(gaps[:, n].mean(), low[n], high[n]).plain(), "p": float(p[n]),
               "p_holm": float(adjusted)}
        for n, (name, adjusted) in enumerate(zip(names, holm(p), strict=True))
    }  # fmt: skip
