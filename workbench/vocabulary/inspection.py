"""Inspect labelled pairs: labels, lengths, repetition, and the texts as the model sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.data import POSITIVE
from workbench.data.build_lists import build_candidates
from workbench.data.list_files import read_candidates
from workbench.data.lists import CandidateError, CandidateList
from workbench.files import project_path, write_json
from workbench.models import ModelError
from workbench.vocabulary.coverage import (
    missing_characters,
    repair_outlook,
    texts_of,
    vocabulary_verdict,
)
from workbench.vocabulary.dictionary import HAN_CHARACTER, read_dictionary
from workbench.vocabulary.repair import repair_vocabulary
from workbench.vocabulary.tokens import count_tokens, tokenize, unknown_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def inspect_pairs(
    pairs: pd.DataFrame,
    tokenizer: "Tokenizer",
    max_length: int = 512,
    train: pd.DataFrame | None = None,
    lists: Sequence[CandidateList] = (),
) -> dict[str, Any]:
    """Everything that notebook 1 shows, as plain values.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows, at least one.
        tokenizer: the base model's, without truncation.
        max_length: tokens of a pair, special tokens included, beyond which it is truncated.
        train: the train split, from which a repair would learn; all `pairs` if None.
        lists: the ranking test, for its ceiling.

    Returns:
        `labels`, `lengths.characters` and `lengths.tokens` (each `min`, `mean`, `median`, `p95`,
        `max`; characters of a text, tokens of a pair), `truncation`, `contradictions`, `reuse`,
        `tokens` and `texts`; every share is in [0, 1]. Then what the vocabulary costs: `missing`
        (see `missing_characters`), `repairs` (see `repair_outlook`), `ceiling` (of the tokenizer
        as it is) and `verdict` (see `vocabulary_verdict`).
    """
    texts = pd.concat([pairs["sentence_0"], pairs["sentence_1"]], ignore_index=True)
    counts = count_tokens(tokenizer, [*texts.tolist(), *texts_of(lists)])
    tokens = pair_tokens(pairs, tokenizer, counts)
    pieces = unknown_pieces(tokenizer, texts.tolist())
    train = pairs if train is None else train
    outlook = repair_outlook(pairs, train, tokenizer, lists, counts, pieces)
    labels, contradictory = pairs["label"], contradictory_rows(pairs)
    return {
        "schema": 1,
        "labels": {
            "pairs": len(labels),
            "mean": float(labels.mean()),
            "positive": int((labels >= POSITIVE).sum()),
            "negative": int((labels < POSITIVE).sum()),
            "graded": int(((labels > 0) & (labels < 1)).sum()),
        },
        "lengths": {"characters": _summary(texts.str.len()), "tokens": _summary(tokens)},
        "truncation": {"max_length": max_length, "share": float((tokens > max_length).mean())},
        "contradictions": {"rows": len(contradictory), "share": len(contradictory) / len(pairs)},
        "reuse": _reuse(texts),
        **_vocabulary(texts, counts.loc[texts.unique()]),
        "missing": missing_characters(pairs, pieces),
        "ceiling": outlook["keep"]["ceiling"],
        "repairs": outlook,
        "verdict": vocabulary_verdict(outlook),
    }


def save_inspection(run_dir: str | Path, inspection: dict[str, Any]) -> Path:
    """The file `inspection.json` in the run folder, written."""
    path = project_path(run_dir) / "inspection.json"
    write_json(path, inspection)
    return path


def lists_for_ceiling(
    candidates: str,
    test: pd.DataFrame,
    size: int = 30,
    seed: int = 42,
    known: pd.DataFrame | None = None,
) -> list[CandidateList]:
    """The lists that notebook 4 will rank; none where the test split has no positive.

    Args:
        candidates: a file of lists; empty to build them from `test`.
        test: the test split.
        size: candidates of a list that is built.
        seed: see `build_test`.
        known: see `build_test`.

    Raises:
        CandidateError: the file cannot be used.
    """
    if candidates:
        return read_candidates(candidates, seed)
    try:
        return build_candidates(test, size, seed, known)
    except CandidateError:
        return []


def pair_tokens(
    pairs: pd.DataFrame, tokenizer: "Tokenizer", counts: pd.DataFrame | None = None
) -> np.ndarray:
    """Tokens of each pair as the model takes it in, special tokens included; shape (n,).

    `counts` is what `count_tokens` gave for these texts, if known.
    """
    if counts is None:
        counts = count_tokens(tokenizer, [*pairs["sentence_0"], *pairs["sentence_1"]])
    special = tokenizer.num_special_tokens_to_add(is_pair=True)
    first = counts["tokens"].reindex(pairs["sentence_0"]).to_numpy()
    second = counts["tokens"].reindex(pairs["sentence_1"]).to_numpy()
    return np.asarray(first + second + special)


def contradictory_rows(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows whose two texts, in either order, also occur with the opposite label."""
    texts = np.sort(pairs[["sentence_0", "sentence_1"]].to_numpy(dtype=object), axis=1)
    frame = pd.DataFrame(texts, pairs.index, ["low", "high"])
    frame["positive"] = pairs["label"] >= POSITIVE
    return pairs[frame.groupby(["low", "high"])["positive"].transform("nunique") > 1]


