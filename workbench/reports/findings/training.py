"""What the vocabulary costs and what a training did, in words chosen by the numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.training.log import STEPS, beside_the_card
from workbench.training.recipe import Recipe


def card_finding(log: pd.DataFrame) -> str:
    """How the shape of our loss compares with that of the card's, and what neither tells."""
    beside = beside_the_card(log)
    if beside.empty:
        return (
            f"No stage of this run that the card has a log of is {STEPS} steps long, so there is "
            "nothing to compare with the card's 500-step means."
        )
    parts = []
    for stage, rows in beside.groupby("stage", sort=False):
        ours, theirs = rows["loss"], rows["card_loss"]
        parts.append(
            f"in {stage} ours goes from {ours.iloc[0]:.4f} to {ours.iloc[-1]:.4f}, the card's from "
            f"{theirs.iloc[0]:.4f} to {theirs.iloc[-1]:.4f} over the same part of the epoch"
        )
    return (
        "Means of 500 steps: "
        + "; ".join(parts)
        + ". Other pairs, and fewer of them, give another "
        "level; what can be compared is the shape. Where a stage starts below the end of the one "
        "before it, its pairs were known already. The card gives no figure of ranking beside it."
    )


def loss_finding(log: pd.DataFrame) -> str:
    """How the loss moved, and what a loss curve cannot tell."""
    train = log.dropna(subset=["loss"])
    parts = []
    for stage, rows in train.groupby("stage", sort=False):
        first, last = rows["loss"].iloc[0], rows["loss"].iloc[-1]
        moved = "fell" if last < first else "rose"
        done, of = int(log.loc[log["stage"] == stage, "step"].max()), int(rows["steps"].iloc[-1])
        state = "" if done >= of else f" (running: step {done:,} of {of:,})"
        parts.append(f"In {stage} the loss {moved} from {first:.4f} to {last:.4f}{state}.")
    dev = log.dropna(subset=["dev_loss"])
    if len(dev) > 1:
        least = dev.loc[dev["dev_loss"].idxmin()]
        rises = dev["dev_loss"].iloc[-1] > 1.02 * least["dev_loss"]
        parts.append(
            f"On dev the loss was least at step {int(least['step']):,} ({least['dev_loss']:.4f})"
            + (" and rose after it: the model has begun to memorise." if rises else ".")
        )
    parts.append(
        "**What this curve cannot tell:** whether the model ranks better than counting shared "
        "characters. With few positives the loss falls as soon as the model learns how rare they "
        "are, and easy random negatives make it fall further. Only notebook 4 answers that."
    )
    return " ".join(parts)


def dev_finding(log: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """How average precision on dev stands beside guessing."""
    dev = log.dropna(subset=["dev_ap"])
    if dev.empty:
        return "No average precision on dev has been logged: there is no dev side, or not yet."
    side = manifest["sides"]["dev"]
    last, best = dev.iloc[-1], dev.loc[dev["dev_ap"].idxmax()]
    guess = side["positives"] / side["pairs"]
    return (
        f"At step {int(last['step']):,} average precision on dev is {last['dev_ap']:.3f}; guessing "
        f"has {guess:.3f}, the share of positives among the {side['pairs']:,} dev pairs. The best "
        f"value so far is {best['dev_ap']:.3f}, at step {int(best['step']):,}."
    )


def gradient_finding(log: pd.DataFrame, limit: float = 1.0) -> str:
    """Whether clipping acted, and how the learning rate ran."""
    train = log.dropna(subset=["grad_norm"])
    if train.empty:
        return "No gradient norm has been logged yet."
    clipped = (train["grad_norm"] > limit).mean()
    rate = train["learning_rate"]
    return (
        f"The gradient norm at the logged steps lay between {train['grad_norm'].min():.2f} and "
        f"{train['grad_norm'].max():.2f}; {clipped:.0%} of them were above {limit:g}, where it is "
        f"clipped. The learning rate ran from {rate.iloc[0]:.2e} to {rate.iloc[-1]:.2e}."
    )


LEARNED = 0.8  # correlation of a warm-up that has done its work; seen: 0.85 and 0.94, else near 0.5


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
