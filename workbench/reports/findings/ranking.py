"""Findings of notebook 4: what the evaluation allows to be claimed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from workbench.ranking.uncertainty import SIGNIFICANT, format_estimate
from workbench.reports.findings import Record, code, count, names, sentences

if TYPE_CHECKING:
    from workbench.ranking.blend import Blend

FEW_QUERIES = 100  # with fewer, a result is a rehearsal
TOO_FEW_QUERIES = 10  # with fewer, nothing is claimed at all
MAX_CALIBRATION_ERROR = 0.05  # up to which probabilities can be trusted


def backends(metrics: Record) -> str:
    """How the models were run."""
    parts = []
    for name, used in metrics.get("backends", {}).items():
        parts.append(f"{code(name)} was run by **{used['backend']}**")
        checks = {one["backend"]: one["pairs_per_second"] for one in used.get("checks", [])}
        for own in used.get("checks", []):
            if own["backend"] == used["backend"] != "predict":
                parts[-1] += (
                    f" ({own['pairs_per_second'] / checks['predict']:.1f}x faster than the library "
                    f"in float32; {own['swapped']:.2%} of pairwise orders inverted on the first "
                    f"{used['pairs']} pairs)"
                )
    return "; ".join(parts) + "." if parts else "No model was run."


def compared(metrics: Record) -> dict[str, list[str]]:
    """The other scorers, strongest first, by how they compare with the model.

    A difference counts if its 95% interval excludes 0 and its Holm-corrected p-value is below
    0.05; both are required.

    Returns:
        Names of those that are `ahead`, `unclear` and `behind`, and of `all`.
    """
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    found: dict[str, list[str]] = {"all": [], "ahead": [], "unclear": [], "behind": []}
    for name in sorted(metrics["model_minus"], key=lambda name: -means[name]):
        gap = metrics["model_minus"][name]
        sure = gap.get("p_holm", 0.0) < SIGNIFICANT and not gap["low"] <= 0 <= gap["high"]
        found["all"].append(name)
        found["unclear" if not sure else "ahead" if gap["high"] < 0 else "behind"].append(name)
    return found


def verdict(metrics: Record) -> str:
    """What may be claimed about the model, compared with each other scorer query by query."""
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    if "model" not in means or len(means) < 2:
        return "There is nothing to compare: the table needs a model and at least one baseline."
    others, queries = compared(metrics), metrics["queries"]
    best = others["all"][0]
    gap = metrics["model_minus"][best]
    return sentences(
        "Over {queries} the model has nDCG@10 {model:.3f}; the best of the others is {best} with "
        "{other:.3f} (difference {gap[mean]:+.3f}, 95% interval {gap[low]:+.3f} to {gap[high]:+.3f}"
        + (", p = {gap[p_holm]:.2g} after correction)." if "p_holm" in gap else ")."),
        "**Too few queries to say anything about ranking**: use more pairs, a larger test_share, "
        "or a file of candidates."
        if queries < TOO_FEW_QUERIES
        else "**The model ranks worse than {ahead}: do not publish it as an improvement.**"
        if others["ahead"]
        else "**The model and {unclear} cannot be told apart with this many queries.**"
        if others["unclear"]
        else "**The model ranks better than every baseline here.**",
        TOO_FEW_QUERIES <= queries < FEW_QUERIES
        and "There are few queries; treat this as a rehearsal, not as a result.",
        queries=count(queries, "query"),
        model=means["model"],
        best=code(best),
        other=means[best],
        gap=gap,
        **{kind: names(others[kind] or [""]) for kind in ("ahead", "unclear")},
    )


def agreement(metrics: Record) -> str:
    """Whether nDCG@10 and MRR@10 put the scorers in the same order."""
    ndcg, mrr = (
        ", ".join(r["scorer"] for r in sorted(metrics["rows"], key=lambda row: -row[name]["mean"]))
        for name in ("ndcg@10", "mrr@10")
    )
    if ndcg == mrr:
        return "MRR@10 puts the scorers in the same order as nDCG@10, so the picture is stable."
    return (
        f"By nDCG@10 the order is {ndcg}; by MRR@10 it is {mrr}. Where the two disagree, do not "
        "build a claim on one of them."
    )


def leak(seen: int, queries: int, training_pairs: int) -> str:
    """How many test queries are training texts, as far as the training pairs are known."""
    if not training_pairs:
        return (
            "**The training pairs are not known here, so it cannot be told whether the model was "
            f"trained on these {queries:,} queries.** If it was, its metrics are too good."
        )
    if not seen:
        return f"None of the {queries:,} queries is among the training texts."
    return (
        f"**Among the training texts: {seen:,} of the {queries:,} queries.** Their metrics are too "
        "good for whatever was trained on them."
    )


def lists(recipe: Record, suspects: pd.DataFrame) -> str:
    """What the candidate lists hold, how unusual ones are counted, and doubtful negatives."""
    odd, found = recipe["odd_queries"], suspects["reason"].value_counts()
    values = {
        "paraphrases_kept_out": 0,
        "queries_without_judgement": 0,
        **recipe,
        "kinds": ", ".join(f"{number:,} {kind}" for kind, number in recipe["kinds"].items()),
        "zero": odd["without_candidate"] + odd["without_positive"],
        "easy": odd["one_candidate"] + odd["all_positive"],
        "doubtful": len(suspects),
    }
    for reason in ("equal", "group"):
        values[reason] = found.get(reason, 0)
    return sentences(
        "{queries:,} queries with {candidates:,} candidates, {positives:,} of them relevant "
        f"({'{kinds}' if values['kinds'] else 'origin not stated'}); order: {{order}}.",
        values["paraphrases_kept_out"] > 0
        and "Texts not mined because they are probably paraphrases of the query: "
        "{paraphrases_kept_out:,}.",
        values["missed_positives"] > 0
        and "Relevant texts that are not among the candidates: {missed_positives:,}; they count in "
        "every denominator.",
        values["queries_without_judgement"] > 0
        and "Queries of the run left out for want of a judgement: {queries_without_judgement:,}.",
        values["zero"] > 0
        and "**Queries with nothing relevant to rank, which score 0: {zero:,}.**",
        values["easy"] > 0
        and "**Lists in which every order is equally good: {easy:,}**; they do not separate "
        "scorers.",
        "**Negatives that are probably true paraphrases: {doubtful:,}** ({equal:,} equal to the "
        "query or a positive except for case, width and punctuation; {group:,} connected to the "
        "query through positives). They count against every scorer that ranks them high."
        if len(suspects)
        else "No negative looks like an unlabelled paraphrase.",
        **values,
    )


def left_out(reasons: Record) -> str:
    """Which scorers are missing from the comparison, and why."""
    if not reasons:
        return "No scorer is left out."
    return "Left out: " + "; ".join(f"{code(name)}, because {why}" for name, why in reasons.items())


def ties(metrics: Record) -> str:
    """How ties were counted, and which scorers do not rank at all."""
    tied = {n: share for n, share in metrics.get("queries_all_tied", {}).items() if share > 0}
    constant = [name for name, share in tied.items() if share > 0.5]
    return sentences(
        "Ties count against the scorer: the irrelevant candidates are put first."
        if metrics["ties"] == "worst"
        else "Ties count as the average over every order of the tied candidates.",
        "Queries whose candidates all have the same score: {shares}."
        if tied
        else "No scorer gives all candidates of a query the same score.",
        bool(constant)
        and "**No ranking in most queries: {constant}**. Look for a fault before a claim.",
        shares=", ".join(f"{code(name)} {share:.1%}" for name, share in tied.items()),
        constant=names(constant or [""]),
    )


def pairs(metrics: Record) -> str:
    """What the pair metrics say about the model, and which are not defined."""
    if not metrics["pairs"]:
        return (
            "There are no labelled test pairs, so there are no pair metrics; the scores above are "
            "those of the candidates."
        )
    tested = count(metrics["pairs"], "test pair")
    row = next((row for row in metrics["rows"] if row["scorer"] == "model"), metrics["rows"][0])
    if row["roc_auc"]["mean"] is None:
        return f"No pair metric is defined: {tested}, all of one class."
    threshold = metrics["thresholds"][row["scorer"]]
    return sentences(
        "Over {tested} {name} has ROC AUC {roc_auc}.",
        "Without dev pairs of both classes no threshold can be fitted, so accuracy and F1 are not "
        "defined: a threshold fitted on the test pairs would make them too good."
        if threshold is None
        else "At the threshold {threshold:.3g}, fitted on {dev:,} dev pairs, its accuracy is "
        "{accuracy} and its F1 {f1}.",
        tested=tested,
        name=code(row["scorer"]),
        threshold=threshold,
        dev=metrics.get("dev_pairs", 0),
        **{name: format_estimate(row[name]) for name in ("roc_auc", "accuracy", "f1")},
    )


def calibration(metrics: Record) -> str:
    """Whether the model's probabilities can be trusted."""
    rows: list[Record] = metrics.get("rows", [])
    row = next((row for row in rows if row["scorer"] == "model"), {})
    error = row.get("ece", {"mean": None})
    if error["mean"] is None:
        return "Calibration is not defined here: there are no test pairs, or no probabilities."
    state = "are nearly right" if error["mean"] <= MAX_CALIBRATION_ERROR else "are off"
    return (
        f"The expected calibration error of the model is {format_estimate(error)}, its Brier score "
        f"{format_estimate(row['brier'])}: its probabilities {state}. A ranking "
        "needs no calibration; a cut-off does."
    )


