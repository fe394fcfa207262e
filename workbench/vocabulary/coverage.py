"""What a vocabulary does not cover, what that costs, and what each repair would bring back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList
from workbench.data.overlap import normalised
from workbench.models import ModelError
from workbench.vocabulary.repair import REPAIRS, repair_vocabulary, training_texts
from workbench.vocabulary.tokens import count_tokens, unknown_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def best_accuracy(classes: ArrayLike, positive: ArrayLike) -> float:
    """The best accuracy: every class gets its more frequent label.

    Args:
        classes: shape (n,); items with equal values look the same to the model.
        positive: bool, shape (n,).
    """
    _, hits, misses = _counts(classes, positive)
    return float(np.maximum(hits, misses).sum() / (hits + misses).sum())


def best_roc_auc(classes: ArrayLike, positive: ArrayLike) -> float:
    """The best area under the ROC curve; NaN where only one label is present.

    The best order of the classes is by falling share of positives (the likelihood ratio order of
    Neyman and Pearson, 1933); a positive and a negative of one class are tied and count one half.
    Arguments as for `best_accuracy`.
    """
    _, hits, misses = _counts(classes, positive)
    if not hits.sum() or not misses.sum():
        return float("nan")
    order = np.argsort(-hits / (hits + misses), kind="stable")
    hits, misses = hits[order], misses[order]
    below = misses.sum() - np.cumsum(misses)
    return float((hits * (below + misses / 2)).sum() / hits.sum() / misses.sum())


def best_ndcg(
    classes: ArrayLike, relevance: ArrayLike, k: int = 10, missed: Sequence[float] = ()
) -> float:
    """The best nDCG at k of one candidate list, ties at their expected value.

    Each place of a tied block has the block's mean gain in expectation, so the best order is by
    falling mean gain (rearrangement inequality). A list without a relevant candidate has 0.

    Args:
        classes: shape (n,); candidates with equal values look the same to the model.
        relevance: shape (n,), 0 or more.
        k: the last rank that counts.
        missed: the relevance of relevant texts that are not among the candidates.
    """
    gain = np.asarray(relevance, dtype=float)
    if not gain.any():
        return 0.0
    _, place = np.unique(np.asarray(classes), return_inverse=True)
    mean = np.bincount(place, weights=gain) / np.bincount(place)
    best, ideal = (np.sort(one)[: -k - 1 : -1] for one in (mean[place], np.append(gain, missed)))
    discount = 1.0 / np.log2(np.arange(2, len(ideal) + 2))
    return float(best @ discount[: len(best)]) / float(ideal @ discount)


def pair_ceilings(pairs: pd.DataFrame, counts: pd.DataFrame) -> dict[str, Any]:
    """The best accuracy and ROC AUC on labelled pairs.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows.
        counts: what `count_tokens` gave for these texts.

    Returns:
        `accuracy`, `roc_auc` (None where only one label is present), and `conflicting_pairs`, the
        number of pairs that look to the model like a pair of other texts with the other label.
    """
    positive = (pairs["label"] >= POSITIVE).to_numpy()
    classes = input_classes(counts, pairs["sentence_0"], pairs["sentence_1"])
    place, hits, misses = _counts(classes, positive)
    mixed = ((hits > 0) & (misses > 0))[place]
    # Pairs of the very same texts contradict each other behind any tokenizer.
    conflicts = pairs.loc[mixed, ["sentence_0", "sentence_1"]].assign(place=place[mixed])
    distinct = conflicts.drop_duplicates().groupby("place").size()
    auc = best_roc_auc(classes, positive)
    return {
        "accuracy": best_accuracy(classes, positive),
        "roc_auc": None if np.isnan(auc) else auc,
        "conflicting_pairs": int((conflicts["place"].map(distinct) > 1).sum()),
    }


def list_ceiling(lists: Iterable[CandidateList], counts: pd.DataFrame, k: int = 10) -> float:
    """The best mean nDCG at k on candidate lists; NaN without any list.

    This is exact, or an upper bound where the *queries* of two lists look the same as well: then
    one model may not reach both. `counts` is what `count_tokens` gave for the candidates.
    """
    sequence = counts["sequence"].to_dict()
    values = [
        best_ndcg([sequence[text] for text in one.candidates], one.relevance, k, one.missed)
        for one in lists
    ]
    return float(np.mean(values)) if values else float("nan")


def input_classes(
    counts: pd.DataFrame, first: Iterable[str], second: Iterable[str]
) -> NDArray[np.int64]:
    """A number for each pair, shape (n,), which pairs of equal token sequences share."""
    sequence = counts["sequence"]
    left, right = (sequence.reindex(list(column)).to_numpy(np.int64) for column in (first, second))
    return left * (int(sequence.max()) + 1) + right


def _counts(
    classes: ArrayLike, positive: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """The class of each item as a place from 0, and positives and negatives of each class."""
    _, place = np.unique(np.asarray(classes), return_inverse=True)
    hit = np.asarray(positive, dtype=bool)
    hits, misses = (np.bincount(place, weights=one).astype(float) for one in (hit, ~hit))
    return place, hits, misses


CHARACTERS_LISTED = 50


# The shares from which the verdict turns: unknown tokens among all tokens, and distinct texts that
# become equal to another text. Below both amber values it is green.
AMBER = {"unknown": 0.01, "lost": 0.005}


RED = {"unknown": 0.20, "lost": 0.05}


def missing_characters(pairs: pd.DataFrame, pieces: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The characters behind the unknown tokens, by frequency and by Unicode block.

    Args:
        pairs: columns `sentence_0`, `sentence_1`.
        pieces: what `unknown_pieces` gave for their texts.

    Returns:
        `distinct`; `pairs`, the number of pairs with any of them; the most frequent `characters`,
        and `blocks`, each with its `occurrences` (in distinct texts) and its number of `pairs`.
    """
    from fontTools import unicodedata as unicode

    rows = [(text, c) for text in training_texts(pairs) for c in "".join(pieces.get(text, ()))]
    found = pd.DataFrame(rows, columns=["text", "character"])
    block = {character: str(unicode.block(character)) for character in found["character"].unique()}
    found["block"] = found["character"].map(block)
    used = pd.concat([pairs["sentence_0"], pairs["sentence_1"]], keys=(0, 1), names=["", "pair"])
    used = used.reset_index(level="pair", name="text").merge(found.drop_duplicates(), on="text")
    characters = found.groupby(["character", "block"]).agg(
        occurrences=("text", "size"), texts=("text", "nunique")
    )
    characters["pairs"] = used.groupby(["character", "block"])["pair"].nunique()
    characters = characters.sort_values("occurrences", ascending=False, kind="stable")
    blocks = found.groupby("block", sort=False)["character"].agg(["nunique", "size"])
    blocks = blocks.set_axis(["characters", "occurrences"], axis=1)
    blocks["pairs"] = used.groupby("block")["pair"].nunique()
    blocks = blocks.sort_values("occurrences", ascending=False, kind="stable")
    return {
        "distinct": len(characters),
        "pairs": int(used["pair"].nunique()),
        "characters": characters.head(CHARACTERS_LISTED).reset_index().to_dict("records"),
        "blocks": blocks.reset_index().to_dict("records"),
    }


