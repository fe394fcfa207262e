"""The part of a training batch that one thread works on: one row of tokens, almost unpadded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.encoding import MOST_PADDING, EncodedPairs, padded_together

TOKENS_A_SHARE = 100  # at least: each share makes a gradient of every weight, to be summed up
STEPS_AN_OCTAVE = 8  # of numbers of tokens, from one power of two to the next
VALUES = 2**16  # of a random number for dropout


class Block(NamedTuple):
    """Pairs of like length, which stand one after another in a share.

    Attributes:
        rows: how many.
        length: tokens of each, padding included.
        hidden: to be added to the scores of keys, -inf for padding, float32 of shape
            (rows, 1, 1, length); None where there is no padding.
    """

    rows: int
    length: int
    hidden: Tensor | None


class Share:
    """Pairs of a batch as one row of n tokens, those of each block together; and random numbers.

    Args:
        pairs: those of the batch.
        rows: which of them, the longest first, int array of shape (m,).
        labels: of the batch, shape (batch,).
        places: of the token ids among those that are learned, int array of shape (vocabulary,).
        few_sizes: whether to round n up, so that few different numbers occur (see `filled_up`).
        seed: of the random numbers.

    Attributes:
        ids, types, positions: of the tokens, those of padding among them, int64 of shape (n,).
        blocks: of the pairs, in the order of the tokens.
        sizes: tokens of each block; then of the filling, which attention leaves out.
        firsts: where each pair begins among the tokens, int64 of shape (m,).
        labels: of the pairs, float32 of shape (m,).
        batch_size: pairs of the whole batch.
    """

    def __init__(
        self,
        pairs: EncodedPairs,
        rows: NDArray[np.int64],
        labels: Tensor,
        places: NDArray[np.int64],
        few_sizes: bool,
        seed: Sequence[int],
    ) -> None:
        lengths = pairs.lengths[rows]
        self.blocks = list(_blocks(lengths))
        self.sizes = [block.rows * block.length for block in self.blocks]
        tokens = sum(self.sizes)
        self.sizes.append(filled_up(tokens) - tokens if few_sizes else 0)
        padded = np.repeat([block.length for block in self.blocks],
                           [block.rows for block in self.blocks])  # fmt: skip
        firsts = np.cumsum(padded) - padded
        ids, types, positions = np.zeros((3, sum(self.sizes)), dtype=np.int64)
        for first, length, row in zip(firsts, lengths, rows, strict=True):
            own, kinds = pairs.row(int(row))
            place = slice(first, first + length)
            ids[place], types[place], positions[place] = places[own], kinds, np.arange(length)
        self.ids, self.types, self.positions, self.firsts = map(
            torch.from_numpy, (ids, types, positions, firsts)
        )
        self.labels, self.batch_size = labels[rows].float(), len(labels)
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        self.generator = torch.Generator().manual_seed(int(state))

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """`x` with a random part of it, of size `rate`, zero and the rest scaled to keep the mean.

        Random 16-bit numbers are compared, four to each number drawn.
        """
        dropped = round(rate * VALUES)
        if not dropped:
            return x
        count = x.numel()
        random = torch.empty(-(-count // 4), dtype=torch.int64)
        random.random_(-(2**63), None, generator=self.generator)
        kept = random.view(torch.int16)[:count].view(x.shape) >= dropped - VALUES // 2
        return x * kept.to(x.dtype).mul_(VALUES / (VALUES - dropped))


def shares_of(
    pairs: EncodedPairs,
    labels: Tensor,
    places: NDArray[np.int64],
    few_sizes: bool,
    seed: Sequence[int],
    most: int,
) -> list[Share]:
    """A batch cut into at most so many shares of about as many tokens each; see `Share`."""
    order = np.argsort(-pairs.lengths, kind="stable")
    enough = int(pairs.lengths.sum()) // TOKENS_A_SHARE
    count = max(1, min(most, len(order), enough))
    return [  # the pairs, sorted by length, are dealt out in turn
        Share(pairs, order[number::count], labels, places, few_sizes, [*seed, number])
        for number in range(count)
    ]


def filled_up(tokens: int) -> int:
    """`tokens` or up to an eighth more: of all numbers few, however many different are given."""
    step = max(1, (1 << (tokens - 1).bit_length()) // (2 * STEPS_AN_OCTAVE))
    return -(-tokens // step) * step


def _blocks(lengths: NDArray[np.int64]) -> Iterator[Block]:
    """Blocks of pairs whose lengths in tokens, shape (m,), never rise."""
    while len(lengths):
        longest = int(lengths[0])
        count = padded_together(lengths, MOST_PADDING)
        own, lengths = lengths[:count], lengths[count:]
        hidden = None
        if own[-1] < longest:
            used = torch.arange(longest) < torch.from_numpy(own)[:, None]
            hidden = torch.where(used, 0.0, -torch.inf)[:, None, None]
        yield Block(count, longest, hidden)
