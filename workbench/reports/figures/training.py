"""The figures: each function draws on the axes it is given, labels them, and returns them."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from workbench.reports.figures.style import BLUE, GREY, _colors, new_axes
from workbench.training.log import reference_log, step_means


def loss_curve(logs: Mapping[str, pd.DataFrame], window: int = 5, ax: Axes | None = None) -> Axes:
    """Lines: training loss of each run, raw and smoothed, with the dev loss where there is one.

    Args:
        logs: by run name, as `read_training_log` gives them; stages follow one another.
        window: log lines in the moving average.
        ax: where to draw.
    """
    ax = new_axes(ax)
    for (name, log), color in zip(logs.items(), _colors(len(logs)), strict=True):
        step = running_step(log)
        train, dev = log["loss"].notna(), log["dev_loss"].notna()
        for place, (_, rows) in enumerate(log[train].groupby("stage", sort=False)):
            x, loss = step[rows.index], rows["loss"]  # each stage by itself, no line to the next
            smooth = loss.rolling(window, min_periods=1).mean()
            labels = (f"{name}: raw", f"{name}: mean of {window}") if place == 0 else (None, None)
            ax.plot(x, loss, color=color, alpha=0.3, marker=".", label=labels[0])
            ax.plot(x, smooth, color=color, linewidth=2, label=labels[1])
        if dev.any():
            ax.plot(
                step[dev],
                log.loc[dev, "dev_loss"],
                color=color,
                linestyle="--",
                marker="o",
                markersize=3,
                label=f"{name}: dev",
            )
    ax.set(xlabel="step", ylabel="binary cross-entropy (nats)", ylim=(0, None))
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
        column: `learning_rate`, `grad_norm` or `dev_ap`.
        label: of the vertical axis, with its unit; also the title.
        ax: where to draw.
    """
    ax = new_axes(ax, (7.5, 2.6))
    for (name, log), color in zip(logs.items(), _colors(len(logs)), strict=True):
        there = log[column].notna()
        values = log.loc[there, column]
        ax.plot(running_step(log)[there], values, color=color, marker=".", label=name)
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
    ax.set_title(f"{label[:1].upper()}{label[1:]} by step")
    _mark_stages(logs, ax)
    ax.legend(fontsize="small")
    return ax


def against_the_card(log: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Lines: mean loss of every 500 steps, ours and the reference card's, stage after stage.

    Epochs lie on the horizontal axis, so that stages of unlike numbers of pairs can be compared.

    Args:
        log: of one run, as `read_training_log` gives it.
        ax: where to draw.
    """
    ax = new_axes(ax, (7.5, 3.8))
    card, ours = reference_log(), step_means(log)
    stages = list(dict.fromkeys(card["stage"]))
    for lines, color, label in ((card, GREY, "reference card"), (ours, BLUE, "this run")):
        for place, stage in enumerate(stages):
            part = lines[lines["stage"] == stage]
            named = label if place == 0 else None
            ax.plot(place + part["epoch"], part["loss"], color=color, marker=".", label=named)
    for place, stage in enumerate(stages):
        ax.axvline(place, color=GREY, linestyle=":", linewidth=1)
        ax.text(place + 0.02, 0.98, stage, transform=ax.get_xaxis_transform(), va="top")
    ax.set(xlabel="epochs since the beginning of stage 2 (one a stage)")
    ax.set(ylabel="cross-entropy (nats), 500 steps", ylim=(0, None))
    compared = sorted(set(ours["stage"]) & set(stages))
    ax.set_title(
        f"500-step means of the loss in {' and '.join(compared)}, and the card's"
        if compared
        else "The card's 500-step means of the loss; this run has none of these stages"
    )
    ax.set_ylim(0, 1.2 * max(card["loss"].max(), ours["loss"].max() if len(ours) else 0))
    ax.legend(loc="upper right", ncols=2)
    return ax


def _mark_stages(logs: Mapping[str, pd.DataFrame], ax: Axes) -> None:
    """Lines where a stage of the first run begins, with its name, if there are several."""
    log = next(iter(logs.values()))
    ends = log.groupby("stage", sort=False)["steps"].max().cumsum()
    if len(ends) < 2:
        return
    last, height = -math.inf, 0
    for stage, start in ends.shift(fill_value=0).items():
        height = 1 - height if start - last < 0.15 * ends.iloc[-1] else 0  # names side by side
        last = start
        ax.axvline(start, color=GREY, linestyle=":", linewidth=1)
        ax.annotate(
            f" {stage}",
            (start, 1),
            xycoords=("data", "axes fraction"),
            va="bottom",
            xytext=(0, 9 * height),
            textcoords="offset points",
            fontsize="x-small",
            color=GREY,
        )
    ax.set_title(ax.get_title(loc="left"), pad=26)


def running_step(log: pd.DataFrame) -> pd.Series:
    """Steps counted through all stages: each stage starts where the one before it ended."""
    ends = log.groupby("stage", sort=False)["steps"].max().cumsum().shift(fill_value=0)
    return log["step"] + log["stage"].map(ends)
