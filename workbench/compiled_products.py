"""Products with weights by kernels of our own, in 8 bits and in bfloat16."""

from typing import TypeGuard

import torch
from torch import Tensor

from workbench.compiled import WIDEST, CompiledKernels, Panels
from workbench.kernels import Form, Kernels
from workbench.layers import FeedForward, Product


class CompiledProduct(Product):
    """See `Product`.

    Args:
        packed: the weights.
        form: of what is given.
        result: the dtype of what comes out.
        kernels: which have products of this form.
    """

    def __init__(
        self, packed: Panels, form: Form, result: torch.dtype, kernels: CompiledKernels
    ) -> None:
        self.packed, self.form, self.result, self.kernels = packed, form, result, kernels

    def __call__(self, given: Tensor) -> Tensor:
        """See `Product`."""
        return self.kernels.multiply(given, self.packed, self.result)


class CompiledFeedForward(FeedForward):
    """Up, GELU as its sums come out, and down; see `FeedForward`.

    Args:
        up: gives what `down` is given, and then other channels, if there are any.
        down: of the former.
        kernels: which have products of this form.
        wide_down: `panels` of the others' weights.
    """

    up: CompiledProduct
    down: CompiledProduct

    def __init__(
        self,
        up: CompiledProduct,
        down: CompiledProduct,
        kernels: CompiledKernels,
        wide_down: Tensor | None = None,
    ) -> None:
        self.form, self.up, self.down = up.form, up, down
        self.kernels, self.wide_down = kernels, wide_down
        wide = 0 if wide_down is None else wide_down.shape[1]
        self.kept = up.packed.columns - wide

    def __call__(self, given: Tensor) -> Tensor:
        """See `FeedForward`."""
        inner, wide = self.kernels.multiply_gelu(given, self.up.packed, self.kept, self.down.form)
        return self.kernels.multiply(inner, self.down.packed, torch.float32, wide, self.wide_down)


def compiles(
    kernels: Kernels | None, dtype: torch.dtype, *weights: Tensor
) -> TypeGuard[CompiledKernels]:
    """Whether kernels have products in a dtype, with such weights."""
    whole = all(size % WIDEST == 0 for weight in weights for size in weight.shape)
    return isinstance(kernels, CompiledKernels) and dtype in kernels.multiplies and whole
