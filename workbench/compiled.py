"""What `kernels.cpp` and `products.cpp` do, for torch's tensors."""

import ctypes
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import LayerNorm, functional

from workbench.compiling import compiled_library
from workbench.kernels import FLOAT32, Form, TorchKernels
from workbench.packing import Packed

LETTERS = {torch.float32: "f", torch.bfloat16: "b", torch.uint8: "u"}
WIDEST = 16  # numbers of a vector
PANEL = 64  # columns of weights that lie together


def panels(weight: Tensor) -> Tensor:
    """Weights as `products.cpp` takes them: of shape (panels, units, `PANEL`, numbers of a unit).

    Args:
        weight: int8, bfloat16 or float32 of shape (n, k). A unit is of four bytes; k is whole
            units.
    """
    held = 4 // weight.itemsize
    whole = functional.pad(weight, (0, 0, 0, -len(weight) % PANEL))
    shape = len(whole) // PANEL, PANEL, weight.shape[1] // held, held
    return whole.view(shape).transpose(1, 2).contiguous()


class Panels(NamedTuple):
    """The weights of a product; scale and bias fill the panels, too.

    Attributes:
        columns: of what comes out.
        weight: see `panels`.
        scale: what one of the sums of whole numbers is worth, float32; None for bfloat16.
        bias: to be added, float32.
    """

    columns: int
    weight: Tensor
    scale: Tensor | None
    bias: Tensor

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, scale: Tensor | None = None) -> Self:
        """Of int8 or bfloat16 of shape (n, k), and float32 of shape (n,)."""
        more = 0, -len(weight) % PANEL
        scale = None if scale is None else functional.pad(scale, more)
        return cls(len(weight), panels(weight), scale, functional.pad(bias, more))


