"""A BERT cross-encoder on packed pairs: the same sums as the library's, arranged for a processor.

Products run over one row of tokens with hardly any padding; query, key and value are one product;
after them, the last layer is computed for the first token of each pair, the only one that is used.
Each thread has its own packs: torch's splitting of small products leaves threads waiting.
Gradients are taken of the same sums, each thread with a share of the batch if it is large.
"""

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workbench.engine.packing import Block, EncodedPairs, IntArray, Pack, packs, round_up
from workbench.machine import in_threads, interrupts_held, torch_threads

MAX_PADDING = 0.02  # of a block's tokens: lengths of many pairs, sorted, differ little
BATCH_PADDING = 0.05  # the same in training: a batch has few pairs of one length
PACK_TOKENS = 1920  # calls cost little, and activations stay in the cache
MIN_TOKENS = 128  # for a thread; with fewer its products are no faster
FUSED_TOKENS = 200  # of a pair: from here on attention in one call pays, in training
MIN_SHARE_TOKENS = 200  # each share makes a gradient of every weight, to be summed up
GPU_TOKENS = 2**16
# Bytes. Once such a block was freed, glibc keeps smaller ones at hand in place of giving them back
# at once; it learns from none that is larger.
KEPT_BLOCK = 2**25 - 2**13
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


class Leaf:
    """Parameters as a product takes them: joined along the first axis, in one dtype.

    `value` is a leaf of autograd's graph, and the parameter itself where that is the same.
    """

    def __init__(self, masters: Sequence[Tensor], dtype: torch.dtype) -> None:
        self.masters, self.sizes = list(masters), [len(master) for master in masters]
        self.shared = len(self.masters) == 1 and masters[0].dtype == dtype
        joined = torch.cat([master.detach() for master in masters]).to(dtype)
        self.value = (masters[0].detach() if self.shared else joined).requires_grad_()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the parameters' values."""
        if not self.shared:
            for part, master in zip(self.value.split(self.sizes), self.masters, strict=True):
                part.copy_(master)


