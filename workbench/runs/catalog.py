"""Which runs there are, and what each has recorded about itself."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench.files import display_path, project_path, read_json, sha256
from workbench.run_folder import ACTS, SCHEMA, RequestError, RunFolder
from workbench.runs.folder import read_status, recorded_identity

FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # there may be hundreds of runs


MAX_PARAMETERS_BYTES = 1_000_000


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run folder says about itself; what is missing or damaged is empty.

    Its `state` is `done`, `running`, `failed`, `interrupted` (it says running, but no process is at
    work), `incomplete` (not all notebooks), or `unreadable`.
    """

    name: str
    folder: Path
    state: str
    problem: str  # why it failed or is unreadable
    status: dict[str, Any]
    parameters: dict[str, Any]  # what was asked
    environment: dict[str, Any]  # versions, commit, code and machine
    data: dict[str, Any]  # the manifest without its lists of rows
    metrics: dict[str, dict[str, float]]  # by name the model's `mean`, `low`, `high`
    test: str  # digest of the candidate lists; runs that share it ranked the same queries

    @property
    def seconds(self) -> float:
        """The time that its notebooks took together."""
        return _seconds(self.status)

    def value(self, metric: str) -> float | None:
        """The model's mean of a metric, if it is defined."""
        return self.metrics.get(metric, {}).get("mean")


def read_run(folder: str | Path) -> RunRecord:
    """A run folder's records."""
    run, problem, state, status = RunFolder(folder), "", "unreadable", {}
    try:
        status = read_status(run.path)
        state = _state(run.path, status)
        problem = str(status.get("error", "")) if state == "failed" else ""
    except RequestError as error:
        problem = str(error)
    try:
        parameters = _read_parameters(run.parameters)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        parameters, state, problem = {}, "unreadable", f"parameters.yaml: {error}"
    manifest, rows = _read_record(run.manifest), _read_record(run.metrics).get("rows")
    for name in ("bad_rows", "bad_row_examples", "sides", "groups"):
        manifest.pop(name, None)
    model: dict[str, Any] = {}
    for row in rows if isinstance(rows, list) else []:
        model = row if isinstance(row, dict) and row.get("scorer") == "model" else model
    return RunRecord(
        name=run.path.name,
        folder=run.path,
        state=state,
        problem=problem,
        status=status,
        parameters=parameters,
        environment=_read_record(run.environment),
        data=manifest,
        metrics={name: value for name, value in model.items() if isinstance(value, dict)},
        test=sha256(run.candidates) if run.candidates.is_file() else "",
    )


def _state(folder: Path, status: dict[str, Any]) -> str:
    if status.get("schema", SCHEMA) > SCHEMA:
        raise RequestError(f"{display_path(folder)} was written by a newer workbench")
    state = str(status.get("state", "incomplete"))
    stopped = state == "failed" and status.get("error") in ("KeyboardInterrupt", "Terminated")
    if stopped or (state == "running" and not in_use(folder)):
        return "interrupted"
    return "incomplete" if state == "done" and {*status.get("acts", {})} != {*ACTS} else state


