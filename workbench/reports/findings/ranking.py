"""What the ranking figures allow to be said: each function turns measured numbers into words.

The sentences are chosen by the numbers, so they stay true whatever the parameters were. They hold
no text from the data, which keeps them safe to show as Markdown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.ranking.uncertainty import SIGNIFICANT, format_estimate


def backends_finding(metrics: Mapping[str, Any]) -> str:
    """A sentence on how the models were run, from `metrics.json`."""
    used: Mapping[str, Any] = metrics.get("backends", {})
    if not used:
        return "No model was run."
    parts = []
    for name, record in used.items():
        text = f"`{name}` was run by **{record['backend']}**"
        found = {one["backend"]: one for one in record.get("checks", [])}
        if record["backend"] in found and record["backend"] != "predict":
            own, plain = found[record["backend"]], found["predict"]
            gain = own["pairs_per_second"] / plain["pairs_per_second"]
            text += (
                f" ({gain:.1f} times as quick as the library's float32; on the first "
                f"{record['pairs']} pairs it swaps {own['swapped']:.2%} of couples)"
            )
        parts.append(text)
    return "; ".join(parts) + "."


FEW = 100  # queries under which a result is a rehearsal


TOO_FEW = 10  # queries below which nothing is claimed at all


def ranking_finding(metrics: Mapping[str, Any]) -> str:
    """What may be claimed about the model: it against each of the others, query by query.

    A difference counts where its 95 % interval leaves out 0 and its Holm-corrected p-value is
    below 0.05; both have to agree.
    """
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    model = means.pop("model", None)
    if model is None or not means:
        return "There is nothing to compare: the table needs a model and at least one baseline."
    best = max(means, key=lambda name: means[name])
    gaps = metrics["model_minus"]
    shown = f"{gaps[best]['mean']:+.3f}, 95 % interval {gaps[best]['low']:+.3f} to " + (
        f"{gaps[best]['high']:+.3f}"
    )
    if "p_holm" in gaps[best]:
        shown += f", p = {gaps[best]['p_holm']:.2g} after correction"
    facts = (
        f"Over {metrics['queries']:,} queries the model has nDCG@10 {model:.3f}; the best of the "
        f"others is `{best}` with {means[best]:.3f} (difference {shown}). "
    )
    sure = {n: gap.get("p_holm", 0.0) < SIGNIFICANT for n, gap in gaps.items()}
    worse = [n for n, gap in gaps.items() if gap["high"] < 0 and sure[n]]
    unclear = [n for n, gap in gaps.items() if not (sure[n] and (gap["low"] > 0 or n in worse))]
    if worse:
        claim = (
            f"**The model ranks worse than {_names(worse, means)}: do not publish it as an "
            "improvement.**"
        )
    elif unclear:
        claim = (
            f"**The model and {_names(unclear, means)} cannot be told apart with so many queries.**"
        )
    else:
        claim = "**The model ranks better than every baseline here.**"
    if metrics["queries"] < TOO_FEW:
        claim = (
            f"**{metrics['queries']:,} queries are too few to say anything about ranking**: use "
            "more pairs, a larger test_share, or a file of candidates."
        )
    elif metrics["queries"] < FEW:
        claim += " There are few queries; treat this as a rehearsal, not as a result."
    return facts + claim


def agreement_finding(metrics: Mapping[str, Any]) -> str:
    """Whether nDCG@10 and MRR@10 put the scorers in the same order."""
    orders = [
        [row["scorer"] for row in sorted(metrics["rows"], key=lambda row: -row[name]["mean"])]
        for name in ("ndcg@10", "mrr@10")
    ]
    if orders[0] == orders[1]:
        return "MRR@10 puts the scorers in the same order as nDCG@10, so the picture is stable."
    return (
        f"By nDCG@10 the order is {', '.join(orders[0])}; by MRR@10 it is {', '.join(orders[1])}. "
        "Where the two disagree, do not build a claim on one of them."
    )


def leak_finding(seen: int, queries: int, training_pairs: int) -> str:
    """Whether ranking queries were trained on, as far as the training pairs are known."""
    if not training_pairs:
        return (
            "**No training pairs are known here, so whether the model was trained on these "
            f"{queries:,} queries cannot be told.** If it was, its figures flatter."
        )
    if not seen:
        return f"None of the {queries:,} queries stands among the training texts."
    return (
        f"**{seen:,} of the {queries:,} queries stand among the training texts.** Their figures "
        "flatter whatever was trained on them."
    )


def lists_finding(recipe: Mapping[str, Any], suspects: pd.DataFrame) -> str:
    """What the lists hold, which rule the odd ones follow, and how many negatives are doubtful."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in recipe["kinds"].items())
    text = (
        f"{recipe['queries']:,} queries with {recipe['candidates']:,} candidates, "
        f"{recipe['positives']:,} of them relevant ({kinds or 'origin not stated'}); order: "
        f"{recipe['order']}. "
    )
    if recipe.get("paraphrases_kept_out"):
        text += (
            f"{recipe['paraphrases_kept_out']:,} times a text was not mined because it is probably "
            "a paraphrase of the query. "
        )
    if recipe["missed_positives"]:
        text += (
            f"{recipe['missed_positives']:,} relevant texts are not among the candidates; they "
            "stay in every denominator. "
        )
    if recipe.get("queries_without_judgement"):
        text += (
            f"{recipe['queries_without_judgement']:,} queries of the run have no judgement and are "
            "left out. "
        )
    odd = recipe["odd_queries"]
    zero = odd["without_candidate"] + odd["without_positive"]
    if zero:
        text += f"**{zero:,} queries have nothing relevant to rank and count as 0.** "
    easy = odd["one_candidate"] + odd["all_positive"]
    if easy:
        text += f"**In {easy:,} lists every order is the same**: they separate no two scorers. "
    if suspects.empty:
        return text + "No negative looks like an unlabelled paraphrase."
    counts = suspects["reason"].value_counts()
    why = {
        "equal": "equal to the query or a positive but for case, width and punctuation",
        "group": "connected to the query through positives",
    }
    shown = "; ".join(
        f"{counts[name]:,} {meaning}" for name, meaning in why.items() if name in counts
    )
    return text + (
        f"**{len(suspects):,} negatives are probably true paraphrases**: {shown}. They count "
        "against every scorer that is right about them."
    )


