"""Figures of notebook 5: runs in comparison."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workbench.reports.figures.style import BLUE, CYCLE, GREY, ORANGE, new_axes, spread
from workbench.runs.catalog import RunRecord
from workbench.runs.comparison import LOWER_IS_BETTER, settings

MAX_ROWS = 40  # runs or settings in a figure


def run_intervals(table: pd.DataFrame, metric: str = "ndcg@10", ax: Axes | None = None) -> Axes:
    """The metric of each run with its 95 % interval, the best on top.

    Args:
        table: from `runs_table`; the first `MAX_ROWS` are drawn.
        metric: of the table.
        ax: where to draw.
    """
    measured = table[table[metric].notna()] if metric in table else table.head(0)
    rows = measured.head(MAX_ROWS).iloc[::-1]
    ax, places = new_axes(ax, _size(len(rows))), np.arange(len(rows))
    if len(rows):
        mean, low, high = (rows[name].astype(float) for name in (metric, "low", "high"))
        colors = [GREY] * (len(rows) - 1) + [BLUE]
        ax.hlines(places, low.fillna(mean), high.fillna(mean), color=colors, linewidth=2)
        ax.scatter(mean, places, color=colors, zorder=3)
    ax.set_yticks(places, [str(name)[:40] for name in rows["run"]], fontsize="small")
    ax.set(xlabel=f"{metric} (95 % interval)", ylabel="run")
    some = f", the best {MAX_ROWS} of {len(measured)}" if len(measured) > len(rows) else ""
    ax.set_title(f"{metric} by run{some}")
    return ax


def seed_spread(
    records: Sequence[RunRecord], metric: str = "ndcg@10", ax: Axes | None = None
) -> Axes:
    """A point per run, in one row per setting (runs that differ in their seed); bars are means."""
    names: list[str] = []
    rows: dict[str, list[float]] = {}
    for record, setting in zip(records, settings(records), strict=True):
        names, value = list(setting), record.value(metric)
        if value is not None:
            texts = (f"{v:g}" if isinstance(v, float) else str(v) for v in setting.values())
            rows.setdefault(", ".join(texts) or "one setting", []).append(value)
    reverse = metric in LOWER_IS_BETTER
    ordered = sorted(rows.items(), key=lambda row: np.mean(row[1]), reverse=reverse)[-MAX_ROWS:]
    ax = new_axes(ax, _size(len(ordered)))
    for place, (_, values) in enumerate(ordered):
        ax.scatter(values, [place] * len(values), color=BLUE, alpha=0.7)
        ax.scatter(np.mean(values), place, color=ORANGE, marker="|", s=250, linewidth=3)
    ax.set_yticks(range(len(ordered)), [label[:48] for label, _ in ordered], fontsize="small")
    ax.set(xlabel=metric, ylabel=", ".join(names)[:48] or "setting")
    ax.set_title(f"{metric} by setting, one point per seed")
    return ax


def label_efficiency(table: pd.DataFrame, metric: str = "ndcg@10", ax: Axes | None = None) -> Axes:
    """The metric by number of training labels, a line per start; circles are single seeds.

    Args:
        table: from `label_table`.
        metric: of the table.
        ax: where to draw.
    """
    ax, lines = new_axes(ax, (7.5, 4.2)), list(table.groupby("start", sort=False))
    for place, (name, rows) in enumerate(lines):
        look: dict[str, Any] = {"color": CYCLE[place % len(CYCLE)], "linestyle": "-"}
        if rows["baseline"].all():
            look = {"color": GREY, "linestyle": "--"}
        labels = rows["labels"] * 1.03 ** (place - len(lines) / 2)  # intervals side by side
        error = spread(rows["mean"], rows["low"], rows["high"])
        ax.errorbar(labels, rows["mean"], error, marker=".", capsize=3, label=name[:40], **look)
        for at, values in zip(labels, rows["values"], strict=True):
            ax.scatter(
                [at] * len(values), values, s=16, c="white", edgecolors=look["color"], zorder=3
            )
    counts = table.groupby("max_pairs")["labels"].mean().sort_values()
    ax.set(xscale="log", xlabel="training labels (log scale)", ylabel=f"{metric} (95 % interval)")
    ax.set_xticks(counts, [f"{labels:,.0f}" for labels in counts], fontsize="small")
    ax.minorticks_off()
    ax.set_title(f"{metric} by number of training labels, mean over seeds (circles)")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _size(rows: int) -> tuple[float, float]:
    return 7.5, max(2.0, 0.25 * rows + 0.9)
