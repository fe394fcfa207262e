"""The layers of a BERT encoder for packed pairs, made of products that can be replaced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from workbench.kernels import Form, Kernels
from workbench.packing import Packed, filled_up


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