def left_out_finding(left_out: Mapping[str, str]) -> str:
    """Which rungs of the ladder are missing, and why."""
    if not left_out:
        return "No rung of the ladder is missing."
    return "Left out: " + "; ".join(f"`{name}`, because {why}" for name, why in left_out.items())


def ties_finding(metrics: Mapping[str, Any]) -> str:
    """How ties were counted, and which scorers do not rank at all."""
    rule = {
        "expected": "Ties count as the average over every order of the tied candidates",
        "worst": "Ties count against the scorer: the irrelevant candidates are put first",
    }[metrics["ties"]]
    tied = {n: share for n, share in metrics.get("queries_all_tied", {}).items() if share > 0}
    if not tied:
        return f"{rule}. No scorer gives all candidates of a query the same score."
    shown = ", ".join(f"`{name}` {share:.1%}" for name, share in tied.items())
    text = f"{rule}. Queries whose candidates all have the same score: {shown}."
    constant = [name for name, share in tied.items() if share > 0.5]
    if constant:
        names = " and ".join(f"`{name}`" for name in constant)
        text += f" **{names} mostly does not rank at all**: look for a fault before a claim."
    return text


def pairs_finding(metrics: Mapping[str, Any]) -> str:
    """What the pair metrics say of the model, and what could not be defined."""
    if not metrics["pairs"]:
        return (
            "There are no labelled test pairs, so there are no pair metrics; the scores above are "
            "those of the candidates."
        )
    row = next((row for row in metrics["rows"] if row["scorer"] == "model"), metrics["rows"][0])
    name = row["scorer"]
    if row["roc_auc"]["mean"] is None:
        return f"The {metrics['pairs']:,} test pairs are of one class: no pair metric is defined."
    text = (
        f"Over {metrics['pairs']:,} test pairs `{name}` has ROC AUC "
        f"{format_estimate(row['roc_auc'])}. "
    )
    threshold = metrics["thresholds"][name]
    if threshold is None:
        return text + (
            "Without dev pairs of both classes no threshold can be fitted, so accuracy and F1 are "
            "not defined: one fitted on the test pairs would flatter."
        )
    return text + (
        f"At the threshold {threshold:.3g}, fitted on {metrics['dev_pairs']:,} dev pairs, its "
        f"accuracy is {format_estimate(row['accuracy'])} and its F1 {format_estimate(row['f1'])}."
    )


