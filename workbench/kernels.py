"""What a BERT layer does between its products with weights: attention, and normalisation."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import LayerNorm, functional

from workbench.packing import Block, Packed, filled_up

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
        return torch.cat([
            self._mixed(own, x[place], block)
            for own, (block, place) in zip(each, pack.places(), strict=True)
        ])  # fmt: skip

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
