"""Gradients of a BERT cross-encoder, each thread with a share of the batch; float32 or bfloat16.

The same sums as the library's forward and backward pass, arranged for a processor:

- Each thread works on a share of the batch (see `shares`). Splitting every small product among
  threads, as torch does by itself, leaves them waiting for each other.
- A share is one row of tokens, pairs of like length together: it has hardly any padding.
- Weights are rounded to bfloat16 once a step, not once a thread; the float32 ones are updated.
- Query, key and value are one product. What follows it in the last layer is computed for the first
  position of a pair only, since no other is used.
- Only the embeddings of tokens that occur in the training pairs are learned: without weight decay
  AdamW does not move the others, whose gradient is always zero.
- In bfloat16 shares have few different numbers of tokens: for each shape of a product the library
  behind torch makes a kernel and keeps it, about 20 MB for each number of tokens.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workbench.engine.forward import keep_freed_memory
from workbench.engine.packing import Block, EncodedPairs, Packed, blocks_of
from workbench.machine import interrupts_held, torch_threads

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


class BertGradients:
    """Computes a step's gradients into `.grad` of what is learned.

    Args:
        model: for which `inference.is_supported`, on the CPU.
        token_ids: those that occur in the training pairs, int64 of shape (n,).
        dtype: of the products with weights, `torch.float32` or `torch.bfloat16`.

    Attributes:
        tokens: the embeddings of `token_ids`, a parameter of shape (n, width); it is learned in
            place of the model's matrix, which `write_back` brings up to date.
        learned: all parameters that get a gradient, `tokens` among them.
    """

    def __init__(self, model: Any, token_ids: NDArray[np.int64], dtype: torch.dtype) -> None:
        keep_freed_memory()
        self.model, self.bert = model, model.bert
        self.matrix: Tensor = self.bert.embeddings.word_embeddings.weight
        self.token_ids = torch.from_numpy(token_ids)
        self.places = np.zeros(len(self.matrix), dtype=np.int64)
        self.places[token_ids] = np.arange(len(token_ids))
        self.tokens = nn.Parameter(self.matrix.detach()[self.token_ids])
        self.weights, self.few_sizes = _Weights(self, dtype), dtype == torch.bfloat16
        self.learned = [self.tokens, *self.weights.masters()]
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads)

    def read(self) -> None:
        """Take the token embeddings from the model's matrix, which has been loaded anew."""
        with torch.no_grad():
            self.tokens.copy_(self.matrix[self.token_ids])

    def write_back(self) -> None:
        """Bring the model's matrix up to date with `tokens`."""
        with torch.no_grad():
            self.matrix[self.token_ids] = self.tokens

    def step(self, pairs: EncodedPairs, labels: Tensor, seed: Sequence[int]) -> Tensor:
        """Set `.grad` of all that is learned for the mean binary cross-entropy of a batch.

        Args:
            pairs: of the batch, n.
            labels: in [0, 1], float of shape (n,).
            seed: of the dropout; the same seed and number of threads give the same gradients.

        Returns:
            The loss, a scalar.
        """
        self.weights.refresh()
        shares = shares_of(pairs, labels, self.places, self.few_sizes, seed, self.threads)
        with torch_threads(1), interrupts_held():
            results = list(self.pool.map(self._gradients, shares))
        for leaf, *found in zip(self.weights.leaves, *(g for _, g in results), strict=True):
            leaf.gradient.copy_(found[0])
            for gradient in found[1:]:
                leaf.gradient += gradient
            for parameter, part in zip(leaf.masters, leaf.split(leaf.gradient), strict=True):
                parameter.grad = part
        return torch.stack([loss for loss, _ in results]).sum()

    def _gradients(self, share: Share) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = functional.binary_cross_entropy_with_logits(
            self._logits(share), share.labels, reduction="sum"
        )
        loss = loss / share.batch_size
        return loss.detach(), torch.autograd.grad(
            loss, [leaf.value for leaf in self.weights.leaves]
        )

    def _logits(self, share: Share) -> Tensor:
        weights, embeddings = self.weights, self.bert.embeddings
        x = functional.embedding(share.ids, weights.tokens.value)
        x = x + functional.embedding(share.types, weights.types.value)
        x = x + functional.embedding(share.positions, weights.positions.value)
        x = share.dropout(_normalised(x, weights.norm, embeddings.LayerNorm), embeddings.dropout.p)
        for layer in weights.layers:
            x = layer(x, share)
        pooled = torch.tanh(functional.linear(x, *_values(weights.pooler)))
        pooled = share.dropout(pooled, getattr(self.model.dropout, "p", 0.0))
        return functional.linear(pooled, *_values(weights.head))[:, 0]


class _Leaf:
    """Weights as the forward pass takes them: parameters joined, in the dtype of the products."""

    def __init__(self, masters: Sequence[Tensor], dtype: torch.dtype) -> None:
        self.masters = list(masters)
        self.sizes = [len(master) for master in masters]
        joined = torch.cat([master.detach() for master in masters])
        self.same = len(self.masters) == 1 and joined.dtype == dtype
        self.value = (masters[0].detach() if self.same else joined.to(dtype)).requires_grad_()
        self.gradient = torch.empty_like(joined)

    def refresh(self) -> None:
        """Take the parameters' values anew."""
        if not self.same:
            with torch.no_grad():
                for part, master in zip(self.split(self.value), self.masters, strict=True):
                    part.copy_(master)

    def split(self, joined: Tensor) -> Sequence[Tensor]:
        """The parameters' parts of what has the shape of `value`."""
        return joined.split(self.sizes)


