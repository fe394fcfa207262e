"""The training log: one JSON object per line, flushed as it is written, readable while it grows."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, FiniteFloat, model_validator

from workbench.files import write_text
from workbench.run_folder import RunFolder, read_record

LOG_COLUMNS = [
    *("stage", "step", "steps", "epoch", "seconds"),
    *("loss", "constant_loss", "learning_rate", "grad_norm"),
    *("dev_loss", "dev_ap", "dev_ndcg", "dev_pairs", "dev_positives", "dev_lists"),
]
MEASURED = ("loss", "learning_rate", "grad_norm", "dev_loss", "dev_ap", "dev_ndcg")  # of these
STEPS = 500  # the card's log has the mean loss of every 500 steps


class _LogRow(BaseModel, extra="allow", strict=True):
    __pydantic_extra__: dict[str, float | None]
    stage: str = ""
    step: int = 0
    seconds: FiniteFloat = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name, value in self.__pydantic_extra__.items() if value is not None}
        needed = {"steps"} if "loss" in given else set()
        needed |= {"dev_pairs", "dev_positives"} if given & {"dev_loss", "dev_ap"} else set()
        if missing := needed - given:
            raise ValueError(f"the row has no {sorted(missing)}")
        return self


class TrainingLog:
    """Appends to `training_log.jsonl` of a run; every row names its stage."""

    def __init__(self, run_dir: str | Path, stage: str) -> None:
        self.path = RunFolder(run_dir).training_log
        self.stage = stage

    def append(self, row: dict[str, Any]) -> None:
        """Write one row and push it to the disk, so that a reader sees it at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage, **row}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """This stage's rows so far, without stage and seconds."""
        return [
            {name: value for name, value in row.items() if name not in ("stage", "seconds")}
            for row in log_rows(self.path)
            if row.get("stage") == self.stage
        ]

    def rewind(self, step: int) -> None:
        """Drop this stage's rows after `step`: a resumed training takes those steps again."""
        kept = [
            json.dumps(row, ensure_ascii=False) + "\n"
            for row in log_rows(self.path)
            if row.get("stage") != self.stage or row.get("step", 0) <= step
        ]
        if self.path.is_file():
            write_text(self.path, "".join(kept))


def read_training_log(run_dir: str | Path) -> pd.DataFrame:
    """The log of a run, finished or still running: one row per line, NaN where a value is absent.

    Of its `LOG_COLUMNS`, `steps` is the stage's total, `loss` the mean since the last row,
    `constant_loss` that of the mean label as the only answer, `grad_norm` before clipping, and
    `dev_ndcg` is nDCG@10.

    Raises:
        FileNotFoundError: the run has no log yet.
    """
    path = RunFolder(run_dir).training_log
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} has no {path.name}: run notebook 02_fine_tune first")
    return pd.DataFrame(log_rows(path), columns=LOG_COLUMNS)


def last_record(run_dir: str | Path) -> dict[str, Any]:
    """The record of a run's last finished stage, from its lineage; empty if there is none yet."""
    return dict(read_record(RunFolder(run_dir).lineage).get("stages", [{}])[-1])


def log_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a training log, but for damaged or half written ones; none without a file."""
    rows: list[dict[str, Any]] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            _LogRow.model_validate(row)
            rows.append(row)
    return rows


def step_means(log: pd.DataFrame, steps: int = STEPS) -> pd.DataFrame:
    """The mean loss of every `steps` steps of each stage, without a rest, as on the card.

    A row's loss, the mean since the row before it, counts for each of its steps. The columns are
    `stage`, `epoch`, `step` (the last of each mean) and `loss`.
    """
    parts = [log[["stage", "epoch", "step", "loss"]].head(0)]
    for stage, rows in log.dropna(subset=["loss"]).groupby("stage", sort=False):
        ends = rows["step"].to_numpy(int)
        each = np.repeat(rows["loss"].to_numpy(float), np.diff(ends, prepend=0))
        whole = len(each) // steps
        step = np.arange(1, whole + 1) * steps
        epoch = np.interp(step, ends, rows["epoch"].to_numpy(float))
        loss = each[: whole * steps].reshape(whole, steps).mean(axis=1)
        parts.append(pd.DataFrame({"stage": stage, "epoch": epoch, "step": step, "loss": loss}))
    return pd.concat(parts, ignore_index=True)
