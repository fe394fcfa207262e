"""The training log: one JSON object a line, flushed as it is written, readable while it grows."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.files import project_path, project_root, read_json, write_text

LOG_NAME = "training_log.jsonl"


LOG_COLUMNS = (
    "stage",
    "step",
    "steps",
    "epoch",
    "seconds",
    "loss",
    "learning_rate",
    "grad_norm",
    "dev_loss",
    "dev_ap",
)


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
        return [
            {name: value for name, value in row.items() if name not in ("stage", "seconds")}
            for row in rows
            if row.get("stage") == self.stage
        ]

    def rewind(self, step: int) -> None:
        """Drop this stage's rows of steps after `step`, which a resumed training takes again."""
        if self.path.is_file():
            kept = [
                row
                for row in _rows(self.path)
                if row.get("stage") != self.stage or row.get("step", 0) <= step
            ]
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


STEPS = 500  # the card's log has the mean loss of every 500 steps


def reference_card() -> dict[str, Any]:
    """The facts of the card, from `data/reference_card.json`, with their source."""
    return dict(read_json(project_root() / "data" / "reference_card.json"))


def reference_log() -> pd.DataFrame:
    """The card's log: `stage`, `epoch`, `step`, `loss` (mean of the 500 steps up to it).

    The card's first stage, of 2,000 pairs, took 250 steps and so has no line.
    """
    parts = [
        pd.DataFrame(
            {
                "stage": f"stage {one['stage']}",
                "epoch": one["epochs"],
                "step": one["steps"],
                "loss": one["loss"],
            }
        )
        for one in reference_card()["logged"]
    ]
    return pd.concat(parts, ignore_index=True)


def step_means(log: pd.DataFrame, steps: int = STEPS) -> pd.DataFrame:
    """The mean loss of every `steps` steps of each stage, as the card's log has it.

    A log line's loss is the mean since the line before it, so the means are exact where log lines
    fall on multiples of `steps`; otherwise a line's loss is spread evenly over its steps.

    Args:
        log: as `read_training_log` gives it.
        steps: in a mean; what is left over at the end of a stage is left out, as on the card.

    Returns:
        `stage`, `epoch`, `step` (the last of each mean) and `loss`; empty if no stage is so long.
    """
    rows = []
    for stage, lines in log.dropna(subset=["loss"]).groupby("stage", sort=False):
        ends = lines["step"].to_numpy(int)
        each = np.repeat(lines["loss"].to_numpy(float), np.diff(ends, prepend=0))
        whole = len(each) // steps
        means = each[: whole * steps].reshape(whole, steps).mean(axis=1)
        epochs = np.interp(np.arange(1, whole + 1) * steps, ends, lines["epoch"].to_numpy(float))
        rows += [
            {
                "stage": stage,
                "epoch": float(epochs[n]),
                "step": (n + 1) * steps,
                "loss": float(means[n]),
            }
            for n in range(whole)
        ]
    return pd.DataFrame(rows, columns=["stage", "epoch", "step", "loss"])


def beside_the_card(log: pd.DataFrame) -> pd.DataFrame:
    """The run's 500-step means beside the card's, stage by stage, at the card's nearest epoch.

    Returns:
        `stage`, `epoch`, `step`, `loss`, `card_step`, `card_loss`: a row for each of our means in a
        stage that the card has a log of.
    """
    card, ours = reference_log(), step_means(log)
    rows = []
    for row in ours.itertuples():
        theirs = card[card["stage"] == row.stage]
        if len(theirs):
            nearest = theirs.iloc[int((theirs["epoch"] - row.epoch).abs().to_numpy().argmin())]
            rows.append(
                {
                    "stage": row.stage,
                    "epoch": row.epoch,
                    "step": row.step,
                    "loss": row.loss,
                    "card_step": int(nearest["step"]),
                    "card_loss": float(nearest["loss"]),
                }
            )
    columns = ["stage", "epoch", "step", "loss", "card_step", "card_loss"]
    return pd.DataFrame(rows, columns=columns)
