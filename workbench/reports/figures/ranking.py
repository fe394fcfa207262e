"""Figures about ranking: each draws on the axes it is given, labels them, says what it shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workbench.ranking.evaluation import MAIN_METRIC, Evaluation
from workbench.ranking.metrics import reliability
from workbench.ranking.uncertainty import sigmoid
from workbench.reports.figures.style import BLUE, GREEN, GREY, ORANGE, new_axes, plain

DARK = "#374151"


NAMED = 3  # queries named in the scatter


def ladder(metrics: Mapping[str, Any], metric: str = MAIN_METRIC, ax: Axes | None = None) -> Axes:
    """Bars with 95 % intervals: one metric of every scorer, the best on top."""
    rows = [row for row in metrics["rows"] if row[metric]["mean"] is not None]
    rows.sort(key=lambda row: row[metric]["mean"])
    ax = new_axes(ax, (7.5, 0.8 + 0.45 * len(rows)))
    means = np.array([row[metric]["mean"] for row in rows])
    low, high = (np.array([row[metric][end] for row in rows]) for end in ("low", "high"))
    colors = [ORANGE if row["scorer"] == "model" else GREY for row in rows]
    ax.barh([row["scorer"] for row in rows], means, color=colors)
    spread = np.clip([means - low, high - means], 0, None)
    ax.errorbar(means, range(len(rows)), xerr=spread, fmt="none", ecolor=DARK, capsize=3)
    for place, (mean, end) in enumerate(zip(means, high, strict=True)):
        ax.text(end + 0.01, place, f"{mean:.3f}", va="center")
    ax.set(xlabel=f"{metric} (95 % interval)", ylabel="scorer", xlim=(0, 1.08))
    if rows:
        ax.set_title(f"{rows[-1]['scorer']} is first by {metric}")
    return ax


def model_against(
    evaluation: Evaluation, other: str, seed: int = 42, ax: Axes | None = None
) -> Axes:
    """Points: nDCG@10 of each query under the model and under another scorer, the worst named.

    Points are moved a little at random (the same way for the same seed), since many coincide.
    """
    ax = new_axes(ax, (6.2, 5.6))
    model, against = evaluation.values("model"), evaluation.values(other)
    moved = np.random.default_rng(seed).uniform(-0.012, 0.012, (2, len(model)))
    ax.plot([0, 1], [0, 1], color=DARK, linewidth=1)
    ax.scatter(against + moved[0], model + moved[1], s=14, alpha=0.35, color=BLUE, linewidths=0)
    queries = evaluation.per_query.query("scorer == 'model'")["query"].to_list()
    gaps = model - against
    # Names stand apart from one another, beside the place where the model loses most.
    losing = [place for place in np.argsort(gaps, kind="stable")[:NAMED] if gaps[place] < 0]
    for line, place in enumerate(losing):
        point = (against[place] + moved[0][place], model[place] + moved[1][place])
        ax.annotate(
            plain(queries[place], 18),
            point,
            xytext=(0.86, 0.33 - 0.08 * line),
            textcoords="axes fraction",
            ha="right",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "relpos": (1, 0.5)},
        )
    ax.set(xlabel=f"nDCG@10 of {other}, a query", ylabel="nDCG@10 of the model, a query")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    won, lost = int((gaps > 1e-9).sum()), int((gaps < -1e-9).sum())
    ax.set_title(f"The model wins {won:,} queries, {other} wins {lost:,}")
    return ax


def score_distributions(scored: pd.DataFrame, unit: str = "logit", ax: Axes | None = None) -> Axes:
    """Histograms of a scorer's scores, of positives and of negatives, each as shares of its own.

    Args:
        scored: `positive` (bool) and `score`, one row a pair.
        unit: of the scores.
        ax: where to draw.
    """
    ax = new_axes(ax)
    right, score = scored["positive"].to_numpy(bool), scored["score"].to_numpy(float)
    low, high = score.min(), score.max()
    bins = np.linspace(low, high if high > low else low + 1, 41)
    for chosen, color, name in ((~right, GREY, "negative"), (right, ORANGE, "positive")):
        if chosen.any():
            share = np.full(chosen.sum(), 1 / chosen.sum())
            ax.hist(
                score[chosen],
                bins=bins.tolist(),
                weights=share,
                alpha=0.65,
                color=color,
                label=f"{name} ({chosen.sum():,})",
            )
    ax.set(xlabel=f"score ({unit})", ylabel="share of the pairs of that label")
    ax.legend()
    if right.all() or not right.any():
        ax.set_title("There is one label only")
        return ax
    middle = float(np.median(score[~right]))
    above = float((score[right] > middle).mean())
    ax.set_title(f"{above:.0%} of the positives score above the median negative")
    return ax


def reliability_plot(scored: pd.DataFrame, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Points: share of positives against mean probability in bins, sized by their pairs.

    Args:
        scored: `positive` (bool) and `score` (a logit), one row a pair.
        bins: of equal width.
        ax: where to draw.
    """
    ax = new_axes(ax, (5.6, 5.2))
    positive = scored["positive"].to_numpy(bool)
    sizes, meant, found = reliability(sigmoid(scored["score"]), positive, bins)
    used = sizes > 0
    ax.plot([0, 1], [0, 1], color=DARK, linewidth=1, label="as it should be")
    area = 20 + 380 * sizes[used] / sizes.max()
    ax.plot(meant[used], found[used], color=BLUE, linewidth=1)
    ax.scatter(meant[used], found[used], s=area, color=BLUE, alpha=0.6, label="pairs of a bin")
    ax.set(xlabel="mean probability in the bin", ylabel="share of positives in the bin")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    gap = float(np.nansum(sizes * (meant - found)) / sizes.sum())
    way = "too high" if gap > 0 else "too low"
    ax.set_title(f"Probabilities are {100 * abs(gap):.1f} points {way} on average")
    ax.legend(loc="upper left", markerscale=0.6)
    return ax


