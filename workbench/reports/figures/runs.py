"""How runs look beside one another, in figures and in words chosen by the numbers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from workbench.reports.figures.style import BLUE, CYCLE, GREY, ORANGE, new_axes
from workbench.reports.figures.training import running_step
from workbench.reports.findings.runs import NAMED, _short
from workbench.runs.catalog import RunRecord
from workbench.runs.comparison import LOWER_IS_BETTER, settings
from workbench.training.log import read_training_log

BARS = 40  # runs in the figure of intervals


def run_intervals(table: pd.DataFrame, metric: str = "ndcg@10", ax: Axes | None = None) -> Axes:
    """Points with 95 % intervals: the metric of each run, the best at the top; at most `BARS`.

    Args:
        table: from `runs_table`.
        metric: as given there.
        ax: where to draw.
    """
    there = table[table[metric].notna()] if metric in table else table.head(0)
    rows = there.head(BARS).iloc[::-1]
    ax = new_axes(ax, (7.5, max(2.0, 0.24 * len(rows) + 0.9)))
    place = np.arange(len(rows))
    if len(rows):
        centre = rows[metric].to_numpy(dtype=float)
        low = rows["low"].astype(float).fillna(rows[metric]).to_numpy()
        high = rows["high"].astype(float).fillna(rows[metric]).to_numpy()
        colors = [GREY] * (len(rows) - 1) + [BLUE]
        ax.hlines(place, low, high, color=colors, linewidth=2)
        ax.scatter(centre, place, color=colors, zorder=3)
    ax.set_yticks(place, [str(name)[:40] for name in rows["run"]], fontsize="small")
    ax.set(xlabel=f"{metric}, with 95 % interval", ylabel="run")
    more = len(there) - len(rows)
    ax.set_title(f"{metric} by run" + (f", the best {BARS} of {len(there)}" if more else ""))
    return ax


def losses(records: Sequence[RunRecord], best: RunRecord | None, ax: Axes | None = None) -> Axes:
    """Lines: the training loss of every run by the share of its training; the best run stands out.

    A share, so that runs of different lengths lie over each other.
    """
    ax = new_axes(ax)
    few, others = len(records) <= NAMED, list[np.ndarray]()
    for number, record in enumerate(records):
        line = _loss_line(record)
        if line is None:
            continue
        own = best is not None and record.folder == best.folder
        if few or own:
            color = CYCLE[number % len(CYCLE)] if few else ORANGE
            ax.plot(
                *line.T, color=color, label=record.name[:32], linewidth=2, zorder=3 if own else 2
            )
        else:
            others.append(line)
    # All at once, for there may be hundreds.
    ax.add_collection(LineCollection(others, colors=GREY, linewidths=0.7, alpha=0.5, zorder=2))
    ax.autoscale_view()
    ax.set(xlabel="share of the training", ylabel="binary cross-entropy (nats)", ylim=(0, None))
    ax.set_title("Training loss of all runs")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small")
    return ax


def seed_spread(
    records: Sequence[RunRecord], metric: str = "ndcg@10", ax: Axes | None = None
) -> Axes:
    """Points: every run, in a row with those that differ from it in the seed alone; bars: means."""
    names: list[str] = []
    rows: dict[str, list[float]] = {}
    for record, setting in zip(records, settings(records), strict=True):
        names, value = list(setting), record.value(metric)
        if value is not None:
            label = ", ".join(map(_short, setting.values())) or "all alike"
            rows.setdefault(label, []).append(value)
    worst_first = metric not in LOWER_IS_BETTER
    ordered = sorted(rows.items(), key=lambda row: np.mean(row[1]), reverse=not worst_first)[-BARS:]
    ax = new_axes(ax, (7.5, max(2.0, 0.26 * len(ordered) + 0.9)))
    means = [float(np.mean(values)) for _, values in ordered]
    points = [value for _, values in ordered for value in values]
    places = [place for place, (_, values) in enumerate(ordered) for _ in values]
    ax.scatter(points, places, color=BLUE, alpha=0.7)
    ax.scatter(means, range(len(means)), color=ORANGE, marker="|", s=250, linewidth=3)
    ax.set_yticks(range(len(ordered)), [label[:48] for label, _ in ordered], fontsize="small")
    ax.set(xlabel=metric, ylabel=", ".join(names)[:48] or "setting")
    ax.set_title(f"{metric} by setting, a point a seed")
    return ax


def _loss_line(record: RunRecord) -> np.ndarray | None:
    """Share of the training and loss, shape (rows, 2); None where a run has recorded none."""
    try:
        log = read_training_log(record.folder)
    except (OSError, ValueError):
        return None
    step = running_step(log) if log["stage"].nunique() > 1 else log["step"]
    line = np.column_stack([step / step.max(), log["loss"]]).astype(float)
    line = line[~np.isnan(line[:, 1])]
    return line if len(line) else None