def calibration_finding(metrics: Mapping[str, Any], limit: float = 0.05) -> str:
    """Whether the model's probabilities can be taken at their word."""
    rows = [row for row in metrics["rows"] if row["scorer"] == "model"]
    row = rows[0] if rows else {}
    error = row.get("ece", {"mean": None})
    if error["mean"] is None:
        return "Calibration is not defined here: there are no test pairs, or no probabilities."
    word = "can be taken nearly at their word" if error["mean"] <= limit else "are off"
    return (
        f"The expected calibration error of the model is {format_estimate(error)}, its Brier score "
        f"{format_estimate(row['brier'])}: probabilities {word}. A ranking needs no calibration; "
        "a cut-off does."
    )


def slices_finding(slices: pd.DataFrame) -> str:
    """In which slices the model falls behind the best baseline by more than the interval."""
    whole = slices[~slices["small"]]
    if whole.empty:
        return "Every slice is too small to say anything."
    other = str(whole["other"].iloc[0])
    behind, ahead = whole[whole["gap_high"] < 0], whole[whole["gap_low"] > 0]
    text = (
        f"Of {len(whole)} slices that are large enough, the model is behind `{other}` in "
        f"{len(behind)} and ahead in {len(ahead)}"
    )
    worst = whole.loc[whole["gap"].idxmin()]
    text += (
        f"; its worst is {worst['dimension']} {worst['slice']} ({worst['queries']:,} queries, "
        f"difference {worst['gap']:+.3f}). "
    )
    return text + "Intervals of single slices are not corrected for looking at many: take hints."


def negatives_finding(couples: pd.DataFrame) -> str:
    """Against which kind of negative the model puts a positive below."""
    model = couples[couples["scorer"] == "model"].set_index("kind")
    if len(model) < 2:
        return "The lists hold one kind of negative only, so there is nothing to compare."
    hard = model["mean"].idxmin()
    easy = model["mean"].idxmax()
    return (
        f"Against {hard} negatives the model puts the positive first in "
        f"{format_estimate(model.loc[hard])} of the couples, against {easy} ones in "
        f"{format_estimate(model.loc[easy])}. An easy test is one with few of the former."
    )


def equal_overlap_finding(couples: pd.DataFrame) -> str:
    """What is left of each scorer where sharing characters with the query decides nothing."""
    if couples.empty:
        return "No positive shares as many characters with its query as one of the negatives."
    first = couples.iloc[couples["mean"].argmax()]
    model = couples[couples["scorer"] == "model"]
    own = (
        f"The model is right in {format_estimate(model.iloc[0])} of "
        if len(model)
        else "There are "
    )
    text = f"{own}{int(first['couples']):,} couples of equal overlap"
    if first["scorer"] == "model":
        return f"{text}, more often than any other scorer."
    return f"{text}; `{first['scorer']}` is right most often, in {format_estimate(first)}."


def scatter_finding(model: Sequence[float], other: Sequence[float], name: str) -> str:
    """How many queries the model wins and loses against the best baseline."""
    gaps = pd.Series(list(model)) - pd.Series(list(other))
    won, lost = int((gaps > 1e-9).sum()), int((gaps < -1e-9).sum())
    return (
        f"The model is better than `{name}` on {won:,} queries, worse on {lost:,}, equal on "
        f"{len(gaps) - won - lost:,}. Both kinds are worth reading: a combination may beat either."
    )


def curve_finding(curve: pd.DataFrame) -> str:
    """Whether more training pairs would probably help."""
    if curve.empty:
        return "This training kept no snapshots, so there is no learning curve."
    first, last = curve.iloc[0], curve.iloc[-1]
    text = (
        f"nDCG@10 went from {first['mean']:.3f} after {int(first['pairs']):,} pairs to "
        f"{last['mean']:.3f} after {int(last['pairs']):,}. "
    )
    if len(curve) > 2 and last["low"] > curve.iloc[-2]["mean"]:
        return text + "It was still rising at the end: more pairs would probably help."
    if last["mean"] < curve["mean"].max() - 0.01:
        return text + "It was higher before: more of the same training does not help."
    return text + "The last step lies within its interval: the curve is flattening, or too noisy."


def _names(names: Sequence[str], means: Mapping[str, float]) -> str:
    """Scorers in words, the strongest first."""
    quoted = [f"`{name}`" for name in sorted(names, key=lambda name: -means[name])]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
