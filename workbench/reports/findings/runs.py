"""Findings of notebook 5: what a comparison of runs allows to be claimed."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from workbench.ranking.metrics import MAIN_METRIC, RANKING_METRICS
from workbench.ranking.uncertainty import direction, format_estimate
from workbench.reports.findings import code, count, sentences
from workbench.runs.catalog import BASELINE, RunRecord
from workbench.runs.comparison import best_run, varied

KINDS = {
    "data": "**the data** (so their metrics are not comparable)",
    "code": "**the code**",
    "versions": "**installed versions**",
    "machine": "the machine",
}


def states(records: Sequence[RunRecord]) -> str:
    """How many runs there are, by state."""
    counts = Counter(record.state for record in records)
    text = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    return f"{count(len(records), 'run')}: {text or 'none'}."


def differences(records: Sequence[RunRecord], table: pd.DataFrame) -> str:
    """What a difference between these runs could come from."""
    if len(records) < 2:
        return "There are not two runs to compare."
    found = {name.split(".")[0] for name in table.index}
    others = [text for kind, text in KINDS.items() if kind in found]
    text = f"The runs differ in {', '.join(map(code, varied(records))) or 'no parameter'}"
    if not others:
        return text + " and in nothing else that is recorded."
    return f"{text}; and also in {', '.join(others)}. A difference may come from any of these."


def unmeasured(records: Sequence[RunRecord], metric: str = MAIN_METRIC) -> str:
    """How many runs have no value of a metric."""
    without = sum(record.value(metric) is None for record in records)
    if not without:
        return f"All {count(len(records), 'run')} have `{metric}`."
    return f"Runs without `{metric}`, which the figures leave out: {without} of {len(records)}."


def best(records: Sequence[RunRecord], paired: pd.DataFrame, metric: str = MAIN_METRIC) -> str:
    """Which run is best, how sure that is, and the bias of having chosen it."""
    first = best_run(records, metric)
    if first is None:
        return f"No run has `{metric}` yet."
    measured = sum(record.value(metric) is not None for record in records)
    text = f"{code(first.name)} has the best {metric}: {format_estimate(first.metrics[metric])}."
    if measured < 2:
        return f"{text} There is no other run to compare it with."
    tested = paired[paired["p_corrected"].notna()]
    apart = len(paired) - len(tested)
    return sentences(
        text,
        metric not in RANKING_METRICS
        and f"`{metric}` is not kept per query, so there is no paired test of it.",
        bool(len(tested))
        and f"{_counted(tested)} of the {count(len(tested), 'run')} with the same queries (95 % "
        "interval without 0, and p below 0.05, corrected for having chosen the best run).",
        apart > 0
        and f"It shares no query with the same candidates with {apart}: that difference of means "
        "is not a difference between the models.",
        f"It was chosen as the best of {measured} on this very test, so its value is somewhat too "
        "high: choose on dev, or confirm it on new queries.",
    )


def _counted(table: pd.DataFrame) -> str:
    """`It is clearly ahead of 2 and behind 0`, by the rule of every claim."""
    signs = [direction(*row) for row in table[["low", "high", "p_corrected"]].to_numpy(float)]
    behind = f" and **clearly behind {signs.count(-1)}**" if -1 in signs else ""
    return f"It is clearly ahead of {signs.count(1)}{behind}"


def seeds(table: pd.DataFrame, metric: str = MAIN_METRIC) -> str:
    """How much the seed alone changes the metric, compared with the settings."""
    if table.empty:
        return f"No run has `{metric}` yet."
    several = table[table["runs"] > 1]
    if several.empty:
        return "No setting has more than one seed, so it is not known how much is chance."
    text = (
        f"The seed alone (it also splits the pairs) changes {metric} by {several['sd'].mean():.3f} "
        f"(mean standard deviation of {count(len(several), 'setting')})"
    )
    if len(table) < 2:
        return text + "."
    tested = table[table["p_corrected"].notna()]
    apart = len(table) - 1 - len(tested)
    return sentences(
        f"{text}; the means of the worst and the best setting differ by "
        f"{table['mean'].max() - table['mean'].min():.3f}.",
        bool(len(tested))
        and f"Take the setting with the best mean, and only the queries and seeds it shares with "
        f"another. {_counted(tested)} of the {count(len(tested), 'other')} (paired by seed and "
        "query, corrected for having chosen the best).",
        bool((tested["lead"] < 0).any())
        and "**Where it is behind, its mean is higher only because the settings have not the same "
        "seeds.**",
        apart > 0 and f"With {apart} it shares no seed and query, or the metric is not per query.",
    )


def label_efficiency(table: pd.DataFrame) -> str:
    """With how many labels each start of a model is ahead of the regression, by `label_table`."""
    if table.empty:
        return (
            "There is no curve over numbers of labels: it takes runs with at least three values of "
            "`max_pairs`, such as those of `notebooks/sweeps/label_efficiency.yaml`."
        )
    names = ["max_pairs", "low", "high"]
    level, starts = table.loc[table["baseline"], names], table[~table["baseline"]]
    both, parts = starts.merge(level, on="max_pairs", suffixes=("", "_base")), []
    for start, rows in both.groupby("start", sort=False):
        ahead, behind = rows["low"] > rows["high_base"], rows["high"] < rows["low_base"]
        said = [
            f"{word} with {', '.join(f'{labels:,.0f}' for labels in rows['labels'][chosen])} labels"
            for word, chosen in (("ahead", ahead), ("behind", behind))
            if chosen.any()
        ]
        parts.append(f"{code(start)} is {' and '.join(said) or 'nowhere clearly ahead or behind'}")
    return sentences(
        f"Beside {code(BASELINE)} on the same labels: {'; '.join(parts)}. That is where the 95 % "
        "intervals, each averaged over the seeds, do not overlap; elsewhere nothing is shown."
        if len(level)
        else "No run has a regression to compare with.",
        table["runs"].min() < 2 and "**Some points rest on one seed**: another may be elsewhere.",
        table["tests"].nunique() > 1
        and "**The points do not all rest on the same queries**, so a line may rise or fall with "
        "its test: give `test_pairs` or `candidates`, and every point the same seeds.",
    )


def failures(table: pd.DataFrame) -> str:
    """How many runs have not come to their end, by `runs_table`."""
    found = int((~table["state"].isin(["done", "running"])).sum())
    return f"Runs that are not complete: {found}." if found else "No run failed or was interrupted."
