"""Texts as the model sees them: tokens, unknown tokens, and texts it cannot tell apart."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 2048  # texts encoded at once, which bounds the memory


class Token(NamedTuple):
    """A token, the piece of text it stands for, and whether the vocabulary lacks that piece."""

    token: str
    text: str
    unknown: bool


def unknown_token(tokenizer: "Tokenizer") -> str | None:
    """The token for everything outside the vocabulary; None where there is no such token."""
    if hasattr(tokenizer.model, "unk_token"):
        return tokenizer.model.unk_token
    number = json.loads(tokenizer.to_str())["model"].get("unk_id")  # Unigram keeps its id only
    return None if number is None else tokenizer.id_to_token(number)


def unknown_id(tokenizer: "Tokenizer") -> int:
    """The id of the unknown token; -1 where there is none."""
    number = tokenizer.token_to_id(unknown_token(tokenizer) or "")
    return -1 if number is None else number


def tokenize(tokenizer: "Tokenizer", text: str) -> list[Token]:
    """The tokens of one text as the model sees them, without special tokens."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = unknown_token(tokenizer)
    return [
        Token(token, text[start:end], token == unknown)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
    ]


def count_tokens(tokenizer: "Tokenizer", texts: Iterable[str]) -> pd.DataFrame:
    """Tokens and unknown tokens of each distinct text, special tokens left out.

    Returns:
        Indexed by text: `tokens` (int), `unknown` (int), and `sequence` (int), which two texts
        share exactly if their token sequences are equal: the model cannot tell them apart.
    """
    unknown = unknown_id(tokenizer)
    rows: list[tuple[str, int, int, int]] = []
    sequences: dict[tuple[int, ...], int] = {}
    for chunk in chunks(texts):
        encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        for text, encoding in zip(chunk, encodings, strict=True):
            ids = tuple(encoding.ids)
            sequence = sequences.setdefault(ids, len(sequences))
            rows.append((text, len(ids), ids.count(unknown), sequence))
    return pd.DataFrame(rows, columns=["text", "tokens", "unknown", "sequence"]).set_index("text")


def unknown_pieces(tokenizer: "Tokenizer", texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The pieces behind the unknown tokens of each distinct text that has any.

    They are normalised as the tokenizer does (lower case, accents), so that these are the
    characters a vocabulary would have to hold.
    """
    unknown, normalizer = unknown_id(tokenizer), tokenizer.normalizer
    normalize = cache(normalizer.normalize_str if normalizer else str)
    found: dict[str, tuple[str, ...]] = {}
    for chunk in chunks(texts):
        encodings = tokenizer.encode_batch(chunk, add_special_tokens=False)
        for text, encoding in zip(chunk, encodings, strict=True):
            if unknown in encoding.ids:
                ids = zip(encoding.ids, encoding.offsets, strict=True)
                spans = (span for number, span in ids if number == unknown)
                found[text] = tuple(normalize(text[start:end]).strip() for start, end in spans)
    return found


def missing_tokens(tokenizer: "Tokenizer", pieces: Mapping[str, int]) -> Counter[str]:
    """The WordPiece tokens of one character that would make every piece readable, with counts.

    Inside a piece, a character needs the token that continues a word (`##` before it). A Chinese
    character is always a whole piece.
    """
    known = tokenizer.get_vocab()
    missing: Counter[str] = Counter()
    for piece, count in pieces.items():
        for place, character in enumerate(piece):
            token = character if place == 0 else f"##{character}"
            if token not in known:
                missing[token] += count
    return missing


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """The distinct texts in their order, `CHUNK` at a time."""
    distinct = iter(dict.fromkeys(texts))
    while chunk := list(islice(distinct, CHUNK)):
        yield chunk
