"""What a vocabulary does not cover, what that costs, and what each repair would bring back."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList
from workbench.data.readers import COLUMNS
from workbench.data.texts import distinct_texts, normalised
from workbench.files import percent
from workbench.models import ModelError
from workbench.vocabulary.repair import REPAIRS, Repair, repair_vocabulary
from workbench.vocabulary.tokens import count_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_LISTED = 50
# The shares from which the verdict turns: unknown tokens, or the characters behind them; distinct
# texts that become equal to another text; bytes among the tokens, which hide nothing.
AMBER = {"unknown": 0.01, "lost": 0.005, "bytes": 0.2}
RED = {"unknown": 0.20, "lost": 0.05}
CHOOSE, BASES = "Choose a base model", " (`workbench bases` lists some)"


def best_binary(classes: ArrayLike, positive: ArrayLike) -> dict[str, float]:
    """The best `accuracy` and `roc_auc` (NaN where only one label is present) of any model.

    Items with equal `classes`, shape (n,), look the same to it, and get their more frequent label.
    The best order of the classes is by falling share of `positive` items, bool of shape (n,) (the
    likelihood ratio order of Neyman and Pearson, 1933).
    """
    from sklearn.metrics import roc_auc_score

    truth = pd.Series(np.asarray(positive, dtype=bool))
    share = truth.groupby(np.asarray(classes)).transform("mean")
    auc = roc_auc_score(truth, share) if truth.nunique() == 2 else np.nan
    return {"accuracy": float(np.maximum(share, 1 - share).mean()), "roc_auc": float(auc)}


def best_ndcg(
    classes: ArrayLike, relevance: ArrayLike, k: int = 10, missed: Sequence[float] = ()
) -> float:
    """The best nDCG at k of one candidate list, ties at their expected value.

    Each place of a tied block has the block's mean gain in expectation, so the best order is by
    falling mean gain (rearrangement inequality). A list without a relevant candidate has 0.
    `classes` are as for `best_binary`; `missed` is the relevance of texts that are no candidates.
    """
    gain = np.asarray(relevance, dtype=float)
    if not gain.any():
        return 0.0
    _, place, sizes = np.unique(np.asarray(classes), return_inverse=True, return_counts=True)
    mean = (np.bincount(place, weights=gain) / sizes)[place]
    best, ideal = (np.sort(one)[: -k - 1 : -1] for one in (mean, np.append(gain, missed)))
    discount = 1.0 / np.log2(np.arange(2, len(ideal) + 2))
    return float(best @ discount[: len(best)]) / float(ideal @ discount)


def ceilings(
    counts: pd.DataFrame, pairs: pd.DataFrame, lists: Sequence[CandidateList] = ()
) -> dict[str, Any]:
    """The best values that any model reaches behind a tokenizer; None where one is not defined.

    They are `accuracy` and `roc_auc` on labelled pairs, and `conflicting_pairs`, the number of
    those that look to the model like a pair of other texts with the other label; the mean `ndcg@10`
    on the lists, an upper bound where the *queries* of two lists look the same as well. `counts` is
    what `count_tokens` gave for all these texts.
    """
    sequence, positive = counts["sequence"], pairs["label"] >= POSITIVE
    left, right = (sequence.reindex(pairs[name]).to_numpy() for name in COLUMNS[:2])
    seen = left * (sequence.max() + 1) + right
    mixed = positive.groupby(seen).transform("nunique") > 1
    # Pairs of the very same texts contradict each other behind any tokenizer.
    conflicts = pairs.loc[mixed, COLUMNS[:2]].assign(seen=seen[mixed])
    distinct = conflicts.drop_duplicates().groupby("seen").size()
    number = sequence.to_dict()
    ndcg = [
        best_ndcg([number[text] for text in one.candidates], one.relevance, missed=one.missed)
        for one in lists
    ]
    best = {**best_binary(seen, positive), "ndcg@10": float(np.mean(ndcg)) if ndcg else np.nan}
    return {
        **{name: None if np.isnan(value) else value for name, value in best.items()},
        "conflicting_pairs": int((conflicts["seen"].map(distinct) > 1).sum()),
    }


def missing_characters(pairs: pd.DataFrame, counts: pd.DataFrame) -> dict[str, Any]:
    """The characters behind the unknown tokens, by frequency and Unicode block.

    `counts` is what `count_tokens` gave for the texts of `pairs`.

    Returns:
        `distinct`; `pairs`, the number of pairs with any of them; the most frequent `characters`,
        and `blocks`, each with its `occurrences` (in distinct texts) and its `pairs`.
    """
    from fontTools import unicodedata as unicode

    missing = counts["pieces"].reindex(distinct_texts(pairs)).map("".join).map(list)
    found = missing.explode().dropna().rename_axis("text").reset_index(name="character")
    found["block"] = found["character"].map(cache(unicode.block))
    used = pd.concat([pairs["sentence_0"], pairs["sentence_1"]]).to_frame("text")
    used["pair"] = [*range(len(pairs))] * 2
    used = used.merge(found.drop_duplicates(), on="text")

    def table(*by: str, **more: tuple[str, str]) -> pd.DataFrame:
        sizes = found.groupby([*by]).agg(**more, occurrences=("text", "size"))
        sizes["pairs"] = used.groupby([*by])["pair"].nunique()
        return sizes.sort_values("occurrences", ascending=False, kind="stable").reset_index()

    characters = table("character", "block", texts=("text", "nunique"))
    blocks = table("block", characters=("character", "nunique"))
    return {
        "distinct": len(characters),
        "pairs": int(used["pair"].nunique()),
        "characters": characters[:CHARACTERS_LISTED].to_dict("records"),
        "blocks": blocks.to_dict("records"),
    }


def readability(
    counts: pd.DataFrame, pairs: pd.DataFrame, lists: Sequence[CandidateList] = ()
) -> dict[str, Any]:
    """What a model can tell apart behind a tokenizer; arguments as for `ceilings`.

    Returns:
        `unk_share` and `byte_share` over all tokens of the pairs; `unread_share`, of all their
        characters those behind unknown tokens. Of the distinct texts, those that share their
        tokens with another text: `lost_share` because of an unknown token, `folded_share` because
        the tokenizer's normaliser (lower case, accents) removed what told them apart; case, width,
        punctuation and white space alone do not count there. The `ceiling`, see `ceilings`.
    """
    uses = pd.concat([pairs["sentence_0"], pairs["sentence_1"]]).value_counts()
    own = counts.reindex(uses.index)
    own["size"] = own.index.map(lambda text: len("".join(text.split())))
    own["unread"] = own["pieces"].map(lambda pieces: sum(map(len, pieces)))
    total = own[["tokens", "unknown", "bytes", "size", "unread"]].mul(uses, axis=0).sum()
    sizes = own.groupby("sequence")["tokens"].transform("size")
    plain = own.index.to_series().map(normalised)
    different = plain.groupby(own["sequence"]).transform("nunique") > 1
    return {
        "unk_share": float(total["unknown"] / max(1, total["tokens"])),
        "byte_share": float(total["bytes"] / max(1, total["tokens"])),
        "unread_share": min(1.0, float(total["unread"] / max(1, total["size"]))),
        "lost_share": float(((sizes > 1) & (own["unknown"] > 0)).mean()),
        "folded_share": float((different & (own["unknown"] == 0)).mean()),
        "ceiling": ceilings(counts, pairs, lists),
    }


def repair_outlook(
    tokenizer: "Tokenizer",
    counts: pd.DataFrame,
    pairs: pd.DataFrame,
    texts: Sequence[str],
    dictionary: str = "",
    lists: Sequence[CandidateList] = (),
) -> tuple[dict[str, Any], dict[str, Repair]]:
    """What each choice of the parameter `vocabulary` would give, and each repair, by its name.

    The former is `readability`, with `added` and `left_out` tokens; or `refused`, why there is no
    such repair. The repairs are learned from `texts`, see `repair_vocabulary`, and judged on
    `pairs` and `lists`; `counts` is what `count_tokens` gave for all these texts.
    """
    outlook = {"keep": readability(counts, pairs, lists) | {"added": 0, "left_out": 0}}
    repairs: dict[str, Repair] = {}
    for how in REPAIRS:
        try:
            made = repairs[how] = repair_vocabulary(tokenizer, texts, how, dictionary, counts)
        except ModelError as error:
            outlook[how] = {"refused": str(error)}
        else:
            outlook[how] = readability(count_tokens(made.tokenizer, counts.index), pairs, lists)
            outlook[how] |= {"added": len(made.added), "left_out": len(made.left_out)}
    return outlook, repairs


def vocabulary_verdict(outlook: Mapping[str, Any]) -> dict[str, str]:
    """`colour` (see `RED` and `AMBER`), `why` and `action`, from what `repair_outlook` gave."""
    own = outlook["keep"]
    found = {
        "unknown": max(own["unk_share"], own["unread_share"]),
        "lost": own["lost_share"] + own["folded_share"],
        "bytes": own["byte_share"],
    }
    colour = "green"
    for name, limits in (("amber", AMBER), ("red", RED)):
        colour = name if any(found[what] >= limits[what] for what in limits) else colour
    # `unused` is possible wherever `extend` is, and leaves as much unknown or more
    best = "extend" if "unk_share" in outlook.get("extend", {}) else "keep"
    folded = outlook[best]["folded_share"]  # what stays even if every character gets a token
    why = (
        f"{percent(own['unk_share'])} of the tokens are unknown to the base model, and "
        f"{percent(found['lost'])} of the distinct texts become equal to another text."
    )
    if found["unknown"] > 2 * own["unk_share"]:
        why += f" The unknown tokens hide {percent(own['unread_share'])} of the characters."
    if found["bytes"] >= AMBER["bytes"]:
        why += (
            f" {percent(found['bytes'])} of the tokens are bytes of characters that the vocabulary "
            "lacks: nothing is lost, but the base has hardly seen such texts."
        )
    if colour == "green":
        action = "Keep the vocabulary."
    elif folded >= AMBER["lost"]:
        why += (
            f" The tokenizer's normaliser (lower case, accents) makes {percent(folded)} of them "
            "equal, whatever its vocabulary has."
        )
        action = f"{CHOOSE} whose tokenizer keeps case and accents{BASES}: no repair helps here."
    elif found["unknown"] < AMBER["unknown"] and found["lost"] < AMBER["lost"]:  # bytes alone
        action = f"{CHOOSE} made for this language{BASES}: this one reads it byte by byte."
    elif best == "keep":
        action = f"{CHOOSE} that has the characters{BASES}: this tokenizer cannot be repaired."
    else:
        action = f"{CHOOSE} made for this language{BASES}; or "
        if outlook.get("words", {}).get("unk_share", 1.0) < own["unk_share"]:
            action += (
                "train with vocabulary: words and new_embeddings: dictionary, which leaves "
                f"{percent(outlook['words']['unk_share'], 2)} unknown and says what words mean; or "
            )
        left = percent(outlook[best]["unk_share"], 2)
        action += f"with vocabulary: {best}, which leaves {left} unknown."
    return {"colour": colour, "why": why, "action": action}
