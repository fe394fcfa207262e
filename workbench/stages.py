"""Stages: one training after another, each from the last one's result, on pairs of its own."""

import hashlib
from pathlib import Path

import numpy as np
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
    if not 0 < size < len(train):
        return train
    chosen = np.random.default_rng(seed).choice(len(train), size, replace=False)
    return train.iloc[np.sort(chosen)].reset_index(drop=True)


def stage_folders(run_dir: Path) -> list[Path]:
    """The models of a run's finished stages but the last, in order; the last is `model/`."""
    found = (run_dir / STAGES).glob("[0-9]*/lineage.json")
    return sorted((file.parent for file in found), key=lambda folder: int(folder.name))


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