class _Weights:
    """All that is learned, as leaves of the graph of one step."""

    def __init__(self, owner: BertGradients, dtype: torch.dtype) -> None:
        self.leaves: list[_Leaf] = []
        exact, embeddings = torch.float32, owner.bert.embeddings
        self.tokens = self._leaf([owner.tokens], exact)
        self.types = self._leaf([embeddings.token_type_embeddings.weight], exact)
        self.positions = self._leaf([embeddings.position_embeddings.weight], exact)
        self.norm = self.pair([embeddings.LayerNorm], exact)
        layers = owner.bert.encoder.layer
        self.layers = [
            _Layer(self, layer, dtype, is_last=number == len(layers) - 1)
            for number, layer in enumerate(layers)
        ]
        self.pooler = self.pair([owner.bert.pooler.dense], exact)
        self.head = self.pair([owner.model.classifier], exact)

    def masters(self) -> Iterator[Tensor]:
        """The model's parameters behind the leaves, but for the token embeddings."""
        for leaf in self.leaves[1:]:
            yield from leaf.masters

    def refresh(self) -> None:
        """Take over what the optimizer has changed."""
        for leaf in self.leaves:
            leaf.refresh()

    def pair(self, modules: Sequence[Any], dtype: torch.dtype) -> tuple[_Leaf, _Leaf]:
        """Weight and bias of modules, joined along the first axis."""
        weight = self._leaf([module.weight for module in modules], dtype)
        return weight, self._leaf([module.bias for module in modules], dtype)

    def _leaf(self, masters: Sequence[Tensor], dtype: torch.dtype) -> _Leaf:
        self.leaves.append(_Leaf(masters, dtype))
        return self.leaves[-1]


class _Layer:
    def __init__(self, weights: _Weights, layer: Any, dtype: torch.dtype, is_last: bool) -> None:
        own, after, out = layer.attention.self, layer.attention.output, layer.output
        self.is_last, self.dtype = is_last, dtype
        self.heads, self.scale = own.num_attention_heads, own.attention_head_size**-0.5
        self.joint = weights.pair([own.query, own.key, own.value], dtype)
        self.out = weights.pair([after.dense], dtype)
        self.up = weights.pair([layer.intermediate.dense], dtype)
        self.down = weights.pair([out.dense], dtype)
        self.norm = weights.pair([after.LayerNorm], torch.float32)
        self.last_norm = weights.pair([out.LayerNorm], torch.float32)
        self.activation = layer.intermediate.intermediate_act_fn
        self.modules = after.LayerNorm, out.LayerNorm
        self.dropouts = own.dropout, after.dropout, out.dropout

    def __call__(self, x: Tensor, share: Share) -> Tensor:
        """From (tokens, width) to the same; the last layer gives (pairs, width)."""
        *parts, filling = self._product(self.joint, x).split(share.sizes)
        contexts = [
            self._attention(part, block, share)
            for part, block in zip(parts, share.blocks, strict=True)
        ]
        if self.is_last:
            x = x[share.firsts]
        elif len(filling):
            contexts.append(x.new_zeros(len(filling), x.shape[1]))
        x = x + share.dropout(self._product(self.out, torch.cat(contexts)), self.dropouts[1].p)
        x = _normalised(x, self.norm, self.modules[0])
        wide = self.activation(self._product(self.up, x))
        x = x + share.dropout(self._product(self.down, wide), self.dropouts[2].p)
        return _normalised(x, self.last_norm, self.modules[1])

    def _attention(self, joint: Tensor, block: Block, share: Share) -> Tensor:
        """From query, key and value, (tokens, 3 x width), to what each token takes from the others.

        In the last layer, to what each pair's first token takes. In float32: in bfloat16 torch's
        softmax takes four times as long, and the products, small as they are, would add their many
        shapes to the kernels that are kept.
        """
        joint = joint.view(block.rows, block.length, 3, self.heads, -1)
        query, key, value = joint.permute(2, 0, 3, 1, 4).float()
        if self.is_last:
            query = query[:, :, :1]
        scores = (query * self.scale) @ key.transpose(2, 3)
        weights = torch.softmax(scores if block.hidden is None else scores + block.hidden, dim=-1)
        context = share.dropout(weights, self.dropouts[0].p) @ value
        return context.transpose(1, 2).flatten(2).flatten(0, 1)

    def _product(self, leaves: tuple[_Leaf, _Leaf], x: Tensor) -> Tensor:
        return functional.linear(x.to(self.dtype), *_values(leaves))


def _values(leaves: tuple[_Leaf, _Leaf]) -> tuple[Tensor, Tensor]:
    return leaves[0].value, leaves[1].value


def _normalised(x: Tensor, leaves: tuple[_Leaf, _Leaf], module: Any) -> Tensor:
    weight, bias = _values(leaves)
    return functional.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
