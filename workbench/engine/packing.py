"""Token ids of text pairs for a model: each text is tokenized once and joined to its partners."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workbench.machine import in_threads

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = NDArray[np.int64]


BATCH_TOKENS = 2048  # of a batch: small enough that a layer's activations stay in the cache


ROWS_STEP = 8  # rows of a batch come in these steps, so that few shapes occur


MOST_PADDING = 0.1  # of a batch's tokens, where too few pairs have one length to fill it


PAD_TOKENS = ("[PAD]", "<pad>")


class Batch(NamedTuple):
    """Pairs of one length, or nearly so, each padded to the longest.

    Attributes:
        rows: the places of the pairs among those encoded, int array of shape (n,).
        ids: token ids, shape (m, length), m >= n: the last row may be repeated (see `batches`).
        types: 0 for the tokens of the first text and 1 for those of the second, shape (m, length).
        mask: 1 for tokens of the pair and 0 for padding, shape (m, length).
    """

    rows: IntArray
    ids: IntArray
    types: IntArray
    mask: IntArray


class PairEncoder:
    """Encodes text pairs as the tokenizer does, truncation (longest first) included.

    Args:
        tokenizer: a fast tokenizer; a copy of it is used.
        max_length: tokens of a pair, special tokens included.
        typed: whether the model is told which text a token belongs to; else all types are 0.

    Raises:
        ValueError: the tokenizer's post-processor does not simply put special tokens before,
            between and after the two texts, or `max_length` leaves no room for a text.
    """

    def __init__(self, tokenizer: "Tokenizer", max_length: int, typed: bool = True) -> None:
        self.tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        found = (self.tokenizer.token_to_id(token) for token in PAD_TOKENS)
        self.pad = next((token for token in found if token is not None), None)
        self._read_template(typed)
        special = len(self.before) + len(self.between) + len(self.after)
        self.room = max_length - special
        if self.room < 2:
            raise ValueError(
                f"max_length is {max_length}, but the special tokens of a pair alone are {special}"
            )

    def _read_template(self, typed: bool) -> None:
        """How the special tokens stand around two texts, read off an example."""
        probe = self.tokenizer.encode("a", "b")
        first, second = (self.tokenizer.encode(text, add_special_tokens=False).ids for text in "ab")
        marks, ids = probe.special_tokens_mask, probe.ids
        kinds = probe.type_ids if typed else [0] * len(ids)
        start = marks.index(0) if 0 in marks else 0
        middle = start + len(first)
        end = len(ids) - marks[::-1].index(0) if 0 in marks else 0
        self.before, self.after = ids[:start], ids[end:]
        self.between = ids[middle : end - len(second)]
        expected = [*self.before, *first, *self.between, *second, *self.after]
        self.first_type, self.second_type = kinds[start], kinds[end - 1]
        self.between_types, self.after_types = kinds[middle : end - len(second)], kinds[end:]
        if ids != expected or not first or not second or set(kinds[:middle]) != {self.first_type}:
            raise ValueError("the tokenizer joins pairs in a way that is not known here")

    def lengths_kept(self, first: int, second: int) -> tuple[int, int]:
        """How many tokens of two texts of so many tokens are kept: the longer one is cut first."""
        if first + second <= self.room:
            return first, second
        short = min(first, second)
        long = short if short > self.room else max(short, self.room - short)
        if short + long > self.room:  # both are long: half each, the odd one to the longer
            short, long = self.room // 2, self.room // 2 + self.room % 2
        return (short, long) if first <= second else (long, short)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> "EncodedPairs":
        """Tokenize the texts of the pairs, each once."""
        return self.join(pairs, self.tokenize(pairs))

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
        """The token ids of each text of the pairs, without special tokens."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        found = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return {text: one.ids for text, one in zip(texts, found, strict=True)}

    def join(
        self, pairs: Sequence[tuple[str, str]], ids: Mapping[str, list[int]]
    ) -> "EncodedPairs":
        """The pairs of texts whose token ids are known."""
        return EncodedPairs(self, [(ids[first], ids[second]) for first, second in pairs])