def in_use(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _read_parameters(file: Path) -> dict[str, Any]:
    """The plain values of `parameters.yaml`."""
    if file.stat().st_size > MAX_PARAMETERS_BYTES:
        raise ValueError(f"has more than {MAX_PARAMETERS_BYTES:,} bytes")
    given = yaml.load(file.read_text(encoding="utf-8"), Loader=FAST_LOADER)
    if not isinstance(given, dict):
        raise ValueError("holds no parameters")
    return {str(k): v for k, v in given.items() if v is None or isinstance(v, str | int | float)}


def _read_record(file: Path) -> dict[str, Any]:
    try:
        value = read_json(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(status: dict[str, Any]) -> float:
    return round(sum(act.get("seconds", 0.0) for act in status.get("acts", {}).values()), 1)


def run_folders(place: str | Path) -> list[Path]:
    """The run folders in a folder and in the sweeps in it; the folder itself if it is one.

    A sweep includes the runs that it has taken from elsewhere.
    """
    folder = project_path(place)
    if _is_run(folder):
        return [folder]
    if (folder / "sweep.json").is_file():
        return _sweep_folders(folder)
    found: dict[Path, None] = {}
    for path in sorted(path for path in folder.glob("*/") if not path.is_symlink()):
        found |= dict.fromkeys([path] if _is_run(path) else _sweep_folders(path))
    return list(found)


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).parameters.is_file()


def _sweep_folders(folder: Path) -> list[Path]:
    if not (folder / "sweep.json").is_file():
        return []
    jobs = _read_record(folder / "sweep.json").get("jobs", {})
    shared = [
        project_path(job["same_as"])
        for job in (jobs.values() if isinstance(jobs, dict) else ())
        if isinstance(job, dict) and isinstance(job.get("same_as"), str)
    ]
    return [path for path in (*sorted(folder.glob("*/")), *shared) if _is_run(path)]


def done_runs(runs_dir: Path) -> dict[str, Path]:
    """Runs in a folder, and in the sweeps in it, with all notebooks done; by identity."""
    found = {}
    for folder in run_folders(runs_dir):
        try:
            status = read_status(folder)
        except RequestError:
            continue
        identity, acts = recorded_identity(folder)[0], status.get("acts", {})
        finished = {act for act in ACTS if acts.get(act, {}).get("state") == "done"}
        if identity and status.get("state") == "done" and finished == set(ACTS):
            found[identity] = folder
    return found


def run_seconds(folder: Path) -> float:
    """The time that a run's notebooks took together."""
    try:
        return _seconds(read_status(folder))
    except RequestError:
        return 0.0


PROJECT = "reranker-workbench"  # the experiment


LOGGED = ("loss", "learning_rate", "grad_norm", "dev_loss", "dev_ap")


def export_runs(records: Sequence[RunRecord], uri: str = "") -> int:
    """Write finished and failed runs to MLflow, each once, and print how many were new.

    Args:
        records: runs that are still running are left out.
        uri: of a server or store; empty for a folder among the runs.

    Returns:
        The exit code.

    Raises:
        RequestError: MLflow is not installed, or does not answer.
    """
    # The client reports its use to its makers, and refuses plain files, by default.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise RequestError("--export: needs MLflow: pip install 'mlflow-skinny>=3'") from error

    ended = [one for one in records if one.state in ("done", "incomplete", "failed", "interrupted")]
    client = MlflowClient(tracking_uri=uri or (project_path("runs") / "mlruns").as_uri())
    try:
        found = client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else client.create_experiment(PROJECT)
        known = {run.data.tags.get("workbench.key") for run in client.search_runs([experiment], "")}
        new = [record for record in ended if _key(record) not in known]
        for record in new:
            _export_run(client, experiment, record)
    except MlflowException as error:
        raise RequestError(f"--export: {str(error).splitlines()[0]}") from error
    print(f"mlflow: {len(new)} runs exported, {len(ended) - len(new)} were there already")
    return 0


def _export_run(client: Any, experiment: str, record: RunRecord) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run = client.create_run(experiment, run_name=record.name).info.run_id
    metrics = [Metric(name, value, when, step) for name, value, step, when in _metrics(record)]
    for start in range(0, len(metrics), 1000):  # of one request
        client.log_batch(run, metrics=metrics[start : start + 1000])
    tags = {
        "workbench.key": _key(record),
        "workbench.state": record.state,
        "workbench.folder": str(record.folder),
        "workbench.commit": str(record.environment.get("commit") or ""),
        "workbench.data": str(record.data.get("sha256", "")),
    }
    client.log_batch(
        run,
        params=[Param(name, str(value)[:6000]) for name, value in record.parameters.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    files = RunFolder(record.folder)
    for file in (files.parameters, files.environment, files.metrics, files.report):
        if file.is_file():
            client.log_artifact(run, str(file))
    ended_well = record.state in ("done", "incomplete")
    client.set_terminated(run, status="FINISHED" if ended_well else "FAILED")


def _key(record: RunRecord) -> str:
    """What distinguishes a run from all others: its name, its identity and when it was started."""
    identity = str(record.environment.get("identity", ""))[:12]
    return f"{record.name} {identity} {record.status.get('started', '')}"


def _metrics(record: RunRecord) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, step and milliseconds of each finite number of the training and the test."""
    try:
        lines = RunFolder(record.folder).training_log.read_text(encoding="utf-8").splitlines()
        log = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        log = []
    found, when = [], 0
    for row in log:
        when = int(1000 * float(row.get("seconds") or 0))
        found += [(name, row.get(name), int(row.get("step") or 0), when) for name in LOGGED]
    for name, estimate in record.metrics.items():
        for part, value in estimate.items():
            suffix = "" if part == "mean" else f".{part}"
            found.append((f"{name.replace('@', '_at_')}{suffix}", value, 0, when))
    for name, value, step, time in [*found, ("seconds", record.seconds, 0, when)]:
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value), step, time
