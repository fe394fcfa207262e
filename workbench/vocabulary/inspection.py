"""Labelled pairs as a model sees them: by the tokenizer of one base, or of many."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList, texts_of
from workbench.data.readers import COLUMNS
from workbench.data.texts import distinct_texts
from workbench.files import first_line, write_json
from workbench.models import ModelError, ModelLocation, find_model, is_hub_name, load_tokenizer
from workbench.run_folder import RunFolder
from workbench.vocabulary import coverage
from workbench.vocabulary.repair import Repair
from workbench.vocabulary.tokens import count_tokens, tokenize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXAMPLES = 3  # pairs of each label whose texts are shown token by token
FILES = ["config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model"]


def inspect_pairs(
    pairs: pd.DataFrame,
    tokenizer: "Tokenizer",
    max_length: int = 512,
    train: pd.DataFrame | None = None,
    lists: Sequence[CandidateList] = (),
    seed: int = 42,
    dictionary: str = "",
) -> dict[str, Any]:
    """Everything that notebook 1 shows, as plain values; every share is in [0, 1].

    `lengths` are characters of a text, and tokens of a pair; `missing` is what `missing_characters`
    gives, `repairs` `repair_outlook`, `ceiling` `ceilings` of the tokenizer as it is, `verdict`
    `vocabulary_verdict`, and `examples` `reading_examples`.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows, at least one.
        tokenizer: the base model's, without truncation.
        max_length: tokens of a pair, special tokens included, beyond which it is truncated.
        train: the train split, from which a repair would learn; all `pairs` if None.
        lists: the ranking test, for its ceiling.
        seed: of the examples.
        dictionary: of `vocabulary: words`, see `read_dictionary`.

    Example:
        >>> import workbench as wb
        >>> tokenizer = wb.load_tokenizer(wb.find_model("bundled:all-MiniLM-L6-v2"))
        >>> pairs = wb.read_pairs("data/sample_pairs.csv").frame
        >>> wb.inspect_pairs(pairs, tokenizer)["verdict"]["colour"]
        'red'
    """
    texts = pd.concat([pairs["sentence_0"], pairs["sentence_1"]], ignore_index=True)
    counts = count_tokens(tokenizer, [*texts, *texts_of(lists)])
    own, tokens = counts.loc[texts.unique()], pair_tokens(pairs, tokenizer, counts)
    learned = distinct_texts(pairs if train is None else train)
    outlook, repairs = coverage.repair_outlook(tokenizer, counts, pairs, learned, dictionary, lists)
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
        "missing": coverage.missing_characters(pairs, counts),
        "ceiling": outlook["keep"]["ceiling"],
        "repairs": outlook,
        "verdict": coverage.vocabulary_verdict(outlook),
        "examples": reading_examples(tokenizer, shown, repairs.get("words")),
    }


def save_inspection(run_dir: str | Path, inspection: dict[str, Any]) -> Path:
    """Write `inspection.json` in the run folder."""
    path = RunFolder(run_dir).inspection
    write_json(path, inspection)
    return path


def pair_tokens(
    pairs: pd.DataFrame, tokenizer: "Tokenizer", counts: pd.DataFrame | None = None
) -> np.ndarray:
    """Tokens of each pair as the model takes it in, special tokens included; shape (n,).

    `counts` is what `count_tokens` gave for these texts, if known.
    """
    if counts is None:
        counts = count_tokens(tokenizer, distinct_texts(pairs))
    special = tokenizer.num_special_tokens_to_add(is_pair=True)
    first, second = (counts["tokens"].reindex(pairs[name]).to_numpy() for name in COLUMNS[:2])
    return np.asarray(first + second + special)


def contradictory_rows(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows whose two texts, in either order, also occur with the opposite label."""
    texts = np.sort(pairs[COLUMNS[:2]].to_numpy(dtype=object), axis=1)
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
    tokenizer: "Tokenizer", texts: Sequence[str], words: Repair | None
) -> list[dict[str, Any]]:
    """Texts as a model sees them: `text`, `tokens`, the `unk_share` of these, and `words`.

    The latter are what a model with that repair reads, each with its first gloss; empty for a text
    without letters of the dictionary, or where there is no such repair.
    """

    def glossed(text: str) -> str:
        if words is None or not re.search(f"[{words.letters}]", text):
            return ""
        tokens = words.tokenizer.encode(text, add_special_tokens=False).tokens
        units = (token.removeprefix("##") for token in tokens)
        shown = (f"{u} ({words.glosses[u][0]})" if words.glosses.get(u) else u for u in units)
        return unicodedata.normalize("NFC", " · ".join(shown))

    return [
        {
            "text": text,
            "tokens": " ".join(token.token for token in tokens),
            "unk_share": sum(token.unknown for token in tokens) / max(1, len(tokens)),
            "words": glossed(text),
        }
        for text, tokens in zip(texts, tokenize(tokenizer, texts), strict=True)
    ]


