"""Where files are, and writes that leave either the old file or the new one, never half of one."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def project_root() -> Path:
    """The folder that holds `notebooks/`; relative paths in parameters start here.

    It is the folder of the installed source tree; for a copy installed elsewhere, the nearest
    folder at or above the working directory that has `notebooks/`, else the working directory.
    """
    source = Path(__file__).resolve().parent.parent
    here = Path.cwd()
    candidates = [source, here, *here.parents]
    return next((path for path in candidates if (path / "notebooks").is_dir()), here)


def project_path(path: str | os.PathLike[str]) -> Path:
    """`path` made absolute: a relative one means the project's root, wherever the caller runs."""
    return project_root() / Path(path).expanduser()


def display_path(path: str | os.PathLike[str]) -> str:
    """`path` as people should read it: relative to the project's root where it lies inside."""
    absolute = project_path(path)
    root = project_root()
    return str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it takes the name `path` only if the block succeeds."""
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
    """Write `value` as readable UTF-8 JSON; NaN and infinity are refused (`ValueError`)."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(run_dir: str | os.PathLike[str], names: Iterable[str]) -> Path | None:
    """Move what `run_dir` holds under `names` to `earlier/<time>/` in it, so that nothing is lost.

    Returns:
        The folder it was moved to; None if there was nothing to move.
    """
    folder = Path(run_dir)
    present = [folder / name for name in names if (folder / name).exists()]
    if not present:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = folder / "earlier" / f"{stamp}-{len(list(folder.glob('earlier/*')))}"
    target.mkdir(parents=True)
    for path in present:
        path.rename(target / path.name)
    return target


def links_leading_out(folder: str | os.PathLike[str]) -> list[Path]:
    """Links anywhere in a folder, or the folder itself as a link, that lead out of it.

    Who writes into the folder would write elsewhere, and who empties it might delete elsewhere.
    """
    top = Path(os.path.abspath(folder))
    if top.is_symlink():
        return [top]
    home, found = top.resolve(), []
    for place, folders, files in os.walk(top):
        paths = (Path(place, name) for name in (*folders, *files))
        found += [
            path for path in paths if path.is_symlink() and not path.resolve().is_relative_to(home)
        ]
    return sorted(found)


def refuse_links(folder: str | os.PathLike[str]) -> None:
    """Make sure that what is written into a folder stays in it.

    Raises:
        LinkError: a link in it, or the folder itself, leads elsewhere.
    """
    for path in links_leading_out(folder):
        raise LinkError(
            f"{display_path(path)} is a link that leads out of its folder ({os.readlink(path)}): "
            "remove it, or choose another folder"
        )


class LinkError(ValueError):
    """Something would be written or deleted through a link to elsewhere; nothing was started."""
