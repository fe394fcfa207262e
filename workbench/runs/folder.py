"""Run folders: their names and locks, what they record, and when they must not be written into."""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench import files
from workbench.files import RequestError
from workbench.models import ModelError, find_model, must_be_fetched
from workbench.run_folder import RunFolder, changes, read_record, set_aside
from workbench.runs.parameters import Parameters, read_settings, shortened

RECORDED_PACKAGES = (
    *("torch", "sentence-transformers", "transformers", "datasets", "accelerate"),
    *("scikit-learn", "numpy", "pandas", "papermill", "reranker-workbench"),
)
NOT_RECORDED = {"run_dir", "resume", "metric"}  # parameters that do not change the result
# What notebook 1 takes and its result depends on; a test compares it with the notebook.
DATA_PARAMETERS = (
    *("pairs", "sentence_0_column", "sentence_1_column", "label_column", "label_map"),
    "on_bad_rows",
    *("test_pairs", "max_pairs", "dev_share", "test_share", "base_model", "base_revision"),
    *("fallback_model", "max_length", "dictionary", "candidates", "list_size", "seed"),
)
INPUT_PARAMETERS = ("pairs", "test_pairs", "candidates", "dictionary")
MAX_NAME_BYTES = 200
LOCK_SECONDS = 0.5  # to wait for a lock: a process that only looks at a folder releases it at once


def check_name(name: str | None) -> None:
    """Refuse (`RequestError`) what no run or sweep can be called; None is a name yet to come."""
    name, text = name or "", ""
    if Path(name).name != name or name.startswith((".", "-")) or name != name.strip():
        text = "must be a plain folder name"
    elif not name.isprintable() or "," in name:
        text = "must not hold a comma, a line break or another control character"
    elif len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        text = f"must be at most {MAX_NAME_BYTES} bytes long"
    if text:
        raise RequestError(f"--name {shortened(name)}: {text}")


def fresh_name(stem: str, runs_dir: str | Path = "runs") -> str:
    """`stem-YYYYmmdd-HHMMSS`, followed by a number if that name is taken."""
    base = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{base}-{number}" if number > 1 else base for number in count(1))
    return next(name for name in names if not os.path.lexists(files.project_path(runs_dir) / name))


def fresh_folder(stem: str, runs_dir: str | Path = "runs") -> Path:
    """A new folder, or a `RequestError`; processes that ask at the same time get different ones."""
    place = files.project_path(runs_dir)
    try:
        place.mkdir(parents=True, exist_ok=True)
        while True:
            folder = place / fresh_name(stem, runs_dir)
            with suppress(FileExistsError):  # another process was faster
                folder.mkdir()
                return folder
    except OSError as error:
        raise RequestError(f"{files.display_path(place)} cannot be written ({error})") from error


