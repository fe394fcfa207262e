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
