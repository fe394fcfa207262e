"""`kernels.cpp`, compiled once on each machine by its own C++ compiler.

Where there is none, or `WORKBENCH_COMPILE=0` says so, `kernels.TorchKernels` does the same.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm

from workbench.files import replacing
from workbench.kernels import FLOAT32, Form, TorchKernels
from workbench.packing import Packed
from workbench.recipes import processor_capabilities

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-Wno-psabi")
LONGEST = 300  # seconds for the compiler
LETTERS = {torch.float32: "f", torch.bfloat16: "b", torch.uint8: "u"}
ATTENDING = ("ff", "fu", "bb", "bu")  # what attention is given, and what it gives
NORMALISING = ("ff", "fb", "fu", "bf", "bb", "bu")  # what is added, and what comes out
WIDEST = 16  # numbers of a vector
POINTER, WHOLE, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class CompiledKernels:
    """Attention and normalisation on a processor; see `kernels.Kernels`."""

    padded = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self.attends: dict[str, Any] = {}
        self.normalises: dict[str, Any] = {}
        for kind in ATTENDING:
            self.attends[kind] = library[f"attend_{kind}"]
            self.attends[kind].argtypes = [*[POINTER] * 4, *[WHOLE] * 3, POINTER, POINTER, REAL]
        for kind in NORMALISING:
            self.normalises[kind] = library[f"normalise_{kind}"]
            self.normalises[kind].argtypes = [
                POINTER, POINTER, WHOLE, WHOLE, POINTER, POINTER, REAL, POINTER, POINTER, REAL
            ]  # fmt: skip
        self.gelus: dict[str, Any] = {}
        for kind in "fb":
            self.gelus[kind] = library[f"gelu_{kind}"]
            self.gelus[kind].argtypes = [POINTER, *[WHOLE] * 3, *[POINTER] * 3, REAL]
        self.mixes = library["mix"]
        self.mixes.argtypes = [*[POINTER] * 4, *[WHOLE] * 3, POINTER]

    def attend(
        self, joint: Tensor, pack: Packed, heads: int, form: Form, place: Tensor | None = None
    ) -> Tensor:
        """See `Kernels`. Tokens of no pair get zeros."""
        tokens, width = sum(pack.sizes), joint.shape[1] // 3
        context = torch.zeros(tokens, width, dtype=form.dtype)
        failed = self.attends[LETTERS[joint.dtype] + LETTERS[form.dtype]](
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
        given, others = (
            torch.empty(tokens, kept, dtype=torch.uint8),
            torch.empty(tokens, width - kept),
        )
        self.gelus[LETTERS[x.dtype]](
            _address(x),
            tokens,
            width,
            kept,
            *map(_address, (given, others, form.factor)),
            form.half,
        )
        return given, others

    def mix(self, asked: Tensor, x: Tensor, pack: Packed) -> Tensor:
        """See `Kernels`."""
        mixed = torch.empty_like(asked)
        failed = self.mixes(
            *map(_address, (asked, x, pack.firsts, pack.lengths)), *asked.shape, _address(mixed)
        )
        _require_memory(failed, pack)
        return mixed

    def normalise(
        self, x: Tensor, more: Tensor | None, norm: LayerNorm, form: Form
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`. `x` itself is normalised."""
        given = x if form == FLOAT32 else torch.empty_like(x, dtype=form.dtype)
        kind = LETTERS[torch.float32 if more is None else more.dtype] + LETTERS[form.dtype]
        self.normalises[kind](
            _address(x), _address(more), *x.shape, _address(norm.weight), _address(norm.bias),
            norm.eps, None if given is x else _address(given), _address(form.factor), form.half,
        )  # fmt: skip
        return x, given


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


@cache
def compiled_library(more_flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The library, compiled if this machine has not done so; None where it cannot be.

    The file is kept in the user's cache folder, `$XDG_CACHE_HOME` or `~/.cache`, by a name that
    says of what, by which command and for which processor it was made. What others could have
    written is not loaded.

    Args:
        more_flags: for the compiler, besides `FLAGS`.
    """
    command = _compiler()
    if not command or os.environ.get("WORKBENCH_COMPILE") == "0":
        return None
    command += [*FLAGS, *more_flags]
    try:
        source = SOURCE.read_text(encoding="utf-8")
        made_of = [source, command, platform.machine(), processor_capabilities()]
        digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        file = _cache_folder() / f"kernels-{digest}.so"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(file.parent):
            return None
        if not file.exists():
            with replacing(file) as temporary:
                subprocess.run(
                    [*command, str(SOURCE), "-o", str(temporary)],
                    check=True, capture_output=True, timeout=LONGEST,
                )  # fmt: skip
        return ctypes.CDLL(str(file)) if _is_ours(file) else None
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def _is_ours(path: Path) -> bool:
    """Whether nobody but this user, and who administers the machine, could have written it."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _compiler() -> list[str]:
    """The command of a C++ compiler: `$CXX`, or what is found under the usual names."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = [path for path in map(shutil.which, named[:1] or COMPILERS) if path]
    return [*found[:1], *named[1:]] if found else []


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "reranker-workbench"