class CompiledKernels:
    """What a layer does on a processor; see `kernels.Kernels` for all but products.

    Attributes:
        multiplies: in what this processor's products with weights are ours, too: some of
            `torch.uint8` and `torch.bfloat16`.
    """

    padded = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.multiplies = {
            dtype for dtype in (torch.uint8, torch.bfloat16)
            if hasattr(library, f"multiply_{LETTERS[dtype]}f")
        }  # fmt: skip

    def attend(
        self, joint: Tensor, pack: Packed, heads: int, form: Form, place: Tensor | None = None
    ) -> Tensor:
        """See `Kernels`. Tokens of no pair get zeros."""
        tokens, width = sum(pack.sizes), joint.shape[1] // 3
        context = torch.zeros(tokens, width, dtype=form.dtype)
        failed = self._function("attend", joint.dtype, form.dtype)(
            *map(_address, (joint, place, pack.firsts, pack.lengths)), len(pack.firsts), heads,
            width // heads, *map(_address, (context, form.factor)), form.half,
        )  # fmt: skip
        _require_memory(failed, pack)
        return context

    def gelu(self, x: Tensor, kept: int, form: Form) -> tuple[Tensor, Tensor]:
        """See `Kernels`; by a polynomial, which errs by 2e-4 at most up to 12."""
        tokens, width = x.shape
        if kept % WIDEST or width % WIDEST:
            return TorchKernels().gelu(x, kept, form)
        inner, others = _inner(tokens, width, kept, form)
        self._function("gelu", x.dtype)(
            _address(x), tokens, width, kept, *map(_address, (inner, others, form.factor)),
            form.half,
        )  # fmt: skip
        return inner, others

    def mix(self, asked: Tensor, x: Tensor, pack: Packed) -> Tensor:
        """See `Kernels`."""
        mixed = torch.empty_like(asked)
        failed = self.library.mix(
            *map(_address, (asked, x, pack.firsts, pack.lengths)), *asked.shape, _address(mixed)
        )
        _require_memory(failed, pack)
        return mixed

    def normalise(
        self, x: Tensor, more: Tensor | None, norm: LayerNorm, form: Form
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`. `x` itself is normalised."""
        given = x if form == FLOAT32 else torch.empty_like(x, dtype=form.dtype)
        dtype = torch.float32 if more is None else more.dtype
        self._function("normalise", dtype, form.dtype)(
            _address(x), _address(more), *x.shape, _address(norm.weight), _address(norm.bias),
            norm.eps, None if given is x else _address(given), _address(form.factor), form.half,
        )  # fmt: skip
        return x, given

    def multiply(
        self,
        given: Tensor,
        weights: Panels,
        dtype: torch.dtype,
        wide: Tensor | None = None,
        wide_weight: Tensor | None = None,
    ) -> Tensor:
        """A product with weights, and another one added to it.

        Args:
            given: uint8 or bfloat16 of shape (rows, k).
            weights: of n columns, int8 or bfloat16.
            dtype: of what comes out, `torch.float32` or `torch.bfloat16`.
            wide: for that other product, float32 of shape (rows, w); None for none.
            wide_weight: `panels` of its weights.

        Returns:
            Of shape (rows, n).
        """
        found = torch.empty(len(given), weights.columns, dtype=dtype)
        product, wide_columns = _product(given, weights), 0
        if wide is not None and wide_weight is not None:
            wide_columns = wide_weight.shape[1]
            _require(wide.shape == (len(given), wide_columns), "wide does not fit its weights")
            _require(wide.dtype == wide_weight.dtype == torch.float32, "wide is not float32")
        self._function("multiply", given.dtype, dtype)(
            *product, _address(wide), wide_columns, _address(wide_weight), _address(found)
        )
        return found

    def multiply_gelu(
        self, given: Tensor, weights: Panels, kept: int, form: Form
    ) -> tuple[Tensor, Tensor]:
        """`gelu` of what `multiply` gives, the first part in `form`, which is that of `given`."""
        _require(kept % WIDEST == 0 and form.dtype == given.dtype, "another form, or half a vector")
        _require(form.factor is None or len(form.factor) == kept, "a form of other columns")
        inner, others = _inner(len(given), weights.columns, kept, form)
        self._function("multiply_gelu", given.dtype)(
            *_product(given, weights), kept, *map(_address, (inner, others, form.factor)), form.half
        )
        return inner, others

    def _function(self, name: str, *dtypes: torch.dtype) -> Any:
        return getattr(self.library, f"{name}_{''.join(LETTERS[dtype] for dtype in dtypes)}")


def _inner(rows: int, columns: int, kept: int, form: Form) -> tuple[Tensor, Tensor]:
    return torch.empty(rows, kept, dtype=form.dtype), torch.empty(rows, columns - kept)


def _product(given: Tensor, weights: Panels) -> tuple[Any, ...]:
    units = weights.weight.shape[1]
    if given.shape[1] * given.itemsize != 4 * units or given.itemsize != weights.weight.itemsize:
        raise ValueError(f"weights of {4 * units} bytes for {tuple(given.shape)} {given.dtype}")
    _require(weights.columns % WIDEST == 0, "columns that fill no vectors")
    _require((given.dtype == torch.uint8) == (weights.scale is not None), "a scale is for 8 bits")
    return _address(given), len(given), units, weights.columns, *map(_address, weights[1:])


def _require(sound: bool, otherwise: str) -> None:
    if not sound:
        raise ValueError(otherwise)


def _require_memory(failed: int, pack: Packed) -> None:
    if failed:
        raise MemoryError(f"no memory to attend to pairs of {int(pack.lengths.max())} tokens")


def _address(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError(f"no contiguous tensor in memory: {tensor.shape} on {tensor.device}")
    return tensor.data_ptr()


def compiled_kernels(model: Any) -> CompiledKernels | None:
    """The compiled kernels for a BERT, or None where they cannot be had or are not for this one.

    They are for float32 weights on a processor, and heads of a size that fills its vectors.
    """
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    if model.device.type != "cpu" or model.dtype != torch.float32 or size % WIDEST:
        return None
    library = compiled_library()
    return None if library is None else CompiledKernels(library)
