"""Products of 8-bit integers, by kernels of our own or by oneDNN's in torch."""

import torch
from torch import Tensor

from workbench.compiled import CompiledKernels, Panels, panels
from workbench.compiled_products import CompiledFeedForward, CompiledProduct, compiles
from workbench.kernels import Form, Kernels
from workbench.layers import FeedForward, Product

Part = dict[str, Tensor]  # what `int8.round_model` found for a product


class RoundedProduct(Product):
    """A product of 8-bit integers, by oneDNN; see `Product`.

    Args:
        part: of the weights.
        result: the dtype of the output.
    """

    def __init__(self, part: Part, result: torch.dtype) -> None:
        self.form, self.result = rounding(part), result
        self.step, self.zero = float(part["step"]), int(part["zero"])
        self.packed = torch.ops.onednn.qlinear_prepack(part["weight"], None)
        self.scale, self.bias = part["scale"], part["bias"]
        self.weight_zeros = torch.zeros(len(self.bias), dtype=torch.int64)

    def __call__(self, given: Tensor) -> Tensor:
        """See `Product`."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            given, self.step, self.zero, self.packed, self.scale, self.weight_zeros, self.bias,
            1.0, 0, self.result, "none", [], "",
        )  # fmt: skip
        return product


class RoundedFeedForward(FeedForward):
    """Up, GELU and down; what lies between is rounded, but for the widest channels.

    Args:
        up: gives the channels that are rounded, and then the others.
        down: of those that are rounded.
        kernels: which do the GELU.
        wide_down: the weights of the others, float32 of shape (others, width).
    """

    def __init__(
        self, up: RoundedProduct, down: RoundedProduct, kernels: Kernels, wide_down: Tensor
    ) -> None:
        self.form, self.up, self.down, self.wide_down = up.form, up, down, wide_down
        self.kernels, self.kept = kernels, len(up.bias) - len(wide_down)

    def __call__(self, given: Tensor) -> Tensor:
        """See `FeedForward`."""
        inner, wide = self.kernels.gelu(self.up(given), self.kept, self.down.form)
        return self.down(inner).addmm_(wide, self.wide_down)


def rounding(part: Part) -> Form:
    """The form of what a product is given."""
    step = float(part["step"])
    return Form(torch.uint8, 1 / (part["narrowing"] * step), int(part["zero"]) + 0.5)


def rounded_product(part: Part, result: torch.dtype, kernels: Kernels) -> Product:
    """By our own kernels where they are for it; see `RoundedProduct`."""
    if compiles(kernels, torch.uint8, part["weight"]):
        return _compiled(part, result, kernels)
    return RoundedProduct(part, result)


def rounded_feed_forward(
    up: Part, down: Part, result: torch.dtype, kernels: Kernels
) -> FeedForward:
    """By our own kernels where they are for it; see `RoundedFeedForward`.

    Where GELU is not done at once, it is given `result`.
    """
    order = torch.cat([down["kept"], down["wide"]])
    up = up | {name: up[name][order].contiguous() for name in ("weight", "scale", "bias")}
    if compiles(kernels, torch.uint8, up["weight"], down["weight"]):
        made = _compiled(up, result, kernels), _compiled(down, torch.float32, kernels)
        return CompiledFeedForward(*made, kernels, panels(down["wide_weight"]))
    products = RoundedProduct(up, result), RoundedProduct(down, torch.float32)
    return RoundedFeedForward(*products, kernels, down["wide_weight"].T.contiguous())


def _compiled(part: Part, result: torch.dtype, kernels: CompiledKernels) -> CompiledProduct:
    scale = part["scale"] * part["step"]
    met = part["zero"] * part["weight"].sum(1) * scale  # by the step of zero, in each weight
    packed = Panels.of(part["weight"], part["bias"] - met, scale)
    return CompiledProduct(packed, rounding(part), result, kernels)
