"""Findings of notebook 1: the pairs, their split, and what the vocabulary can read of them."""

import pandas as pd

from workbench.reports.findings import Record, count, sentences

FEW_POSITIVES = 30  # in the test split; with fewer, intervals are wide
READABLE = {  # by the colour of the verdict
    "red": "This base model cannot read this data: whatever it learns, it learns from lengths, "
    "punctuation and the few characters it knows. Expect character overlap to rank better.",
    "amber": "Part of the meaning is lost before the model starts.",
    "green": "The vocabulary covers the data.",
}


def bad_rows(manifest: Record) -> str:
    """How many rows were read, and why some cannot be used."""
    bad = manifest["bad_rows"].values()
    reasons = "; ".join(f"{one['count']:,} because {one['meaning']}" for one in bad)
    return sentences(
        "**{rows[read]:,} rows** read, **{rows[usable]:,}** usable.",
        "**{rows[bad]:,} set aside**: {reasons}. `data/manifest.json` lists their line numbers."
        if manifest["rows"]["bad"]
        else "No row was set aside.",
        **{**manifest, "reasons": reasons},
    )


def split(manifest: Record) -> str:
    """How the pairs were split into train, dev and test."""
    positives = manifest["sides"]["test"]["positives"]
    sizes = (
        name + (" {pairs:,} (label mean {label_mean:.3f})" if one["pairs"] else " 0").format(**one)
        for name, one in manifest["sides"].items()
    )
    return sentences(
        "The {rows[used]:,} pairs used form {groups[count]:,} groups of connected texts. Splits: "
        "{sizes}. No text is in two splits.",
        "test_pairs" in manifest
        and "The test split is a separate file; pairs kept out of train and dev because they share "
        "a text with it: {test_pairs[pairs_kept_out_of_train]:,}.",
        manifest["groups"]["largest_share"] > 0.2
        and "One group holds {groups[largest_share]:.0%} of the pairs; all of it is in train, so "
        "dev and test consist of texts that are less connected.",
        not positives and "**The test split has no positive**: ranking cannot be measured on it.",
        0 < positives < FEW_POSITIVES
        and "**The test split has only {positives}**: expect wide intervals.",
        **{**manifest, "sizes": ", ".join(sizes), "positives": count(positives, "positive")},
    )


def labels(inspection: Record) -> str:
    """What the share of positives means for reading a loss or an accuracy."""
    share = inspection["labels"]["positive"] / inspection["labels"]["pairs"]
    return sentences(
        "{share:.1%} of the {labels[pairs]:,} pairs are positive (label mean {labels[mean]:.3f}). "
        "A model that always gives the more frequent label is right {larger:.1%} of the time, so "
        "accuracy below that is worth nothing.",
        "**There is only one class: nothing can be learned from these labels.**"
        if share in (0, 1)
        else "A falling loss may only mean that the model has learned this share.",
        **inspection,
        share=share,
        larger=max(share, 1 - share),
    )


def lengths(inspection: Record) -> str:
    """How long texts and pairs are, and how many pairs are truncated."""
    return sentences(
        "Texts have {characters[min]} to {characters[max]} characters, {characters[mean]:.1f} on "
        "average; pairs have {tokens[mean]:.1f} tokens on average and at most {tokens[max]}.",
        "**{share:.1%} of the pairs are cut at {max_length} tokens.**"
        if inspection["truncation"]["share"]
        else "Nothing is cut at {max_length} tokens; 95% of the pairs would fit into "
        "{tokens[p95]:.0f}.",
        **inspection["lengths"] | inspection["truncation"],
    )


def reuse(inspection: Record) -> str:
    """How often texts repeat, and what follows for the split."""
    return sentences(
        "There are {distinct_texts:,} distinct texts, each used {mean_uses:.2f} times on average "
        "and at most {max_uses} times; {reused_share:.1%} occur more than once.",
        "A split by row would hardly leak; the split is by group all the same."
        if inspection["reuse"]["reused_share"] < 0.01
        else "A split by row would put the same text in two splits, so the split is by group.",
        **inspection["reuse"],
    )


