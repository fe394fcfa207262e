"""A BERT cross-encoder's logits with its products in 8-bit integers (see `rounded`).

What a product is given is rounded to 256 steps between bounds, and cut off beyond them. Three
things keep the error small. Columns with a wide range are narrowed, and the weights they meet
widened by as much (SmoothQuant, Xiao et al. 2023); how much, and how far the bounds lie within what
was met on calibration pairs, is what leaves the product's result nearest to the exact one there.
The `WIDE` widest inner channels of a feed-forward layer are not rounded for its second product (as
in LLM.int8(), Dettmers et al. 2022). Weights are rounded one column after another, each making up
for the error of those before it (GPTQ, Frantar et al. 2023). Embeddings, normalisation, the last
layer's attention, pooler and head stay in float32; attention and the last layer's products with
weights are in bfloat16, where the processor is quick in it.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.encoding import EncodedPairs
from workbench.exported import EXPORTED, ExportedError, exported_file
from workbench.files import display_path, replacing
from workbench.inference import PACK_TOKENS, FastBert, is_supported
from workbench.kernels import STEPS
from workbench.layers import Product, float32_product
from workbench.packing import packs
from workbench.recipes import processor_quick_in_bfloat16
from workbench.rounded import Part, rounded_feed_forward, rounded_product

BACKEND = "torch-int8"
PRODUCTS = ("joint", "out", "up", "down")
NARROWED = (0.6, 0.7, 0.8, 0.9, 1.0)  # powers of a column's range to be moved into the weights
BOUNDS = (1.0, 0.95, 0.9, 0.85, 0.8)  # to be tried, as parts of what was met
TRIED_ON = 2000  # tokens
WIDE = 32  # inner channels of each feed-forward layer that are not rounded
DAMPING = 0.01  # of the mean square of a product's inputs, for a stable inverse
COLUMNS = 64  # of a weight, rounded before those beyond them are told of the errors
NEEDED = "qlinear_pointwise"
MOST = 127  # the largest rounded weight


class Int8Error(ExportedError):
    """A model cannot be rounded or run in 8 bits here; the message says why."""


def require() -> None:
    """Make sure that torch has the kernels.

    Raises:
        Int8Error: it has not.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, NEEDED):
        raise Int8Error("this torch has no products of 8-bit integers for this processor")


def round_model(model: Any, pairs: EncodedPairs) -> dict[str, Tensor]:
    """Everything that `Int8Bert` needs besides the model, by name, to be saved as safetensors.

    Args:
        model: for which `inference.is_supported`.
        pairs: on which the bounds of the inputs are met; some hundreds.
    """
    made: list[_Watched] = []

    def watched(weight: Tensor, bias: Tensor) -> _Watched:
        made.append(_Watched(weight, bias))
        return made[-1]

    exact = FastBert(model, watched)
    with torch.inference_mode():  # not `score`, which computes what is alike once
        for pack in packs(pairs, PACK_TOKENS):
            exact(pack)
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        for place, product in enumerate(made):
            number, kind = divmod(place, len(PRODUCTS))
            found = product.rounded(WIDE if PRODUCTS[kind] == "down" else 0)
            state |= {f"{number}.{PRODUCTS[kind]}.{part}": x for part, x in found.items()}
    return state


class _Watched(Product):
    """A product in float32 that keeps what it is given."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self.inputs: list[Tensor] = []

    def __call__(self, given: Tensor) -> Tensor:
        """See `Product`."""
        self.inputs.append(given.clone())
        return super().__call__(given)

    def rounded(self, wide: int) -> dict[str, Tensor]:
        """See `_rounded`; at most an eighth of the columns is kept as wide ones."""
        most = min(wide, self.weight.shape[1] // 8)
        return _rounded(torch.cat(self.inputs), self.weight, self.bias, most)


def _rounded(inputs: Tensor, weight: Tensor, bias: Tensor, wide: int) -> dict[str, Tensor]:
    """One product: inputs of shape (tokens, k), weight (n, k), bias (n,)."""
    kept = torch.ones_like(weight[0], dtype=torch.bool)
    if wide:
        kept[(inputs.amax(0) - inputs.amin(0)).topk(wide).indices] = False
    inner, inputs = weight[:, kept], inputs[:, kept]
    narrowing, step, zero = _steps(inputs, inner, narrow=not wide)
    whole, scale = _second_order(inner * narrowing, inputs / narrowing)
    return {
        "weight": whole, "scale": scale, "bias": bias.clone(), "step": step.reshape(1),
        "zero": zero.reshape(1), "narrowing": narrowing, "kept": kept.nonzero()[:, 0],
        "wide": (~kept).nonzero()[:, 0], "wide_weight": weight[:, ~kept].clone(),
    }  # fmt: skip


def _steps(inputs: Tensor, weight: Tensor, narrow: bool) -> tuple[Tensor, Tensor, Tensor]:
    """By what to narrow each column, the size of a step, and which step is zero."""
    some = inputs[:: -(-len(inputs) // TRIED_ON)]
    exact, best = some @ weight.T, (torch.inf, inputs, inputs, inputs)
    ranges, met = (each.abs().amax(0).clamp(min=1e-5) for each in (inputs, weight))
    for power in NARROWED if narrow else (None,):
        narrowing = torch.ones_like(ranges) if power is None else ranges**power / met ** (1 - power)
        wider, narrower = weight * narrowing, some / narrowing
        scale = _row_scale(wider)[:, None]
        plain = (wider / scale).round() * scale
        low, high = (inputs / narrowing).aminmax()
        for part in BOUNDS:
            step = (high - low).clamp(min=1e-8) * part / STEPS
            zero = torch.round(-low * part / step)
            given = ((narrower / step).round() + zero).clamp(0, STEPS) - zero
            error = float((given * step @ plain.T - exact).square().mean())
            best = min(best, (error, narrowing, step, zero), key=lambda tried: tried[0])
    return best[1:]


def _row_scale(weight: Tensor) -> Tensor:
    return weight.abs().amax(1).clamp(min=1e-8) / MOST


def _second_order(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in -127 ... 127, int8 of shape (n, k), and the scale of each row, shape (n,)."""
    scale = _row_scale(weight)
    square = (inputs.T @ inputs).double()
    square += torch.eye(len(square)).double() * DAMPING * square.diagonal().mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(square))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    left, found = weight.clone(), torch.empty_like(weight, dtype=torch.int8)
    for start in range(0, weight.shape[1], COLUMNS):
        own = slice(start, start + COLUMNS)  # the columns beyond are told of all errors at once
        block, triangle = left[:, own], upper[own, own]
        errors = torch.zeros_like(block)
        for column in range(block.shape[1]):
            whole = (block[:, column] / scale).round().clamp(-MOST, MOST)
            found[:, start + column] = whole.to(torch.int8)
            error = (block[:, column] - whole * scale) / triangle[column, column]
            block[:, column + 1 :] -= error[:, None] * triangle[column, column + 1 :]
            errors[:, column] = error
        left[:, own.stop :] -= errors @ upper[own, own.stop :]
    return found, scale


