"""The learning curve: how well each snapshot of a training ranks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workbench.candidates import query_groups
from workbench.evaluation import MAIN_METRIC, Evaluation, rank_lists, score_lists
from workbench.files import project_path, read_json
from workbench.lists import CandidateList
from workbench.models import find_model
from workbench.scoring import ModelScorer
from workbench.uncertainty import bootstrap_mean


def find_snapshots(run_dir: str | Path) -> list[Path]:
    """The folders of a run's snapshots, by step; empty where none were kept."""
    return sorted((project_path(run_dir) / "snapshots").glob("step-*"))


def snapshot_curve(
    run_dir: str | Path,
    lists: Sequence[CandidateList],
    evaluation: Evaluation,
    max_length: int = 512,
    seed: int = 42,
    backend: str = "predict",
) -> pd.DataFrame:
    """nDCG@10 of every snapshot of a run on the same lists, and of the base before them.

    Args:
        run_dir: the run, trained with `snapshots` above 0.
        lists: the candidate lists.
        evaluation: of the same lists; it tells ties and resamples, and the base's values.
        max_length: tokens of a pair.
        seed: of the intervals.
        backend: how to run the models; see `ModelScorer`.

    Returns:
        `step`, `pairs` (training pairs seen), `mean`, `low`, `high`, one row a snapshot; empty
        where there is none.
    """
    ties, resamples = evaluation.metrics["ties"], evaluation.metrics["resamples"]
    groups, rows = query_groups(lists), []
    found = find_snapshots(run_dir)
    if found and "base" in set(evaluation.per_query["scorer"]):
        interval = bootstrap_mean(evaluation.values("base"), resamples, seed, groups)
        rows.append({"step": 0, "pairs": 0, **interval._asdict()})
    for folder in found:
        found_model = find_model(str(folder))
        scorer = ModelScorer.load(found_model, max_length, seed=seed, backend=backend)
        values = rank_lists(score_lists(scorer, lists), lists, ties)[MAIN_METRIC]
        interval = bootstrap_mean(values, resamples, seed, groups)
        rows.append({**read_json(folder / "snapshot.json"), **interval._asdict()})
    return pd.DataFrame(rows, columns=["step", "pairs", "mean", "low", "high"])
