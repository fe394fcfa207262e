"""Findings of notebook 1: the pairs, their split, and what the vocabulary can read of them."""

import pandas as pd

from workbench.files import percent
from workbench.ranking.metrics import MAIN_METRIC
from workbench.reports.findings import Record, count, sentences

READABLE = {  # by the colour of the verdict
    "red": "This base model cannot read this data: whatever it learns, it learns from lengths, "
    "punctuation and the few characters it knows. Expect character overlap to rank better.",
    "amber": "Part of the texts reaches the model incomplete, or byte by byte.",
    "green": "The vocabulary covers the data.",
}


def bad_rows(manifest: Record) -> str:
    """How many rows were read, and why some cannot be used."""
    rows, bad = manifest["rows"], manifest["bad_rows"].values()
    reasons = "; ".join(f"{one['count']:,} because {one['meaning']}" for one in bad)
    return sentences(
        f"**{rows['read']:,} rows** read, **{rows['usable']:,}** usable.",
        f"**{rows['bad']:,} set aside**: {reasons}. `data/manifest.json` lists their line numbers."
        if rows["bad"]
        else "No row was set aside.",
    )


def split(manifest: Record) -> str:
    """How the pairs were split into train, dev and test."""
    groups, positives = manifest["groups"], manifest["sides"]["test"]["positives"]
    sizes = []
    for name, one in manifest["sides"].items():
        mean = f" (label mean {one['label_mean']:.3f})" if one["pairs"] else ""
        sizes.append(f"{name} {one['pairs']:,}{mean}")
    return sentences(
        f"The {manifest['rows']['used']:,} pairs used form {groups['count']:,} groups of connected "
        f"texts. Splits: {', '.join(sizes)}. No text is in two splits.",
        "test_pairs" in manifest
        and "The test split is a separate file; pairs kept out of train and dev because they share "
        f"a text with it: {manifest['test_pairs']['pairs_kept_out_of_train']:,}.",
        groups["largest_share"] > 0.2
        and f"One group holds {percent(groups['largest_share'], 0)} of the pairs; all of it is in "
        "train, so dev and test consist of texts that are less connected.",
        not positives and "**The test split has no positive**: ranking cannot be measured on it.",
        0 < positives < 30
        and f"**The test split has only {count(positives, 'positive')}**: expect wide intervals.",
    )


def labels(inspection: Record) -> str:
    """What the share of positives means for reading a loss or an accuracy."""
    found = inspection["labels"]
    share = found["positive"] / found["pairs"]
    return sentences(
        f"{percent(share)} of the {found['pairs']:,} pairs are positive (label mean "
        f"{found['mean']:.3f}). A model that always gives the more frequent label is right "
        f"{percent(max(share, 1 - share))} of the time, so accuracy below that is worth nothing.",
        "**There is only one class: nothing can be learned from these labels.**"
        if share in (0, 1)
        else "A falling loss may only mean that the model has learned this share.",
    )


def lengths(inspection: Record) -> str:
    """How long texts and pairs are, and how many pairs are truncated."""
    texts, pairs = inspection["lengths"]["characters"], inspection["lengths"]["tokens"]
    cut, limit = inspection["truncation"]["share"], inspection["truncation"]["max_length"]
    return sentences(
        f"Texts have {texts['min']} to {texts['max']} characters, {texts['mean']:.1f} on average; "
        f"pairs have {pairs['mean']:.1f} tokens on average and at most {pairs['max']}.",
        f"**{percent(cut)} of the pairs are cut at {limit} tokens.**"
        if cut
        else f"Nothing is cut at {limit} tokens; 95 % of the pairs would fit into "
        f"{pairs['p95']:.0f}.",
    )


def reuse(inspection: Record) -> str:
    """How often texts repeat, and what follows for the split."""
    found = inspection["reuse"]
    leak = (
        "put the same text in two splits, so" if found["reused_share"] >= 0.01 else "hardly leak;"
    )
    return (
        f"There are {found['distinct_texts']:,} distinct texts, each used {found['mean_uses']:.2f} "
        f"times on average and at most {found['max_uses']} times; {percent(found['reused_share'])} "
        f"occur more than once. A split by row would {leak} the split is by group."
    )


