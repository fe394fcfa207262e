"""A BERT cross-encoder's logits without what training and padding need; in float32 or bfloat16.

The same sums as the library's forward pass, but: pairs are packed into rows of tokens, hardly any
of them padding (see `packing`); query, key and value are one product; and the last layer, of which
only the first position is ever used, computes no other, nor any key or value (see `LastLayer`). In
bfloat16 only the products with weights are: sums along the residual path, normalisation, softmax,
the last layer, pooler and head stay in float32, since the head's logits rounded to bfloat16 would
be ties. Attention's products can be in bfloat16, too, and the last layer's with weights: `int8`
takes them so, which errs more than they do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workbench.encoding import EncodedPairs
from workbench.packing import Block, Packed, filled_up, packs

Linear = Callable[[Tensor], Tensor]
MakeLinear = Callable[[Tensor, Tensor], Linear]

PACK_TOKENS = 960  # worked on together: so few that a layer's activations stay in the cache
FEWEST_TOKENS = 128  # of a pack; with less, its products are no quicker
MOST_KEPT = 2**25 - 2**13  # bytes: the largest block that glibc learns from, less its own notes
GPU_TOKENS = 2**16  # worked on together by a GPU: so many that it is busy


def float32_linear(weight: Tensor, bias: Tensor) -> Linear:
    """`x @ weight.T + bias`."""
    return lambda x: functional.linear(x, weight, bias)


def bfloat16_linear(weight: Tensor, bias: Tensor) -> Linear:
    """The same with weights, input and output rounded to bfloat16."""
    weight, bias = weight.bfloat16(), bias.bfloat16()
    return lambda x: functional.linear(x.bfloat16(), weight, bias)


def is_supported(model: nn.Module) -> bool:
    """Whether the forward pass here is the model's: a plain BERT with one output."""
    config: Any = getattr(model, "config", None)
    return (
        type(model).__name__ == "BertForSequenceClassification"
        and config.num_labels == 1
        and not config.is_decoder
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and all(type(part) is nn.Linear for part in model.modules() if isinstance(part, nn.Linear))
    )


