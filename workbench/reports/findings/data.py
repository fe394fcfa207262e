"""What the figures say, in words: each function turns measured numbers into a short paragraph.

The sentences are chosen by the numbers, so they stay true whatever the parameters were. They hold
no text from the data, which keeps them safe to show as Markdown.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def bad_rows_finding(manifest: Mapping[str, Any]) -> str:
    """What was read and what could not be used."""
    rows = manifest["rows"]
    text = f"**{rows['read']:,} rows** were read and **{rows['usable']:,}** can be used"
    if not rows["bad"]:
        return text + "; no row was set aside."
    reasons = "; ".join(
        f"{entry['count']:,} because {entry['meaning']}" for entry in manifest["bad_rows"].values()
    )
    return (
        text + f". **{rows['bad']:,} were set aside**: {reasons}. "
        "`data/manifest.json` lists their line numbers."
    )


def split_finding(manifest: Mapping[str, Any]) -> str:
    """How the pairs were dealt out."""
    sides, groups = manifest["sides"], manifest["groups"]
    shown = ", ".join(
        f"{name} {side['pairs']:,} (label mean {side['label_mean']:.3f})"
        if side["pairs"]
        else f"{name} 0"
        for name, side in sides.items()
    )
    text = (
        f"The {manifest['rows']['used']:,} pairs used form {groups['count']:,} groups of connected "
        f"texts. Sides: {shown}. No text is on two sides."
    )
    if "test_pairs" in manifest:
        kept_out = manifest["test_pairs"]["pairs_kept_out_of_train"]
        text += (
            f" The test side is a file of its own; {kept_out:,} pairs that share a text with it "
            "were kept out of train and dev."
        )
    if groups["largest_share"] > 0.2:
        text += (
            f" One group holds {groups['largest_share']:.0%} of the pairs; it is on the training "
            "side whole, so dev and test consist of texts that are less interwoven."
        )
    positives = sides["test"]["positives"]
    if not positives:
        text += " **The test side has no positive**: ranking cannot be measured on it."
    elif positives < 30:
        text += f" **The test side has only {positives} positives**: expect wide intervals."
    return text


def labels_finding(inspection: Mapping[str, Any]) -> str:
    """What the balance of labels means for reading a loss or an accuracy."""
    labels = inspection["labels"]
    share = labels["positive"] / labels["pairs"]
    larger = max(share, 1 - share)
    text = (
        f"{share:.1%} of the {labels['pairs']:,} pairs are positive (label mean "
        f"{labels['mean']:.3f}). A model that always answers with the more frequent label is right "
        f"{larger:.1%} of the time, so accuracy below that is worth nothing"
    )
    if share in (0, 1):
        return text + ". **There is only one class: nothing can be learned from these labels.**"
    return text + ", and a falling loss may only mean that this share was learned."


def lengths_finding(inspection: Mapping[str, Any]) -> str:
    """How long texts and pairs are, and what truncation costs."""
    characters, tokens = inspection["lengths"]["characters"], inspection["lengths"]["tokens"]
    limit, share = inspection["truncation"]["max_length"], inspection["truncation"]["share"]
    text = (
        f"Texts have {characters['min']} to {characters['max']} characters, "
        f"{characters['mean']:.1f} on average; pairs have {tokens['mean']:.1f} tokens on average "
        f"and {tokens['max']} at most. "
    )
    if share == 0:
        return text + (
            f"Nothing is cut at {limit} tokens, and 95 % of the pairs would fit into "
            f"{tokens['p95']:.0f}."
        )
    return text + f"**{share:.1%} of the pairs are cut at {limit} tokens.**"


def reuse_finding(inspection: Mapping[str, Any]) -> str:
    """Whether texts repeat, and what that asks of a split."""
    reuse = inspection["reuse"]
    text = (
        f"There are {reuse['distinct_texts']:,} distinct texts, each used {reuse['mean_uses']:.2f} "
        f"times on average, one of them {reuse['max_uses']} times; "
        f"{reuse['reused_share']:.1%} occur more than once. "
    )
    if reuse["reused_share"] < 0.01:
        return text + "Splitting row by row would hardly leak; we split by group all the same."
    return text + "A split by row would put the same text on both sides, so we split by group."


def contradictions_finding(inspection: Mapping[str, Any]) -> str:
    """Pairs labelled both ways."""
    rows, share = inspection["contradictions"]["rows"], inspection["contradictions"]["share"]
    if not rows:
        return "No pair of texts is labelled both ways."
    return (
        f"**{rows:,} rows ({share:.2%}) contradict another row**: the same two texts, in either "
        "order, with the opposite label. No model can be right about both."
    )


READS = {
    "red": "This base model cannot read this data: whatever it learns, it learns from lengths, "
    "punctuation and the few characters it knows. Expect character overlap to rank better.",
    "amber": "Part of the meaning is lost before the model starts.",
    "green": "The vocabulary covers the data.",
}


def vocabulary_finding(inspection: Mapping[str, Any]) -> str:
    """What the model can read of the texts."""
    unknown, texts = inspection["tokens"]["unk_share"], inspection["texts"]
    text = (
        f"**{unknown:.1%} of all tokens are unknown to the vocabulary**; "
        f"{texts['with_unk_share']:.1%} of the distinct texts have at least one, "
        f"{texts['only_unk_share']:.1%} are nothing else, "
        f"and {texts['collapsed_share']:.1%} cannot be told apart from some other text. "
    )
    return text + READS[inspection["verdict"]["colour"]]


def missing_finding(inspection: Mapping[str, Any]) -> str:
    """How much is missing and how concentrated it is."""
    missing, pairs = inspection["missing"], inspection["labels"]["pairs"]
    if not missing["distinct"]:
        return "No character is missing from the vocabulary."
    total = sum(block["occurrences"] for block in missing["blocks"])
    top = sum(row["occurrences"] for row in missing["characters"])
    return (
        f"{missing['distinct']:,} different characters are missing; {missing['pairs'] / pairs:.1%} "
        f"of the pairs hold at least one. The {len(missing['characters'])} most frequent make up "
        f"{top / total:.0%} of what is missing. "
        f"The text takes {inspection['tokens']['per_character']:.2f} tokens a character."
    )


def repair_table(inspection: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each choice of `vocabulary`: what stays unknown or lost, and the ceilings."""
    rows = []
    for how, outlook in inspection["repairs"].items():
        if "refused" in outlook:
            continue
        ceiling = outlook["ceiling"]
        rows.append(
            {
                "vocabulary": how,
                "tokens added": outlook["added"],
                "without slot": outlook["left_out"],
                "unknown tokens": f"{outlook['unk_share']:.2%}",
                "lost texts": f"{outlook['lost_share']:.2%}",
                **{
                    f"best {name}": "not defined"
                    if ceiling[name] is None
                    else f"{ceiling[name]:.4f}"
                    for name in ("accuracy", "roc_auc", "ndcg@10")
                },
                "conflicting pairs": ceiling["conflicting_pairs"],
            }
        )
    return pd.DataFrame(rows).set_index("vocabulary")


def repair_finding(inspection: Mapping[str, Any]) -> str:
    """What the repairs would bring back, and the advice."""
    outlooks = inspection["repairs"]
    refused = [outlook["refused"] for outlook in outlooks.values() if "refused" in outlook]
    if refused:
        return f"No repair is possible here. {refused[0]}."
    keep = outlooks["keep"]
    parts = [
        f"As it is, {keep['unk_share']:.1%} of the tokens are unknown and "
        f"{keep['ceiling']['conflicting_pairs']:,} pairs look like another pair with the other "
        "label."
    ]
    for how in ("unused", "extend"):
        left = outlooks[how]
        parts.append(
            f"`{how}` adds {left['added']:,} tokens and leaves {left['unk_share']:.2%} unknown"
            + (f"; {left['left_out']:,} rarer ones find no slot." if left["left_out"] else ".")
        )
    return " ".join(parts) + f" **{inspection['verdict']['action']}**"