def contradictions(inspection: Record) -> str:
    """How many pairs have both labels."""
    found = inspection["contradictions"]
    if not found["rows"]:
        return "No pair of texts has both labels."
    return (
        f"**{count(found['rows'], 'row')} ({percent(found['share'], 2)}) in contradiction with "
        "another row**: the same two texts, in either order, with the opposite label. No model can "
        "be right about both."
    )


def vocabulary(inspection: Record) -> str:
    """How much of the texts the model can read."""
    texts, parts = inspection["texts"], inspection["tokens"].get("byte_share", 0.0)
    return sentences(
        f"**{percent(inspection['tokens']['unk_share'])} of all tokens are unknown to the "
        f"vocabulary**; {percent(texts['with_unk_share'])} of the distinct texts have at least "
        f"one, {percent(texts['only_unk_share'])} have no other, and "
        f"{percent(texts['collapsed_share'])} look the same as some other text.",
        parts > 0 and f"{percent(parts)} of the tokens are bytes: parts of a character it lacks.",
        READABLE[inspection["verdict"]["colour"]],
    )


def same_tokens(inspection: Record) -> str:
    """How many different texts have the same tokens as another one."""
    texts = inspection["texts"]
    if not texts["largest_collapsed"]:
        return "No two texts have the same tokens."
    return (
        f"{percent(texts['collapsed_share'])} of the distinct texts have the same tokens as "
        "another text. Whatever the model answers for one of them, it must answer for the others."
    )


def missing(inspection: Record) -> str:
    """How many characters are missing from the vocabulary, and how concentrated they are."""
    found, frequent = inspection["missing"], inspection["missing"]["characters"]
    if not found["distinct"]:
        return "No character is missing from the vocabulary."
    first, total = (sum(row["occurrences"] for row in rows) for rows in (frequent, found["blocks"]))
    pairs = percent(found["pairs"] / inspection["labels"]["pairs"])
    return (
        f"{found['distinct']:,} different characters are missing; {pairs} of the pairs hold at "
        f"least one. The {len(frequent)} most frequent make up {percent(first / total, 0)} of what "
        f"is missing. The text takes {inspection['tokens']['per_character']:.2f} tokens per "
        "character."
    )


def repair_table(inspection: Record) -> pd.DataFrame:
    """One row for each choice of `vocabulary`: what stays unknown or lost, and the ceilings."""
    rows = {}
    for choice, one in inspection["repairs"].items():
        if "refused" not in one:
            rows[choice] = {
                "tokens added": one["added"],
                "without slot": one["left_out"],
                "unknown tokens": percent(one["unk_share"], 2),
                "equal texts": percent(one["lost_share"] + one["folded_share"], 2),
                "conflicting pairs": one["ceiling"]["conflicting_pairs"],
            }
            for name in ("accuracy", "roc_auc", MAIN_METRIC):
                best = one["ceiling"][name]
                rows[choice][f"best {name}"] = "not defined" if best is None else f"{best:.4f}"
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="vocabulary"))


def repair(inspection: Record) -> str:
    """What each repair of the vocabulary would bring back, and the advice."""
    repairs = {name: one for name, one in inspection["repairs"].items() if name != "keep"}
    possible = {name: one for name, one in repairs.items() if "refused" not in one}
    if not possible:
        return f"No repair is possible here. {next(iter(repairs.values()))['refused']}."
    kept = inspection["repairs"]["keep"]
    said = [
        f"`{name}` adds {count(one['added'], 'token')}, learned from the train split, and leaves "
        f"{percent(one['unk_share'], 2)} unknown"
        + (f"; {one['left_out']:,} find no slot." if one["left_out"] else ".")
        for name, one in possible.items()
    ]
    return (
        f"As it is, {percent(kept['unk_share'])} of the tokens are unknown; pairs that look the "
        f"same as a pair with the other label: {kept['ceiling']['conflicting_pairs']:,}. "
        f"{' '.join(said)} **{inspection['verdict']['action']}**"
    )