class EncodedPairs:
    """Pairs as token ids, to be had in batches of like length."""

    def __init__(self, encoder: PairEncoder, tokens: list[tuple[list[int], list[int]]]) -> None:
        self.encoder, self.tokens = encoder, tokens
        special = len(encoder.before) + len(encoder.between) + len(encoder.after)
        kept = (encoder.lengths_kept(len(first), len(second)) for first, second in tokens)
        self.lengths = np.fromiter((a + b + special for a, b in kept), np.int64, len(tokens))

    def row(self, place: int) -> tuple[list[int], list[int]]:
        """The token ids and the token types of one pair, special tokens included."""
        own = self.encoder
        first, second = self.tokens[place]
        keep, keep_second = own.lengths_kept(len(first), len(second))
        ids = [*own.before, *first[:keep], *own.between, *second[:keep_second], *own.after]
        types = [own.first_type] * (len(own.before) + keep) + own.between_types
        return ids, types + [own.second_type] * keep_second + own.after_types

    def batches(self, tokens: int = BATCH_TOKENS, padded: bool = True) -> Iterator[Batch]:
        """All pairs, the longest first, in batches of like length and about `tokens` tokens.

        A batch ends where more than `MOST_PADDING` of it would be padding; there is none at all if
        not `padded`, or where the tokenizer has no token for it. Its rows are filled up to a power
        of two or a multiple of `ROWS_STEP` by repeating the last: kernels are prepared for each
        shape, and kept, so that many shapes cost time and memory.
        """
        order = np.argsort(-self.lengths, kind="stable")
        padding = MOST_PADDING if padded and self.encoder.pad is not None else 0.0
        start = 0
        while start < len(order):
            length = int(self.lengths[order[start]])
            most = max(1, tokens // length)
            most -= most % ROWS_STEP if most > ROWS_STEP else 0
            rows = order[start : start + most]
            rows = rows[: padded_together(self.lengths[rows], padding)]
            yield self._batch(rows, length, min(most, _filled(len(rows))))
            start += len(rows)

    def _batch(self, rows: IntArray, length: int, count: int) -> Batch:
        """The pairs in `rows` as arrays of shape (count, length)."""
        ids = np.full((count, length), self.encoder.pad or 0)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            own = slice(self.lengths[row])
            ids[place, own], types[place, own] = self.row(row)
            mask[place, own] = 1
        for array in (ids, types, mask):
            array[len(rows) :] = array[len(rows) - 1]
        return Batch(rows, ids, types, mask)

    def score(
        self, run: Callable[[Any], NDArray[np.float32]], batches: Iterable[Any], threads: int = 1
    ) -> NDArray[np.float32]:
        """What `run` gives for each pair, float32 of shape (n,).

        Each thread has batches of its own: that scales, where splitting the small products of
        one batch among threads does not.

        Args:
            run: gives the logits of a batch, float32, those of its `rows` first.
            batches: of all pairs.
            threads: batches at a time.
        """
        scores = np.empty(len(self.tokens), dtype=np.float32)

        def work(batch: Any, _: Sized) -> None:
            scores[batch.rows] = run(batch)[: len(batch.rows)]

        in_threads(threads, work, batches)
        return scores


def padded_together(lengths: IntArray, most_padding: float) -> int:
    """How many pairs from the first on can be padded to its length.

    Args:
        lengths: in tokens, the longest first, shape (n,), n >= 1.
        most_padding: the share of the padded tokens that may be padding.
    """
    used = np.cumsum(lengths) >= (1 - most_padding) * lengths[0] * np.arange(1, len(lengths) + 1)
    return int(np.count_nonzero(used))  # once it is too little, it stays so


def _filled(count: int) -> int:
    """The next power of two up to `ROWS_STEP`, beyond it the next multiple."""
    if count <= ROWS_STEP:
        return 1 << (count - 1).bit_length()
    return -(-count // ROWS_STEP) * ROWS_STEP


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
