"""The reference model's card: what it tells of its training, and a run's log beside it."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.files import project_root, read_json

STEPS = 500  # the card's log has the mean loss of every 500 steps


def reference_card() -> dict[str, Any]:
    """The facts of the card, from `data/reference_card.json`, with their source."""
    return dict(read_json(project_root() / "data" / "reference_card.json"))


def reference_log() -> pd.DataFrame:
    """The card's log: `stage`, `epoch`, `step`, `loss` (mean of the 500 steps up to it).

    The card's first stage, of 2,000 pairs, took 250 steps and so has no line.
    """
    parts = [
        pd.DataFrame({"stage": f"stage {one['stage']}", "epoch": one["epochs"],
                      "step": one["steps"], "loss": one["loss"]})
        for one in reference_card()["logged"]
    ]  # fmt: skip
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
        rows += [{"stage": stage, "epoch": float(epochs[n]), "step": (n + 1) * steps,
                  "loss": float(means[n])} for n in range(whole)]  # fmt: skip
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
            rows.append({"stage": row.stage, "epoch": row.epoch, "step": row.step,
                         "loss": row.loss, "card_step": int(nearest["step"]),
                         "card_loss": float(nearest["loss"])})  # fmt: skip
    columns = ["stage", "epoch", "step", "loss", "card_step", "card_loss"]
    return pd.DataFrame(rows, columns=columns)


def card_finding(log: pd.DataFrame) -> str:
    """How the shape of our loss compares with that of the card's, and what neither tells."""
    beside = beside_the_card(log)
    if beside.empty:
        return (
            f"No stage of this run that the card has a log of is {STEPS} steps long, so there is "
            "nothing to compare with the card's 500-step means."
        )
    parts = []
    for stage, rows in beside.groupby("stage", sort=False):
        ours, theirs = rows["loss"], rows["card_loss"]
        parts.append(
            f"in {stage} ours goes from {ours.iloc[0]:.4f} to {ours.iloc[-1]:.4f}, the card's from "
            f"{theirs.iloc[0]:.4f} to {theirs.iloc[-1]:.4f} over the same part of the epoch"
        )
    return (
        "Means of 500 steps: "
        + "; ".join(parts)
        + ". Other pairs, and fewer of them, give another "
        "level; what can be compared is the shape. Where a stage starts below the end of the one "
        "before it, its pairs were known already. The card gives no figure of ranking beside it."
    )
