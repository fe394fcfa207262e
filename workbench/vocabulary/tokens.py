"""Texts as the model sees them: tokens, unknown ones, bytes, and texts it cannot tell apart."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 2048  # texts encoded at once, which bounds the memory
BYTE = re.compile("<0x[0-9A-F]{2}>|.*\ufffd.*")  # in SentencePiece; in byte-level BPE


class Token(NamedTuple):
    """A token, the place of what it stands for, and whether the vocabulary lacks that."""

    token: str
    start: int
    end: int
    unknown: bool


def unknown_id(tokenizer: "Tokenizer") -> int:
    """The number of the token for everything outside the vocabulary; -1 where there is none."""
    if hasattr(tokenizer.model, "unk_token"):
        number = tokenizer.token_to_id(tokenizer.model.unk_token or "")
    else:  # Unigram
        number = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return -1 if number is None else number


def readable_tokens(tokenizer: "Tokenizer") -> dict[int, str]:
    """Every token by its number, as people can read it.

    Byte-level BPE writes bytes as other characters. Here a space is `▁`, as in SentencePiece, and
    bytes that are no whole character are `�`.
    """
    from tokenizers.decoders import ByteLevel

    vocabulary = tokenizer.get_vocab()
    if "ByteLevel" not in repr((tokenizer.normalizer, tokenizer.pre_tokenizer)):
        return {number: token for token, number in vocabulary.items()}
    decode = ByteLevel().decode
    return {number: decode([token]).replace(" ", "▁") for token, number in vocabulary.items()}


def tokenize(tokenizer: "Tokenizer", texts: Sequence[str]) -> list[list[Token]]:
    """The tokens of each text as the model sees them, without special tokens."""
    shown, unknown = readable_tokens(tokenizer), unknown_id(tokenizer)
    return [
        [
            Token(shown[number], start, end, number == unknown)
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
    ]


def count_tokens(tokenizer: "Tokenizer", texts: Iterable[str]) -> pd.DataFrame:
    """The tokens of each distinct text, special tokens left out.

    Returns:
        Indexed by text: `tokens`, the number of them; of these `unknown`, `bytes` (a part of a
        character that the vocabulary lacks) and `blank` (white space alone); `pieces`, what the
        unknown tokens stand for (SentencePiece has one for a run of characters), normalised as the
        tokenizer does; and `sequence`, a number that two texts share if their tokens are equal, so
        that the model cannot tell them apart.
    """
    unknown, normalizer = unknown_id(tokenizer), tokenizer.normalizer
    normalize = cache(normalizer.normalize_str if normalizer else str)
    shown = readable_tokens(tokenizer).items()
    parts = {number for number, token in shown if BYTE.fullmatch(token)}
    blanks = {number for number, token in shown if not token.replace("▁", "").strip()}
    rows = []
    sequences: dict[tuple[int, ...], int] = {}
    for chunk in chunks(texts):
        encodings = tokenizer.encode_batch(chunk, add_special_tokens=False)
        for text, encoding in zip(chunk, encodings, strict=True):
            ids = tuple(encoding.ids)
            pieces: tuple[str, ...] = ()
            if unknown in ids:
                spans = zip(ids, encoding.offsets, strict=True)
                lost = (text[start:end] for number, (start, end) in spans if number == unknown)
                pieces = tuple(normalize(piece).replace("▁", "").strip() for piece in lost)
            sequence = sequences.setdefault(ids, len(sequences))
            kinds = (sum(map(kind.__contains__, ids)) if kind else 0 for kind in (parts, blanks))
            rows.append((text, len(ids), len(pieces), *kinds, pieces, sequence))
    columns = ["text", "tokens", "unknown", "bytes", "blank", "pieces", "sequence"]
    return pd.DataFrame(rows, columns=columns).set_index("text")


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """The distinct texts in their order, `CHUNK` at a time."""
    distinct = iter(dict.fromkeys(texts))
    while chunk := list(islice(distinct, CHUNK)):
        yield chunk
