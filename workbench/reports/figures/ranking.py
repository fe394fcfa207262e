"""Figures of notebooks 4 and 5: scorers, queries, probabilities, slices, and runs compared."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import expit

from workbench.files import percent
from workbench.ranking.metrics import MAIN_METRIC, reliability
from workbench.reports.figures.style import BLUE, CYCLE, GREEN, GREY, ORANGE, new_axes
from workbench.reports.findings import Record, won_lost

if TYPE_CHECKING:
    from workbench.ranking.evaluation import Evaluation

DARK, PALE = "#374151", "#D1D5DB"
MAX_ROWS = 40  # runs or settings in a figure


def ladder(metrics: Record, ax: Axes | None = None) -> Axes:
    """Bars with 95 % intervals: nDCG@10 of every scorer, the best on top."""
    rows = [{"scorer": row["scorer"], **row[MAIN_METRIC]} for row in metrics["rows"]]
    numbers = ["mean", "low", "high"]
    table = pd.DataFrame(rows, columns=["scorer", *numbers]).astype(dict.fromkeys(numbers, float))
    table = table.dropna(subset="mean").sort_values("mean", kind="stable", ignore_index=True)
    ax = new_axes(ax, (7.5, 0.8 + 0.45 * len(table)))
    colors = np.where(table["scorer"] == "model", ORANGE, GREY)
    error = _spread(table["mean"], table["low"], table["high"])
    ax.barh(table["scorer"], table["mean"], color=colors, xerr=error, ecolor=DARK, capsize=3)
    for place, row in enumerate(table.itertuples()):
        ax.text(np.fmax(row.high, row.mean) + 0.01, place, f"{row.mean:.3f}", va="center")
    ax.set(xlabel=f"{MAIN_METRIC} (95 % interval)", ylabel="scorer", xlim=(0, 1.08))
    if len(table):
        ax.set_title(f"{table['scorer'].iloc[-1]} is first by {MAIN_METRIC}")
    return ax


def model_against(
    evaluation: "Evaluation", other: str, seed: int = 42, ax: Axes | None = None
) -> Axes:
    """Points: nDCG@10 of each query under the model and under another scorer.

    Points have a little random jitter (the same for the same seed), since many coincide.
    """
    ax = new_axes(ax, (5.6, 5.2))
    against, model = evaluation.values(other), evaluation.values("model")
    jitter = np.random.default_rng(seed).uniform(-0.012, 0.012, (2, len(model)))
    ax.plot([0, 1], [0, 1], color=DARK, linewidth=1)
    ax.scatter(against + jitter[0], model + jitter[1], s=14, alpha=0.35, color=BLUE, linewidths=0)
    ax.set(xlabel=f"nDCG@10 of {other} per query", ylabel="nDCG@10 of the model per query")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    won, lost = won_lost(model, against)
    ax.set_title(f"Queries won by the model: {won:,}; by {other}: {lost:,}")
    return ax


def score_distributions(scored: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Histograms of a model's scores, of positives and of negatives, each in shares of its class.

    `scored` has `positive` (bool) and `score` (a logit), one row per pair.
    """
    ax = new_axes(ax)
    positive, score = scored["positive"].to_numpy(bool), scored["score"].to_numpy(float)
    low, high = score.min(), score.max()
    bins = np.linspace(low, high if high > low else low + 1, 41).tolist()
    for chosen, color, name in ((~positive, GREY, "negative"), (positive, ORANGE, "positive")):
        if n := chosen.sum():
            label, share = f"{name} ({n:,})", np.full(n, 1 / n)
            ax.hist(score[chosen], bins, weights=share, alpha=0.65, color=color, label=label)
    ax.set(xlabel="score (logit)", ylabel="share of the pairs with that label")
    ax.legend()
    if positive.all() or not positive.any():
        ax.set_title("There is one label only")
    else:
        above = (score[positive] > np.median(score[~positive])).mean()
        title = f"{percent(above, 0)} of the positives score above the median negative"
        ax.set_title(f"{title} (guessing: 50 %); all scores within {high - low:.2g}")
    return ax


