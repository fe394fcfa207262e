"""The layers of a BERT encoder for packed pairs, made of products that can be replaced."""

from collections.abc import Callable, Sized
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import LayerNorm, functional

from workbench.engine.packing import (
    Block,
    EncodedPairs,
    Packed,
    Tokens,
    distinct_tokens,
    filled_up,
    packs,
)
from workbench.machine import in_threads, torch_threads

STEPS = 255  # of a number rounded to 8 bits


class Form(NamedTuple):
    """What a product with weights is given.

    Attributes:
        dtype: `torch.float32`, `torch.bfloat16`, or `torch.uint8` for numbers rounded to steps.
        factor: steps to one of each column, float32 of shape (width,).
        half: the step of zero, and a half.
    """

    dtype: torch.dtype
    factor: Tensor | None = None
    half: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """`x` in this form; to steps by way of int16: torch takes five times as long without."""
        if self.factor is None:
            return x.to(self.dtype)
        whole = torch.addcmul(torch.tensor(self.half), x, self.factor).clamp_(0, STEPS)
        return whole.to(torch.int16).to(self.dtype)


FLOAT32, BFLOAT16 = Form(torch.float32), Form(torch.bfloat16)


class Kernels(Protocol):
    """They may overwrite what they are given.

    Attributes:
        padded: whether pairs of nearly one length should be padded to it.
    """

    padded: bool

    def attend(
        self, joint: Tensor, pack: Packed, heads: int, form: Form, place: Tensor | None = None
    ) -> Tensor:
        """What each token takes from the others of its pair.

        Args:
            joint: query, key and value of each token, one beside the other, float32 or bfloat16 of
                shape (rows, 3 x width); the queries are scaled already.
            pack: of these tokens.
            heads: of the layer.
            form: of what is returned, of shape (tokens, width).
            place: the row of each token, int64 of shape (tokens,); None where they stand in order.
        """
        ...

    def gelu(self, x: Tensor, kept: int, form: Form) -> tuple[Tensor, Tensor]:
        """GELU of `x`, float32 or bfloat16 of shape (tokens, width).

        Returns:
            The first `kept` columns as uint8 in `form`, and the others as float32.
        """
        ...

    def mix(self, asked: Tensor, x: Tensor, pack: Packed) -> Tensor:
        """A pair's tokens as one, for each head of the first token: those which it attends to.

        Args:
            asked: what each head asks the tokens for, float32 of shape (pairs, heads, width).
            x: the tokens, float32 of shape (tokens, width).
            pack: of these tokens.

        Returns:
            Float32 of shape (pairs, heads, width).
        """
        ...

    def normalise(
        self, x: Tensor, more: Tensor | None, norm: LayerNorm, form: Form
    ) -> tuple[Tensor, Tensor]:
        """Layer normalisation of a sum.

        Args:
            x: float32 of shape (tokens, width).
            more: what is added to it, float32 or bfloat16 of the same shape; None for nothing.
            norm: its weights.
            form: see below.

        Returns:
            The result as float32, and in `form`; these may be one tensor.
        """
        ...