class Affine:
    """Weight and bias of a product or of a normalisation, those of several modules joined."""

    def __init__(self, modules: Sequence[Any], dtype: torch.dtype) -> None:
        self.weight = Leaf([module.weight for module in modules], dtype)
        self.bias = Leaf([module.bias for module in modules], dtype)

    def product(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`, in the dtype of the weights."""
        return functional.linear(x.to(self.weight.value.dtype), self.weight.value, self.bias.value)

    def normalised(self, x: Tensor, eps: float) -> Tensor:
        """Layer normalisation of `x`, of shape (..., width)."""
        return functional.layer_norm(x, x.shape[-1:], self.weight.value, self.bias.value, eps)


class Layer:
    """A layer of the encoder, with its weights as `parts`."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        own, after, output = module.attention.self, module.attention.output, module.output
        self.module = module
        self.joint = Affine([own.query, own.key, own.value], dtype)
        self.out = Affine([after.dense], dtype)
        self.up = Affine([module.intermediate.dense], dtype)
        self.down = Affine([output.dense], dtype)
        self.norm = Affine([after.LayerNorm], torch.float32)
        self.last_norm = Affine([output.LayerNorm], torch.float32)
        self.parts = [self.joint, self.out, self.up, self.down, self.norm, self.last_norm]

    def __call__(
        self, x: Tensor, pack: Pack, drop: Dropout | None, first_only: bool = False
    ) -> Tensor:
        """From (tokens, width) to the same, or with `first_only` to (pairs, width)."""
        after, output = self.module.attention.output, self.module.output
        joint = self.joint.product(x)
        sizes = [math.prod(block.shape) for block in pack.blocks]
        *parts, _ = joint.split([*sizes, pack.filling])  # its gradient is one copy
        contexts = [
            self._attended(part, block, drop, first_only)
            for part, block in zip(parts, pack.blocks, strict=True)
        ]
        if first_only:
            x = x[torch.from_numpy(pack.firsts).to(x.device)]
        elif pack.filling:
            contexts.append(joint.new_zeros(pack.filling, x.shape[1], dtype=contexts[0].dtype))
        found = self.out.product(torch.cat(contexts))
        x = x + (drop(found, after.dropout.p) if drop else found)
        x = self.norm.normalised(x, after.LayerNorm.eps)
        found = self.down.product(self.module.intermediate.intermediate_act_fn(self.up.product(x)))
        x = x + (drop(found, output.dropout.p) if drop else found)
        return self.last_norm.normalised(x, output.LayerNorm.eps)

    def _attended(self, x: Tensor, block: Block, drop: Dropout | None, first_only: bool) -> Tensor:
        """Each token's context, (..., width), from query, key and value, (tokens, 3 x width)."""
        own = self.module.attention.self
        x = x.view(*block.shape, 3, own.num_attention_heads, -1)
        query, key, value = x.permute(2, 0, 3, 1, 4)
        query = query[:, :, :1] if first_only else query
        mask = None
        if block.mask is not None:
            mask = torch.from_numpy(block.mask).to(x.device)[:, None, None]
        if drop and (own.dropout.p or block.shape[1] < FUSED_TOKENS):
            # a softmax in bfloat16 would take four times as long
            query, key, value = query.float(), key.float(), value.float()
            scores = (query * own.attention_head_size**-0.5) @ key.transpose(2, 3)
            scores = scores if mask is None else scores + torch.where(mask, 0.0, -torch.inf)
            context = drop(torch.softmax(scores, dim=-1), own.dropout.p) @ value
        else:
            context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return context.transpose(1, 2).flatten(2).flatten(0, 1)


def unsupported(model: nn.Module) -> str:
    """Why the forward pass here is not the model's; empty for a plain BERT with one output."""
    config: Any = getattr(model, "config", None)
    kind = type(model).__name__
    if kind != "BertForSequenceClassification":
        return f"it runs BERT with one output, not {kind}"
    if config.num_labels != 1:
        return f"it runs BERT with one output, not with {config.num_labels}"
    if config.is_decoder or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return "it runs BERT as an encoder with absolute positions"
    if any(type(part) is not nn.Linear for part in model.modules() if isinstance(part, nn.Linear)):
        return "it runs plain products, and this model's are quantized or adapted"
    if len([*model.parameters()]) < len([*model.named_parameters(remove_duplicate=False)]):
        return "it runs layers that share no weights, and some of this model's are shared"
    return ""


class FastBert:
    """A BERT with one output, run on packs of encoded pairs.

    Its weights, as `leaves`, are the model's own where the dtype is the same, and copies else;
    those of products have the `dtype`, float32 or bfloat16. Ids of packs are places in `tokens`, if
    these are not the model's own embeddings.

    Raises:
        ValueError: the model is `unsupported`.
    """

    def __init__(self, model: Any, dtype: torch.dtype, tokens: Tensor | None = None) -> None:
        if reason := unsupported(model):
            raise ValueError(f"{reason}; use 'predict'")
        self.model, self.dtype, exact = model, dtype, torch.float32
        own = self.embeddings = model.bert.embeddings
        words = own.word_embeddings.weight if tokens is None else tokens
        tables = words, own.token_type_embeddings.weight, own.position_embeddings.weight
        self.tables, self.device = [Leaf([table], exact) for table in tables], words.device
        self.norm = Affine([own.LayerNorm], exact)
        self.layers = [Layer(one, dtype) for one in model.bert.encoder.layer]
        self.pooler = Affine([model.bert.pooler.dense], exact)
        self.head = Affine([model.classifier], exact)
        inner = [part for layer in self.layers for part in layer.parts]
        parts = [self.norm, *inner, self.pooler, self.head]
        self.leaves = [*self.tables, *(leaf for one in parts for leaf in (one.weight, one.bias))]
        torch.empty(KEPT_BLOCK, dtype=torch.uint8)  # freed at once, see there

    def logits(self, pack: Pack, drop: Dropout | None = None) -> Tensor:
        """The logits of a pack's pairs, float32 of shape (m,); `drop` is dropout, in training."""
        columns = zip((pack.ids, pack.types, pack.positions), self.tables, strict=True)
        tokens, types, positions = (
            functional.embedding(torch.from_numpy(places).to(table.value.device), table.value)
            for places, table in columns
        )
        x = self.norm.normalised(tokens + types + positions, self.embeddings.LayerNorm.eps)
        x = drop(x, self.embeddings.dropout.p) if drop else x
        for layer in self.layers[:-1]:
            x = layer(x, pack, drop)
        x = torch.tanh(self.pooler.product(self.layers[-1](x, pack, drop, first_only=True)))
        x = drop(x, getattr(self.model.dropout, "p", 0.0)) if drop else x
        return self.head.product(x)[:, 0]

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,), on as many threads as torch may use."""
        scores = np.empty(len(pairs.lengths), dtype=np.float32)

        def score_pack(pack: Pack) -> None:
            with torch.inference_mode():
                scores[pack.rows] = self.logits(pack).cpu().numpy()

        with torch_threads(1 if self.device.type == "cpu" else None) as threads:
            share = round_up(max(MIN_TOKENS, int(pairs.lengths.sum()) // threads))
            size = min(PACK_TOKENS, share)
            if self.device.type != "cpu":
                threads, size = 1, GPU_TOKENS
            in_threads(threads, score_pack, packs(pairs, size, None, MAX_PADDING, rounded=True))
        return scores


def shares(pairs: EncodedPairs, most: int, rounded: bool) -> list[Pack]:
    """A batch cut into at most `most` packs of about as many tokens each.

    `rounded` leaves few different sizes: in bfloat16 torch keeps a kernel of 20 MB for each.
    """
    order = pairs.longest_first()
    lengths = pairs.lengths[order]
    total = int(lengths.sum())
    count = max(1, min(most, len(order), total // MIN_SHARE_TOKENS))
    middles = np.cumsum(lengths) - lengths / 2
    cuts = np.searchsorted(middles, total * np.arange(1, count) / count)
    groups = [rows for rows in np.split(order, cuts) if len(rows)]  # like lengths together
    return [next(packs(pairs, sys.maxsize, rows, BATCH_PADDING, rounded)) for rows in groups]


class BertGradients:
    """Computes a step's gradients into `.grad` of what is `learned`, a list of parameters.

    Its first is `tokens`, the embeddings of `token_ids`, of shape (n, width), in place of the whole
    matrix: the others' gradient is always zero, and AdamW without weight decay does not move them.
    In bfloat16 weights are rounded once a step, and the float32 ones are updated.

    Args:
        model: not `unsupported`, on the CPU.
        token_ids: those that occur in the training pairs, shape (n,).
        dtype: of the products with weights, `torch.float32` or `torch.bfloat16`.
    """

    def __init__(self, model: Any, token_ids: IntArray, dtype: torch.dtype) -> None:
        self.matrix: Tensor = model.bert.embeddings.word_embeddings.weight
        self.token_ids = torch.from_numpy(token_ids)
        self.places = np.zeros(len(self.matrix), dtype=np.int64)
        self.places[token_ids] = np.arange(len(token_ids))
        self.tokens = nn.Parameter(self.matrix.detach()[self.token_ids])
        self.bert = FastBert(model, dtype, self.tokens)
        self.learned = [master for leaf in self.bert.leaves for master in leaf.masters]
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
        """The loss, a scalar, of a batch with labels of shape (n,); sets `.grad` of the learned.

        The same seed of the dropout, with as many threads, gives the same gradients again.
        """
        leaves = self.bert.leaves
        for leaf in leaves:
            leaf.refresh()

        def gradients(number: int, pack: Pack) -> tuple[Tensor, tuple[Tensor, ...]]:
            pack = pack._replace(ids=self.places[pack.ids])
            loss = functional.binary_cross_entropy_with_logits(
                self.bert.logits(pack, Dropout([*seed, number])),
                labels[pack.rows].float(),
                reduction="sum",
            )
            loss = loss / len(labels)
            return loss.detach(), torch.autograd.grad(loss, [leaf.value for leaf in leaves])

        own = shares(pairs, self.threads, rounded=self.bert.dtype == torch.bfloat16)
        several = len(own) > 1  # one alone leaves the threads to torch
        run = self.pool.map if several else map
        with torch_threads(1 if several else None), interrupts_held():
            losses, found = zip(*run(gradients, range(len(own)), own), strict=True)
        for leaf, first, *others in zip(leaves, *found, strict=True):
            total = first.float()
            for gradient in others:
                total += gradient
            for master, part in zip(leaf.masters, total.split(leaf.sizes), strict=True):
                master.grad = part
        return torch.stack(losses).sum()