def reliability_plot(scored: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Points: share of positives against mean probability in ten equal bins, sized by their pairs.

    `scored` has `positive` (bool) and `score` (a logit), one row per pair.
    """
    ax = new_axes(ax, (5.6, 5.2))
    positive = scored["positive"].to_numpy(bool)
    sizes, predicted, found = reliability(expit(scored["score"]), positive)
    ax.plot([0, 1], [0, 1], color=DARK, linewidth=1, label="perfectly calibrated")
    used = sizes > 0
    sizes, predicted, found = sizes[used], predicted[used], found[used]
    ax.plot(predicted, found, color=BLUE, linewidth=1)
    area = 20 + 380 * sizes / sizes.max()
    ax.scatter(predicted, found, s=area, color=BLUE, alpha=0.6, label="pairs of a bin")
    ax.set(xlabel="mean probability in the bin", ylabel="share of positives in the bin")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    gap = np.average(predicted - found, weights=sizes)
    direction = "too high" if gap > 0 else "too low"
    ax.set_title(
        f"Probabilities are {100 * abs(gap):.1f} points {direction} on average"
        if len(sizes) > 1
        else f"All pairs have a probability near {predicted[0]:.2f}: no two are told apart"
    )
    ax.legend(loc="upper left", markerscale=0.6)
    return ax


def slices_plot(slices: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Points with intervals: nDCG@10 of model and best baseline by slice, small slices in grey."""
    ax = new_axes(ax, (7.5, 1.2 + 0.36 * len(slices)))
    rows = slices.iloc[::-1].reset_index(drop=True)
    other = str(rows["other"].iloc[0])
    looks = (("model", "model", 0.14, ORANGE, "o"), ("other", "other_mean", -0.14, BLUE, "s"))
    for name, mean, shift, color, marker in looks:
        for small in (False, True):
            part = rows[rows["small"] == small]
            error = _spread(part[mean], part[f"{name}_low"], part[f"{name}_high"])
            look: dict[str, Any] = {"fmt": marker, "markersize": 5, "capsize": 2}
            look["label"] = None if small else "model" if name == "model" else other
            color = PALE if small else color
            ax.errorbar(part[mean], part.index + shift, xerr=error, color=color, **look)
    names = [f"{row.dimension}: {row.slice}  ({row.queries:,})" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names)
    for tick, small in zip(ax.get_yticklabels(), rows["small"], strict=True):
        tick.set_color("#9CA3AF" if small else "black")
    ax.set(xlabel="nDCG@10 (95 % interval)", ylabel="slice (queries)", xlim=(0, 1.02))
    large = rows[~rows["small"]]
    ax.set_title(f"Behind {other} in {(large['gap_high'] < 0).sum()} of {len(large)} slices")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2)
    return ax


def learning_curve(curve: pd.DataFrame, other: str, level: float, ax: Axes | None = None) -> Axes:
    """Line with intervals: nDCG@10 against training pairs seen, and the level of another scorer.

    `curve` has `pairs`, `mean`, `low`, `high`, one row per snapshot.
    """
    ax, pairs, mean = new_axes(ax), curve["pairs"], curve["mean"]
    error = _spread(mean, curve["low"], curve["high"])
    ax.errorbar(pairs, mean, error, color=ORANGE, marker="o", capsize=3, label="model")
    ax.axhline(level, color=GREEN, linestyle="--", label=f"{other} ({level:.3f})")
    ax.set(xlabel="training pairs seen", ylabel="nDCG@10 (95 % interval)", ylim=(0, 1))
    gain, span = mean.iloc[-1] - mean.iloc[0], f"{pairs.iloc[0]:,.0f} to {pairs.iloc[-1]:,.0f}"
    ax.set_title(f"{gain:+.3f} nDCG@10 from {span} training pairs")
    ax.legend()
    return ax


def run_intervals(table: pd.DataFrame, metric: str = MAIN_METRIC, ax: Axes | None = None) -> Axes:
    """The metric of each run of `runs_table` with its 95 % interval, the best on top."""
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


def seed_spread(table: pd.DataFrame, metric: str = MAIN_METRIC, ax: Axes | None = None) -> Axes:
    """A point per run, in one row per setting of `seed_table`, the best on top; bars are means."""
    names, rows = table.columns[: table.columns.get_loc("runs")], table.head(MAX_ROWS).iloc[::-1]
    ax, labels = new_axes(ax, _size(len(rows))), []
    for place, row in enumerate(rows.to_dict("records")):
        ax.scatter(row["values"], [place] * row["runs"], color=BLUE, alpha=0.7)
        ax.scatter(row["mean"], place, color=ORANGE, marker="|", s=250, linewidth=3)
        setting = (row[name] for name in names)
        texts = (f"{v:g}" if isinstance(v, float) else str(v) for v in setting)
        labels.append((", ".join(texts) or "one setting")[:48])
    ax.set_yticks(range(len(rows)), labels, fontsize="small")
    ax.set(xlabel=metric, ylabel=", ".join(names)[:48] or "setting")
    ax.set_title(f"{metric} by setting, one point per seed")
    return ax


def label_efficiency(
    table: pd.DataFrame, metric: str = MAIN_METRIC, ax: Axes | None = None
) -> Axes:
    """The metric by number of training labels of `label_table`; circles are single seeds."""
    ax, lines = new_axes(ax, (7.5, 4.2)), list(table.groupby("start", sort=False))
    for place, (name, rows) in enumerate(lines):
        look: dict[str, Any] = {"color": CYCLE[place % len(CYCLE)], "linestyle": "-"}
        if rows["baseline"].all():
            look = {"color": GREY, "linestyle": "--"}
        labels = rows["labels"] * 1.03 ** (place - len(lines) / 2)  # intervals side by side
        error = _spread(rows["mean"], rows["low"], rows["high"])
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


def _spread(mean: Any, low: Any, high: Any) -> np.ndarray:
    """Lengths of error bars below and above the means, shape (2, n); NaN where there are none."""
    bounds = np.array([mean, low, high], dtype=float)
    return np.clip([bounds[0] - bounds[1], bounds[2] - bounds[0]], 0, None)
