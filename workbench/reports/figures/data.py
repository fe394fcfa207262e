"""Figures of notebook 1: labels, lengths, and how often texts are used."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from workbench.reports.figures.style import BLUE, GREY, ORANGE, RED, new_axes
from workbench.reports.findings import Record


def label_balance(inspection: Record, ax: Axes | None = None) -> Axes:
    """Bars: pairs by label."""
    ax = new_axes(ax, (7.5, 2.4))
    labels = inspection["labels"]
    counts = [labels["negative"], labels["positive"]]
    bars = ax.barh(["negative", "positive"], counts, color=[GREY, BLUE])
    ax.bar_label(bars, [f"{n:,} ({n / labels['pairs']:.1%})" for n in counts], padding=4)
    ax.set(xlabel="pairs", ylabel="label", xlim=(0, max(counts) * 1.2))
    ax.set_title(f"{counts[1] / labels['pairs']:.1%} of the pairs are positive")
    return ax


def length_histogram(values: Any, unit: str, limit: int = 0, ax: Axes | None = None) -> Axes:
    """Histogram of lengths in `unit`, on a logarithmic count axis; a line at `limit` if reached."""
    ax, lengths = new_axes(ax), np.asarray(values)
    width = max(1, int(np.ceil((lengths.max() - lengths.min() + 1) / 50)))
    ax.hist(
        lengths, np.arange(lengths.min(), lengths.max() + width + 1, width).tolist(), color=BLUE
    )
    ax.axvline(lengths.mean(), color=ORANGE, linewidth=2, label=f"mean {lengths.mean():.1f}")
    if 0 < limit <= lengths.max():
        ax.axvline(limit, color=RED, linestyle="--", label=f"cut at {limit}")
    ax.set(xlabel=f"length ({unit})", ylabel="count (log scale)", yscale="log")
    median, longest = np.median(lengths), lengths.max()
    ax.set_title(f"Half have at most {median:.0f} {unit}, the longest has {longest:,}")
    ax.legend()
    return ax
