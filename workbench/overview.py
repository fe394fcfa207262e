"""How runs look beside one another, in figures and in words chosen by the numbers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from workbench.catalog import RunRecord
from workbench.claims import format_estimate
from workbench.comparison import LOWER_IS_BETTER, PER_QUERY, best_run, settings, varied
from workbench.logs import read_training_log
from workbench.plots import BLUE, CYCLE, GREY, ORANGE, new_axes, running_step

NAMED = 8  # runs named in a legend; the others are drawn in grey
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


def states_finding(records: Sequence[RunRecord]) -> str:
    """How many runs there are and in which state."""
    counts = Counter(record.state for record in records)
    text = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{len(records)} runs: {text or 'none'}."


def differences_finding(records: Sequence[RunRecord], table: pd.DataFrame) -> str:
    """What a difference between these runs could come from."""
    if len(records) < 2:
        return "There are not two runs to compare."
    kinds = {
        "data": "**the data** (so figures are not of the same thing)",
        "code": "**the code**",
        "versions": "**installed versions**",
        "machine": "the machine",
    }
    found = {name.split(".")[0] for name in table.index}
    others = [text for kind, text in kinds.items() if kind in found]
    names = ", ".join(f"`{name}`" for name in varied(records)) or "no parameter"
    text = f"The runs differ in {names}"
    if not others:
        return text + " and in nothing else that is recorded."
    return f"{text}; and besides in {', '.join(others)}. A difference may come from any."


def best_finding(
    records: Sequence[RunRecord], paired: pd.DataFrame, metric: str = "ndcg@10"
) -> str:
    """Which run is best, how sure that is, and what choosing it does to its figure."""
    best = best_run(records, metric)
    if best is None:
        return f"No run has `{metric}` yet."
    text = f"**{best.name}** has the best {metric}: {format_estimate(best.metrics[metric])}. "
    if metric not in PER_QUERY:
        return text + f"`{metric}` is not kept query by query, so there is no paired test of it."
    tested = paired["p_holm"].notna()
    beaten = int((tested & (paired["p_holm"].astype(float) < 0.05) & (paired["low"] > 0)).sum())
    apart = int((~tested).sum())
    text += (
        f"Of {int(tested.sum())} runs with the same queries it is clearly ahead of {beaten} "
        "(interval above 0, Holm-corrected p below 0.05). "
    )
    if apart:
        text += (
            f"With {apart} it shares no query with the same candidates: the difference of their "
            "means is not a difference between the models. "
        )
    return text + (
        f"It was picked as the best of {int(tested.sum()) + apart + 1} on this very test, so its "
        "figure is somewhat too good: choose on dev, or confirm it on new queries."
    )


def seeds_finding(table: pd.DataFrame, metric: str = "ndcg@10") -> str:
    """How much the seed alone moves the metric, beside how much the settings do."""
    if table.empty:
        return f"No run has `{metric}` yet."
    several = table[table["runs"] > 1]
    if several.empty:
        return "No setting has more than one seed, so how much chance is in these figures is open."
    spread, reach = float(several["sd"].mean()), float(table["mean"].max() - table["mean"].min())
    text = (
        f"The seed alone (it also deals out the pairs) moves {metric} by {spread:.3f} (mean "
        f"standard deviation of {len(several)} settings)"
    )
    if len(table) < 2:
        return text + "."
    text += f"; from the worst setting's mean to the best one's it is {reach:.3f}. "
    ahead = int((table["p_holm"].astype(float) < 0.05).sum())
    return text + (
        f"Over all seeds, the best setting is clearly ahead of {ahead} of the {len(table) - 1} "
        "others (paired by seed and query, Holm-corrected)."
    )


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


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
