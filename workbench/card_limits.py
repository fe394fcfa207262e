"""What a card says of use and limits, computed from what was found."""

from collections.abc import Mapping
from typing import Any

from workbench.claims import FEW, SIGNIFICANT
from workbench.remarks import vocabulary_finding

Record = Mapping[str, Any] | None


def use_section(metrics: Record) -> str:
    """What the model may be used for, going by its evaluation."""
    if metrics is None:
        return "None is shown: the model has not been evaluated."
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    means.pop("model", None)
    gaps = metrics["model_minus"]
    if not means or not gaps:
        return "None is shown: the model has been compared with nothing."
    best = max(means, key=lambda name: means[name])
    gap = gaps[best]
    sure = gap.get("p_holm", 0.0) < SIGNIFICANT
    if gap["high"] < 0 and sure:
        return (
            f"None is shown. On the test below `{best}` ranks better, so use that; this model is "
            "of use for studying why."
        )
    if not (gap["low"] > 0 and sure):
        return (
            f"Ranking candidates for queries like those of the test below; that it does so better "
            f"than `{best}` is not shown."
        )
    return (
        "Ranking candidates for queries like those of the test below, where it is ahead of every "
        "other scorer."
    )


def misuse_section(stage: Mapping[str, Any], metrics: Record) -> str:
    """What lies outside of what was trained and measured."""
    described, recipe = stage.get("statistics"), stage["recipe"]
    lines = []
    if described:
        texts = [described["sentence_0"], described["sentence_1"]]
        least, most = min(t["min"] for t in texts), max(t["max"] for t in texts)
        lines.append(
            f"Texts unlike those it was trained on, which have {least} to {most} characters; pairs "
            f"of more than {recipe['max_length']} tokens are cut."
        )
    lines.append("Texts in languages or on subjects that the training pairs do not hold.")
    lines.append(_calibration(metrics))
    lines.append("Decisions about people: a score says how alike two texts were to this model.")
    return "\n".join(f"- {line}" for line in lines)


def _calibration(metrics: Record) -> str:
    rows = metrics["rows"] if metrics else []
    found = [row.get("ece") for row in rows if row["scorer"] == "model"]
    error = found[0]["mean"] if found and found[0] else None
    if error is None:
        return "Scores taken for probabilities: whether they are was not measured."
    kind = "they are off by" if error >= 0.05 else "they come close, off by"
    return f"Scores taken for probabilities: {kind} {100 * error:.1f} points on average (ECE)."


def limits_section(inspection: Record, metrics: Record, stage: Mapping[str, Any]) -> str:
    """Known weaknesses, each from a record of the run."""
    lines = []
    if inspection is None:
        lines.append("What the model can read was not inspected yet.")
    else:
        lines.append(vocabulary_finding(inspection))
        rows = inspection.get("contradictions", {}).get("rows", 0)
        if rows:
            lines.append(f"{rows:,} of the labelled pairs contradict another one.")
    positives = stage["data"]["sides"]["train"]["label_mean"]
    if positives is not None:
        lines.append(
            f"The labels have a mean of {positives:.3f}; scores lean towards that share of "
            "positives, whatever it is elsewhere."
        )
    lines += _of_the_test(metrics)
    lines.append("One training with one seed; another seed gives another model.")
    return "\n".join(f"- {line}" for line in lines)


def _of_the_test(metrics: Record) -> list[str]:
    if metrics is None:
        return ["It has not been evaluated: nothing may be claimed about this model."]
    lines = []
    if metrics["queries"] < FEW:
        lines.append(f"The test has {metrics['queries']:,} queries only.")
    if metrics.get("seen"):
        lines.append(f"{metrics['seen']:,} queries of the test were trained on; that flatters.")
    doubtful = sum((metrics.get("suspect_negatives") or {}).values())
    if doubtful:
        lines.append(f"{doubtful:,} negatives of the test may be paraphrases nobody labelled.")
    return lines


def recommendations_section(inspection: Record, metrics: Record) -> str:
    """What to do about it."""
    lines = []
    if inspection and inspection["verdict"]["colour"] != "green":
        lines.append(
            "Give the base a vocabulary that covers the data (`vocabulary: extend`) and train anew."
        )
    if metrics is None:
        lines.append("Evaluate before use: `04_evaluate_ranking`.")
    elif use_section(metrics).startswith("None"):
        lines.append("Do not put it in place of the better scorer.")
    lines.append("Measure on queries of your own before relying on it.")
    return "\n".join(f"- {line}" for line in lines)
