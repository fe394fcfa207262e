"""Findings of notebook 4: what the evaluation allows to be claimed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from workbench.files import percent
from workbench.ranking import uncertainty
from workbench.ranking.metrics import MAIN_METRIC
from workbench.ranking.uncertainty import claim, direction, format_estimate, group_count
from workbench.reports.findings import Record, code, count, model_row, names, sentences, won_lost

if TYPE_CHECKING:
    from workbench.ranking.slices import Blend

NOTHING = {"mean": None, "low": None, "high": None}
MAX_CALIBRATION_ERROR = 0.05  # up to which probabilities can be trusted
CLAIMS = {  # by state: colour, verdict and advice, with the names of scorers that it is about
    "nothing": (
        "amber",
        "There is nothing to compare: the table needs a model and at least one baseline.",
        "Compare it with baselines: `04_evaluate_ranking`.",
    ),
    "few": (
        "amber",
        "**Too few queries to say anything about ranking**: it takes "
        f"{uncertainty.MIN_GROUPS} groups of queries that share no text.",
        "Measure on more queries: more pairs, a larger `test_share`, or a file of `candidates`.",
    ),
    "worse": (
        "red",
        "**The model ranks worse than {ahead}: do not publish it as an improvement.**",
        "Do not use it in place of {ahead}. Read the queries that it ranks worst, then change one "
        "thing and compare.",
    ),
    "tied": (
        "red",
        "**The model gives all candidates of most queries the same score: it does not rank.**",
        "Look for a fault before a claim.",
    ),
    "coarse": (
        "amber",
        "**Too few resamples**: no p-value can be low enough for so many comparisons.",
        "Evaluate again with more `resamples`.",
    ),
    "unclear": (
        "amber",
        "**The model and {unclear} cannot be told apart with this many queries.**{behind}",
        "Measure on more queries, or train on more pairs, before you prefer it.",
    ),
    "better": (
        "green",
        "**The model ranks better than every baseline here.**",
        "Train with other seeds (`workbench sweep`): one training may be luck.",
    ),
}


def use(metrics: Record) -> str:
    """What the evaluation shows the model to be good for."""
    if not metrics:
        return "None is shown: the model has not been evaluated."
    good = "None is shown."
    if claim(metrics).state in ("better", "unclear"):
        good = "Ranking candidates for queries like those of the test below."
    return f"{good} {claimed(metrics)[1]}"


def claimed(metrics: Record) -> tuple[str, str, str]:
    """What the evaluation allows to be claimed: its colour, the verdict, and what to do next."""
    state, signs = claim(metrics)
    better, worse, unclear = ([n for n, own in signs.items() if own == sign] for sign in (1, -1, 0))
    of = {
        "ahead": names(worse or [""]),
        "unclear": names(unclear or [""]),
        "behind": f" It ranks better than {names(better)}." if better else "",
    }
    colour, said, advice = CLAIMS[state]
    return colour, said.format(**of), advice.format(**of)


def verdict(metrics: Record) -> str:
    """What may be claimed about the model, compared with each other scorer query by query."""
    said, found = claimed(metrics)[1], claim(metrics)
    if found.state == "nothing":
        return said
    means = {row["scorer"]: row[MAIN_METRIC]["mean"] for row in metrics["rows"]}
    queries, best = metrics["queries"], next(iter(found.signs))
    independent = group_count(metrics)
    return sentences(
        f"Over {count(queries, 'query')} the model has nDCG@10 {means['model']:.3f}; the best of "
        f"the others is {code(best)} with {means[best]:.3f} ({gap(metrics['model_minus'][best])}).",
        said,
        uncertainty.MIN_GROUPS <= independent < uncertainty.FEW_GROUPS
        and f"There are only {independent} independent groups of queries, for which a 95 % "
        "interval is too narrow (of 12 groups, about 89 % hold the true mean): take differences as "
        "hints.",
        uncertainty.FEW_GROUPS <= independent < uncertainty.REHEARSAL_GROUPS
        and "There are few independent queries; treat this as a rehearsal, not as a result.",
    )


def gap(of: Record) -> str:
    """A difference with its interval and p-value, as far as there are any."""
    low, p = of.get("low"), of.get("p_holm")
    interval = "no interval" if pd.isna(low) else f"95 % interval {low:+.3f} to {of['high']:+.3f}"
    tested = "" if p is None else f", p = {p:.2g} after correction"
    return f"difference {of['mean']:+.3f}, {interval}{tested}"


def backends(metrics: Record) -> str:
    """How the models were run."""
    parts = []
    for name, used in metrics.get("backends", {}).items():
        parts.append(f"{code(name)} was run by **{used['backend']}**")
        checks = {one["backend"]: one for one in used.get("checks", [])}
        if used["backend"] != "predict" and (own := checks.get(used["backend"])):
            faster = own["pairs_per_second"] / checks["predict"]["pairs_per_second"]
            parts[-1] += (
                f" ({faster:.1f}x faster than the library in float32; {percent(own['swapped'], 2)} "
                f"of pairwise orders inverted on the first {used['pairs']} pairs)"
            )
    return "; ".join(parts) + "." if parts else "No model was run."


def intervals(metrics: Record) -> str:
    """How many independent observations the intervals rest on."""
    independent = group_count(metrics)
    return sentences(
        f"The {count(metrics['queries'], 'query')} are {count(independent, 'group')} that share no "
        "query and no relevant text; intervals and tests take each group as one observation."
        if independent < metrics["queries"]
        else f"No two of the {count(independent, 'query')} share a query or a relevant text, so "
        "each is one observation of intervals and tests.",
        independent < uncertainty.MIN_GROUPS
        and f"**With fewer than {uncertainty.MIN_GROUPS} an interval would be much too narrow, so "
        "there is none.**",
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
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in recipe["kinds"].items())
    kept_out, unjudged = recipe.get("paraphrases_kept_out"), recipe.get("queries_without_judgement")
    nothing = odd["without_candidate"] + odd["without_positive"]
    even = odd["one_candidate"] + odd["all_positive"]
    counted = {
        "Texts not mined because they are probably paraphrases of the query: {:,}.": kept_out,
        "Relevant texts that are not among the candidates: {:,}; they count in every "
        "denominator.": recipe["missed_positives"],
        "Queries of the run left out for want of a judgement: {:,}.": unjudged,
        "**Queries with nothing relevant to rank, which score 0: {:,}.**": nothing,
        "**Lists in which every order is equally good: {:,}**; they do not separate scorers.": even,
    }
    return sentences(
        f"{recipe['queries']:,} queries with {recipe['candidates']:,} candidates, "
        f"{recipe['positives']:,} of them relevant ({kinds or 'origin not stated'}); order: "
        f"{recipe['order']}.",
        *(text.format(number) for text, number in counted.items() if number),
        f"**Negatives that are probably true paraphrases: {len(suspects):,}** "
        f"({found.get('equal', 0):,} equal to the query or a positive except for case, width and "
        f"punctuation; {found.get('group', 0):,} connected to the query through positives). They "
        "count against every scorer that ranks them high."
        if len(suspects)
        else "No negative looks like an unlabelled paraphrase.",
    )


def left_out(reasons: Record) -> str:
    """Which scorers are missing from the comparison, and why."""
    if not reasons:
        return "No scorer is left out."
    return "Left out: " + "; ".join(f"{code(name)}, because {why}" for name, why in reasons.items())


def ties(metrics: Record) -> str:
    """How ties were counted, and which scorers do not rank at all."""
    tied = {n: share for n, share in metrics.get("queries_all_tied", {}).items() if share > 0}
    shares = ", ".join(f"{code(name)} {percent(share)}" for name, share in tied.items())
    constant = [name for name, share in tied.items() if share > uncertainty.MANY_TIED]
    return sentences(
        "Ties count against the scorer: the irrelevant candidates are put first."
        if metrics["ties"] == "worst"
        else "Ties count as the average over every order of the tied candidates.",
        f"Queries whose candidates all have the same score: {shares}."
        if tied
        else "No scorer gives all candidates of a query the same score.",
        bool(constant)
        and f"**No ranking in most queries: {names(constant)}**. Look for a fault before a claim.",
    )


def pairs(metrics: Record) -> str:
    """What the pair metrics say about the model, and which are not defined."""
    if not metrics["pairs"]:
        return "There are no labelled test pairs, so no pair metrics; the scores are of candidates."
    tested = count(metrics["pairs"], "test pair")
    row = model_row(metrics) or metrics["rows"][0]
    if row["roc_auc"]["mean"] is None:
        return f"No pair metric is defined: {tested}, all of one class."
    first = (
        f"Over {tested} {code(row['scorer'])} has ROC AUC {format_estimate(row['roc_auc'])}; "
        "guessing has 0.5."
    )
    threshold = metrics["thresholds"][row["scorer"]]
    if threshold is None:
        return (
            f"{first} Without dev pairs of both classes no threshold can be fitted, so accuracy "
            "and F1 are not defined: a threshold fitted on the test pairs would make them too good."
        )
    share, accuracy = metrics["positive_pairs"] / metrics["pairs"], row["accuracy"]
    usual, low, high = max(share, 1 - share), accuracy["low"], accuracy["high"]
    return sentences(
        f"{first} At the threshold {threshold:.3g}, fitted on "
        f"{count(metrics.get('dev_pairs', 0), 'dev pair')} for the highest F1, its accuracy is "
        f"{format_estimate(row['accuracy'])} and its F1 {format_estimate(row['f1'])}; giving every "
        f"pair the more frequent answer has accuracy {usual:.3f}.",
        low is not None and "The intervals also cover how uncertain that threshold is.",
        high is not None
        and high < usual
        and "**So its accuracy is worse than that of a constant answer.**",
        (low is None or low <= usual <= high)
        and "**So its accuracy is not shown to be better than that of a constant answer.**",
    )


def calibration(metrics: Record) -> str:
    """Whether the model's probabilities can be trusted, and whether they say anything."""
    row = model_row(metrics)
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
    return sentences(
        f"Against {hard.name} negatives the model ranks the positive first in "
        f"{format_estimate(hard)} of the pairwise orders, against {easy.name} ones in "
        f"{format_estimate(easy)}.",
        "An easy test has few of the former."
        if hard["high"] < easy["low"]
        else "That is no difference that could not be chance.",
    )


