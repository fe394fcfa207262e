"""The figures: each function draws on the axes it is given, labels them, and returns them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from workbench.reports.figures.style import BLUE, GREY, ORANGE, RED, new_axes


def label_balance(inspection: Mapping[str, Any], ax: Axes | None = None) -> Axes:
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
    ax = new_axes(ax)
    lengths = np.asarray(values)
    width = max(1, int(np.ceil((lengths.max() - lengths.min() + 1) / 50)))
    bins = np.arange(lengths.min(), lengths.max() + width + 1, width)
    ax.hist(lengths, bins=bins.tolist(), color=BLUE)
    ax.axvline(lengths.mean(), color=ORANGE, linewidth=2, label=f"mean {lengths.mean():.1f}")
    if 0 < limit <= lengths.max():
        ax.axvline(limit, color=RED, linestyle="--", label=f"cut at {limit}")
    ax.set(xlabel=f"length ({unit})", ylabel="count (log scale)", yscale="log")
    ax.set_title(
        f"Half are at most {np.median(lengths):.0f} {unit} long, the longest {lengths.max():,}"
    )
    ax.legend()
    return ax


def text_reuse(inspection: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Points: how many texts are used how often, on a logarithmic count axis."""
    ax = new_axes(ax)
    uses = {int(n): count for n, count in inspection["reuse"]["texts_by_uses"].items()}
    ax.scatter(list(uses), list(uses.values()), color=BLUE)
    scale = "log" if max(uses) > 20 else "linear"
    ax.set(xlabel="times a text is used", ylabel="texts (log scale)", xscale=scale, yscale="log")
    if scale == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"{inspection['reuse']['reused_share']:.1%} of the texts occur more than once")
    return ax


def frequent_texts(inspection: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Bars: the most used texts, named."""
    ax = new_axes(ax, (7.5, 3.6))
    rows = inspection["reuse"]["most_used"][::-1]
    # A dollar sign would start a formula and a long text would push the bars off the page.
    names = [row["text"][:24].replace("$", r"\$") for row in rows]
    ax.barh(range(len(rows)), [row["uses"] for row in rows], color=BLUE)
    ax.set_yticks(range(len(rows)), names)
    ax.set(xlabel="times used", ylabel="text")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"The most frequent text stands in {rows[-1]['uses']} places")
    return ax