def sample_rows(pairs: pd.DataFrame, rows: int = 5, seed: int = 42) -> pd.DataFrame:
    """Up to `rows` random pairs with a positive label and as many with a negative one."""
    positive = pairs["label"] >= POSITIVE
    classes = [pairs[positive], pairs[~positive]]
    drawn = [one.sample(min(rows, len(one)), random_state=seed) for one in classes]
    return pd.concat(drawn)[["label", "sentence_0", "sentence_1"]].reset_index(drop=True)


def token_view(tokenizer: "Tokenizer", texts: list[str]) -> pd.DataFrame:
    """One row per text: `text`, `tokens` as the model sees them, `unk_share` of them."""
    rows = []
    for text in texts:
        tokens = tokenize(tokenizer, text)
        share = sum(token.unknown for token in tokens) / max(1, len(tokens))
        rows.append((text, " ".join(token.token for token in tokens), share))
    return pd.DataFrame(rows, columns=["text", "tokens", "unk_share"])


def word_view(
    tokenizer: "Tokenizer", learned: Sequence[str], texts: Sequence[str], dictionary: str = ""
) -> pd.DataFrame:
    """Texts word by word as a model with `vocabulary: words` reads them, with their first gloss.

    Args:
        tokenizer: the base model's.
        learned: training texts, from which the words are taken.
        texts: what to show.
        dictionary: see `read_dictionary`.

    Returns:
        Columns `text` and `words`; no row where there is no dictionary, no Chinese character, or
        a tokenizer that takes no words.
    """
    shown = [text for text in texts if HAN_CHARACTER.search(text)]
    try:
        glosses = read_dictionary(dictionary) if shown else {}
        reader = repair_vocabulary(tokenizer, learned, "words", dictionary=glosses).tokenizer
    except ModelError:
        shown = []
    rows = []
    for text in shown:
        units = [piece.token.removeprefix("##") for piece in tokenize(reader, text)]
        read = (f"{u} ({glosses[u][0]})" if glosses.get(u) else u for u in units)
        rows.append((text, " · ".join(read)))
    return pd.DataFrame(rows, columns=["text", "words"])


def _summary(values: Any) -> dict[str, float]:
    array = np.asarray(values)
    middle = {"mean": array.mean(), "median": np.median(array), "p95": np.percentile(array, 95)}
    floats = {name: float(value) for name, value in middle.items()}
    return {"min": int(array.min()), **floats, "max": int(array.max())}


def _reuse(texts: pd.Series) -> dict[str, Any]:
    uses = texts.value_counts()
    return {
        "distinct_texts": len(uses),
        "reused_share": float((uses > 1).mean()),
        "mean_uses": float(uses.mean()),
        "max_uses": int(uses.max()),
        "texts_by_uses": {str(n): int(c) for n, c in uses.value_counts().sort_index().items()},
        "most_used": [{"text": str(t), "uses": int(n)} for t, n in uses.head(10).items()],
    }


def _vocabulary(texts: pd.Series, counts: pd.DataFrame) -> dict[str, Any]:
    """Token shares over all occurrences of texts; text shares over distinct texts."""
    occurring = counts.reindex(texts)
    total = max(1, int(occurring["tokens"].sum()))
    collapsed = counts.groupby("sequence")["tokens"].transform("size") > 1
    same = counts[collapsed].groupby("sequence").groups.values()
    groups = sorted((list(group) for group in same), key=len, reverse=True)
    return {
        "tokens": {
            "count": total,
            "unk_share": float(occurring["unknown"].sum() / total),
            "per_character": float(total / texts.str.len().sum()),
        },
        "texts": {
            "distinct": len(counts),
            "with_unk_share": float((counts["unknown"] > 0).mean()),
            "only_unk_share": float((counts["unknown"] == counts["tokens"]).mean()),
            "collapsed_share": float(collapsed.mean()),
            "largest_collapsed": [{"size": len(g), "examples": g[:5]} for g in groups[:5]],
        },
    }