class TorchKernels:
    """By torch's operations, on any device.

    Args:
        dtype: of attention's products, `torch.float32` or `torch.bfloat16`.
    """

    padded = True

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def attend(
        self, joint: Tensor, pack: Packed, heads: int, form: Form, place: Tensor | None = None
    ) -> Tensor:
        """See `Kernels`. Tokens of no pair get zeros."""
        joint = joint if place is None else joint.index_select(0, place)
        context = joint.new_zeros(len(joint), joint.shape[1] // 3, dtype=torch.float32)
        for block, own in pack.places():
            found = self._attended(joint[own], block, heads)
            context[own].view(found.shape).copy_(found)
        return form(context)

    def _attended(self, joint: Tensor, block: Block, heads: int) -> Tensor:
        """Of shape (rows, length, heads, size). In bfloat16 a block is padded to few shapes."""
        rows, length = block.rows, block.length
        own = joint.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        padded = self.dtype == torch.bfloat16
        if padded:
            shape = 3, filled_up(rows, 4), heads, -(-length // 8) * 8, own.shape[-1]
            given = own.new_empty(shape, dtype=self.dtype)
            given[:, :rows, :, :length] = own
            given[:, :, :, length:] = 0
        else:
            given = own.to(self.dtype, memory_format=torch.contiguous_format)
        # one copy: products of many matrices would copy each for itself
        query, key, value = given.flatten(1, 2)
        scores = torch.bmm(query, key.transpose(1, 2)).float()
        if block.hidden is not None:
            scores.unflatten(0, (-1, heads))[:rows, ..., :length].add_(block.hidden)
        if padded:
            scores[..., length:] = -torch.inf
        found = torch.bmm(torch.softmax(scores, dim=-1).to(self.dtype), value)
        return found.unflatten(0, (-1, heads))[:rows, :, :length].transpose(1, 2)

    def gelu(self, x: Tensor, kept: int, form: Form) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        found = functional.gelu(x.float())
        return form(found[:, :kept]), found[:, kept:]

    def mix(self, asked: Tensor, x: Tensor, pack: Packed) -> Tensor:
        """See `Kernels`."""
        each = asked.split([block.rows for block in pack.blocks])
        return torch.cat(
            [
                self._mixed(own, x[place], block)
                for own, (block, place) in zip(each, pack.places(), strict=True)
            ]
        )

    def _mixed(self, asked: Tensor, x: Tensor, block: Block) -> Tensor:
        tokens = x.view(block.rows, block.length, -1)
        scores = torch.bmm(asked, tokens.transpose(1, 2))
        if block.hidden is not None:
            scores += block.hidden[:, 0]
        return torch.bmm(torch.softmax(scores, dim=-1), tokens)

    def normalise(
        self, x: Tensor, more: Tensor | None, norm: LayerNorm, form: Form
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        x = x if more is None else x.add_(more)
        x = functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return x, form(x)


class Product:
    """A product with weights: `given @ weight.T + bias`.

    Args:
        weight, bias: of shapes (n, k) and (n,).
        dtype: of weights, input and output.

    Attributes:
        form: that of the input.
        result: the dtype of the output.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.form, self.result = Form(dtype), dtype
        self.weight, self.bias = weight.detach().to(dtype), bias.detach().to(dtype)

    def __call__(self, given: Tensor) -> Tensor:
        """From (..., k) in `form` to (..., n)."""
        return functional.linear(given, self.weight, self.bias)


MakeProduct = Callable[[Tensor, Tensor], Product]


float32_product: MakeProduct = Product


bfloat16_product: MakeProduct = partial(Product, dtype=torch.bfloat16)


class Layer:
    """A layer of the encoder; its products with weights can be replaced one by one.

    Attributes:
        joint: gives query, key and value, one beside the other.
        out: is given what attention gives.
        fed_forward: is given the normalised sum.
    """

    def __init__(self, layer: Any, product: MakeProduct, heads: int, kernels: Kernels) -> None:
        own, after, output = layer.attention.self, layer.attention.output, layer.output
        self.heads, self.kernels = heads, kernels
        scale = own.attention_head_size**-0.5
        parts = [own.query.weight * scale, own.key.weight, own.value.weight]
        biases = [own.query.bias * scale, own.key.bias, own.value.bias]
        self.joint = product(torch.cat(parts), torch.cat(biases))
        dense = after.dense, layer.intermediate.dense, output.dense
        self.out, up, down = (product(part.weight, part.bias) for part in dense)
        self.fed_forward = FeedForward(up, down, layer.intermediate.intermediate_act_fn)
        self.norm, self.last_norm = after.LayerNorm, output.LayerNorm

    def __call__(
        self,
        x: Tensor,
        joint: Tensor,
        pack: Packed,
        following: Form,
        place: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A layer's output, float32 of shape (tokens, width), and the same in the form `following`.

        Args:
            x: its input, float32 of shape (tokens, width); it is overwritten.
            joint: what `self.joint` gives for that.
            pack: of the tokens.
            following: the form in which the next layer takes it.
            place: where each token's row in `joint` is; None where they stand in order.
        """
        context = self.kernels.attend(joint, pack, self.heads, self.out.form, place)
        x, given = self.kernels.normalise(x, self.out(context), self.norm, self.fed_forward.form)
        return self.kernels.normalise(x, self.fed_forward(given), self.last_norm, following)


class FeedForward:
    """Two products and what lies between; attribute and method as of `Product`."""

    def __init__(self, up: Product, down: Product, activation: Callable[[Tensor], Tensor]) -> None:
        self.form, self.up, self.down, self.activation = up.form, up, down, activation

    def __call__(self, given: Tensor) -> Tensor:
        """From (tokens, width) in `form` to the same shape."""
        return self.down(self.activation(self.up(given)))


class LastLayer:
    """The last layer, for the first position alone; no key and no value is computed.

    A query times the key of a token is the query, times the keys' weights, times the token: the
    weights are met once a pair, not once a token. So are the values': attention first mixes the
    tokens. The keys' bias adds the same to all scores of a query, and softmax takes it away.
    """

    def __init__(self, layer: Any, heads: int, kernels: Kernels, dtype: torch.dtype) -> None:
        own, after, output = layer.attention.self, layer.attention.output, layer.output
        self.heads, self.kernels, self.scale = heads, kernels, own.attention_head_size**-0.5
        self.key = own.key.weight.detach().unflatten(0, (heads, -1))
        self.value = own.value.weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)
        self.value_bias = own.value.bias
        dense = own.query, after.dense, layer.intermediate.dense, output.dense
        self.query, self.out, up, down = (Product(part.weight, part.bias, dtype) for part in dense)
        self.fed_forward = FeedForward(up, down, layer.intermediate.intermediate_act_fn)
        self.norm, self.last_norm = after.LayerNorm, output.LayerNorm

    def attend(self, x: Tensor, pack: Packed) -> tuple[Tensor, Tensor]:
        """From (tokens, width) each pair's first token and its context, both (pairs, width)."""
        first, form = x[pack.firsts], self.query.form
        asking = self.query(form(_few(first, form.dtype))).float() * self.scale
        asking = asking[: len(first)].unflatten(1, (self.heads, -1)).transpose(0, 1)
        asked = torch.bmm(asking, self.key).transpose(0, 1)
        mixed = self.kernels.mix(asked.contiguous(), x, pack)
        context = torch.bmm(mixed.transpose(0, 1), self.value).transpose(0, 1).flatten(1)
        return first, context.add_(self.value_bias)

    def __call__(self, first: Tensor, context: Tensor) -> Tensor:
        """What `attend` gives, for any number of pairs, to the layer's output, (pairs, width)."""
        form = self.query.form
        x = self.norm(_few(first, form.dtype) + self.out(form(_few(context, form.dtype))))
        return self.last_norm(x + self.fed_forward(form(x)))[: len(first)]


def _few(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x`, and in bfloat16 some rows of zeros, so that few different numbers of rows occur."""
    more = filled_up(len(x), 4) - len(x) if dtype == torch.bfloat16 else 0
    return functional.pad(x, (0, 0, 0, more))


PACK_TOKENS = 1920  # worked on together: so many that calls cost little, and in the cache still


FEWEST_TOKENS = 128  # for a thread; with less, its products are no quicker


MOST_KEPT = 2**25 - 2**13  # bytes: the largest block that glibc learns from, less its own notes


TOGETHER_BYTES = 2**28  # of what is computed once for some packs' tokens, if no two are alike


GPU_TOKENS = 2**16  # worked on together by a GPU: so many that it is busy


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
        product: makes the products with weights from weight and bias.
        small: the dtype of products with weights in the last layer, and of attention's where
            torch computes it: `torch.float32` or `torch.bfloat16`.
    """

    def __init__(
        self, model: Any, product: MakeProduct, small: torch.dtype = torch.float32
    ) -> None:
        bert = model.bert
        self.embeddings, self.pooler, self.head = bert.embeddings, bert.pooler, model.classifier
        self.device, self.width = model.device, model.config.hidden_size
        self.kernels: Kernels = TorchKernels(small)
        *others, last = bert.encoder.layer
        heads = model.config.num_attention_heads
        self.layers = [Layer(layer, product, heads, self.kernels) for layer in others]
        self.last = LastLayer(last, heads, self.kernels, small)

    def __call__(self, pack: Packed) -> NDArray[np.float32]:
        """The logits of a pack's pairs, float32 of shape (m,)."""
        pack = pack.to(self.device)
        return self._logits(*self._attended(*self._begun(pack.tokens), pack))

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,), on as many threads as torch may use."""
        scores = np.empty(len(pairs.lengths), dtype=np.float32)
        if self.device.type != "cpu":
            for pack in packs(pairs, GPU_TOKENS):
                with torch.inference_mode():
                    scores[pack.rows] = self(pack)
            return scores

        def score_share(rows: NDArray[np.int64], interrupts: Sized) -> None:
            most = min(PACK_TOKENS, filled_up(int(pairs.lengths[rows].sum())))
            with torch.inference_mode():
                group = list(packs(pairs, most, self.kernels.padded, rows))
                found = self._together(group, interrupts)
            if not interrupts:
                scores[np.concatenate([pack.rows for pack in group])] = found

        keep_freed_memory()
        with torch_threads(1) as threads:
            for some in self._worked_on_together(pairs):
                enough = int(pairs.lengths[some].sum()) // FEWEST_TOKENS
                shares = max(1, min(threads, len(some), enough))
                in_threads(threads, score_share, [some[first::shares] for first in range(shares)])
        return scores

    def _worked_on_together(self, pairs: EncodedPairs) -> list[NDArray[np.int64]]:
        """Which pairs, the longest first: about as many tokens each time as memory is meant for."""
        order = np.argsort(-pairs.lengths, kind="stable")
        tokens = np.cumsum(pairs.lengths[order])
        if not len(order):
            return []
        times = min(len(order), -(-int(tokens[-1]) * 16 * self.width // TOGETHER_BYTES))
        ends = np.searchsorted(tokens, tokens[-1] * np.arange(1, times) / times)
        return [some for some in np.split(order, ends) if len(some)]

    def _together(self, group: list[Packed], interrupts: Sized = ()) -> NDArray[np.float32]:
        """The logits of the pairs of some packs, in their order; none once there are interrupts.

        What comes before the first attention depends on a token, its type and its position alone:
        it is computed once for each that occurs. What comes after the last is computed for all
        pairs at once, which are too few in a pack.
        """
        tokens, places = distinct_tokens(group)
        size = min(PACK_TOKENS, filled_up(len(tokens.ids)))
        tokens = tokens.filled(-(-len(tokens.ids) // size) * size)
        x = torch.empty(len(tokens.ids), self.width)
        joint = x  # where no layer is before the last one, it is of no use
        if self.layers:
            joint = torch.empty(len(x), 3 * self.width, dtype=self.layers[0].joint.result)
        for part in _parts(len(tokens.ids), size):
            x[part], joint[part] = self._begun(tokens.part(part))
        ends = []
        for pack, place in zip(group, places, strict=True):
            if interrupts:
                return np.empty(0, dtype=np.float32)
            ends.append(self._attended(x.index_select(0, place), joint, pack, place))
        first, context = map(torch.cat, zip(*ends, strict=True))
        parts = _parts(len(first), PACK_TOKENS)
        return np.concatenate([self._logits(first[part], context[part]) for part in parts])

    def _begun(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The first layer's input, (tokens, width), and its queries, keys and values of that."""
        own = self.embeddings
        x = own.word_embeddings(tokens.ids) + own.token_type_embeddings(tokens.types)
        x += own.position_embeddings(tokens.positions)
        form = self.layers[0].joint.form if self.layers else FLOAT32
        x, given = self.kernels.normalise(x, None, own.LayerNorm, form)
        return x, self.layers[0].joint(given) if self.layers else given

    def _attended(
        self, x: Tensor, joint: Tensor, pack: Packed, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the last layer takes from the tokens of a pack, see `LastLayer.attend`.

        Args:
            x: of `_begun`; it is overwritten.
            joint: of `_begun`.
            pack: of the tokens.
            place: where each token's row in `joint` is; None where they stand in order.
        """
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=False):
            form = following.joint.form if following else FLOAT32
            x, given = layer(x, joint, pack, form, place)
            if following:
                joint, place = following.joint(given), None
        return self.last.attend(x, pack)

    def _logits(self, first: Tensor, context: Tensor) -> NDArray[np.float32]:
        pooled = self.pooler(self.last(first, context)[:, None])
        return self.head(pooled)[:, 0].float().cpu().numpy()


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def keep_freed_memory() -> None:
    """Let the C library keep freed memory of up to some ten megabytes at hand.

    It gives a large tensor's memory back to the system at once, and asks for it anew for the next
    one, page by page. glibc's malloc sees from the largest block freed so far that a program does
    so again and again, up to 32 MiB; other libraries are not impressed.
    """
    torch.empty(MOST_KEPT, dtype=torch.uint8)
