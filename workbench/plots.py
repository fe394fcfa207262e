"""The figures: each function draws on the axes it is given, labels them, and returns them."""

import logging
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.files import packaged_font, project_path, replacing
from workbench.reference import reference_log, step_means

BLUE, ORANGE, GREEN, GREY, RED = "#0072B2", "#E69F00", "#009E73", "#8A8F98", "#D55E00"
CYCLE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
                 "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei")  # fmt: skip


@cache
def use_style() -> str:
    """Set our look for all figures, with a font that has Chinese characters; returns its name."""
    # The Chinese font has no bold weight; titles fall back to its regular one without complaint.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    known = {font.name for font in font_manager.fontManager.ttflist}
    name = next((font for font in CHINESE_FONTS if font in known), None) or _packaged_font()
    matplotlib.rcParams.update(
        {
            "font.family": ["DejaVu Sans", name],
            "axes.unicode_minus": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E7EB",
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.prop_cycle": cycler(color=CYCLE),
            "figure.dpi": 110,
            "legend.frameon": False,
        }
    )
    return name


def _packaged_font() -> str:
    path = str(packaged_font())
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


def new_axes(ax: Axes | None = None, size: tuple[float, float] = (7.5, 3.4)) -> Axes:
    """`ax` itself, or the axes of a new figure of `size` inches."""
    use_style()
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def show_figure(ax: Axes, run_dir: str | Path, name: str) -> Path:
    """Save the figure of `ax` as `figures/<name>.png` in the run folder and show it."""
    from IPython.display import Image, display

    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    path = project_path(run_dir) / "figures" / f"{name}.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    display(Image(data=path.read_bytes(), alt=ax.get_title(loc="left") or name, width=720))
    return path


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
            ax.plot(step[dev], log.loc[dev, "dev_loss"], color=color, linestyle="--", marker="o",
                    markersize=3, label=f"{name}: dev")  # fmt: skip
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
        ax.annotate(f" {stage}", (start, 1), xycoords=("data", "axes fraction"), va="bottom",
                    xytext=(0, 9 * height), textcoords="offset points", fontsize="x-small",
                    color=GREY)  # fmt: skip
    ax.set_title(ax.get_title(loc="left"), pad=26)


def running_step(log: pd.DataFrame) -> pd.Series:
    """Steps counted through all stages: each stage starts where the one before it ended."""
    ends = log.groupby("stage", sort=False)["steps"].max().cumsum().shift(fill_value=0)
    return log["step"] + log["stage"].map(ends)


def _colors(count: int) -> list[str]:
    return [CYCLE[place % len(CYCLE)] for place in range(count)]
