"""Texts as the model sees them: tokens, unknown tokens, and texts it cannot tell apart."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 8192  # texts encoded at a time; bounds the memory whatever the size of the data


class Token(NamedTuple):
    """A token, the piece of text it stands for, and whether the vocabulary lacks that piece."""

    token: str
    text: str
    unknown: bool


def unknown_token(tokenizer: "Tokenizer") -> str | None:
    """The token that stands for what the vocabulary lacks; None where there is no such token."""
    return getattr(tokenizer.model, "unk_token", None)


def tokenize(tokenizer: "Tokenizer", text: str) -> list[Token]:
    """The tokens of one text as the model sees them, without special tokens."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = unknown_token(tokenizer)
    return [
        Token(token, text[start:end], token == unknown)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
    ]


def count_tokens(tokenizer: "Tokenizer", texts: Iterable[str]) -> pd.DataFrame:
    """Count tokens and unknown tokens of each distinct text, special tokens left out.

    Returns:
        Indexed by text: `tokens` (int), `unknown` (int), and `sequence` (int), which two texts
        share exactly when their token sequences are equal: the model cannot tell them apart.
    """
    name = unknown_token(tokenizer)
    unknown = tokenizer.token_to_id(name) if name else None
    distinct = iter(dict.fromkeys(texts))
    rows: list[tuple[str, int, int, int]] = []
    sequences: dict[tuple[int, ...], int] = {}
    while chunk := list(islice(distinct, CHUNK)):
        for text, encoding in zip(
            chunk, tokenizer.encode_batch_fast(chunk, add_special_tokens=False), strict=True
        ):
            ids = tuple(encoding.ids)
            sequence = sequences.setdefault(ids, len(sequences))
            rows.append((text, len(ids), ids.count(unknown), sequence))
    frame = pd.DataFrame(rows, columns=["text", "tokens", "unknown", "sequence"])
    return frame.set_index("text")
