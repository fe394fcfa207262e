"""Text pairs as rows of tokens for a model: pairs of like length together, with little padding."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = NDArray[np.int64]

PAD_TOKENS = ("[PAD]", "<pad>")
ENCODED_AT_ONCE = 1000  # pairs: the tokenizer's own records are large
SIZES_PER_OCTAVE = 8  # different numbers of tokens, from one power of two to the next


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as token ids, special tokens included."""

    ids: IntArray  # the tokens of all pairs, one pair after another, shape (tokens,)
    types: IntArray  # 0 for the tokens of the first text and 1 for those of the second
    lengths: IntArray  # tokens of each pair, shape (n,)
    pad: int | None  # the id of a padding token, if the tokenizer has one

    @cached_property
    def starts(self) -> IntArray:
        """Where the tokens of each pair begin, shape (n,)."""
        return np.cumsum(self.lengths) - self.lengths

    def longest_first(self) -> IntArray:
        """The places of the pairs, sorted by falling length, shape (n,)."""
        return np.argsort(-self.lengths, kind="stable")

    def at(self, rows: Sequence[int]) -> "EncodedPairs":
        """The pairs at these places, in this order."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1]) + np.repeat(self.starts[rows] + lengths - ends, lengths)
        return EncodedPairs(self.ids[places], self.types[places], lengths, self.pad)


class PairEncoder:
    """Encodes text pairs with a tokenizer; the longer text is truncated first.

    Args:
        tokenizer: copied, so that it keeps its settings.
        max_length: tokens of a pair, special tokens included: at least `models.MIN_LENGTH`.
        typed: whether the model takes token types; if not, all types are 0.
        side: the end of the texts at which they are cut, `right` or `left`.
    """

    def __init__(
        self, tokenizer: "Tokenizer", max_length: int, typed: bool = True, side: str = "right"
    ) -> None:
        self.tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length, direction=side)
        self.typed, self.side = typed, side
        found = (self.tokenizer.token_to_id(token) for token in PAD_TOKENS)
        self.pad = next((token for token in found if token is not None), None)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """The pairs as token ids."""
        ids, types, lengths = list[int](), list[int](), list[int]()
        for start in range(0, len(pairs), ENCODED_AT_ONCE):
            some = [*pairs[start : start + ENCODED_AT_ONCE]]
            for one in self.tokenizer.encode_batch_fast(some):
                ids += one.ids
                types += one.type_ids if self.typed else [0] * len(one)
                lengths.append(len(one))
        arrays = [np.array(values, dtype=np.int64) for values in (ids, types, lengths)]
        return EncodedPairs(arrays[0], arrays[1], arrays[2], self.pad)


class Block(NamedTuple):
    """Pairs of like length in a pack, each padded to the longest."""

    pairs: slice  # of the pack's pairs
    tokens: slice  # of the pack's tokens, pair after pair
    shape: tuple[int, int]  # pairs, and tokens of each
    mask: NDArray[np.bool_] | None  # False for padding, of that shape; None without padding


class Pack(NamedTuple):
    """Pairs as one row of tokens: the blocks one after another, then filling up to a round number.

    `ids`, `types` and `positions`, of shape (tokens,), are 0 where they fill up.
    """

    rows: IntArray  # places of the pairs among those encoded, shape (m,)
    ids: IntArray
    types: IntArray
    positions: IntArray
    firsts: IntArray  # the first token of each pair, shape (m,)
    blocks: list[Block]
    filling: int  # tokens after the last block


def packs(
    pairs: EncodedPairs,
    max_tokens: int,
    rows: IntArray | None = None,
    max_padding: float = 0.0,
    rounded: bool = False,
) -> Iterator[Pack]:
    """Packs of at most `max_tokens` tokens, padding included, or of a single pair that is longer.

    Of all pairs, or of those at the places `rows`, which name the longest first. `max_padding` is
    the share of a block's tokens that may be padding; `rounded` packs are filled up to few
    different sizes (see `round_up`).
    """
    order = pairs.longest_first() if rows is None else rows
    lengths = pairs.lengths[order]
    while len(order):
        shapes, count, left = list[tuple[int, int]](), 0, max_tokens
        while count < len(order) and (lengths[count] <= left or not shapes):
            length = int(lengths[count])
            fitting = lengths[count:][: max(1, left // length)]
            used = np.cumsum(fitting) >= (1 - max_padding) * length * (1 + np.arange(len(fitting)))
            shapes.append((int(np.count_nonzero(used)), length))  # once it is false, it stays so
            count, left = count + shapes[-1][0], left - math.prod(shapes[-1])
        yield _pack(pairs, order[:count], shapes, rounded)
        order, lengths = order[count:], lengths[count:]


def _pack(
    pairs: EncodedPairs, rows: IntArray, shapes: list[tuple[int, int]], rounded: bool
) -> Pack:
    """The pack of these pairs, in blocks of these shapes."""
    padded = np.repeat([length for _, length in shapes], [count for count, _ in shapes])
    total = int(padded.sum())
    firsts = np.cumsum(padded) - padded
    positions = np.arange(total) - np.repeat(firsts, padded)
    own = positions < np.repeat(pairs.lengths[rows], padded)  # False for padding
    source = np.where(own, np.repeat(pairs.starts[rows], padded) + positions, 0)
    ids = np.where(own, pairs.ids[source], pairs.pad or 0)
    types = np.where(own, pairs.types[source], 0)
    blocks, pair, token = list[Block](), 0, 0
    for count, length in shapes:
        own_pairs, own_tokens = slice(pair, pair + count), slice(token, token + count * length)
        mask = own[own_tokens].reshape(count, length)
        blocks.append(Block(own_pairs, own_tokens, mask.shape, None if mask.all() else mask))
        pair, token = own_pairs.stop, own_tokens.stop
    columns = np.zeros((3, round_up(total) if rounded else total), dtype=np.int64)
    columns[:, :total] = ids, types, positions
    ids, types, positions = columns
    return Pack(rows, ids, types, positions, firsts, blocks, len(ids) - total)


def round_up(count: int) -> int:
    """`count` or a little more: a product's kernel is made for each size, and kept."""
    step = max(1, (1 << (count - 1).bit_length()) // (2 * SIZES_PER_OCTAVE))
    return -(-count // step) * step