class FastBert:
    """The logits of a BERT cross-encoder for packed pairs.

    Args:
        model: for which `is_supported`. Some of its weights are copied and some shared: after a
            step of training, make this anew.
        linear: makes the products with weights from weight and bias.
        attention: the dtype of its products, and of those with weights in the last layer:
            `torch.float32` or `torch.bfloat16`.
    """

    def __init__(
        self, model: Any, linear: MakeLinear, attention: torch.dtype = torch.float32
    ) -> None:
        bert = model.bert
        self.embeddings, self.pooler, self.head = bert.embeddings, bert.pooler, model.classifier
        self.heads = model.config.num_attention_heads
        self.device = model.device
        *others, last = bert.encoder.layer
        with torch.no_grad():
            self.layers = [Layer(layer, linear, self.heads, attention) for layer in others]
            self.last = LastLayer(last, self.heads, attention)

    def __call__(self, pack: Packed) -> NDArray[np.float32]:
        """The logits of a pack's pairs, float32 of shape (m,)."""
        pack, own = pack.to(self.device), self.embeddings
        x = own.word_embeddings(pack.ids) + own.token_type_embeddings(pack.types)
        x = own.LayerNorm(x + own.position_embeddings(pack.positions))
        for layer in self.layers:
            x = layer(x, pack)
        x = self.last(x, pack)
        return self.head(self.pooler(x[:, None]))[:, 0].float().cpu().numpy()

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,), on as many threads as torch may use."""

        def run(pack: Packed) -> NDArray[np.float32]:
            with torch.inference_mode():
                return self(pack)

        if self.device.type != "cpu":
            return pairs.score(run, packs(pairs, GPU_TOKENS))
        keep_freed_memory()
        with torch_threads(1) as threads:
            share = int(pairs.lengths.sum()) // threads  # few pairs are shared among the threads
            most = min(PACK_TOKENS, max(FEWEST_TOKENS, share))
            return pairs.score(run, packs(pairs, most), threads)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory of up to some ten megabytes at hand.

    It gives a large tensor's memory back to the system at once, and asks for it anew for the next
    one, page by page. glibc's malloc sees from the largest block freed so far that a program does
    so again and again, up to 32 MiB; other libraries are not impressed.
    """
    torch.empty(MOST_KEPT, dtype=torch.uint8)


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Within the block an operation uses so many threads; None for as many as before.

    Yields how many those were.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class Layer:
    """A layer of the encoder; its products with weights can be replaced one by one.

    Attributes:
        joint: gives query, key and value, one beside the other.
        attended: what attention gives, and what it was given, to their sum behind the product.
        fed_forward: what the feed-forward part is given, to the sum of it and what comes out.
    """

    def __init__(self, layer: Any, linear: MakeLinear, heads: int, dtype: torch.dtype) -> None:
        own, after, output = layer.attention.self, layer.attention.output, layer.output
        self.heads, self.dtype = heads, dtype
        scale = own.attention_head_size**-0.5
        parts = [own.query.weight * scale, own.key.weight, own.value.weight]
        biases = [own.query.bias * scale, own.key.bias, own.value.bias]
        self.joint = linear(torch.cat(parts), torch.cat(biases))
        dense = after.dense, layer.intermediate.dense, output.dense
        out, up, down = (linear(part.weight.detach(), part.bias) for part in dense)
        activation = layer.intermediate.intermediate_act_fn
        self.norm, self.last_norm = after.LayerNorm, output.LayerNorm
        self.attended: Callable[[Tensor, Tensor], Tensor] = lambda context, x: x + out(context)
        self.fed_forward: Linear = lambda x: x + down(activation(up(x)))

    def __call__(self, x: Tensor, pack: Packed) -> Tensor:
        """From (tokens, width) to the same."""
        context, joint = x.new_zeros(x.shape), self.joint(x)
        for block, place in pack.places():
            self._attend(joint[place], context[place], block)
        x = self.norm(self.attended(context, x))
        return self.last_norm(self.fed_forward(x))

    def _attend(self, joint: Tensor, context: Tensor, block: Block) -> None:
        """From query, key and value, (tokens, 3 x width), to what each token takes from the others.

        Into `context`. In bfloat16 a block is padded to one of few shapes.
        """
        rows, length = block.rows, block.length
        own = joint.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.dtype == torch.float32:
            given = own.to(torch.float32, memory_format=torch.contiguous_format)
        else:
            shape = 3, filled_up(rows, 4), self.heads, -(-length // 8) * 8, own.shape[-1]
            given = own.new_empty(shape, dtype=self.dtype)
            given[:, :rows, :, :length] = own
            given[:, :, :, length:] = 0
        # one copy: products of many matrices would copy each for itself
        query, key, value = given.flatten(1, 2)
        scores = torch.bmm(query, key.transpose(1, 2)).float()
        if block.hidden is not None:
            scores.unflatten(0, (-1, self.heads))[:rows, ..., :length].add_(block.hidden)
        scores[..., length:] = -torch.inf
        found = torch.bmm(torch.softmax(scores, dim=-1).to(self.dtype), value)
        found = found.unflatten(0, (-1, self.heads))[:rows, :, :length].transpose(1, 2)
        context.view(found.shape).copy_(found)


class LastLayer:
    """The last layer, for the first position alone; no key and no value is computed.

    A query times the key of a token is the query, times the keys' weights, times the token: the
    weights are met once a pair, not once a token. So are the values': attention first mixes the
    tokens. The keys' bias adds the same to all scores of a query, and softmax takes it away.
    """

    def __init__(self, layer: Any, heads: int, dtype: torch.dtype) -> None:
        own, after, output = layer.attention.self, layer.attention.output, layer.output
        self.heads, self.scale = heads, own.attention_head_size**-0.5
        self.activation = layer.intermediate.intermediate_act_fn
        self.key = own.key.weight.detach().unflatten(0, (heads, -1))
        self.value = own.value.weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)
        self.value_bias = own.value.bias
        linear = float32_linear if dtype == torch.float32 else bfloat16_linear
        dense = own.query, after.dense, layer.intermediate.dense, output.dense
        self.query, self.out, self.up, self.down = (
            linear(part.weight.detach(), part.bias) for part in dense
        )
        self.norm, self.last_norm = after.LayerNorm, output.LayerNorm

    def __call__(self, x: Tensor, pack: Packed) -> Tensor:
        """From (tokens, width) to (pairs, width)."""
        count = len(pack.firsts)
        more = filled_up(count, 4) - count  # rows of no pair, so that few numbers of them occur
        first = x[functional.pad(pack.firsts, (0, more))]
        query = (self.query(first).float() * self.scale).unflatten(1, (self.heads, -1))
        asked = torch.bmm(query.transpose(0, 1), self.key).transpose(0, 1)[:count]
        each = asked.split([block.rows for block in pack.blocks])
        mixed = torch.cat([
            self._mixed(part, x[place], block)
            for part, (block, place) in zip(each, pack.places(), strict=True)
        ])  # fmt: skip
        context = torch.bmm(mixed.transpose(0, 1), self.value).transpose(0, 1).flatten(1)
        context = functional.pad(context + self.value_bias, (0, 0, 0, more))
        x = self.norm(first + self.out(context))
        return self.last_norm(x + self.down(self.activation(self.up(x))))[:count]

    def _mixed(self, asked: Tensor, x: Tensor, block: Block) -> Tensor:
        """The tokens that each head attends to, as one: (rows, heads, width)."""
        tokens = x.view(block.rows, block.length, -1)
        scores = torch.bmm(asked, tokens.transpose(1, 2))
        if block.hidden is not None:
            scores += block.hidden[:, 0]
        return torch.bmm(torch.softmax(scores, dim=-1), tokens)