def slices(table: pd.DataFrame) -> str:
    """In which slices the model is behind the best baseline by more than the interval."""
    large = table[~table["small"]]
    if large.empty:
        return "Every slice is too small to say anything."
    worst = large.loc[large["gap"].idxmin()]
    return (
        f"Of {count(len(large), 'slice')} of sufficient size, the model is behind "
        f"{code(worst['other'])} in {(large['gap_high'] < 0).sum()} and ahead in "
        f"{(large['gap_low'] > 0).sum()}; its worst is {worst['dimension']} {worst['slice']} "
        f"({count(worst['queries'], 'query')}, difference {worst['gap']:+.3f}). Intervals of "
        "single slices are not corrected for multiple comparisons: take them as hints."
    )


def negatives(orders: pd.DataFrame) -> str:
    """Which kind of negative the model ranks above a positive most often."""
    model = orders[orders["scorer"] == "model"].set_index("kind")
    if len(model) < 2:
        return "The lists hold one kind of negative only, so there is nothing to compare."
    hard, easy = model["mean"].idxmin(), model["mean"].idxmax()
    return (
        f"Against {hard} negatives the model ranks the positive first in "
        f"{format_estimate(model.loc[hard])} of the pairwise orders, against {easy} ones in "
        f"{format_estimate(model.loc[easy])}. An easy test has few of the former."
    )


