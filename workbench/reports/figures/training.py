"""Figures of notebooks 1 and 3: the pairs, and the training log."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workbench.files import percent
from workbench.reports.figures.style import BLUE, CYCLE, GREY, ORANGE, RED, new_axes
from workbench.reports.findings import Record


def label_balance(inspection: Record, ax: Axes | None = None) -> Axes:
    """Bars: pairs by label."""
    ax = new_axes(ax, (7.5, 2.4))
    labels = inspection["labels"]
    counts = [labels["negative"], labels["positive"]]
    bars = ax.barh(["negative", "positive"], counts, color=[GREY, BLUE])
    ax.bar_label(bars, [f"{n:,} ({percent(n / labels['pairs'])})" for n in counts], padding=4)
    ax.set(xlabel="pairs", ylabel="label", xlim=(0, max(counts) * 1.2))
    ax.set_title(f"{percent(counts[1] / labels['pairs'])} of the pairs are positive")
    return ax


def length_histogram(values: Any, unit: str, limit: int = 0, ax: Axes | None = None) -> Axes:
    """Histogram of lengths in `unit`, on a logarithmic count axis; a line at `limit` if reached."""
    ax, lengths = new_axes(ax), np.asarray(values)
    width = max(1, int(np.ceil((lengths.max() - lengths.min() + 1) / 50)))
    bins = np.arange(lengths.min(), lengths.max() + width + 1, width).tolist()
    ax.hist(lengths, bins, color=BLUE)
    ax.axvline(lengths.mean(), color=ORANGE, linewidth=2, label=f"mean {lengths.mean():.1f}")
    if 0 < limit <= lengths.max():
        ax.axvline(limit, color=RED, linestyle="--", label=f"cut at {limit}")
    ax.set(xlabel=f"length ({unit})", ylabel="count (log scale)", yscale="log")
    median, longest = np.median(lengths), lengths.max()
    ax.set_title(f"Half have at most {median:.0f} {unit}, the longest has {longest:,}")
    ax.legend()
    return ax


def loss_curve(logs: Mapping[str, pd.DataFrame], window: int = 5, ax: Axes | None = None) -> Axes:
    """Training loss of each run by step, raw and as a moving average of `window` log lines.

    Also its dev loss if it has one, and in grey the loss of the first run's mean label as the only
    answer. `logs` are by run name, as from `read_training_log`; stages follow one another.
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
    first = next(iter(logs.values()))
    base, starts = first.dropna(subset=["constant_loss"]), _stage_starts(first)
    for place, (stage, rows) in enumerate(base.groupby("stage", sort=False)):
        start, level = starts[stage], rows["constant_loss"].iloc[0]
        end, label = start + rows["step"].iloc[-1], "" if place else "always the mean label"
        ax.hlines(level, start, end, GREY, label=label)
    unit = "binary cross-entropy (nats)" if len(base) else "loss"
    return _finished(ax, logs, unit, "Loss by step")


def log_values(
    logs: Mapping[str, pd.DataFrame], column: str, label: str, ax: Axes | None = None
) -> Axes:
    """One column of the training logs by step, such as `grad_norm`, a line per run.

    For `dev_ap` a grey line marks guessing on the dev pairs of the first run. `label`, with a unit,
    is for the vertical axis and the title.
    """
    ax = new_axes(ax, (7.5, 2.6))
    for name, log in logs.items():
        values = log[column].dropna()
        ax.plot(running_step(log)[values.index], values, marker=".", label=name)
    guesses = next(iter(logs.values())).dropna(subset=["dev_pairs"])
    if column == "dev_ap" and len(guesses):
        share = guesses["dev_positives"].iloc[-1] / guesses["dev_pairs"].iloc[-1]
        ax.axhline(share, color=GREY, label="guessing")
    return _finished(ax, logs, label, f"{label[:1].upper()}{label[1:]} by step")


def _finished(ax: Axes, logs: Mapping[str, pd.DataFrame], label: str, title: str) -> Axes:
    """The axes labelled; if the first run has several stages, a named line where each starts."""
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
    starts = _stage_starts(next(iter(logs.values())))
    ax.set_title(title, pad=26 if len(starts) > 1 else None)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", ncols=2)
    for number, (stage, start) in enumerate(starts.items() if len(starts) > 1 else ()):
        ax.axvline(start, color=GREY, linestyle=":", linewidth=1)
        height = 1.01 + 0.06 * (number % 2)  # names may be wider than their stages
        upon = ax.get_xaxis_transform()
        ax.text(start, height, f" {stage}", transform=upon, color=GREY, fontsize="x-small")
    return ax


def _stage_starts(log: pd.DataFrame) -> pd.Series:
    """By stage, the steps of all stages before it."""
    return log.groupby("stage", sort=False)["steps"].max().cumsum().shift(fill_value=0)


def running_step(log: pd.DataFrame) -> pd.Series:
    """Steps counted through all stages: each stage starts where the one before it ended."""
    return log["step"] + log["stage"].map(_stage_starts(log)).astype(float)
