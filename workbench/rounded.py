"""Products of 8-bit integers, by kernels of our own or by oneDNN's in torch."""

from typing import Any, TypeGuard

import torch
from torch import Tensor

from workbench.compiled import WIDEST, CompiledKernels, Panels, panels
from workbench.kernels import Form, Kernels
from workbench.layers import FeedForward, Product

Part = dict[str, Tensor]  # what `int8.round_model` found for a product


class RoundedProduct(Product):
    """A product of 8-bit integers, by oneDNN; see `Product`.

    Args:
        part: of the weights.
        result: the dtype of the output.
        rows: which of its outputs, int64 of shape (n,); None for all.
    """

    def __init__(self, part: Part, result: torch.dtype, rows: Tensor | None = None) -> None:
        self.result = result
        rows = torch.arange(len(part["bias"])) if rows is None else rows
        self.step, self.zero = float(part["step"]), int(part["zero"])
        self.form = Form(torch.uint8, 1 / (part["narrowing"] * self.step), self.zero + 0.5)
        self._take(*(part[name][rows].contiguous() for name in ("weight", "scale", "bias")))

    def _take(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        self.packed: Any = torch.ops.onednn.qlinear_prepack(weight, None)
        self.scale, self.bias = scale, bias
        self.weight_zeros = torch.zeros(len(bias), dtype=torch.int64)

    def __call__(self, given: Tensor) -> Tensor:
        """See `Product`."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            given, self.step, self.zero, self.packed, self.scale, self.weight_zeros, self.bias,
            1.0, 0, self.result, "none", [], "",
        )  # fmt: skip
        return product


class CompiledProduct(RoundedProduct):
    """The same by our own kernels."""

    def __init__(
        self, part: Part, result: torch.dtype, kernels: CompiledKernels, rows: Tensor | None = None
    ) -> None:
        self.kernels = kernels
        super().__init__(part, result, rows)

    def _take(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        scale = scale * self.step
        bias = bias - self.zero * weight.sum(1) * scale  # the step of zero is met by each weight
        self.packed = Panels.of(weight, scale, bias)

    def __call__(self, given: Tensor) -> Tensor:
        """See `Product`."""
        return self.kernels.multiply(given, self.packed, self.result)


class RoundedFeedForward(FeedForward):
    """Up, GELU and down; what lies between is rounded, but for the widest channels.

    Args:
        up, down: of the products.
        result: the dtype of what is given to GELU, where that is not done at once.
        kernels: which do the GELU.
    """

    def __init__(self, up: Part, down: Part, result: torch.dtype, kernels: Kernels) -> None:
        self.kernels, self.kept = kernels, len(down["kept"])
        self._take(up, down, torch.cat([down["kept"], down["wide"]]), result)

    def _take(self, up: Part, down: Part, order: Tensor, result: torch.dtype) -> None:
        self.up, self.down = RoundedProduct(up, result, order), RoundedProduct(down, torch.float32)
        self.form, self.wide_down = self.up.form, down["wide_weight"].T.contiguous()

    def __call__(self, given: Tensor) -> Tensor:
        """See `FeedForward`."""
        inner, wide = self.kernels.gelu(self.up(given), self.kept, self.down.form)
        return self.down(inner).addmm_(wide, self.wide_down)


class CompiledFeedForward(RoundedFeedForward):
    """The same by our own kernels: GELU as sums come out, and the widest channels added to them."""

    kernels: CompiledKernels
    up: CompiledProduct
    down: CompiledProduct

    def _take(self, up: Part, down: Part, order: Tensor, result: torch.dtype) -> None:
        self.up = CompiledProduct(up, result, self.kernels, order)
        self.down = CompiledProduct(down, torch.float32, self.kernels)
        self.form, self.wide_down = self.up.form, panels(down["wide_weight"])

    def __call__(self, given: Tensor) -> Tensor:
        """See `FeedForward`."""
        inner, wide = self.kernels.multiply_gelu(given, self.up.packed, self.kept, self.down.form)
        return self.kernels.multiply(
            inner, self.down.packed, self.down.result, wide, self.wide_down
        )


def rounded_product(part: Part, result: torch.dtype, kernels: Kernels) -> RoundedProduct:
    """By our own kernels where they are for it; see `RoundedProduct`."""
    if _compiled(kernels, part):
        return CompiledProduct(part, result, kernels)
    return RoundedProduct(part, result)


def rounded_feed_forward(
    up: Part, down: Part, result: torch.dtype, kernels: Kernels
) -> RoundedFeedForward:
    """By our own kernels where they are for it; see `RoundedFeedForward`."""
    kind = CompiledFeedForward if _compiled(kernels, up, down) else RoundedFeedForward
    return kind(up, down, result, kernels)


def _compiled(kernels: Kernels, *parts: Part) -> TypeGuard[CompiledKernels]:
    sizes = (size for part in parts for size in part["weight"].shape)
    multiplies = isinstance(kernels, CompiledKernels) and kernels.multiplies
    return multiplies and not any(size % WIDEST for size in sizes)