def equal_overlap(orders: pd.DataFrame) -> str:
    """How the scorers do where plain Jaccard can only guess."""
    if orders.empty:
        return "No positive shares as many characters with its query as one of the negatives."
    best, model = orders.loc[orders["mean"].idxmax()], orders[orders["scorer"] == "model"]
    own = model.iloc[0] if len(model) else best
    return sentences(
        f"{'The model' if len(model) else code(own['scorer'])} is right in {format_estimate(own)} "
        f"of {int(own['orders']):,} pairwise orders of equal overlap; guessing has 0.5.",
        not (own["low"] > 0.5 or own["high"] < 0.5)
        and "**That is not shown to be better than guessing.**",
        own["high"] < 0.5 and "**That is worse than guessing.**",
        own["mean"] < best["mean"]
        and f"{code(best['scorer'])} is right most often, in {format_estimate(best)}: only plain "
        "Jaccard is held equal here, not which characters are shared or in what order.",
    )


def scatter(model: Sequence[float], other: Sequence[float], name: str) -> str:
    """How many queries the model wins and loses against the best baseline."""
    won, lost = won_lost(model, other)
    return sentences(
        f"Queries on which the model is better than {code(name)}: {won:,}; worse: {lost:,}; equal: "
        f"{len(model) - won - lost:,}.",
        bool(won and lost) and "Both kinds are worth reading: a combination may beat either.",
    )


def curve(table: pd.DataFrame) -> str:
    """Whether more training pairs would probably help."""
    if table.empty:
        return "This training kept no snapshots, so there is no learning curve."
    first, last = table.iloc[0], table.iloc[-1]
    if pd.isna(last["low"]):
        trend = "There are too few independent queries for an interval, so no trend is shown."
    elif last["high"] < table["mean"].max():
        trend = "It was higher before: more of the same training does not help."
    elif len(table) < 3:
        trend = "It takes three points to show whether it is flattening."
    elif last["low"] > table.iloc[-2]["mean"]:
        trend = "It was still rising at the end: more pairs would probably help."
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
