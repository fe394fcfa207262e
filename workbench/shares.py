"""The part of a training batch that one thread works on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.encoding import EncodedPairs
from workbench.packing import Packed, blocks_of

TOKENS_A_SHARE = 100  # at least: each share makes a gradient of every weight, to be summed up
VALUES = 2**16  # of a random number for dropout


class Share(Packed):
    """Pairs of a batch as one row of n tokens (see `Packed`), with labels and random numbers.

    Args:
        pairs: those of the batch.
        rows: which of them, the longest first, int array of shape (m,).
        labels: of the batch, shape (batch,).
        places: of the token ids among those that are learned, int array of shape (vocabulary,).
        few_sizes: whether to round n up, so that few different numbers occur.
        seed: of the random numbers.

    Attributes:
        ids: the tokens' places, in place of their ids.
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
        super().__init__(pairs, rows, list(blocks_of(pairs.lengths[rows])), few_sizes)
        self.ids = torch.from_numpy(places[self.ids.numpy()])
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