def readability(
    counts: pd.DataFrame, pairs: pd.DataFrame, lists: Sequence[CandidateList] = ()
) -> dict[str, Any]:
    """What a model can tell apart behind a tokenizer, and how well it could do at best.

    Args:
        counts: what `count_tokens` gave for all these texts.
        pairs: columns `sentence_0`, `sentence_1`, `label`.
        lists: the ranking test, for its ceiling.

    Returns:
        `unk_share` over all tokens of the pairs. Of the distinct texts, those that share their
        tokens with another text: `lost_share` because of an unknown token, `folded_share` because
        the tokenizer's normaliser (lower case, accents) removed what told them apart; case, width,
        punctuation and white space alone do not count there. The `ceiling`: `accuracy`, `roc_auc`,
        `ndcg@10` (None where not defined), `conflicting_pairs`.
    """
    own = counts.reindex(training_texts(pairs))
    occurring = counts.reindex(pairs["sentence_0"].tolist() + pairs["sentence_1"].tolist())
    sizes = own.groupby("sequence")["tokens"].transform("size")
    plain = own["sequence"].index.to_series().map(normalised)
    different = plain.groupby(own["sequence"]).transform("nunique") > 1
    ranking = {"ndcg@10": list_ceiling(lists, counts) if lists else None}
    return {
        "unk_share": float(occurring["unknown"].sum() / max(1, occurring["tokens"].sum())),
        "lost_share": float(((sizes > 1) & (own["unknown"] > 0)).mean()),
        "folded_share": float((different & (own["unknown"] == 0)).mean()),
        "ceiling": pair_ceilings(pairs, counts) | ranking,
    }


