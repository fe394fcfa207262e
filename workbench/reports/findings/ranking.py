"""Findings of notebook 4: what the evaluation allows to be claimed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from workbench.ranking.uncertainty import (
    FEW_GROUPS,
    MIN_GROUPS,
    REHEARSAL_GROUPS,
    claim,
    direction,
    format_estimate,
)
from workbench.reports.findings import Record, code, count, names, sentences

if TYPE_CHECKING:
    from workbench.ranking.blend import Blend

NOTHING = {"mean": None, "low": None, "high": None}
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
                    f"in float32; {100 * own['swapped']:.2f} % of pairwise orders inverted on the "
                    f"first {used['pairs']} pairs)"
                )
    return "; ".join(parts) + "." if parts else "No model was run."


CLAIMS = {
    "few": "**Too few queries to say anything about ranking**: it takes "
    f"{MIN_GROUPS} groups of queries that share no text. Use more pairs, a larger test_share, or a "
    "file of candidates.",
    "worse": "**The model ranks worse than {ahead}: do not publish it as an improvement.**",
    "tied": "**The model gives all candidates of most queries the same score: it does not rank.** "
    "Look for a fault before a claim.",
    "coarse": "**Too few resamples to say anything**: no p-value can be low enough for so many "
    "comparisons. Evaluate again with more `resamples`.",
    "unclear": "**The model and {unclear} cannot be told apart with this many queries.**",
    "better": "**The model ranks better than every baseline here.**",
}


def verdict(metrics: Record) -> str:
    """What may be claimed about the model, compared with each other scorer query by query."""
    found = claim(metrics)
    if found.state == "nothing":
        return "There is nothing to compare: the table needs a model and at least one baseline."
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    queries, best = metrics["queries"], found.others[0]
    groups = metrics.get("query_groups", queries)
    return sentences(
        f"Over {count(queries, 'query')} the model has nDCG@10 {means['model']:.3f}; the best of "
        f"the others is {{best}} with {means[best]:.3f} ({gap(metrics['model_minus'][best])}).",
        CLAIMS[found.state],
        MIN_GROUPS <= groups < FEW_GROUPS
        and f"There are only {groups} independent groups of queries, for which a 95 % interval is "
        "too narrow: treat every difference as a hint.",
        FEW_GROUPS <= groups < REHEARSAL_GROUPS
        and "There are few independent queries; treat this as a rehearsal, not as a result.",
        best=code(best),
        ahead=names(found.ahead or [""]),
        unclear=names(found.unclear or [""]),
    )


def gap(of: Record) -> str:
    """A difference with its interval and p-value, as far as there are any."""
    low, p = of.get("low"), of.get("p_holm")
    return (
        f"difference {of['mean']:+.3f}, "
        + ("no interval" if pd.isna(low) else f"95 % interval {low:+.3f} to {of['high']:+.3f}")
        + ("" if p is None else f", p = {p:.2g} after correction")
    )


def intervals(metrics: Record) -> str:
    """How many independent observations the intervals rest on."""
    groups = metrics.get("query_groups", metrics["queries"])
    return sentences(
        f"The {count(metrics['queries'], 'query')} are {count(groups, 'group')} that share no "
        "query and no relevant text; intervals and tests take each group as one observation."
        if groups < metrics["queries"]
        else f"No two of the {count(groups, 'query')} share a query or a relevant text, so each is "
        "one observation of intervals and tests.",
        groups < MIN_GROUPS
        and f"**With fewer than {MIN_GROUPS} an interval would be much too narrow, so there is "
        "none.**",
        MIN_GROUPS <= groups < FEW_GROUPS
        and f"**With fewer than {FEW_GROUPS} the 95 % intervals are too narrow**: of 12 groups, "
        "about 89 % hold the true mean.",
    )


def agreement(metrics: Record) -> str:
    """Whether nDCG@10 and MRR@10 put the scorers in the same order."""
    ndcg, mrr = (
        [r["scorer"] for r in sorted(metrics["rows"], key=lambda row: -row[name]["mean"])]
        for name in ("ndcg@10", "mrr@10")
    )
    if ndcg == mrr:
        return "MRR@10 puts the scorers in the same order as nDCG@10."
    return (
        f"By nDCG@10 the order is {names(ndcg)}; by MRR@10 it is {names(mrr)}. Where the two "
        "disagree, do not build a claim on one of them."
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
        shares=", ".join(f"{code(name)} {100 * share:.1f} %" for name, share in tied.items()),
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
    threshold, dev = metrics["thresholds"][row["scorer"]], metrics.get("dev_pairs", 0)
    share = metrics["positive_pairs"] / metrics["pairs"]
    usual, low, high = (max(share, 1 - share), row["accuracy"]["low"], row["accuracy"]["high"])
    return sentences(
        f"Over {tested} {{name}} has ROC AUC {format_estimate(row['roc_auc'])}; guessing has 0.5.",
        "Without dev pairs of both classes no threshold can be fitted, so accuracy and F1 are not "
        "defined: a threshold fitted on the test pairs would make them too good."
        if threshold is None
        else f"At the threshold {threshold:.3g}, fitted on {count(dev, 'dev pair')} for the "
        f"highest F1, its accuracy is {format_estimate(row['accuracy'])} and its F1 "
        f"{format_estimate(row['f1'])}; giving every pair the more frequent answer has accuracy "
        f"{usual:.3f}.",
        low is not None and "The intervals also cover how uncertain that threshold is.",
        threshold is not None
        and (low is None or low <= usual)
        and (
            "**So its accuracy is worse than that of a constant answer.**"
            if high is not None and high < usual
            else "**So its accuracy is not shown to be better than that of a constant answer.**"
        ),
        name=code(row["scorer"]),
    )


def calibration(metrics: Record) -> str:
    """Whether the model's probabilities can be trusted, and whether they say anything."""
    rows: list[Record] = metrics.get("rows", [])
    row = next((row for row in rows if row["scorer"] == "model"), {})
    error, skill = row.get("ece", NOTHING), row.get("brier_skill", NOTHING)
    if error["mean"] is None:
        return "Calibration is not defined here: there are no test pairs, or no probabilities."
    shown = (
        f"The expected calibration error of the model is {format_estimate(error)}, its Brier score "
        f"{format_estimate(row['brier'])}, its Brier skill {format_estimate(skill)} (0: no better "
        "than giving every pair the share of positives)."
    )
    if skill["low"] is None:
        said = "**There are too few independent test pairs, or one class only, to say more.**"
    elif skill["low"] <= 0:
        said = (
            "**It is not shown that its probabilities tell more about a pair than the share of "
            "positives does.** A constant has a small calibration error too: that is no merit."
        )
    elif error["mean"] <= MAX_CALIBRATION_ERROR:
        said = "Its probabilities are nearly right, and tell more than the share of positives does."
    else:
        said = "Its probabilities tell more than the share of positives does, but they are off."
    return f"{shown} {said} A ranking needs no calibration; a cut-off does."


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
    model = orders[orders["scorer"] == "model"].set_index("kind").sort_values("mean")
    if len(model) < 2:
        return "The lists hold one kind of negative only, so there is nothing to compare."
    hard, easy = model.iloc[0], model.iloc[-1]
    return (
        f"Against {hard.name} negatives the model ranks the positive first in "
        f"{format_estimate(hard)} of the pairwise orders, against {easy.name} ones in "
        f"{format_estimate(easy)}. "
    ) + (
        "An easy test has few of the former."
        if hard["high"] < easy["low"]
        else "That is no difference that could not be chance."
    )


