"""Run folders: their names, what they record, and what must not be written into."""

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
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench.files import (
    LinkError,
    display_path,
    links_leading_out,
    project_path,
    project_root,
    read_json,
    refuse_links,
    sha256,
    write_json,
    write_text,
)
from workbench.models import ModelError, find_model, hub_state, is_hub_name
from workbench.run_folder import SCHEMA, RequestError, set_aside
from workbench.runs.parameters import Parameters, SettingsError, read_settings

RECORDED = (
    "torch",
    "sentence-transformers",
    "transformers",
    "datasets",
    "accelerate",
    "scikit-learn",
    "numpy",
    "pandas",
    "papermill",
    "reranker-workbench",
)


NOT_RECORDED = {
    "run_dir",
    "resume",
    "metric",
}  # what of the parameters says nothing about the result


LONGEST_NAME = 200  # bytes


AT_ONCE = 0.5  # seconds: who only looks whether a folder is in use holds it for an instant


def name_problem(name: str) -> str:
    """Why a run cannot go by this name; empty if it can."""
    if Path(name).name != name or name.startswith((".", "-")):
        return f"--name {name!r}: must be a plain folder name"
    if not name.isprintable() or "," in name:
        return f"--name {name!a}: must not hold a comma, a line break or another control character"
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        return f"--name {name[:40]!r}…: must be at most {LONGEST_NAME} bytes long"
    return ""


def fresh_name(stem: str, runs_dir: str | Path = "runs") -> str:
    """`stem-YYYYmmdd-HHMMSS`, with a number behind it where that name is taken."""
    base = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    name, number = base, 2
    while os.path.lexists(project_path(runs_dir) / name):
        name, number = f"{base}-{number}", number + 1
    return name


def fresh_folder(stem: str, runs_dir: str | Path = "runs") -> Path:
    """Make a folder with a fresh name, another one for each process that asks at this moment.

    Raises:
        RequestError: no folder can be made there.
    """
    place = project_path(runs_dir)
    try:
        place.mkdir(parents=True, exist_ok=True)
        while True:
            folder = place / fresh_name(stem, runs_dir)
            with suppress(FileExistsError):  # another process was quicker
                folder.mkdir()
                return folder
    except OSError as error:
        raise RequestError(f"{display_path(place)} cannot be written ({error})") from error


@contextmanager
def holding(folder: Path, patience: float = AT_ONCE) -> Iterator[None]:
    """Hold the lock of a run's or a sweep's folder, which is made if absent.

    Args:
        folder: an absolute path.
        patience: seconds to wait for another process that holds it.

    Raises:
        RequestError: another process holds it, a link in it leads elsewhere, or it cannot be
            written.
    """
    try:
        refuse_links(folder)
    except LinkError as error:
        raise RequestError(str(error)) from None
    lock = FileLock(folder / ".lock", timeout=patience)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RequestError(f"{display_path(folder)} is in use by another process") from None
    except OSError as error:
        raise RequestError(f"{display_path(folder)} cannot be written ({error})") from error
    try:
        yield
    finally:
        lock.release()


def folder_problems(
    parameters: Parameters, run_dir: Path, only: Sequence[str], resume: bool
) -> list[str]:
    """Why this run must not be written into this folder, one line each; empty if it may."""
    shown = display_path(run_dir)
    if run_dir.is_symlink():
        return [f"{shown} is a link to {os.readlink(run_dir)}; a run needs a folder of its own"]
    if run_dir.exists() and not run_dir.is_dir():
        return [f"{shown} is a file, so it cannot be a run folder"]
    exists = (run_dir / "parameters.yaml").is_file()
    problems = []
    if run_dir.is_dir():
        problems += [
            f"{shown}/{path.relative_to(run_dir)} is a link that leads out of the run folder "
            f"({path.resolve()}): remove it, or choose another --name"
            for path in links_leading_out(run_dir)
        ]
        if not exists and any(path.name != ".lock" for path in run_dir.iterdir()):
            problems.append(f"{shown} is not a run folder and not empty")
    if exists and not resume and not only:
        problems.append(
            f"{shown} exists: choose another --name, or --resume it, "
            "or name the notebooks to run anew with --only"
        )
    if resume and not exists:
        problems.append(f"{shown} does not exist, so it cannot be resumed")
    if exists:
        try:
            schema = read_status(run_dir).get("schema", SCHEMA)
        except RequestError as error:
            return [*problems, str(error)]
        if schema > SCHEMA:
            return [
                *problems,
                f"{shown} was written by a newer workbench (schema {schema}, known "
                f"here: {SCHEMA}): update this one, or choose another --name",
            ]
    if exists and resume:
        problems += changed_parameters(parameters, run_dir)
    return problems


def changed_parameters(parameters: Parameters, run_dir: Path) -> list[str]:
    """Which parameters differ from those the run was started with, one line each."""
    try:
        recorded = read_settings(run_dir / "parameters.yaml")
    except SettingsError as error:
        return [str(error)]
    # a parameter that is newer than the run had its default
    defaults = {name: field.default for name, field in Parameters.model_fields.items()}
    changed = [
        f"{name}: the run was started with {recorded.get(name, defaults[name])!r}, not {value!r}; "
        "--resume continues with the same parameters"
        for name, value in parameters.model_dump().items()
        if name not in NOT_RECORDED and recorded.get(name, defaults[name]) != value
    ]
    return changed or changed_data(parameters, run_dir)


