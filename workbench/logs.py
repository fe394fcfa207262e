"""The training log: one JSON object a line, flushed as it is written, readable while it grows."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.files import project_path, write_text

LOG_NAME = "training_log.jsonl"
LOG_COLUMNS = ("stage", "step", "steps", "epoch", "seconds", "loss", "learning_rate", "grad_norm",
               "dev_loss", "dev_ap")  # fmt: skip


class TrainingLog:
    """Appends to `training_log.jsonl` of a run; every row names its stage."""

    def __init__(self, run_dir: str | Path, stage: str) -> None:
        self.path = Path(run_dir) / LOG_NAME
        self.stage = stage

    def append(self, row: dict[str, Any]) -> None:
        """Write one row and push it to the disk, so that a reader sees it at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage, **row}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """This stage's rows so far, without their stage and clock."""
        rows = _rows(self.path) if self.path.is_file() else []
        return [{name: value for name, value in row.items() if name not in ("stage", "seconds")}
                for row in rows if row.get("stage") == self.stage]  # fmt: skip

    def rewind(self, step: int) -> None:
        """Drop this stage's rows of steps after `step`, which a resumed training takes again."""
        if self.path.is_file():
            kept = [row for row in _rows(self.path)
                    if row.get("stage") != self.stage or row.get("step", 0) <= step]  # fmt: skip
            write_text(self.path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))


def read_training_log(run_dir: str | Path) -> pd.DataFrame:
    """The log of a run, finished or still running: a row a log line, NaN where a value is absent.

    Returns:
        Columns `stage`, `step`, `steps` (the stage's total), `epoch`, `seconds`, `loss` (mean
        since the last row), `learning_rate`, `grad_norm` (before clipping), `dev_loss`, `dev_ap`.

    Raises:
        FileNotFoundError: the run has no log yet.
    """
    path = project_path(run_dir) / LOG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} has no {LOG_NAME} yet: run notebook 02_fine_tune first")
    return pd.DataFrame(_rows(path), columns=list(LOG_COLUMNS))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # the last line of a running or killed training may be half written
    return rows