class Int8Bert(FastBert):
    """The logits of a BERT cross-encoder for packed pairs, in 8 bits on a CPU.

    Args:
        model: for which `is_supported`; as it was when it was rounded.
        state: of `round_model`.
    """

    def __init__(self, model: Any, state: dict[str, Tensor]) -> None:
        dtype = torch.bfloat16 if processor_quick_in_bfloat16() else torch.float32
        super().__init__(model, float32_product, dtype)
        for number, layer in enumerate(self.layers):
            own = layer.joint, layer.out, layer.fed_forward.up, layer.fed_forward.down
            joint, out, up, down = (
                _part(state, f"{number}.{name}.", product.weight.shape)
                for name, product in zip(PRODUCTS, own, strict=True)
            )
            layer.joint, layer.out = (
                rounded_product(part, dtype, self.kernels) for part in (joint, out)
            )
            layer.fed_forward = rounded_feed_forward(up, down, dtype, self.kernels)


def _part(state: dict[str, Tensor], prefix: str, shape: torch.Size) -> Part:
    """What was found for one product, whose weight is of that shape."""
    part = {name.removeprefix(prefix): value for name, value in state.items()
            if name.startswith(prefix)}  # fmt: skip
    rows, columns = shape
    kept, wide = part["kept"], part["wide"]
    whole = {kept.dtype, wide.dtype} == {torch.int64}
    every = torch.cat([kept, wide]).sort()[0] if prefix.endswith("down.") else kept
    if not whole or not torch.equal(every, torch.arange(columns)):
        raise Int8Error(f"{prefix}kept and {prefix}wide are not its {columns} columns")
    shapes = {"weight": (rows, len(kept)), "scale": (rows,), "bias": (rows,), "step": (1,),
              "zero": (1,), "narrowing": (len(kept),), "wide_weight": (rows, len(wide)),
              }  # fmt: skip
    for name, expected in shapes.items():
        own, dtype = part[name], torch.int8 if name == "weight" else torch.float32
        if own.shape != expected or own.dtype != dtype:
            raise Int8Error(f"{prefix}{name} is {own.dtype} {tuple(own.shape)}, not {expected}")
        if not own.isfinite().all():
            raise Int8Error(f"{prefix}{name} is not all finite")
        if name in ("scale", "step", "narrowing") and own.min() <= 0:
            raise Int8Error(f"{prefix}{name} is not all above 0")
    return part


def write_int8(model: Any, pairs: EncodedPairs, folder: Path) -> Path:
    """Round a model and write the result into its folder.

    Args:
        model: for which `inference.is_supported`.
        pairs: see `round_model`.
        folder: the model's.

    Raises:
        Int8Error: the model is no such BERT, or torch lacks the kernels.
    """
    from safetensors.torch import save_file

    require()
    if not is_supported(model) or model.config.hidden_act != "gelu":
        kind = type(model).__name__
        raise Int8Error(f"8 bits are for a BERT with one output and GELU, which this {kind} is not")
    rounded = round_model(_on_processor(model), pairs)
    state = {name: value.contiguous() for name, value in rounded.items()}
    file = folder / EXPORTED[BACKEND]
    with replacing(file) as temporary:
        save_file(state, str(temporary))
    return file


def open_int8(model: Any, folder: Path | None) -> Int8Bert:
    """The rounded model in a model's folder.

    Raises:
        ExportedError: there is none.
        Int8Error: it was not made of this model.
    """
    from safetensors.torch import load_file

    require()
    file = exported_file(folder, BACKEND)
    try:
        return Int8Bert(_on_processor(model), load_file(file))
    except (KeyError, RuntimeError, SafetensorError, Int8Error) as error:
        raise Int8Error(f"{display_path(file)} is not of this model ({error})") from error


def _on_processor(model: Any) -> Any:
    """The model, or a copy of one that is on a GPU: these kernels are the processor's."""
    return model if model.device.type == "cpu" else copy.deepcopy(model).cpu()
