"""Rank candidate lists with several scorers, and say what may be claimed from the result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.candidates import CandidateList
from workbench.files import project_path, replacing, write_json
from workbench.findings import format_estimate
from workbench.metrics import (
    RANKING_METRICS,
    Estimate,
    bootstrap_mean,
    bootstrap_pair_metrics,
    rank_metrics,
)
from workbench.scoring import Scorer

MAIN_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: the content of `metrics.json`.
        per_query: one row a scorer and query: `scorer`, `query`, and each ranking metric.
        ranked: one row a scorer, query and candidate: `scorer`, `number` (of the query), `query`,
            `candidate`, `relevance`, `score`, `rank` (1 is best).
    """

    metrics: dict[str, Any]
    per_query: pd.DataFrame
    ranked: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """One row a scorer, best first; each metric as its mean with the interval beside it."""
        rows = []
        for row in self.metrics["rows"]:
            shown = {"scorer": row["scorer"]}
            for name, value in row.items():
                if name != "scorer":
                    shown[name] = format_estimate(value)
            rows.append((-row[MAIN_METRIC]["mean"], shown))
        rows.sort(key=lambda row: row[0])
        return pd.DataFrame([shown for _, shown in rows]).set_index("scorer")


def score_lists(scorer: Scorer, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of every list's candidates: for each list a float32 array of shape (candidates,)."""
    scores = scorer.score([pair for one in lists for pair in one.pairs()])
    ends = np.cumsum([len(one.candidates) for one in lists])[:-1]
    return list(np.split(np.asarray(scores, dtype=np.float32), ends))


def evaluate(
    scorers: Mapping[str, Scorer],
    lists: Sequence[CandidateList],
    pairs: pd.DataFrame,
    seed: int = 42,
) -> Evaluation:
    """Measure every scorer on the same candidate lists and on the same labelled pairs.

    Ranking metrics are means over the lists with 95 % bootstrap intervals over queries; `ap` and
    `roc_auc` are over `pairs`. Differences of nDCG@10 to the scorer named `model`, if there is
    one, come from the same resampled queries.

    Args:
        scorers: by name.
        lists: the ranking test; at least one.
        pairs: labelled test pairs, columns `sentence_0`, `sentence_1`, `label`; may be empty.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no list, or a score is not finite (names scorer and query).
    """
    if not lists:
        raise ValueError("there is no candidate list to rank")
    relevance = [np.asarray(one.relevance) for one in lists]
    labelled = list(zip(pairs["sentence_0"], pairs["sentence_1"], strict=True))
    rows, per_query, ranked = [], [], []
    for name, scorer in scorers.items():
        scores = score_lists(scorer, lists)
        try:
            values = rank_metrics(scores, relevance)
        except ValueError as error:
            raise ValueError(f"scorer {name!r}: {error}") from error
        row: dict[str, Any] = {"scorer": name}
        for metric in RANKING_METRICS:
            row[metric] = _plain(bootstrap_mean(values[metric], seed=seed))
        if labelled:
            estimates = bootstrap_pair_metrics(scorer.score(labelled), pairs["label"], seed=seed)
            row |= {metric: _plain(estimate) for metric, estimate in estimates.items()}
        rows.append(row)
        values.insert(0, "query", [one.query for one in lists])
        values.insert(0, "scorer", name)
        per_query.append(values)
        ranked.append(_ranked(name, lists, scores))
    table = pd.concat(per_query, ignore_index=True)
    metrics = {
        "schema": 1,
        "ties": "worst",
        "interval": "95 % bootstrap",
        "queries": len(lists),
        "queries_without_positive": sum(not any(one.relevance) for one in lists),
        "candidates": sum(len(one.candidates) for one in lists),
        "pairs": len(labelled),
        "rows": rows,
        "model_minus": _differences(table, seed),
    }
    return Evaluation(metrics, table, pd.concat(ranked, ignore_index=True))


def save_evaluation(run_dir: str | Path, evaluation: Evaluation, worst: int = 20) -> Path:
    """Write `evaluation/` of a run: metrics.json, per_query.parquet, errors.parquet."""
    folder = project_path(run_dir) / "evaluation"
    errors = worst_queries(evaluation, worst)
    for name, frame in (("per_query", evaluation.per_query), ("errors", errors)):
        with replacing(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    write_json(folder / "metrics.json", evaluation.metrics)
    return folder


def worst_queries(evaluation: Evaluation, count: int = 20, scorer: str = "model") -> pd.DataFrame:
    """The queries that a scorer ranks worst by nDCG@10, then by the rank of the first positive.

    Returns:
        One row a query, the worst first: `query`, `ndcg@10`, `best_positive` and its `rank`, and
        `ranked_first`, the candidate that the scorer put on top.
    """
    ranked = evaluation.ranked[evaluation.ranked["scorer"] == scorer]
    values = evaluation.per_query[evaluation.per_query["scorer"] == scorer][MAIN_METRIC].to_numpy()
    top = ranked[ranked["rank"] == 1].set_index("number")["candidate"]
    positive = ranked[ranked["relevance"] > 0].sort_values("rank").groupby("number").first()
    table = pd.DataFrame(
        {
            "query": ranked.groupby("number")["query"].first(),
            MAIN_METRIC: values,
            "best_positive": positive["candidate"],
            "rank": positive["rank"].astype("Int64"),
            "ranked_first": top,
        }
    )
    ordered = table.sort_values([MAIN_METRIC, "rank"], ascending=[True, False], kind="stable")
    return ordered.head(count).reset_index(drop=True)


def rank_query(
    scorers: Mapping[str, Scorer], query: str, candidates: Iterable[str]
) -> pd.DataFrame:
    """Rank candidates for one query: a row a candidate, a column a scorer's scores.

    The order is that of the first scorer, the best candidate first.
    """
    texts = list(dict.fromkeys(candidates))
    columns = {n: scorer.score([(query, text) for text in texts]) for n, scorer in scorers.items()}
    table = pd.DataFrame({"candidate": texts, **columns})
    return table.sort_values(next(iter(scorers)), ascending=False, ignore_index=True)


def seen_queries(lists: Sequence[CandidateList], train: pd.DataFrame) -> int:
    """How many lists' queries also stand among the training texts, which flatters the model."""
    known = {*train["sentence_0"], *train["sentence_1"]}
    return sum(one.query in known for one in lists)


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {n: None if np.isnan(v) else v for n, v in estimate._asdict().items()}


def _ranked(name: str, lists: Sequence[CandidateList], scores: list[np.ndarray]) -> pd.DataFrame:
    frames = []
    for number, (one, score) in enumerate(zip(lists, scores, strict=True)):
        order = np.lexsort((np.asarray(one.relevance), -score))
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(1, len(order) + 1)
        frames.append((number, one, score, rank))
    return pd.DataFrame(
        {
            "scorer": name,
            "number": np.repeat([f[0] for f in frames], [len(f[2]) for f in frames]),
            "query": [f[1].query for f in frames for _ in f[2]],
            "candidate": [text for f in frames for text in f[1].candidates],
            "relevance": np.concatenate([f[1].relevance for f in frames]),
            "score": np.concatenate([f[2] for f in frames]),
            "rank": np.concatenate([f[3] for f in frames]),
        }
    )


def _differences(per_query: pd.DataFrame, seed: int) -> dict[str, dict[str, float | None]]:
    """nDCG@10 of `model` minus that of every other scorer, query by query."""
    values = {name: rows[MAIN_METRIC].to_numpy() for name, rows in per_query.groupby("scorer")}
    model = values.pop("model", None)
    if model is None:
        return {}
    return {
        str(name): _plain(bootstrap_mean(model - other, seed=seed))
        for name, other in values.items()
    }
