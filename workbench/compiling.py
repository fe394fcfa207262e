"""C++ of our own, compiled once on each machine by its own compiler.

Where there is none, or `WORKBENCH_COMPILE=0` says so, torch's operations do the same.
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

from workbench.files import replacing
from workbench.recipes import processor_capabilities

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / name for name in ("kernels.cpp", "products.cpp")]
HEADERS = [FOLDER / "vectors.h"]
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-Wno-psabi")
LONGEST = 300  # seconds for the compiler
POINTER, WHOLE, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
FUNCTIONS = {  # by what they do: the letters behind the name, and the arguments
    "attend": (("_ff", "_fu", "_bb", "_bu"), [*[POINTER] * 4, *[WHOLE] * 3, *[POINTER] * 2, REAL]),
    "mix": (("",), [*[POINTER] * 4, *[WHOLE] * 3, POINTER]),
    "normalise": (
        ("_ff", "_fb", "_fu", "_bf", "_bb", "_bu"),
        [*[POINTER] * 2, *[WHOLE] * 2, *[POINTER] * 2, REAL, *[POINTER] * 2, REAL],
    ),
    "gelu": (("_f", "_b"), [POINTER, *[WHOLE] * 3, *[POINTER] * 3, REAL]),
    "multiply": (
        ("_uf", "_ub", "_bf", "_bb"), [POINTER, *[WHOLE] * 3, *[POINTER] * 4, WHOLE, *[POINTER] * 2]
    ),
    "multiply_gelu": (
        ("_u", "_b"), [POINTER, *[WHOLE] * 3, *[POINTER] * 3, WHOLE, *[POINTER] * 3, REAL]
    ),
}  # fmt: skip


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
        text = [file.read_text(encoding="utf-8") for file in (*SOURCES, *HEADERS)]
        made_of = [text, command, platform.machine(), processor_capabilities()]
        digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        file = _cache_folder() / f"kernels-{digest}.so"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(file.parent):
            return None
        if not file.exists():
            with replacing(file) as temporary:
                subprocess.run(
                    [*command, *map(str, SOURCES), "-o", str(temporary)],
                    check=True, capture_output=True, timeout=LONGEST,
                )  # fmt: skip
        return _declared(ctypes.CDLL(str(file))) if _is_ours(file) else None
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, which now knows its functions' arguments; not each is for every processor."""
    for name, (endings, arguments) in FUNCTIONS.items():
        for ending in endings:
            if hasattr(library, name + ending):
                getattr(library, name + ending).argtypes = arguments
    return library


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
