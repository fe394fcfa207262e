"""What a vocabulary does not cover, what that costs, and what each repair would bring back."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.data.lists import CandidateList
from workbench.models import ModelError
from workbench.vocabulary.ceiling import list_ceiling, pair_ceilings
from workbench.vocabulary.repair import REPAIRS, repair_vocabulary, training_texts
from workbench.vocabulary.tokens import count_tokens, unknown_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_LISTED = 50


# From which shares the verdict turns: unknown tokens among all tokens, and distinct texts that an
# unknown token makes equal to another text. Below both amber values it is green.
RED = {"unknown": 0.20, "lost": 0.05}


AMBER = {"unknown": 0.01, "lost": 0.005}


def missing_characters(pairs: pd.DataFrame, pieces: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The characters behind the unknown tokens, by frequency and by Unicode block.

    Args:
        pairs: columns `sentence_0`, `sentence_1`.
        pieces: what `unknown_pieces` gave for their texts.

    Returns:
        `distinct`; `pairs`, how many pairs hold any of them; `characters`, the most frequent ones,
        and `blocks`, each with `occurrences` (in distinct texts), `texts` and `pairs` it stands in.
    """
    from fontTools import unicodedata as blocks

    occurrences: Counter[str] = Counter()
    in_texts: Counter[str] = Counter()
    for text in training_texts(pairs):
        if text in pieces:
            characters = "".join(pieces[text])
            occurrences.update(characters)
            in_texts.update(set(characters))
    block = {character: str(blocks.block(character)) for character in occurrences}
    in_pairs: Counter[str] = Counter()
    block_pairs: Counter[str] = Counter()
    broken = 0
    for both in zip(pairs["sentence_0"].tolist(), pairs["sentence_1"].tolist(), strict=True):
        found = {
            character for text in both for piece in pieces.get(text, ()) for character in piece
        }
        broken += bool(found)
        in_pairs.update(found)
        block_pairs.update({block[character] for character in found})
    by_block: dict[str, Counter[str]] = {}
    for character, count in occurrences.items():
        by_block.setdefault(block[character], Counter())[character] = count
    return {
        "distinct": len(occurrences),
        "pairs": broken,
        "characters": [
            {
                "character": c,
                "block": block[c],
                "occurrences": n,
                "texts": in_texts[c],
                "pairs": in_pairs[c],
            }
            for c, n in sorted(occurrences.items(), key=lambda item: (-item[1], item[0]))
        ][:CHARACTERS_LISTED],
        "blocks": [
            {
                "block": name,
                "characters": len(counts),
                "occurrences": counts.total(),
                "pairs": block_pairs[name],
            }
            for name, counts in sorted(by_block.items(), key=lambda item: -item[1].total())
        ],
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
        `unk_share` over all tokens of the pairs; `lost_share` of the distinct texts, which share
        their tokens with another text because of an unknown one; the `ceiling`: `accuracy`,
        `roc_auc`, `ndcg@10` (None where not defined), `conflicting_pairs`.
    """
    texts = training_texts(pairs)
    own = counts.reindex(texts)
    occurring = counts.reindex(pairs["sentence_0"].tolist() + pairs["sentence_1"].tolist())
    sizes = own.groupby("sequence")["tokens"].transform("size")
    ranking = {"ndcg@10": list_ceiling(lists, counts) if lists else None}
    return {
        "unk_share": float(occurring["unknown"].sum() / max(1, occurring["tokens"].sum())),
        "lost_share": float(((sizes > 1) & (own["unknown"] > 0)).mean()),
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
        pairs: all pairs in use; the figures are of these.
        train: the training side; the new tokens are learned from its texts.
        tokenizer: the base model's.
        lists: the ranking test, for its ceiling.
        counts: what `count_tokens` gave for the texts of pairs and lists, if it is there already.
        pieces: the same of `unknown_pieces`.

    Returns:
        By choice: `readability`, `added` and `left_out` tokens; or `refused`, a sentence, where the
        tokenizer cannot be repaired.
    """
    texts = [*training_texts(pairs), *texts_of(lists)]
    learned = training_texts(train)
    if pieces is None:
        pieces = unknown_pieces(tokenizer, learned)
    outlook: dict[str, Any] = {}
    for how in REPAIRS:
        reader, added, left_out, seen = tokenizer, 0, 0, counts
        if how != "keep":
            try:
                repair = repair_vocabulary(tokenizer, learned, how, pieces)
            except ModelError as error:
                outlook[how] = {"refused": str(error)}
                continue
            reader, added, left_out = repair.tokenizer, len(repair.added), len(repair.left_out)
            seen = None
        figures = readability(count_tokens(reader, texts) if seen is None else seen, pairs, lists)
        outlook[how] = figures | {"added": added, "left_out": left_out}
    return outlook


def vocabulary_verdict(outlook: Mapping[str, Any]) -> dict[str, str]:
    """Green, amber or red, with one sentence why and one what to do.

    The thresholds are `RED` and `AMBER`: either share reaching its value is enough.

    Args:
        outlook: what `repair_outlook` gave.

    Returns:
        `colour`, `why`, `action`.
    """
    keep = outlook["keep"]
    shares = {"unknown": keep["unk_share"], "lost": keep["lost_share"]}
    colour = "green"
    for name, limits in (("amber", AMBER), ("red", RED)):
        if any(shares[what] >= limit for what, limit in limits.items()):
            colour = name
    why = (
        f"{shares['unknown']:.1%} of the tokens are unknown to the base model, and "
        f"{shares['lost']:.1%} of the distinct texts become equal to another text because of it."
    )
    if colour == "green":
        return {"colour": colour, "why": why, "action": "Keep the vocabulary."}
    best = min(
        (how for how in ("extend", "unused") if "unk_share" in outlook.get(how, {})),
        key=lambda how: outlook[how]["unk_share"],
        default="",
    )
    if not best:
        return {
            "colour": colour,
            "why": why,
            "action": "Choose a base model that has the "
            "characters: this tokenizer cannot be repaired.",
        }
    action = (
        f"Train with vocabulary: {best}. It adds {outlook[best]['added']:,} tokens and leaves "
        f"{outlook[best]['unk_share']:.2%} unknown; or choose a base model made for this language."
    )
    return {"colour": colour, "why": why, "action": action}


def texts_of(lists: Sequence[CandidateList]) -> Iterable[str]:
    """Queries and candidates of the lists, with repetitions."""
    for one in lists:
        yield one.query
        yield from one.candidates
