"""Figures of notebook 3: the training log."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from workbench.reports.figures.style import CYCLE, GREY, new_axes
from workbench.training.log import LOG_COLUMNS


def loss_curve(logs: Mapping[str, pd.DataFrame], window: int = 5, ax: Axes | None = None) -> Axes:
    """Training loss of each run by step, raw and smoothed, and its dev loss if it has one.

    A grey line marks the loss of a model that answers the mean label of the first run to each pair.

    Args:
        logs: by run name, as `read_training_log` gives them; stages follow one another.
        window: log lines in the moving average.
        ax: where to draw.
    """
    ax = new_axes(ax)
    for (name, log), color in zip(logs.items(), cycle(CYCLE), strict=False):
        step, dev = running_step(log), log["dev_loss"].notna()
        labels: list[str | None] = [f"{name}: raw", f"{name}: mean of {window}"]
        for _, rows in log[log["loss"].notna()].groupby("stage", sort=False):  # one line per stage
            x, smooth = step[rows.index], rows["loss"].rolling(window, min_periods=1).mean()
            ax.plot(x, rows["loss"], color=color, alpha=0.3, marker=".", label=labels[0])
            ax.plot(x, smooth, color=color, linewidth=2, label=labels[1])
            labels = [None, None]
        if dev.any():
            look: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 3}
            ax.plot(step[dev], log.loc[dev, "dev_loss"], color=color, label=f"{name}: dev", **look)
    first = _first(logs)
    base = first.dropna(subset=["constant_loss"])
    for place, (_, rows) in enumerate(base.groupby("stage", sort=False)):
        ends = running_step(first)[rows.index]
        start, level = ends.iloc[0] - rows["step"].iloc[0], rows["constant_loss"].iloc[0]
        ax.hlines(level, start, ends.iloc[-1], GREY, label="" if place else "always the mean label")
    unit = "binary cross-entropy (nats)" if len(base) else "loss"
    return _finished(ax, logs, unit, "Loss by step")


def log_values(
    logs: Mapping[str, pd.DataFrame], column: str, label: str, ax: Axes | None = None
) -> Axes:
    """One column of the training logs by step, a line per run.

    Args:
        logs: by run name.
        column: `learning_rate`, `grad_norm` or `dev_ap`; for the last, a grey line marks guessing
            on the dev pairs of the first run.
        label: of the vertical axis, with its unit; also the title.
        ax: where to draw.
    """
    ax = new_axes(ax, (7.5, 2.6))
    for (name, log), color in zip(logs.items(), cycle(CYCLE), strict=False):
        values = log[column].dropna()
        ax.plot(running_step(log)[values.index], values, color=color, marker=".", label=name)
    guesses = _first(logs).dropna(subset=["dev_pairs"])
    if column == "dev_ap" and len(guesses):
        share = guesses["dev_positives"].iloc[-1] / guesses["dev_pairs"].iloc[-1]
        ax.axhline(share, color=GREY, label="guessing")
    return _finished(ax, logs, label, f"{label[:1].upper()}{label[1:]} by step")


def _finished(ax: Axes, logs: Mapping[str, pd.DataFrame], label: str, title: str) -> Axes:
    """The axes labelled; if the first run has several stages, a named line where each starts."""
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
    starts = _stage_starts(_first(logs))
    ax.set_title(title, pad=26 if len(starts) > 1 else None)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", ncols=2)
    for number, (stage, start) in enumerate(starts.items() if len(starts) > 1 else ()):
        ax.axvline(start, color=GREY, linestyle=":", linewidth=1)
        ax.annotate(
            f" {stage}",
            (start, 1),
            xycoords=("data", "axes fraction"),
            va="bottom",
            xytext=(0, 9 * (number % 2)),  # names may be wider than their stages
            textcoords="offset points",
            fontsize="x-small",
            color=GREY,
        )
    return ax


def _stage_starts(log: pd.DataFrame) -> pd.Series:
    """By stage, the steps of all stages before it."""
    return log.groupby("stage", sort=False)["steps"].max().cumsum().shift(fill_value=0)


def running_step(log: pd.DataFrame) -> pd.Series:
    """Steps counted through all stages: each stage starts where the one before it ended."""
    return log["step"] + log["stage"].map(_stage_starts(log)).astype(float)


def _first(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The log of the first run, with all columns."""
    log = next(iter(logs.values()))
    return log.reindex(columns=log.columns.union(LOG_COLUMNS, sort=False))
