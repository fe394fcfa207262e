"""Where files are, and writes that leave either the old file or the new one, never half of one."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from inspect import getmembers, isfunction
from pathlib import Path
from typing import Any

SCRATCH = "wb-"  # the names of private folders begin so
SCRATCH_SECONDS = 60.0  # after which such a folder is locked, or nobody's


class RequestError(ValueError):
    """The request cannot be carried out as it stands; nothing was started."""


class FailedError(RuntimeError):
    """The work failed, or was cut short; the message says what is left of it."""


class DamagedError(ValueError):
    """A file does not hold what the workbench writes into it; the message says where."""


def refuse(problems: Iterable[str]) -> None:
    """Raise the problems, a line each, as a `RequestError`, if there are any."""
    if text := "\n".join(problems):
        raise RequestError(text)


def lazy_names(
    package: str, **modules: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose names are imported on first use.

    `modules` gives the public names of each module, separated by spaces; `*` stands for all its
    public functions, and a module without any name is itself public.
    """

    @cache
    def homes() -> dict[str, str]:
        found: dict[str, str] = {}
        for module, names in modules.items():
            public = names.split() or [module.split(".")[-1]]
            if names == "*":
                functions = getmembers(import_module(f"{package}.{module}"), isfunction)
                here = [n for n, one in functions if one.__module__ == f"{package}.{module}"]
                public = [name for name in here if not name.startswith("_")]
            found |= dict.fromkeys(public, module)
        return found

    def find(name: str) -> Any:
        # a module of functions is found by the import itself, which may be on its way here from it
        if name.startswith("__") or modules.get(name) == "*" or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{homes()[name]}")
        return getattr(module, name) if modules[homes()[name]] else module

    return find, lambda: sorted(homes())


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise RequestError("the working directory was removed: change to another one") from None


def project_root() -> Path:
    """The folder that holds `notebooks/`, where relative paths in parameters start.

    For a package outside the source tree it is looked for from the working directory upwards.
    """
    candidates = [Path(__file__).resolve().parent.parent, here := _working_folder(), *here.parents]
    return next((path for path in candidates if (path / "notebooks").is_dir()), here)


def project_path(path: str | os.PathLike[str]) -> Path:
    """`path` made absolute; a relative one starts at the project's root.

    Raises:
        RequestError: it is too long, or in a folder that may not be looked into.
    """
    place = project_root() / os.path.expanduser(path)  # leaves `~nobody` as it is
    try:
        place.exists()
    except OSError as error:
        raise RequestError(f"{str(path)[:60]!r}: {error.strerror}") from None
    return place


def found_path(path: str | os.PathLike[str]) -> Path:
    """`project_path(path)`; where nothing is there, what the working directory has by that name."""
    place, here = project_path(path), _working_folder() / os.path.expanduser(path)
    return here if here.exists() and not place.exists() else place


def comma_separated(text: str) -> list[str]:
    """The names in a text that has commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 300 characters; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def found_name(path: str) -> str:
    """`path` as it is, or absolute where the working directory alone has something of that name."""
    place = found_path(path.strip())
    return path if place == project_path(path.strip()) else str(place)


def display_path(path: str | os.PathLike[str]) -> str:
    """`path` for people: relative to the project's root if it is inside.

    Example:
        >>> display_path(project_root() / "runs" / "mine")
        'runs/mine'
    """
    absolute = (root := project_root()) / os.path.expanduser(path)
    return str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 for people: 0.123 is `12.3 %`."""
    return f"{100 * share:.{digits}f} %"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file next to `path`; it is renamed to `path` if the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp makes private files; results are meant to be shared
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with newlines kept as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as readable UTF-8 JSON; NaN and infinity raise `ValueError`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], shape: Any = Any) -> Any:
    """The content of a UTF-8 JSON file.

    Raises:
        DamagedError: it does not have the type `shape`, as pydantic checks it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        text = Path(path).read_text(encoding="utf-8")
        TypeAdapter(shape).validate_json(text, strict=True)
        return json.loads(text)
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    except ValueError as error:
        reason = str(error)
    raise DamagedError(f"{display_path(path)} is damaged ({reason[:200]})")


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal; of a folder, that of its files' names and digests."""
    if Path(path).is_dir():
        inside = sorted(file for file in Path(path).iterdir() if file.is_file())
        text = "".join(f"{sha256(file)} {file.name}\n" for file in inside)
        return hashlib.sha256(text.encode()).hexdigest()
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_links(folder: str | os.PathLike[str]) -> None:
    """Make sure that what is written into a folder stays in it.

    Raises:
        RequestError: links in it, or the folder itself, lead elsewhere; with a line for each.
    """
    top = Path(os.path.abspath(folder))
    inside = [] if top.is_symlink() else sorted(top.rglob("*"))
    refuse(
        f"{display_path(path)} is a link that leads out of its folder ({os.readlink(path)}): "
        "remove it, or choose another folder"
        for path in filter(Path.is_symlink, [top, *inside])
        if path is top or not path.resolve().is_relative_to(top.resolve())
    )


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A private folder, locked while it is in use."""
    from filelock import FileLock

    # the path of a kernel's socket may have only about 100 characters
    near = "/tmp" if os.path.isdir("/tmp") else None
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=near, ignore_cleanup_errors=True) as place,
        FileLock(f"{place}/.lock"),
    ):
        yield place


def remove_leftovers() -> None:
    """Remove the private folders of commands that were killed: nobody holds their lock."""
    from filelock import FileLock

    for top in {"/tmp", tempfile.gettempdir()}:
        for place in Path(top).glob(f"{SCRATCH}*/"):
            with suppress(OSError):  # somebody else's, in use, or gone by now
                found = place.lstat()
                mine = found.st_uid == os.getuid() and not place.is_symlink()
                if mine and time.time() - found.st_mtime > SCRATCH_SECONDS:
                    with FileLock(place / ".lock", timeout=0):
                        shutil.rmtree(place)
