"""What the vocabulary costs and what a training did, in words chosen by the numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.recipes import Recipe

READS = {
    "red": "This base model cannot read this data: whatever it learns, it learns from lengths, "
    "punctuation and the few characters it knows. Expect character overlap to rank better.",
    "amber": "Part of the meaning is lost before the model starts.",
    "green": "The vocabulary covers the data.",
}
LEARNED = 0.8  # correlation of a warm-up that has done its work; seen: 0.85 and 0.94, else near 0.5


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
        rows.append({
            "vocabulary": how,
            "tokens added": outlook["added"],
            "without slot": outlook["left_out"],
            "unknown tokens": f"{outlook['unk_share']:.2%}",
            "lost texts": f"{outlook['lost_share']:.2%}",
            **{f"best {name}": "not defined" if ceiling[name] is None else f"{ceiling[name]:.4f}"
               for name in ("accuracy", "roc_auc", "ndcg@10")},
            "conflicting pairs": ceiling["conflicting_pairs"],
        })  # fmt: skip
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


def recipe_finding(recipe: Recipe) -> str:
    """What a recipe asks for beyond the reference card."""
    asked = []
    if recipe.vocabulary != "keep":
        asked.append(
            f"repair the vocabulary (`{recipe.vocabulary}`, {recipe.new_embeddings} start)"
        )
    if recipe.lexical_pairs:
        asked.append(f"warm up on {recipe.lexical_pairs:,} pairs with soft lexical targets")
    if recipe.hard_negatives:
        asked.append(f"add up to {recipe.hard_negatives} look-alikes for each text of a positive")
    if recipe.symmetric:
        asked.append("add each positive in the other order")
    if recipe.embedding_learning_rate:
        asked.append(f"give token embeddings a learning rate of {recipe.embedding_learning_rate:g}")
    plain = (
        f"{recipe.epochs:g} passes over the pairs in batches of {recipe.batch_size}, learning rate "
        f"{recipe.learning_rate:g}, {recipe.resolved_precision()}."
    )
    if not asked:
        return f"Labels only: {plain}"
    return f"Beyond the labels: {'; '.join(asked)}. Then {plain}"


def agreement_finding(agreement: float | None) -> str:
    """Whether a lexical warm-up has taught a model to compare characters.

    Args:
        agreement: correlation of its scores with the targets; None where it is not defined.
    """
    if agreement is None:
        return "**All its scores are equal: the warm-up has taught nothing.** "
    shown = f"its scores follow the targets with a correlation of {agreement:.2f}"
    if agreement >= LEARNED:
        return f"The model has learned to compare characters: {shown}. "
    return (
        f"**The model has not learned to compare characters yet**: {shown}. It learns this late "
        "and then quickly; more `lexical_pairs` help, and another `seed` or `new_embeddings` may. "
    )


def training_finding(record: Mapping[str, Any]) -> str:
    """What a training did to the vocabulary, and what it learned from."""
    vocabulary, seen, warm_up = (
        record["vocabulary"],
        record["pairs_seen"],
        record["lexical_warm_up"],
    )
    if vocabulary["vocabulary"] == "keep":
        text = "The vocabulary was kept as it is. "
    else:
        text = (
            f"`{vocabulary['vocabulary']}` gave {vocabulary['added_tokens']:,} characters tokens "
            f"of their own; {vocabulary['left_out_tokens']:,} found no slot. "
        )
    if warm_up:
        text += (
            f"The lexical warm-up took {warm_up['steps']:,} steps over {warm_up['pairs']:,} pairs "
            f"with soft targets (mean loss {warm_up['train_loss']:.3f}; it cannot reach 0). "
        )
        if "agreement" in warm_up:  # an older record has none
            text += agreement_finding(warm_up["agreement"])
    if record["recipe"].get("speed") == "fast" and record.get("speed") == "exact":
        text += (
            "`speed: fast` is for a BERT on a processor, in one process: here the library's own "
            "trainer trained. "
        )
    added = {name: count for name, count in seen.items() if name != "labelled"}
    text += f"{seen['labelled']:,} labelled pairs were learned from"
    for name, count in added.items():
        text += f", {count:,} {name.replace('_', ' ')}"
    return text + "."