def equal_overlap(orders: pd.DataFrame) -> str:
    """How the scorers do where plain Jaccard can only guess."""
    if orders.empty:
        return "No positive shares as many characters with its query as one of the negatives."
    best = orders.loc[orders["mean"].idxmax()]
    model = orders[orders["scorer"] == "model"]
    own = model.iloc[0] if len(model) else best
    return sentences(
        f"{{name}} is right in {format_estimate(own)} of {int(own['orders']):,} pairwise orders of "
        "equal overlap; guessing has 0.5.",
        not (own["low"] > 0.5 or own["high"] < 0.5)
        and "**That is not shown to be better than guessing.**",
        own["high"] < 0.5 and "**That is worse than guessing.**",
        own["mean"] < best["mean"]
        and f"{{best}} is right most often, in {format_estimate(best)}: only plain Jaccard is held "
        "equal here, not which characters are shared or in what order.",
        name="The model" if len(model) else code(own["scorer"]),
        best=code(best["scorer"]),
    )


def scatter(model: Sequence[float], other: Sequence[float], name: str) -> str:
    """How many queries the model wins and loses against the best baseline."""
    gaps = pd.Series(list(model)) - pd.Series(list(other))
    won, lost = (gaps > 1e-9).sum(), (gaps < -1e-9).sum()
    return (
        f"Queries on which the model is better than {code(name)}: {won:,}; worse: {lost:,}; equal: "
        f"{len(gaps) - won - lost:,}."
    ) + (" Both kinds are worth reading: a combination may beat either." if won and lost else "")


def curve(table: pd.DataFrame) -> str:
    """Whether more training pairs would probably help."""
    if table.empty:
        return "This training kept no snapshots, so there is no learning curve."
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) > 2 and last["low"] > table.iloc[-2]["mean"]:
        trend = "It was still rising at the end: more pairs would probably help."
    elif last["high"] < table["mean"].max():
        trend = "It was higher before: more of the same training does not help."
    elif pd.isna(last["low"]):
        trend = "There are too few independent queries for an interval, so no trend is shown."
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
    shown = f"nDCG@10 {ndcg:.3f} against the model's {model:.3f} ({gap(lead)})"
    return {
        1: f"**The blend ranks better than the model alone**: {shown}. So the model has not "
        "learned all that shared characters tell. More training may close the gap; until then, "
        "running all parts and blending them ranks better.",
        -1: f"**The blend ranks worse than the model**: {shown}. What separates positives from "
        "negatives among the dev pairs does not order these lists.",
        0: f"**The blend adds nothing that can be shown**: {shown}.",
    }[direction(lead["low"], lead["high"], lead["p_holm"])]
