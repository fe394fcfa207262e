"""Findings of notebook 1: the pairs, their split, and what the vocabulary can read of them."""

import pandas as pd

from workbench.reports.findings.phrases import Record, count, sentences

FEW_POSITIVES = 30  # in the test split; with fewer, intervals are wide

READABLE = {  # by the colour of the verdict
    "red": "This base model cannot read this data: whatever it learns, it learns from lengths, "
    "punctuation and the few characters it knows. Expect character overlap to rank better.",
    "amber": "Part of the meaning is lost before the model starts.",
    "green": "The vocabulary covers the data.",
}


def bad_rows(manifest: Record) -> str:
    """How many rows were read, and why some cannot be used."""
    rows = manifest["rows"]
    text = f"**{count(rows['read'], 'row')}** read, **{rows['usable']:,}** usable"
    if not rows["bad"]:
        return text + "; no row was set aside."
    reasons = (
        f"{one['count']:,} because {one['meaning']}" for one in manifest["bad_rows"].values()
    )
    return (
        f"{text}. **{rows['bad']:,} set aside**: {'; '.join(reasons)}. `data/manifest.json` lists "
        "their line numbers."
    )


def split(manifest: Record) -> str:
    """How the pairs were split into train, dev and test."""
    splits, groups = manifest["sides"], manifest["groups"]
    sizes = ", ".join(
        f"{name} {one['pairs']:,}"
        + (f" (label mean {one['label_mean']:.3f})" if one["pairs"] else "")
        for name, one in splits.items()
    )
    positives = splits["test"]["positives"]
    kept_out = manifest.get("test_pairs", {}).get("pairs_kept_out_of_train", 0)
    return sentences(
        f"The {manifest['rows']['used']:,} pairs used form {count(groups['count'], 'group')} of "
        f"connected texts. Splits: {sizes}. No text is in two splits.",
        "test_pairs" in manifest
        and "The test split is a separate file; pairs kept out of train and dev because they share "
        f"a text with it: {kept_out:,}.",
        groups["largest_share"] > 0.2
        and f"One group holds {groups['largest_share']:.0%} of the pairs; all of it is in train, "
        "so dev and test consist of texts that are less connected.",
        not positives and "**The test split has no positive**: ranking cannot be measured on it.",
        0 < positives < FEW_POSITIVES
        and f"**The test split has only {count(positives, 'positive')}**: expect wide intervals.",
    )


def labels(inspection: Record) -> str:
    """What the share of positives means for reading a loss or an accuracy."""
    found = inspection["labels"]
    share = found["positive"] / found["pairs"]
    text = (
        f"{share:.1%} of the {found['pairs']:,} pairs are positive (label mean "
        f"{found['mean']:.3f}). A model that always gives the more frequent label is right "
        f"{max(share, 1 - share):.1%} of the time, so accuracy below that is worth nothing"
    )
    if share in (0, 1):
        return text + ". **There is only one class: nothing can be learned from these labels.**"
    return text + ", and a falling loss may only mean that the model has learned this share."


def lengths(inspection: Record) -> str:
    """How long texts and pairs are, and how many pairs are truncated."""
    characters, tokens = inspection["lengths"]["characters"], inspection["lengths"]["tokens"]
    limit, share = inspection["truncation"]["max_length"], inspection["truncation"]["share"]
    return sentences(
        f"Texts have {characters['min']} to {characters['max']} characters, "
        f"{characters['mean']:.1f} on average; pairs have {tokens['mean']:.1f} tokens on average "
        f"and at most {tokens['max']}.",
        f"**{share:.1%} of the pairs are cut at {limit} tokens.**"
        if share
        else f"Nothing is cut at {limit} tokens; 95% of the pairs would fit into "
        f"{tokens['p95']:.0f}.",
    )


def reuse(inspection: Record) -> str:
    """How often texts repeat, and what follows for the split."""
    found = inspection["reuse"]
    return sentences(
        f"There are {count(found['distinct_texts'], 'distinct text')}, each used "
        f"{found['mean_uses']:.2f} times on average and at most {found['max_uses']} times; "
        f"{found['reused_share']:.1%} occur more than once.",
        "A split by row would hardly leak; the split is by group all the same."
        if found["reused_share"] < 0.01
        else "A split by row would put the same text in two splits, so the split is by group.",
    )


def contradictions(inspection: Record) -> str:
    """How many pairs have both labels."""
    found = inspection["contradictions"]
    if not found["rows"]:
        return "No pair of texts has both labels."
    return (
        f"**{count(found['rows'], 'row')} ({found['share']:.2%}) in contradiction with another "
        "row**: the same two texts, in either order, with the opposite label. No model can be "
        "right about both."
    )


def vocabulary(inspection: Record) -> str:
    """How much of the texts the model can read."""
    texts = inspection["texts"]
    return (
        f"**{inspection['tokens']['unk_share']:.1%} of all tokens are unknown to the vocabulary**; "
        f"{texts['with_unk_share']:.1%} of the distinct texts have at least one, "
        f"{texts['only_unk_share']:.1%} have no other, and {texts['collapsed_share']:.1%} look the "
        f"same as some other text. {READABLE[inspection['verdict']['colour']]}"
    )


def missing(inspection: Record) -> str:
    """How many characters are missing from the vocabulary, and how concentrated they are."""
    found, pairs = inspection["missing"], inspection["labels"]["pairs"]
    if not found["distinct"]:
        return "No character is missing from the vocabulary."
    top = sum(row["occurrences"] for row in found["characters"])
    total = sum(block["occurrences"] for block in found["blocks"])
    return (
        f"{found['distinct']:,} different characters are missing; {found['pairs'] / pairs:.1%} of "
        f"the pairs hold at least one. The {len(found['characters'])} most frequent make up "
        f"{top / total:.0%} of what is missing. The text takes "
        f"{inspection['tokens']['per_character']:.2f} tokens per character."
    )


def repair_table(inspection: Record) -> pd.DataFrame:
    """One row for each choice of `vocabulary`: what stays unknown or lost, and the ceilings."""
    rows = {}
    for choice, outlook in inspection["repairs"].items():
        if "refused" not in outlook:
            ceiling = outlook["ceiling"]
            best = {name: ceiling[name] for name in ("accuracy", "roc_auc", "ndcg@10")}
            rows[choice] = {
                "tokens added": outlook["added"],
                "without slot": outlook["left_out"],
                "unknown tokens": f"{outlook['unk_share']:.2%}",
                "lost texts": f"{outlook['lost_share']:.2%}",
                **{
                    f"best {name}": "not defined" if value is None else f"{value:.4f}"
                    for name, value in best.items()
                },
                "conflicting pairs": ceiling["conflicting_pairs"],
            }
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="vocabulary"))


def repair(inspection: Record) -> str:
    """What each repair of the vocabulary would bring back, and the advice."""
    outlooks = inspection["repairs"]
    refused = [outlook["refused"] for outlook in outlooks.values() if "refused" in outlook]
    if refused:
        return f"No repair is possible here. {refused[0]}."
    conflicting = outlooks["keep"]["ceiling"]["conflicting_pairs"]
    return sentences(
        f"As it is, {outlooks['keep']['unk_share']:.1%} of the tokens are unknown; pairs that look "
        f"the same as a pair with the other label: {conflicting:,}.",
        *(
            f"`{choice}` adds {count(one['added'], 'token')} and leaves {one['unk_share']:.2%} "
            "unknown" + (f"; {one['left_out']:,} find no slot." if one["left_out"] else ".")
            for choice, one in outlooks.items()
            if choice != "keep"
        ),
        f"**{inspection['verdict']['action']}**",
    )
