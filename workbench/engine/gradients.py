"""Gradients of a BERT cross-encoder, each thread with a share of the batch; float32 or bfloat16.

The same sums as the library's forward and backward pass, arranged for a processor (see `forward`).
Weights are rounded to bfloat16 once a step, and the float32 ones are updated. Only embeddings of
tokens in the training pairs are learned: the gradient of the others is always zero, and AdamW
without weight decay does not move them.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from workbench.engine.forward import Weights, keep_freed_memory
from workbench.engine.packing import EncodedPairs, IntArray, Pack, packs
from workbench.machine import interrupts_held, torch_threads

MAX_PADDING = 0.1  # of a block's tokens: a batch has few pairs of one length
MIN_SHARE_TOKENS = 100  # each share makes a gradient of every weight, to be summed up
RANDOM_VALUES = 2**16  # of a random number for dropout


class Dropout:
    """Dropout with its own generator; the same seed gives the same zeros."""

    def __init__(self, seed: Sequence[int]) -> None:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        self.generator = torch.Generator().manual_seed(int(state))

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        """`x` with a random share `rate` of it zero and the rest scaled to keep the mean."""
        dropped = round(rate * RANDOM_VALUES)
        if not dropped:
            return x
        count = x.numel()
        random = torch.empty(-(-count // 4), dtype=torch.int64)  # each is four 16-bit numbers
        random.random_(-(2**63), None, generator=self.generator)
        kept = random.view(torch.int16)[:count].view(x.shape) >= dropped - RANDOM_VALUES // 2
        return x * kept.to(x.dtype).mul_(RANDOM_VALUES / (RANDOM_VALUES - dropped))


def shares(pairs: EncodedPairs, most: int, rounded: bool) -> list[Pack]:
    """A batch cut into at most `most` packs of about as many tokens each.

    `rounded` leaves few different sizes: in bfloat16 torch keeps a kernel of 20 MB for each.
    """
    order = pairs.longest_first()
    enough = int(pairs.lengths.sum()) // MIN_SHARE_TOKENS
    count = max(1, min(most, len(order), enough))
    return [  # the pairs, sorted by length, are dealt out in turn
        next(packs(pairs, sys.maxsize, order[number::count], MAX_PADDING, rounded))
        for number in range(count)
    ]


class BertGradients:
    """Computes a step's gradients into `.grad` of what is `learned`, a list of parameters.

    Its first is `tokens`, the embeddings of `token_ids`, of shape (n, width), which are learned in
    place of the model's whole matrix.

    Args:
        model: not `unsupported`, on the CPU.
        token_ids: those that occur in the training pairs, int64 of shape (n,).
        dtype: of the products with weights, `torch.float32` or `torch.bfloat16`.
    """

    def __init__(self, model: Any, token_ids: IntArray, dtype: torch.dtype) -> None:
        keep_freed_memory()
        self.matrix: Tensor = model.bert.embeddings.word_embeddings.weight
        self.token_ids = torch.from_numpy(token_ids)
        self.places = np.zeros(len(self.matrix), dtype=np.int64)
        self.places[token_ids] = np.arange(len(token_ids))
        self.tokens = nn.Parameter(self.matrix.detach()[self.token_ids])
        self.weights = Weights(model, dtype, self.tokens)
        self.learned = [master for leaf in self.weights.leaves for master in leaf.masters]
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads)

    @torch.no_grad()
    def read(self) -> None:
        """Set `tokens` from the model, after its weights were loaded."""
        self.tokens.copy_(self.matrix[self.token_ids])

    @torch.no_grad()
    def write_back(self) -> None:
        """Set the model's embeddings from `tokens`."""
        self.matrix[self.token_ids] = self.tokens

    def step(self, pairs: EncodedPairs, labels: Tensor, seed: Sequence[int]) -> Tensor:
        """The loss, a scalar, of a batch; sets `.grad` of all that is learned.

        Args:
            pairs: of the batch, n.
            labels: in [0, 1], float of shape (n,).
            seed: of the dropout; with as many threads it gives the same gradients again.
        """
        leaves = self.weights.leaves
        for leaf in leaves:
            leaf.refresh()

        def gradients(number: int, pack: Pack) -> tuple[Tensor, tuple[Tensor, ...]]:
            pack = replace(pack, ids=self.places[pack.ids])
            loss = binary_cross_entropy_with_logits(
                self.weights.logits(pack, Dropout([*seed, number])),
                labels[pack.rows].float(),
                reduction="sum",
            )
            loss = loss / len(labels)
            return loss.detach(), torch.autograd.grad(loss, [leaf.value for leaf in leaves])

        own = shares(pairs, self.threads, rounded=self.weights.dtype == torch.bfloat16)
        with torch_threads(1), interrupts_held():
            losses, found = zip(*self.pool.map(gradients, range(len(own)), own), strict=True)
        for leaf, first, *others in zip(leaves, *found, strict=True):
            total = first.float()
            for gradient in others:
                total += gradient
            for master, part in zip(leaf.masters, total.split(leaf.sizes), strict=True):
                master.grad = part
        return torch.stack(losses).sum()