def changed_data(parameters: Parameters, run_dir: Path) -> list[str]:
    """Which files of pairs are no longer those that the run's data was made from."""
    file = run_dir / "data" / "manifest.json"
    if not file.is_file():
        return []
    try:
        manifest = read_json(file)
    except ValueError:
        return []  # half of one; notebook 1 makes it anew
    before = {"pairs": manifest, "test_pairs": manifest.get("test_pairs", {})}
    problems = []
    for name, record in before.items():
        path = project_path(getattr(parameters, name))
        was = record.get("sha256")
        if was and path.is_file() and (now_is := sha256(path)) != was:
            problems.append(
                f"{name}: {display_path(path)} has changed since the run was started (sha256 "
                f"{now_is[:12]}…, it was {was[:12]}…); --resume continues with the same data"
            )
    return problems


def read_status(run_dir: str | Path) -> dict[str, Any]:
    """`status.json` of a run; empty if it has none.

    Raises:
        RequestError: it is not what a run writes.
    """
    file = project_path(run_dir) / "status.json"
    if not file.is_file():
        return {}
    try:
        status = read_json(file)
        if not isinstance(status, dict) or not isinstance(status.get("schema", SCHEMA), int):
            raise ValueError("it holds no status")
    except ValueError as error:
        raise RequestError(f"{display_path(file)} is damaged ({error})") from None
    return dict(status)


def record_request(parameters: Parameters, folder: Path, identity: str = "") -> None:
    """Write `parameters.yaml` and `environment.json`; parameters that stood there are set aside."""
    text = yaml.safe_dump(parameters.model_dump(), allow_unicode=True, sort_keys=False)
    target = folder / "parameters.yaml"
    if target.is_file() and target.read_text(encoding="utf-8") != text:
        set_aside(folder, ["parameters.yaml"])
    write_text(target, text)
    write_json(folder / "environment.json", environment() | {"identity": identity})


def environment() -> dict[str, Any]:
    """Versions, source commit, digest of the code and hardware, for `environment.json`."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project_root(), capture_output=True, text=True
    )
    installed = {name: _version(name) for name in RECORDED}
    return {
        "schema": 1,
        "python": platform.python_version(),
        "packages": {name: version for name, version in installed.items() if version},
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "code": code_digest(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


@cache
def code_digest() -> str:
    """SHA-256 over the package's modules and the notebooks, as they are on the disk."""
    whole = hashlib.sha256()
    package, notebooks = Path(__file__).parents[1], project_root() / "notebooks"
    for top, files in ((package, package.rglob("*.py")), (notebooks, notebooks.glob("*.ipynb"))):
        for file in sorted(files):
            whole.update(f"{file.relative_to(top)}\0".encode() + file.read_bytes())
    return whole.hexdigest()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """The time, with its offset from UTC, for records."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


# What notebook 1 takes, and so what its result depends on; a test compares it with the notebook.
DATA_PARAMETERS = (
    "pairs",
    "sentence_0_column",
    "sentence_1_column",
    "label_column",
    "on_bad_rows",
    "test_pairs",
    "max_pairs",
    "dev_share",
    "test_share",
    "base_model",
    "base_revision",
    "fallback_model",
    "max_length",
    "candidates",
    "list_size",
    "seed",
)


INPUTS = ("pairs", "test_pairs", "candidates")


def run_identity(parameters: Parameters) -> str:
    """64 hexadecimal digits that two runs share exactly when they ask for the same result."""
    values = {k: v for k, v in parameters.model_dump().items() if k not in NOT_RECORDED}
    return _digest(values, parameters)


def data_identity(parameters: Parameters) -> str:
    """The same of notebook 1 alone: runs that share it can share its result."""
    return _digest({name: getattr(parameters, name) for name in DATA_PARAMETERS}, parameters)


def recorded_identity(run_dir: Path) -> tuple[str, str]:
    """Identity and digest of the code that a run has recorded; empty where it has not."""
    try:
        environment = read_json(run_dir / "environment.json")
        return str(environment.get("identity", "")), str(environment.get("code", ""))
    except (OSError, ValueError, AttributeError):
        return "", ""


def _digest(values: dict[str, Any], parameters: Parameters) -> str:
    whole = {
        "parameters": values,
        "inputs": {name: _input(getattr(parameters, name)) for name in INPUTS},
        "base": _base(parameters.base_model, parameters.base_revision, parameters.fallback_model),
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _input(source: str) -> dict[str, str]:
    """The SHA-256 of the file, or of each file of a folder; nothing for what is not here."""
    path = project_path(source) if source else None
    if path is None or not path.exists():
        return {}
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return {file.name: _file_digest(file, file.stat().st_mtime_ns) for file in files}


@cache
def _file_digest(file: Path, _changed: int) -> str:
    return sha256(file)


@cache
def _base(name: str, revision: str, fallback: str) -> str:
    """The digest of the weights; the name where they are still to be fetched."""
    try:
        if is_hub_name(name) and hub_state(name, revision) == "reachable":
            return f"{name}@{revision}"
        return find_model(name, revision, fallback).sha256
    except ModelError:
        return f"{name}@{revision}"
