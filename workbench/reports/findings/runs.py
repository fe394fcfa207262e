"""Findings of notebook 5: what a comparison of runs allows to be claimed."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from workbench.ranking.metrics import RANKING_METRICS
from workbench.ranking.uncertainty import SIGNIFICANT, format_estimate
from workbench.reports.findings import code, count, sentences
from workbench.runs.catalog import RunRecord
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


def best(records: Sequence[RunRecord], paired: pd.DataFrame, metric: str = "ndcg@10") -> str:
    """Which run is best, how sure that is, and the bias of having chosen it."""
    first = best_run(records, metric)
    if first is None:
        return f"No run has `{metric}` yet."
    text = f"**{first.name}** has the best {metric}: {format_estimate(first.metrics[metric])}."
    if metric not in RANKING_METRICS:
        return f"{text} `{metric}` is not kept per query, so there is no paired test of it."
    tested = paired[paired["p_holm"].notna()]
    beaten = (tested["p_holm"].astype(float) < SIGNIFICANT) & (tested["low"] > 0)
    apart = len(paired) - len(tested)
    return sentences(
        text,
        f"It is clearly ahead of {beaten.sum()} of the {count(len(tested), 'run')} with the same "
        "queries (95% interval above 0, Holm-corrected p below 0.05).",
        apart > 0
        and f"It shares no query with the same candidates with {apart}: that difference of means "
        "is not a difference between the models.",
        f"It was chosen as the best of {len(paired) + 1} on this very test, so its value is "
        "somewhat too high: choose on dev, or confirm it on new queries.",
    )


def seeds(table: pd.DataFrame, metric: str = "ndcg@10") -> str:
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
    ahead = (table["p_holm"].astype(float) < SIGNIFICANT).sum()
    return (
        f"{text}; the means of the worst and the best setting differ by "
        f"{table['mean'].max() - table['mean'].min():.3f}. Over all seeds, the best setting is "
        f"clearly ahead of {ahead} of the {len(table) - 1} others (paired by seed and query, "
        "Holm-corrected)."
    )
