"""What makes two runs the same: their parameters, the bytes they read, and the base model.

The code is not part of it, but recorded beside it: a run made by other code is kept and told.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from workbench.files import project_path, read_json, sha256
from workbench.models import ModelError, find_model, hub_state, is_hub_name
from workbench.parameters import Parameters
from workbench.runs import NOT_RECORDED

# What notebook 1 takes, and so what its result depends on; a test compares it with the notebook.
DATA_PARAMETERS = (
    "pairs", "sentence_0_column", "sentence_1_column", "label_column", "on_bad_rows", "test_pairs",
    "max_pairs", "dev_share", "test_share", "base_model", "base_revision", "fallback_model",
    "max_length", "candidates", "list_size", "seed",
)  # fmt: skip
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
