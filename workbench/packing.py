"""Pairs as one row of tokens, almost unpadded: what products with weights are given at a time."""

import sys
from collections.abc import Iterator, Sequence
from copy import copy
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workbench.encoding import MOST_PADDING, EncodedPairs, padded_together

STEPS_AN_OCTAVE = 8  # of numbers of tokens, from one power of two to the next


class Block(NamedTuple):
    """Pairs of like length, which stand one after another in a row of tokens.

    Attributes:
        rows: how many.
        length: tokens of each, padding included.
        hidden: to be added to the scores of keys, -inf for padding, float32 of shape
            (rows, 1, 1, length); None where there is no padding.
    """

    rows: int
    length: int
    hidden: Tensor | None


class Tokens(NamedTuple):
    """Some tokens: their ids, their types and their positions, each int64 of shape (n,)."""

    ids: Tensor
    types: Tensor
    positions: Tensor

    def part(self, part: slice) -> "Tokens":
        """Some of them."""
        return Tokens(*(own[part] for own in self))

    def filled(self, count: int) -> "Tokens":
        """These and zeros, `count` together."""
        return Tokens(*(functional.pad(own, (0, count - len(own))) for own in self))


class Packed:
    """Pairs as one row of n tokens, those of each block together.

    Args:
        pairs: of a corpus or a batch.
        rows: which of them, the longest first, int array of shape (m,).
        blocks: of these pairs (see `blocks_of`).
        few_sizes: whether to round n up, so that few different numbers occur (see `filled_up`).

    Attributes:
        rows: as given.
        ids, types, positions: of the tokens, those of padding among them, int64 of shape (n,).
        blocks: of the pairs, in the order of the tokens.
        sizes: tokens of each block; then of the filling, which attention leaves out.
        firsts, lengths: where each pair begins among the tokens, and how many are its own, int64
            of shape (m,).
    """

    def __init__(
        self, pairs: EncodedPairs, rows: NDArray[np.int64], blocks: list[Block], few_sizes: bool
    ) -> None:
        self.rows, self.blocks = rows, blocks
        self.sizes = [block.rows * block.length for block in blocks]
        tokens = sum(self.sizes)
        self.sizes.append(filled_up(tokens) - tokens if few_sizes else 0)
        padded = np.repeat([block.length for block in blocks], [block.rows for block in blocks])
        firsts = np.cumsum(padded) - padded
        ids, types, positions = np.zeros((3, sum(self.sizes)), dtype=np.int64)
        for first, length, row in zip(firsts, pairs.lengths[rows], rows, strict=True):
            place = slice(first, first + length)
            ids[place], types[place] = pairs.row(int(row))
            positions[place] = np.arange(length)
        self.ids, self.types, self.positions, self.firsts, self.lengths = map(
            torch.from_numpy, (ids, types, positions, firsts, pairs.lengths[rows])
        )

    def places(self) -> Iterator[tuple[Block, slice]]:
        """Each block, and where its tokens are."""
        start = 0
        for block in self.blocks:
            stop = start + block.rows * block.length
            yield block, slice(start, stop)
            start = stop

    @property
    def tokens(self) -> Tokens:
        """Those of padding and filling among them."""
        return Tokens(self.ids, self.types, self.positions)

    def to(self, device: torch.device) -> Self:
        """This on a device: a copy, or itself where it is there."""
        if self.ids.device == device:
            return self
        moved = copy(self)
        for name in ("ids", "types", "positions", "firsts", "lengths"):
            setattr(moved, name, getattr(self, name).to(device))
        moved.blocks = [
            block._replace(hidden=None if block.hidden is None else block.hidden.to(device))
            for block in self.blocks
        ]
        return moved


def packs(
    pairs: EncodedPairs, most: int, padded: bool = True, rows: NDArray[np.int64] | None = None
) -> Iterator[Packed]:
    """Pairs, the longest first, in rows of at most `most` tokens, and of few sizes.

    Where no other of the longest fits in, shorter ones do. A pair with more tokens than that has a
    row of its own.

    Args:
        pairs: to be packed.
        most: tokens, those of padding among them.
        padded: whether blocks are of pairs of nearly one length; else they are of just one.
        rows: of the pairs, the longest first, int array of shape (m,); None for all.
    """
    order = np.argsort(-pairs.lengths, kind="stable") if rows is None else rows
    while len(order):
        blocks = list(blocks_of(pairs.lengths[order], most, MOST_PADDING if padded else 0))
        count = sum(block.rows for block in blocks)
        own, order = order[:count], order[count:]
        left = most - sum(block.rows * block.length for block in blocks)
        while len(order) and pairs.lengths[order[-1]] <= left:
            fits = int(np.searchsorted(-pairs.lengths[order], -left))
            own, length = np.append(own, order[fits]), int(pairs.lengths[order[fits]])
            blocks.append(Block(1, length, None))
            order, left = np.delete(order, fits), left - length
        yield Packed(pairs, own, blocks, few_sizes=True)


def distinct_tokens(group: Sequence[Packed]) -> tuple[Tokens, list[Tensor]]:
    """The tokens of some packs that differ in id, type or position.

    Returns:
        The tokens, and for each pack which of them its own are, int64 of shape (n,).
    """
    every = zip(*(pack.tokens for pack in group), strict=True)
    ids, types, positions = (torch.cat(parts) for parts in every)
    few_types, few_positions = int(types.max()) + 1, int(positions.max()) + 1
    keys = (ids * few_types + types) * few_positions + positions
    places, found = pd.factorize(keys.numpy())
    keys = torch.from_numpy(found)
    kinds = keys // few_positions
    tokens = Tokens(kinds // few_types, kinds % few_types, keys % few_positions)
    return tokens, list(torch.from_numpy(places).split([len(pack.ids) for pack in group]))


def blocks_of(
    lengths: NDArray[np.int64], most: int = sys.maxsize, padding: float = MOST_PADDING
) -> Iterator[Block]:
    """Blocks of the first pairs, as many as `most` tokens have room for, but of one at least.

    Args:
        lengths: of pairs in tokens, never rising, shape (m,).
        most: tokens of all blocks, padding included.
        padding: the share of a block's tokens that may be padding.
    """
    left = max(most, int(lengths[0])) if len(lengths) else 0
    while len(lengths) and lengths[0] <= left:
        longest = int(lengths[0])
        count = padded_together(lengths[: left // longest], padding)
        own, lengths = lengths[:count], lengths[count:]
        hidden = None
        if own[-1] < longest:
            used = torch.arange(longest) < torch.from_numpy(own)[:, None]
            hidden = torch.where(used, 0.0, -torch.inf)[:, None, None]
        yield Block(count, longest, hidden)
        left -= count * longest


def filled_up(count: int, steps: int = STEPS_AN_OCTAVE) -> int:
    """`count` or a little more: of all numbers few, however many different are given.

    Args:
        count: 1 or more.
        steps: how many numbers there are from one power of two to the next.
    """
    step = max(1, (1 << (count - 1).bit_length()) // (2 * steps))
    return -(-count // step) * step
