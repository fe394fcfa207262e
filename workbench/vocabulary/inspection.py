"""Inspect labelled pairs: labels, lengths, repetition, and the texts as the model sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.data import POSITIVE
from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateError, CandidateList, read_test, texts_of
from workbench.files import write_json
from workbench.run_folder import RunFolder
from workbench.vocabulary import coverage
from workbench.vocabulary.dictionary import HAN_CHARACTER, Dictionary, read_dictionary
from workbench.vocabulary.repair import Repair, training_texts
from workbench.vocabulary.tokens import Token, count_tokens, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXAMPLES = 3  # pairs of each label whose texts are shown token by token


def inspect_pairs(
    pairs: pd.DataFrame,
    tokenizer: "Tokenizer",
    max_length: int = 512,
    train: pd.DataFrame | None = None,
    lists: Sequence[CandidateList] = (),
    seed: int = 42,
) -> dict[str, Any]:
    """Everything that notebook 1 shows, as plain values.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows, at least one.
        tokenizer: the base model's, without truncation.
        max_length: tokens of a pair, special tokens included, beyond which it is truncated.
        train: the train split, from which a repair would learn; all `pairs` if None.
        lists: the ranking test, for its ceiling.
        seed: of the examples.

    Returns:
        `labels`, `lengths.characters` and `lengths.tokens` (each `min`, `mean`, `median`, `p95`,
        `max`; characters of a text, tokens of a pair), `truncation`, `contradictions`, `reuse`,
        `tokens` and `texts`; every share is in [0, 1]. Then what the vocabulary costs: `missing`
        (see `missing_characters`), `repairs` (see `repair_outlook`), `ceiling` (of the tokenizer
        as it is), `verdict` (see `vocabulary_verdict`) and `examples` (see `reading_examples`).

    Example:
        >>> import workbench as wb
        >>> tokenizer = wb.load_tokenizer(wb.find_model("bundled:all-MiniLM-L6-v2"))
        >>> pairs = wb.read_pairs("data/sample_pairs.csv").frame
        >>> wb.inspect_pairs(pairs, tokenizer)["verdict"]["colour"]
        'red'
    """
    texts = pd.concat([pairs["sentence_0"], pairs["sentence_1"]], ignore_index=True)
    counts = count_tokens(tokenizer, [*texts.tolist(), *texts_of(lists)])
    own, pieces = counts.loc[texts.unique()], counts["pieces"].to_dict()
    tokens = pair_tokens(pairs, tokenizer, counts)
    learned = training_texts(pairs if train is None else train)
    repairs = coverage.learn_repairs(tokenizer, learned, pieces)
    outlook = coverage.repair_outlook(pairs, tokenizer, repairs, lists, counts)
    labels, contradictory = pairs["label"], contradictory_rows(pairs)
    collapsed = own.groupby("sequence")["tokens"].transform("size") > 1
    same = sorted(own[collapsed].groupby("sequence").groups.values(), key=len, reverse=True)
    uses, drawn = texts.value_counts(), sample_rows(pairs, EXAMPLES, seed)
    shown = [*drawn["sentence_0"], *drawn["sentence_1"]]
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
        "reuse": {
            "distinct_texts": len(uses),
            "reused_share": float((uses > 1).mean()),
            "mean_uses": float(uses.mean()),
            "max_uses": int(uses.max()),
            "texts_by_uses": {str(n): int(c) for n, c in uses.value_counts().sort_index().items()},
            "most_used": [{"text": str(t), "uses": int(n)} for t, n in uses.head(10).items()],
        },
        "tokens": {
            "count": (count := int(own["tokens"].mul(uses).sum())),
            "per_character": count / int(texts.str.len().sum()),
            **{name: outlook["keep"][name] for name in ("unk_share", "byte_share")},
        },
        "texts": {
            "distinct": len(own),
            "with_unk_share": float((own["unknown"] > 0).mean()),
            "only_unk_share": float(
                ((own["unknown"] > 0) & (own["unknown"] + own["blank"] == own["tokens"])).mean()
            ),
            "collapsed_share": float(collapsed.mean()),
            "largest_collapsed": [{"size": len(g), "examples": list(g[:5])} for g in same[:5]],
        },
        "missing": coverage.missing_characters(pairs, pieces),
        "ceiling": outlook["keep"]["ceiling"],
        "repairs": outlook,
        "verdict": coverage.vocabulary_verdict(outlook),
        "examples": reading_examples(tokenizer, shown, repairs["words"]),
    }


def save_inspection(run_dir: str | Path, inspection: dict[str, Any]) -> Path:
    """The file `inspection.json` in the run folder, written."""
    path = RunFolder(run_dir).inspection
    write_json(path, inspection)
    return path


def lists_for_ceiling(
    candidates: str, test: pd.DataFrame, size: int = 30, seed: int = 42, known: Any = None
) -> list[CandidateList]:
    """The lists that notebook 4 will rank; none where the test split has no positive.

    They are those of the file `candidates`; if that is empty, `build_test` gets the rest.

    Raises:
        CandidateError: the file cannot be used.
    """
    if candidates:
        return read_test(candidates, seed).lists
    try:
        return build_test(test, size, seed, known).lists
    except CandidateError:
        return []


def pair_tokens(
    pairs: pd.DataFrame, tokenizer: "Tokenizer", counts: pd.DataFrame | None = None
) -> np.ndarray:
    """Tokens of each pair as the model takes it in, special tokens included; shape (n,).

    `counts` is what `count_tokens` gave for these texts, if known.
    """
    if counts is None:
        counts = count_tokens(tokenizer, training_texts(pairs))
    special = tokenizer.num_special_tokens_to_add(is_pair=True)
    first, second = (counts["tokens"].reindex(pairs[f"sentence_{n}"]).to_numpy() for n in (0, 1))
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


def reading_examples(
    tokenizer: "Tokenizer", texts: Sequence[str], words: Repair | str
) -> list[dict[str, Any]]:
    """Texts as a model sees them: `text`, `tokens`, the `unk_share` of these, and `words`.

    The latter are those that a model with `vocabulary: words` reads, each with its first gloss of
    the package's dictionary; empty for a text without Chinese characters, or where `words`, the
    repair, is a reason why there is none.
    """
    glosses: Dictionary = {}
    read: list[list[Token]] = [[] for _ in texts]
    if isinstance(words, Repair):
        glosses, read = read_dictionary(), tokenize(words.tokenizer, texts)
    rows = []
    for text, tokens, parts in zip(texts, tokenize(tokenizer, texts), read, strict=True):
        units = [part.token.removeprefix("##") for part in parts if HAN_CHARACTER.search(text)]
        glossed = (f"{u} ({glosses[u][0]})" if glosses.get(u) else u for u in units)
        row = {
            "text": text,
            "tokens": " ".join(token.token for token in tokens),
            "unk_share": sum(token.unknown for token in tokens) / max(1, len(tokens)),
            "words": " · ".join(glossed),
        }
        rows.append(row)
    return rows


def _summary(values: Any) -> dict[str, float]:
    array = np.asarray(values)
    middle = {"mean": array.mean(), "median": np.median(array), "p95": np.percentile(array, 95)}
    floats = {name: float(value) for name, value in middle.items()}
    return {"min": int(array.min()), **floats, "max": int(array.max())}