@contextmanager
def holding(folder: Path, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of the folder of a run or a sweep, which is made if absent.

    Raises:
        RequestError: it cannot be written, a link in it leads elsewhere, or another process holds
            it after `patience` seconds.
    """
    lock = FileLock(folder / ".lock", timeout=patience)
    try:
        files.refuse_links(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RequestError(f"{files.display_path(folder)} is in use by another process") from None
    except OSError as error:
        raise RequestError(f"{files.display_path(folder)} cannot be written ({error})") from error
    try:
        yield
    finally:
        lock.release()


def place_problems(record: Path, resume: bool, only: bool = False) -> list[str]:
    """Why a request must not be recorded in this file of a run or a sweep; empty if it may.

    Raises:
        RequestError: a link in the folder leads elsewhere.
    """
    folder, shown = record.parent, files.display_path(record.parent)
    files.refuse_links(folder)
    if folder.exists() and not folder.is_dir():
        return [f"{shown} is a file, so it cannot be the folder of a run"]
    if record.is_file():
        text = "choose another --name, or --resume it; of a run, --only makes notebooks again"
        return [] if resume or only else [f"{shown} exists: {text}"]
    problems = [f"{shown} does not exist, so it cannot be resumed"] * resume
    if any(path.name != ".lock" for path in folder.glob("*")):
        problems.append(f"{shown} is not empty, but has no {record.name}")
    return problems


def folder_problems(
    parameters: Parameters, run_dir: Path, only: Sequence[str], resume: bool
) -> list[str]:
    """Why this run must not be written into this folder, one line each; empty if it may."""
    run, problems = RunFolder(run_dir), list[str]()
    try:
        problems += place_problems(run.parameters, resume, bool(only))
        for file in (run.status, run.manifest, run.lineage, run.metrics, run.browser):
            read_record(file)
        if resume and run.parameters.is_file():
            problems += changed_parameters(parameters, run_dir)
    except (files.DamagedError, RequestError) as error:
        problems.append(str(error))
    return problems


def changed_parameters(parameters: Parameters, run_dir: Path) -> list[str]:
    """Which parameters, or else which data, differ from those the run was started with."""
    run, now = RunFolder(run_dir), parameters.model_dump(exclude=NOT_RECORDED)
    recorded = read_settings(run.parameters)
    # A parameter that is newer than the run had its default.
    before = {name: recorded.get(name, Parameters.model_fields[name].default) for name in now}
    same = "; --resume continues with the same parameters"
    problems = [line + same for line in changes("run", before, now)]
    manifest = {} if problems else read_record(run.manifest)
    for name, record in {"pairs": manifest, "test_pairs": manifest.get("test_pairs", {})}.items():
        path, was = files.project_path(getattr(parameters, name)), str(record.get("sha256", ""))
        if was and path.exists() and (now_is := files.sha256(path)) != was:
            problems.append(
                f"{name}: {files.display_path(path)} has changed since the run was started (sha256 "
                f"{now_is[:12]}…, it was {was[:12]}…); --resume continues with the same data"
            )
    return problems


def record_request(parameters: Parameters, folder: Path, identity: str = "") -> None:
    """Write `parameters.yaml` and `environment.json`; parameters of an earlier request are kept."""
    text = yaml.safe_dump(parameters.model_dump(), allow_unicode=True, sort_keys=False)
    target = RunFolder(folder).parameters
    if target.is_file() and target.read_text(encoding="utf-8") != text:
        set_aside(folder, [target.name])
    files.write_text(target, text)
    files.write_json(RunFolder(folder).environment, environment() | {"identity": identity})


def environment() -> dict[str, Any]:
    """Versions, source commit, digest of the code and hardware, for `environment.json`.

    Example:
        >>> import workbench as wb
        >>> sorted(wb.environment())
        ['code', 'commit', 'cores', 'packages', 'platform', 'python', 'schema']
    """
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=files.project_root(), capture_output=True, text=True
    )
    packages = {}
    for name in RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "schema": 1,
        "python": platform.python_version(),
        "packages": packages,
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "code": code_digest(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


@cache
def code_digest() -> str:
    """SHA-256 of the package's modules and the notebooks, as they are on disk."""
    whole = hashlib.sha256()
    package, notebooks = Path(__file__).parents[1], files.project_root() / "notebooks"
    for top, found in ((package, package.rglob("*.py")), (notebooks, notebooks.glob("*.ipynb"))):
        for file in sorted(found):
            whole.update(f"{file.relative_to(top)}\0".encode() + file.read_bytes())
    return whole.hexdigest()


def now() -> str:
    """The time, with its offset from UTC, for records."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def run_identity(parameters: Parameters) -> str:
    """64 hexadecimal digits that two runs share exactly if they ask for the same result."""
    asked = parameters.model_dump(exclude=NOT_RECORDED)
    base = parameters.base_model, parameters.base_revision, parameters.fallback_model
    whole = {
        "parameters": asked,
        "inputs": {name: _file_digests(asked[name]) for name in INPUT_PARAMETERS},
        "base": _base_digest(*base),
        "teacher": _base_digest(parameters.teacher, "", "") if parameters.teacher else "",
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _file_digests(source: str) -> dict[str, str]:
    """The SHA-256 of the file, or of each file of a folder; empty for what is not here."""
    path = files.project_path(source)
    inside = [path] if path.is_file() else sorted(path.glob("*")) if source else []
    found = filter(Path.is_file, inside)
    return {file.name: _file_digest(file, file.stat().st_mtime_ns) for file in found}


@cache
def _file_digest(file: Path, _changed: int) -> str:
    return files.sha256(file)


@cache
def _base_digest(name: str, revision: str, fallback: str) -> str:
    """The digest of the weights; the name if they are still to be fetched."""
    with suppress(ModelError):
        if not must_be_fetched(name, revision):
            return find_model(name, revision, fallback).sha256
    return f"{name}@{revision}"
