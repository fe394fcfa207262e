"""How runs look beside one another, in figures and in words chosen by the numbers."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from workbench.ranking.uncertainty import format_estimate
from workbench.runs.catalog import RunRecord
from workbench.runs.comparison import PER_QUERY, best_run, varied

NAMED = 8  # runs named in a legend; the others are drawn in grey


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


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