def slices_plot(slices: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Points with intervals: nDCG@10 of model and best baseline by slice, small slices greyed."""
    ax = new_axes(ax, (7.5, 1.2 + 0.36 * len(slices)))
    rows = slices.iloc[::-1].reset_index(drop=True)
    other = str(rows["other"].iloc[0])
    looks = ((0.14, "model", "model", ORANGE, "o"), (-0.14, "other", "other_mean", BLUE, "s"))
    for shift, name, mean, color, marker in looks:
        for small in (False, True):
            part = rows[rows["small"] == small]
            spread = np.clip(
                [part[mean] - part[f"{name}_low"], part[f"{name}_high"] - part[mean]], 0, None
            )
            label = {"model": "model", "other": other}[name] if not small else None
            ax.errorbar(
                part[mean],
                part.index + shift,
                xerr=spread,
                fmt=marker,
                markersize=5,
                capsize=2,
                color="#D1D5DB" if small else color,
                label=label,
            )
    names = [f"{row.dimension}: {row.slice}  ({row.queries:,})" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), names)
    for tick, small in zip(ax.get_yticklabels(), rows["small"], strict=True):
        tick.set_color("#9CA3AF" if small else "black")
    ax.set(xlabel="nDCG@10 (95 % interval)", ylabel="slice (queries)", xlim=(0, 1.02))
    whole = rows[~rows["small"]]
    behind = int((whole["gap_high"] < 0).sum())
    ax.set_title(f"Behind {other} in {behind} of {len(whole)} slices")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2)
    return ax


def negatives_plot(couples: pd.DataFrame, other: str = "", ax: Axes | None = None) -> Axes:
    """Bars with intervals: how often a positive beats a negative, by the negative's kind."""
    shown = [name for name in ("model", other) if name in set(couples["scorer"])]
    kinds = list(dict.fromkeys(couples["kind"]))
    if not shown:
        ax = new_axes(ax, (7.5, 1.2))
        ax.set(xlabel="positive above the negative (share of couples)", ylabel="kind of negative")
        ax.set_title("No list has both a positive and a negative")
        return ax
    ax = new_axes(ax, (7.5, 0.9 + 0.75 * len(kinds)))
    for place, name in enumerate(shown):
        part = couples[couples["scorer"] == name].set_index("kind").reindex(kinds)
        height = np.arange(len(kinds)) - (0.2 + 0.4 * place if len(shown) > 1 else 0)
        spread = np.clip([part["mean"] - part["low"], part["high"] - part["mean"]], 0, None)
        ax.barh(
            height,
            part["mean"],
            0.36,
            xerr=spread,
            capsize=3,
            label=name,
            ecolor=DARK,
            color=ORANGE if name == "model" else GREY,
        )
    ax.axvline(0.5, color=DARK, linestyle="--", linewidth=1)
    middle = np.arange(len(kinds)) - (0.4 if len(shown) > 1 else 0)
    counts = couples[couples["scorer"] == shown[0]].set_index("kind")["couples"]
    ax.set_yticks(middle, [f"{kind}\n({counts[kind]:,} couples)" for kind in kinds])
    ax.set(xlabel="positive above the negative (share of couples; dashed: guessing)")
    ax.set(ylabel="kind of negative", xlim=(0, 1.02))
    first = couples[couples["scorer"] == shown[0]].set_index("kind")["mean"]
    ax.set_title(
        f"{shown[0]} fails most against {first.idxmin()} negatives: {first.min():.0%} in order"
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def learning_curve(
    curve: pd.DataFrame, other: str = "", level: float = float("nan"), ax: Axes | None = None
) -> Axes:
    """Line with intervals: nDCG@10 against training pairs seen.

    Args:
        curve: `pairs`, `mean`, `low`, `high`, one row a snapshot.
        other: the scorer to draw a level for; none if empty.
        level: its nDCG@10.
        ax: where to draw.
    """
    ax = new_axes(ax)
    spread = [curve["mean"] - curve["low"], curve["high"] - curve["mean"]]
    ax.errorbar(
        curve["pairs"],
        curve["mean"],
        yerr=np.clip(spread, 0, None),
        color=ORANGE,
        marker="o",
        capsize=3,
        label="model",
    )
    if other:
        ax.axhline(level, color=GREEN, linestyle="--", label=f"{other} ({level:.3f})")
    ax.set(xlabel="training pairs seen", ylabel="nDCG@10 (95 % interval)", ylim=(0, 1))
    gain = curve["mean"].iloc[-1] - curve["mean"].iloc[0]
    ax.set_title(
        f"{gain:+.3f} nDCG@10 from {curve['pairs'].iloc[0]:,} to "
        f"{curve['pairs'].iloc[-1]:,} training pairs"
    )
    ax.legend(loc="lower right")
    return ax