def equal_overlap(orders: pd.DataFrame) -> str:
    """How each scorer does where character overlap with the query decides nothing."""
    if orders.empty:
        return "No positive shares as many characters with its query as one of the negatives."
    best, model = orders.loc[orders["mean"].idxmax()], orders[orders["scorer"] == "model"]
    own = (
        f"The model is right in {format_estimate(model.iloc[0])} of "
        if len(model)
        else "There are "
    )
    return f"{own}{int(best['couples']):,} pairwise orders of equal overlap" + (
        ", more often than any other scorer."
        if best["scorer"] == "model"
        else f"; {code(best['scorer'])} is right most often, in {format_estimate(best)}."
    )


def scatter(model: Sequence[float], other: Sequence[float], name: str) -> str:
    """How many queries the model wins and loses against the best baseline."""
    gaps = pd.Series(list(model)) - pd.Series(list(other))
    won, lost = (gaps > 1e-9).sum(), (gaps < -1e-9).sum()
    return (
        f"Queries on which the model is better than {code(name)}: {won:,}; worse: {lost:,}; equal: "
        f"{len(gaps) - won - lost:,}. Both kinds are worth reading: a combination may beat either."
    )


def curve(table: pd.DataFrame) -> str:
    """Whether more training pairs would probably help."""
    if table.empty:
        return "This training kept no snapshots, so there is no learning curve."
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) > 2 and last["low"] > table.iloc[-2]["mean"]:
        trend = "It was still rising at the end: more pairs would probably help."
    elif last["mean"] < table["mean"].max() - 0.01:
        trend = "It was higher before: more of the same training does not help."
    else:
        trend = "The last step lies within its interval: the curve is flattening, or too noisy."
    return (
        f"nDCG@10 went from {first['mean']:.3f} after {count(int(first['pairs']), 'pair')} to "
        f"{last['mean']:.3f} after {int(last['pairs']):,}. {trend}"
    )


def blend(fitted: "Blend") -> str:
    """What a blend of scores says about the model."""
    if fitted.problem:
        return f"There is no blend: {fitted.problem}."
    lead = fitted.minus["model"]
    ndcg, model = (fitted.means[name]["mean"] for name in ("blend", "model"))
    shown = (
        f"nDCG@10 {ndcg:.3f} against the model's {model:.3f} (difference {lead['mean']:+.3f}, 95% "
        f"interval {lead['low']:+.3f} to {lead['high']:+.3f}, p = {lead['p_holm']:.2g} after "
        "correction)"
    )
    if lead["p_holm"] < SIGNIFICANT and lead["low"] > 0:
        return (
            f"**The blend ranks better than the model alone**: {shown}. So the model has not "
            "learned all that shared characters tell. More training may close the gap; until "
            "then, running all parts and blending them ranks better."
        )
    if lead["p_holm"] < SIGNIFICANT and lead["high"] < 0:
        return (
            f"**The blend ranks worse than the model**: {shown}. What separates positives from "
            "negatives among the dev pairs does not order these lists."
        )
    return f"**The blend adds nothing that can be shown**: {shown}."
