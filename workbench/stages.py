"""Stages: one training after another, each from the last one's result, on pairs of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.files import project_path, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

STAGES = "stages"  # the folder of a run with the models of all stages but the last


def read_stages(stages: str) -> tuple[int, ...]:
    """The training pairs of each stage, 0 for all, from a text such as `2000,0,0`.

    An empty text is one stage with all pairs.

    Raises:
        ValueError: the text is no list of whole numbers.
    """
    parts = [part.strip() for part in stages.split(",")] if stages.strip() else ["0"]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(
            f"stages {stages!r}: must be whole numbers of training pairs, one a stage, separated "
            "by commas; 0 for all of them"
        )
    return tuple(int(part) for part in parts)


def stage_pairs(train: pd.DataFrame, size: int, seed: int = 42) -> pd.DataFrame:
    """A seeded random sample of `size` rows in their given order; all rows for 0 or too many."""
    import numpy as np

    if not 0 < size < len(train):
        return train
    chosen = np.random.default_rng(seed).choice(len(train), size, replace=False)
    return train.iloc[np.sort(chosen)].reset_index(drop=True)


def stage_folders(run_dir: Path) -> list[Path]:
    """The models of a run's finished stages but the last, in order; the last is `model/`."""
    found = (run_dir / STAGES).glob("[0-9]*/lineage.json")
    return sorted((file.parent for file in found), key=lambda folder: int(folder.name))


def describe_pairs(pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """`min`, `mean` and `max` over all rows: characters of each column of texts, and labels."""
    measured = {name: pairs[name].str.len() for name in ("sentence_0", "sentence_1")}
    measured["label"] = pairs["label"].astype(float)
    return {
        name: {"min": values.min().item(), "mean": float(values.mean()), "max": values.max().item()}
        for name, values in measured.items()
    }


def record_figures(run_dir: str | Path) -> None:
    """Write into the lineage how the result of each stage ranked, as the evaluation found it.

    Nothing is written for a stage that was not evaluated.
    """
    folder = project_path(run_dir)
    file, metrics = folder / "model" / "lineage.json", folder / "evaluation" / "metrics.json"
    lineage, found = read_json(file), read_json(metrics)
    rows = {row["scorer"]: row for row in found["rows"]}
    stages = lineage["stages"]
    for stage in stages:
        row = rows.get("model" if stage is stages[-1] else stage["stage"])
        if row is not None:
            stage["evaluation"] = {"queries": found["queries"], "ties": found["ties"],
                                   "test": found.get("recipe", {}).get("source"),
                                   "ndcg@10": row["ndcg@10"], "mrr@10": row["mrr@10"]}  # fmt: skip
    write_json(file, lineage)


def pairs_sha256(pairs: pd.DataFrame) -> str:
    """SHA-256 over texts and labels of all rows, in order: the same pairs give the same value."""
    digest = hashlib.sha256()
    for first, second, label in pairs[["sentence_0", "sentence_1", "label"]].itertuples(
        index=False
    ):
        for value in (first, second, repr(float(label))):
            part = value.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
