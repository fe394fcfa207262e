"""Which runs there are, and what each has recorded about itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench.files import display_path, project_path, read_json, sha256
from workbench.identity import recorded_identity
from workbench.runs import ACTS, RequestError, read_status
from workbench.yaml_files import LARGEST

QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run folder tells about itself.

    Attributes:
        name: of the folder.
        folder: where it is.
        state: `done`, `running`, `failed`, `interrupted` (it says running, but nobody is at it),
            `incomplete` (not all acts), or `unreadable`.
        problem: why it failed or is unreadable.
        status: `status.json`.
        parameters: what was asked.
        environment: versions, commit, code and machine.
        data: where the pairs come from and how they were split, without lists of rows.
        metrics: by name the model's `mean`, `low`, `high`.
        test: digest of the candidate lists; runs that share it were ranked on the same queries.
    """

    name: str
    folder: Path
    state: str
    problem: str
    status: dict[str, Any]
    parameters: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    test: str

    @property
    def seconds(self) -> float:
        """What its acts took together."""
        acts = self.status.get("acts", {}).values()
        return round(sum(act.get("seconds", 0.0) for act in acts), 1)

    def value(self, metric: str) -> float | None:
        """The model's mean of a metric, where it is defined."""
        return self.metrics.get(metric, {}).get("mean")


def read_run(folder: str | Path) -> RunRecord:
    """Read a run folder's records; what is missing or damaged is left empty and told."""
    place = project_path(folder)
    problem, state, status = "", "unreadable", {}
    try:
        status = read_status(place)
        state = _state(place, status)
        problem = str(status.get("error", "")) if state == "failed" else ""
    except RequestError as error:
        problem = str(error)
    try:
        parameters = _recorded(place / "parameters.yaml")
    except (OSError, ValueError, yaml.YAMLError) as error:
        parameters, state, problem = {}, "unreadable", f"parameters.yaml: {error}"
    manifest = _json(place / "data" / "manifest.json")
    left = ("bad_rows", "bad_row_examples", "sides", "groups")
    metrics = _json(place / "evaluation" / "metrics.json")
    lists = place / "evaluation" / "candidates.jsonl"
    return RunRecord(
        place.name,
        place,
        state,
        problem,
        status,
        parameters,
        _json(place / "environment.json"),
        {name: value for name, value in manifest.items() if name not in left},
        _model_row(metrics),
        sha256(lists) if lists.is_file() else "",
    )


def _state(folder: Path, status: dict[str, Any]) -> str:
    if status.get("schema", 1) > 1:
        raise RequestError(f"{display_path(folder)} was written by a newer workbench")
    state = str(status.get("state", "incomplete"))
    if state == "running" and not in_use(folder):
        return "interrupted"
    if state == "failed" and status.get("error") in ("KeyboardInterrupt", "Terminated"):
        return "interrupted"
    if state == "done" and set(status.get("acts", {})) != set(ACTS):
        return "incomplete"
    return state


def in_use(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _recorded(file: Path) -> dict[str, Any]:
    """The plain values of `parameters.yaml`; by PyYAML's C code, for there may be many runs."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"has more than {LARGEST:,} bytes")
    given = yaml.load(file.read_text(encoding="utf-8"), Loader=QUICK)
    if not isinstance(given, dict):
        raise ValueError("holds no parameters")
    return {str(k): v for k, v in given.items() if v is None or isinstance(v, str | int | float)}


def _json(file: Path) -> dict[str, Any]:
    try:
        value = read_json(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _model_row(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    rows = [row for row in metrics.get("rows", []) if row.get("scorer") == "model"]
    found = rows[0] if rows else {}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def run_folders(place: str | Path) -> list[Path]:
    """The run folders in a folder and in the sweeps in it; the folder itself if it is one.

    Runs that a sweep has taken over from elsewhere count among its own.
    """
    folder = project_path(place)
    if (folder / "parameters.yaml").is_file():
        return [folder]
    if (folder / "sweep.json").is_file():
        return _sweep_folders(folder)
    found = []
    for path in sorted(folder.glob("*/")):
        if path.is_symlink():
            continue
        if (path / "parameters.yaml").is_file():
            found.append(path)
        elif (path / "sweep.json").is_file():
            found += [run for run in _sweep_folders(path) if run not in found]
    return found


def _sweep_folders(folder: Path) -> list[Path]:
    jobs = _json(folder / "sweep.json").get("jobs", {})
    elsewhere = [project_path(job["same_as"]) for job in jobs.values() if "same_as" in job]
    own = [path for path in sorted(folder.glob("*/")) if (path / "parameters.yaml").is_file()]
    return [*own, *(path for path in elsewhere if (path / "parameters.yaml").is_file())]


def done_runs(runs_dir: Path) -> dict[str, Path]:
    """Runs in a folder, and in the sweeps in it, in which all acts are done; by identity."""
    found = {}
    for folder in run_folders(runs_dir):
        try:
            status = read_status(folder)
        except RequestError:
            continue
        identity, _ = recorded_identity(folder)
        acts = status.get("acts", {})
        done = status.get("state") == "done" and all(
            acts.get(act, {}).get("state") == "done" for act in ACTS
        )
        if done and identity:
            found[identity] = folder
    return found


def run_seconds(folder: Path) -> float:
    """What a run's acts took together."""
    try:
        acts = read_status(folder).get("acts", {})
    except RequestError:
        return 0.0
    return round(sum(entry.get("seconds", 0.0) for entry in acts.values()), 1)
