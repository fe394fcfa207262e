"""Figures of notebook 3: the training log."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from workbench.reports.figures.style import BLUE, CYCLE, GREY, new_axes
from workbench.training.log import LOG_COLUMNS, reference_log, step_means


def loss_curve(logs: Mapping[str, pd.DataFrame], window: int = 5, ax: Axes | None = None) -> Axes:
    """Lines: training loss of each run, raw and smoothed, and its dev loss if it has one.

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
    base = _first(logs).dropna(subset=["constant_loss"])
    for place, (_, rows) in enumerate(base.groupby("stage", sort=False)):
        ends = running_step(_first(logs))[rows.index]
        start, level = ends.iloc[0] - rows["step"].iloc[0], rows["constant_loss"].iloc[0]
        ax.hlines(level, start, ends.iloc[-1], GREY, label="" if place else "always the mean label")
    unit = "binary cross-entropy (nats)" if len(base) else "loss"
    ax.set(xlabel="step", ylabel=unit, ylim=(0, None))
    ax.set_title("Loss by step")
    _mark_stages(logs, ax)
    ax.legend(fontsize="small", ncols=2)
    return ax


def log_values(
    logs: Mapping[str, pd.DataFrame], column: str, label: str, ax: Axes | None = None
) -> Axes:
    """Lines: one column of the training logs by step, for each run.

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
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
    ax.set_title(f"{label[:1].upper()}{label[1:]} by step")
    _mark_stages(logs, ax)
    ax.legend(fontsize="small")
    return ax


def against_the_card(log: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Lines: mean loss of every 500 steps, of this run and of the reference card, by stage.

    The horizontal axis has epochs, so that stages of different sizes can be compared.

    Args:
        log: of one run, as `read_training_log` gives it.
        ax: where to draw.
    """
    ax = new_axes(ax, (7.5, 3.8))
    card, own = reference_log(), step_means(log)
    stages = list(dict.fromkeys(card["stage"]))
    for lines, color, label in ((card, GREY, "reference card"), (own, BLUE, "this run")):
        for place, stage in enumerate(stages):
            part = lines[lines["stage"] == stage]
            named = label if place == 0 else None
            ax.plot(place + part["epoch"], part["loss"], color=color, marker=".", label=named)
    for place, stage in enumerate(stages):
        ax.axvline(place, color=GREY, linestyle=":", linewidth=1)
        ax.text(place + 0.02, 0.98, stage, transform=ax.get_xaxis_transform(), va="top")
    ax.set(xlabel="epochs since the start of stage 2 (one per stage)")
    ax.set(ylabel="cross-entropy (nats), mean of 500 steps")
    ax.set_ylim(0, 1.2 * max([*card["loss"], *own["loss"]]))
    compared = " and ".join(sorted(set(own["stage"]) & set(stages)))
    ax.set_title(
        f"500-step means of the loss in {compared}"
        if compared
        else "500-step means of the card's loss; this run has none of its stages"
    )
    ax.legend(loc="upper right", ncols=2)
    return ax


def _mark_stages(logs: Mapping[str, pd.DataFrame], ax: Axes) -> None:
    """Lines where a stage of the first run starts, with its name, if there are several."""
    steps = _first(logs).groupby("stage", sort=False)["steps"].max()
    if len(steps) < 2:
        return
    for number, (stage, start) in enumerate(steps.cumsum().shift(fill_value=0).items()):
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
    ax.set_title(ax.get_title(loc="left"), pad=26)


def running_step(log: pd.DataFrame) -> pd.Series:
    """Steps counted through all stages: each stage starts where the one before it ended."""
    ends = log.groupby("stage", sort=False)["steps"].max().cumsum().shift(fill_value=0)
    return log["step"] + log["stage"].map(ends)


def _first(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The log of the first run, with all columns."""
    log = next(iter(logs.values()))
    return log.reindex(columns=log.columns.union(LOG_COLUMNS, sort=False))
