"""What an evaluation leaves behind, and where its scorers fail, query by query."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from workbench.evaluation import MAIN_METRIC, Evaluation
from workbench.files import project_path, replacing, write_json
from workbench.scoring import Scorer


def save_evaluation(run_dir: str | Path, evaluation: Evaluation, worst: int = 200) -> Path:
    """Write `evaluation/` of a run: metrics.json, per_query.parquet, errors.parquet."""
    folder = project_path(run_dir) / "evaluation"
    first = "model" if "model" in set(evaluation.per_query["scorer"]) else None
    scorer = first or str(evaluation.per_query["scorer"].iloc[0])
    errors = worst_queries(evaluation, worst, scorer)
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
    rows = evaluation.per_query[evaluation.per_query["scorer"] == scorer].set_index("number")
    top = ranked[ranked["rank"] == 1].set_index("number")["candidate"]
    positive = ranked[ranked["relevance"] > 0].sort_values("rank").groupby("number").first()
    table = pd.DataFrame(
        {
            "query": rows["query"],
            MAIN_METRIC: rows[MAIN_METRIC],
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