def contradictions(inspection: Record) -> str:
    """How many pairs have both labels."""
    return sentences(
        "**{found} ({share:.2%}) in contradiction with another row**: the same two texts, in "
        "either order, with the opposite label. No model can be right about both."
        if inspection["contradictions"]["rows"]
        else "No pair of texts has both labels.",
        **inspection["contradictions"],
        found=count(inspection["contradictions"]["rows"], "row"),
    )


def vocabulary(inspection: Record) -> str:
    """How much of the texts the model can read."""
    return sentences(
        "**{tokens[unk_share]:.1%} of all tokens are unknown to the vocabulary**; "
        "{texts[with_unk_share]:.1%} of the distinct texts have at least one, "
        "{texts[only_unk_share]:.1%} have no other, and {texts[collapsed_share]:.1%} look the same "
        "as some other text.",
        READABLE[inspection["verdict"]["colour"]],
        **inspection,
    )


def same_tokens(inspection: Record) -> str:
    """How many different texts have the same tokens as another one."""
    return sentences(
        "{texts[collapsed_share]:.1%} of the distinct texts have the same tokens as another text. "
        "Whatever the model answers for one of them, it must answer for the others."
        if inspection["texts"]["largest_collapsed"]
        else "No two texts have the same tokens.",
        **inspection,
    )


def missing(inspection: Record) -> str:
    """How many characters are missing from the vocabulary, and how concentrated they are."""
    found = inspection["missing"]
    if not found["distinct"]:
        return "No character is missing from the vocabulary."
    return sentences(
        "{missing[distinct]:,} different characters are missing; {share:.1%} of the pairs hold at "
        "least one. The {frequent} most frequent make up {top:.0%} of what is missing. The text "
        "takes {tokens[per_character]:.2f} tokens per character.",
        **inspection,
        share=found["pairs"] / inspection["labels"]["pairs"],
        frequent=len(found["characters"]),
        top=sum(row["occurrences"] for row in found["characters"])
        / sum(block["occurrences"] for block in found["blocks"]),
    )


def repair_table(inspection: Record) -> pd.DataFrame:
    """One row for each choice of `vocabulary`: what stays unknown or lost, and the ceilings."""
    rows = {}
    for choice, outlook in inspection["repairs"].items():
        if "refused" not in outlook:
            rows[choice] = {
                "tokens added": outlook["added"],
                "without slot": outlook["left_out"],
                "unknown tokens": f"{outlook['unk_share']:.2%}",
                "equal texts": f"{outlook['lost_share'] + outlook['folded_share']:.2%}",
                "conflicting pairs": outlook["ceiling"]["conflicting_pairs"],
            }
            for name in ("accuracy", "roc_auc", "ndcg@10"):
                best = outlook["ceiling"][name]
                rows[choice][f"best {name}"] = "not defined" if best is None else f"{best:.4f}"
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="vocabulary"))


def repair(inspection: Record) -> str:
    """What each repair of the vocabulary would bring back, and the advice."""
    outlooks = inspection["repairs"]
    refused = [outlook["refused"] for outlook in outlooks.values() if "refused" in outlook]
    if len(refused) == len(outlooks) - 1:  # all but `keep`
        return f"No repair is possible here. {refused[0]}."
    repairs = (
        f"`{choice}` adds {count(one['added'], 'token')}, learned from the train split, and leaves "
        f"{one['unk_share']:.2%} unknown"
        + (f"; {one['left_out']:,} find no slot." if one["left_out"] else ".")
        for choice, one in outlooks.items()
        if choice != "keep" and "refused" not in one
    )
    return sentences(
        "As it is, {unk_share:.1%} of the tokens are unknown; pairs that look the same as a pair "
        "with the other label: {ceiling[conflicting_pairs]:,}. {repairs} **{action}**",
        **outlooks["keep"],
        repairs=" ".join(repairs),
        action=inspection["verdict"]["action"],
    )