def repair_outlook(
    pairs: pd.DataFrame,
    train: pd.DataFrame,
    tokenizer: "Tokenizer",
    lists: Sequence[CandidateList] = (),
    counts: pd.DataFrame | None = None,
    pieces: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What each choice of the parameter `vocabulary` would give, learned from training texts only.

    Args:
        pairs: all pairs in use, for the figures.
        train: the train split, from whose texts the new tokens are learned.
        tokenizer: the base model's.
        lists: the ranking test, for its ceiling.
        counts: what `count_tokens` gave for the texts of pairs and lists, if known.
        pieces: what `unknown_pieces` gave for the texts of `train`, if known.

    Returns:
        By choice: `readability`, `added` and `left_out` tokens; or `refused`, a sentence, where the
        tokenizer cannot be repaired.
    """
    texts, learned = [*training_texts(pairs), *texts_of(lists)], training_texts(train)
    pieces = unknown_pieces(tokenizer, learned) if pieces is None else pieces
    counts = count_tokens(tokenizer, texts) if counts is None else counts
    outlook = {"keep": readability(counts, pairs, lists) | {"added": 0, "left_out": 0}}
    for how in REPAIRS[1:]:
        try:
            repair = repair_vocabulary(tokenizer, learned, how, pieces)
        except ModelError as error:
            outlook[how] = {"refused": str(error)}
            continue
        outlook[how] = readability(count_tokens(repair.tokenizer, texts), pairs, lists)
        outlook[how] |= {"added": len(repair.added), "left_out": len(repair.left_out)}
    return outlook


def vocabulary_verdict(outlook: Mapping[str, Any]) -> dict[str, str]:
    """`colour` (green, amber or red: see `RED` and `AMBER`), `why` and `action`, a sentence each.

    Args:
        outlook: what `repair_outlook` gave.
    """
    own = outlook["keep"]
    equal = own["lost_share"] + own["folded_share"]
    colour = "green"
    for name, limits in (("amber", AMBER), ("red", RED)):
        if own["unk_share"] >= limits["unknown"] or equal >= limits["lost"]:
            colour = name
    possible = [how for how in ("extend", "unused") if "unk_share" in outlook.get(how, {})]
    best = min(possible, key=lambda how: outlook[how]["unk_share"], default="keep")
    folded = outlook[best]["folded_share"]  # what stays even if every character gets a token
    why = (
        f"{own['unk_share']:.1%} of the tokens are unknown to the base model, and {equal:.1%} of "
        "the distinct texts become equal to another text."
    )
    if colour == "green":
        action = "Keep the vocabulary."
    elif folded >= AMBER["lost"]:
        why += (
            f" The tokenizer's normaliser (lower case, accents) makes {folded:.1%} of them equal, "
            "whatever its vocabulary has."
        )
        action = (
            "Choose a base model whose tokenizer keeps case and accents (`workbench bases` lists "
            "some): no repair helps here."
        )
    elif best == "keep":
        action = (
            "Choose a base model that has the characters (`workbench bases` lists some): this "
            "tokenizer cannot be repaired."
        )
    else:
        action = "Choose a base model made for this language (`workbench bases` lists some); or "
        if "unk_share" in outlook.get("words", {}) and outlook["words"]["added"]:
            action += (
                "train with vocabulary: words and new_embeddings: dictionary, which leaves "
                f"{outlook['words']['unk_share']:.2%} unknown and says what words mean; or "
            )
        action += f"with vocabulary: {best}, which leaves {outlook[best]['unk_share']:.2%} unknown."
    return {"colour": colour, "why": why, "action": action}


def texts_of(lists: Sequence[CandidateList]) -> Iterable[str]:
    """Queries and candidates of the lists, with repetitions."""
    return (text for one in lists for text in (one.query, *one.candidates))