def _summary(values: Any) -> dict[str, float]:
    low, middle, p95, high = np.percentile(values, [0, 50, 95, 100]).tolist()
    mean = float(np.mean(values))
    return {"min": int(low), "mean": mean, "median": middle, "p95": p95, "max": int(high)}


def known_bases() -> pd.DataFrame:
    """A row for each base, indexed by its name on the Hub, as its page was in November 2026.

    The columns are `parameters` (with embeddings), `languages`, `licence`, `tokenizer`, `positions`
    (tokens of a pair), `weights` (of the main revision: `safetensors`, or `pytorch` where all are
    pickled), `note` (before use), `unverified` (facts not on its page) and `source`.

    Example:
        >>> known_bases().loc["BAAI/bge-reranker-base", "licence"]
        'mit'
    """
    file = Path(__file__).with_name("bases.csv")
    return pd.read_csv(file, index_col="name", keep_default_na=False)


def read_by_bases(
    pairs: pd.DataFrame, names: Sequence[str], download: bool = False
) -> pd.DataFrame:
    """What the tokenizer of each base makes of the texts of labelled pairs.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`.
        names: Hub names, model folders, or runs.
        download: whether to fetch the tokenizers (not the weights) that are not on this machine.

    Returns:
        Indexed by name: `tokens` for each character, the `unknown` share of all tokens, the share
        of distinct texts that become `equal` to another; NaN where `problem` says why.
    """
    texts = distinct_texts(pairs)
    characters = sum(map(len, texts))
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            counts = count_tokens(load_tokenizer(_tokenizer_files(name, download)), texts)
        except (ValueError, OSError) as error:  # no such model, or a damaged one
            rows[name] = {"problem": str(error).removeprefix(f"{name}: ")}
            continue
        found = coverage.readability(counts, pairs)
        equal = found["lost_share"] + found["folded_share"]
        tokens = counts["tokens"].sum() / max(1, characters)
        rows[name] = {"tokens": tokens, "unknown": found["unk_share"], "equal": equal}
    columns = ["tokens", "unknown", "equal", "problem"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).fillna({"problem": ""})


def _tokenizer_files(name: str, download: bool) -> ModelLocation:
    """Where a base's tokenizer is; of a base on the Hub, the weights need not be here."""
    from huggingface_hub import errors, snapshot_download

    if not is_hub_name(name):
        return find_model(name)
    try:
        folder = snapshot_download(name, allow_patterns=FILES, local_files_only=not download)
    except errors.LocalEntryNotFoundError:
        reason = "not on disk, and the Hub cannot be reached" if download else "not on disk"
        raise ModelError(reason) from None
    except (OSError, ValueError) as error:  # no such model, or a failing server
        raise ModelError(f"cannot be fetched: {first_line(error)}") from None
    return ModelLocation(name, "hub", Path(folder), "", "", asked=name)
