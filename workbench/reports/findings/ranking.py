"""Findings of notebook 4: what the evaluation allows to be claimed."""

from collections.abc import Sequence

import pandas as pd

from workbench.ranking.uncertainty import SIGNIFICANT, format_estimate
from workbench.reports.findings.phrases import Record, code, count, gap, names, sentences

FEW_QUERIES = 100  # with fewer, a result is a rehearsal
TOO_FEW_QUERIES = 10  # with fewer, nothing is claimed at all
MAX_CALIBRATION_ERROR = 0.05  # up to which probabilities can be trusted


def backends(metrics: Record) -> str:
    """How the models were run."""
    parts = []
    for name, used in metrics.get("backends", {}).items():
        text = f"{code(name)} was run by **{used['backend']}**"
        checks = {one["backend"]: one for one in used.get("checks", [])}
        if used["backend"] in checks and used["backend"] != "predict":
            own = checks[used["backend"]]
            faster = own["pairs_per_second"] / checks["predict"]["pairs_per_second"]
            text += (
                f" ({faster:.1f}x faster than the library in float32; {own['swapped']:.2%} of "
                f"pairwise orders inverted on the first {used['pairs']} pairs)"
            )
        parts.append(text)
    return "; ".join(parts) + "." if parts else "No model was run."


def verdict(metrics: Record) -> str:
    """What may be claimed about the model, compared with each other scorer query by query.

    A difference counts where its 95% interval excludes 0 and its Holm-corrected p-value is below
    0.05; both are required.
    """
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    model = means.pop("model", None)
    if model is None or not means:
        return "There is nothing to compare: the table needs a model and at least one baseline."
    strongest_first = sorted(means, key=lambda name: -means[name])
    best, gaps, queries = strongest_first[0], metrics["model_minus"], metrics["queries"]
    sure = {name for name in gaps if gaps[name].get("p_holm", 0.0) < SIGNIFICANT}
    worse = [name for name in strongest_first if name in sure and gaps[name]["high"] < 0]
    better = {name for name in sure if gaps[name]["low"] > 0}
    unclear = [name for name in strongest_first if name in gaps.keys() - better - {*worse}]
    if queries < TOO_FEW_QUERIES:
        claim = (
            f"**{count(queries, 'query')}: too few to say anything about ranking**: use more "
            "pairs, a larger test_share, or a file of candidates."
        )
    elif worse:
        claim = (
            f"**The model ranks worse than {names(worse)}: do not publish it as an improvement.**"
        )
    elif unclear:
        claim = f"**The model and {names(unclear)} cannot be told apart with this many queries.**"
    else:
        claim = "**The model ranks better than every baseline here.**"
    return sentences(
        f"Over {count(queries, 'query')} the model has nDCG@10 {model:.3f}; the best of the others "
        f"is {code(best)} with {means[best]:.3f} (difference {gap(gaps[best])}).",
        claim,
        TOO_FEW_QUERIES <= queries < FEW_QUERIES
        and "There are few queries; treat this as a rehearsal, not as a result.",
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
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in recipe["kinds"].items())
    odd = recipe["odd_queries"]
    zero = odd["without_candidate"] + odd["without_positive"]
    easy = odd["one_candidate"] + odd["all_positive"]
    mined_out, unjudged = (
        recipe.get(name, 0) for name in ("paraphrases_kept_out", "queries_without_judgement")
    )
    why = {
        "equal": "equal to the query or a positive except for case, width and punctuation",
        "group": "connected to the query through positives",
    }
    found = suspects["reason"].value_counts()
    reasons = "; ".join(f"{found[name]:,} {text}" for name, text in why.items() if name in found)
    return sentences(
        f"{count(recipe['queries'], 'query')} with {count(recipe['candidates'], 'candidate')}, "
        f"{recipe['positives']:,} of them relevant ({kinds or 'origin not stated'}); order: "
        f"{recipe['order']}.",
        mined_out > 0
        and f"Texts not mined because they are probably paraphrases of the query: {mined_out:,}.",
        recipe["missed_positives"] > 0
        and f"Relevant texts that are not among the candidates: {recipe['missed_positives']:,}; "
        "they count in every denominator.",
        unjudged > 0 and f"Queries of the run left out for want of a judgement: {unjudged:,}.",
        zero > 0 and f"**Queries with nothing relevant to rank, which score 0: {zero:,}.**",
        easy > 0
        and f"**Lists in which every order is equally good: {easy:,}**; they do not separate "
        "scorers.",
        "No negative looks like an unlabelled paraphrase."
        if suspects.empty
        else f"**Negatives that are probably true paraphrases: {len(suspects):,}** ({reasons}). "
        "They count against every scorer that ranks them high.",
    )


def left_out(reasons: Record) -> str:
    """Which scorers are missing from the comparison, and why."""
    if not reasons:
        return "No scorer is left out."
    return "Left out: " + "; ".join(f"{code(name)}, because {why}" for name, why in reasons.items())


def ties(metrics: Record) -> str:
    """How ties were counted, and which scorers do not rank at all."""
    rule = {
        "expected": "Ties count as the average over every order of the tied candidates.",
        "worst": "Ties count against the scorer: the irrelevant candidates are put first.",
    }[metrics["ties"]]
    tied = {n: share for n, share in metrics.get("queries_all_tied", {}).items() if share > 0}
    shares = ", ".join(f"{code(name)} {share:.1%}" for name, share in tied.items())
    constant = [name for name, share in tied.items() if share > 0.5]
    return sentences(
        rule,
        f"Queries whose candidates all have the same score: {shares}."
        if tied
        else "No scorer gives all candidates of a query the same score.",
        bool(constant)
        and f"**No ranking in most queries: {names(constant)}**. Look for a fault before a claim.",
    )


def pairs(metrics: Record) -> str:
    """What the pair metrics say about the model, and which are not defined."""
    if not metrics["pairs"]:
        return (
            "There are no labelled test pairs, so there are no pair metrics; the scores above are "
            "those of the candidates."
        )
    tested = f"{count(metrics['pairs'], 'test pair')}"
    row = next((row for row in metrics["rows"] if row["scorer"] == "model"), metrics["rows"][0])
    if row["roc_auc"]["mean"] is None:
        return f"No pair metric is defined: {tested}, all of one class."
    threshold = metrics["thresholds"][row["scorer"]]
    return sentences(
        f"Over {tested} {code(row['scorer'])} has ROC AUC {format_estimate(row['roc_auc'])}.",
        "Without dev pairs of both classes no threshold can be fitted, so accuracy and F1 are not "
        "defined: a threshold fitted on the test pairs would make them too good."
        if threshold is None
        else f"At the threshold {threshold:.3g}, fitted on {metrics['dev_pairs']:,} dev pairs, its "
        f"accuracy is {format_estimate(row['accuracy'])} and its F1 {format_estimate(row['f1'])}.",
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
