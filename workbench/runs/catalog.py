"""Which runs there are, and what each has recorded about itself."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.files import RequestError, first_line, project_path, sha256
from workbench.run_folder import NOTEBOOKS, RunFolder, read_record
from workbench.runs.parameters import read_settings
from workbench.training.log import MEASURED, log_rows

SWEEP = "sweep.json"
PROJECT = "reranker-workbench"  # the experiment in MLflow
BASELINE = "ngram_regression"  # of the ladder, learns from the same labels without a base model


@dataclass(eq=False)
class RunRecord:
    """What a run folder says about itself; what is missing or damaged is empty.

    `state` is `done`, `running`, `failed`, `interrupted` (by its status it runs, but no process is
    at work), `incomplete` (not all notebooks), or `damaged`.
    """

    name: str
    folder: Path
    state: str = ""
    problem: str = ""  # why it failed, or what of it is damaged
    status: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)  # what was asked
    environment: dict[str, Any] = field(default_factory=dict)  # versions, commit, machine
    data: dict[str, Any] = field(default_factory=dict)  # the manifest
    scorers: dict[str, dict[str, Any]] = field(default_factory=dict)  # metrics of each, by name
    test: str = ""  # digest of the candidate lists; runs that share it ranked the same queries

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The model's metrics, by name."""
        return {n: v for n, v in self.scorers.get("model", {}).items() if isinstance(v, dict)}

    @property
    def seconds(self) -> float:
        """The time that its notebooks took together."""
        entries = self.status.get("notebooks", {}).values()
        return round(sum(entry.get("seconds", 0.0) for entry in entries), 1)

    def value(self, metric: str) -> float | None:
        """The model's mean of a metric, if it is defined."""
        return self.metrics.get(metric, {}).get("mean")


def read_run(folder: str | Path) -> RunRecord:
    """A run folder's records; damage in one of them leaves the others readable."""
    run = RunFolder(folder)
    record, problems = RunRecord(run.path.name, run.path), []
    readers: dict[str, Callable[[], Any]] = {
        "status": lambda: read_record(run.status),
        "parameters": lambda: {n: _plain(v) for n, v in read_settings(run.parameters).items()},
        "environment": lambda: read_record(run.environment),
        "data": lambda: read_record(run.manifest),
        "scorers": lambda: {one["scorer"]: one for one in read_record(run.metrics).get("rows", [])},
        "test": lambda: sha256(run.candidates) if run.candidates.is_file() else "",
    }
    for name, reader in readers.items():
        try:
            setattr(record, name, reader())
        except (ValueError, OSError) as error:
            problems.append(str(error))
    record.state = "damaged" if problems else _state(run.path, record.status)
    failed = record.status.get("error", "") if record.state == "failed" else ""
    record.problem = "; ".join(dict.fromkeys(problems)) or failed
    return record


def _plain(value: Any) -> str | int | float | None:
    """The value of a parameter as a number or a text; a list has commas between its values."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float | None) else str(value)


def _state(folder: Path, status: dict[str, Any]) -> str:
    state = str(status.get("state", "incomplete"))
    stopped = state == "failed" and status.get("error") in ("KeyboardInterrupt", "Terminated")
    if stopped or (state == "running" and not in_use(folder)):
        return "interrupted"
    entries = status.get("notebooks", {})
    finished = all(entries.get(number, {}).get("state") == "done" for number in NOTEBOOKS)
    return "incomplete" if state == "done" and not finished else state


def in_use(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    try:
        if (folder / ".lock").exists():
            with FileLock(folder / ".lock", timeout=0):
                pass
    except OSError as error:  # others say that nothing can be written there
        return isinstance(error, Timeout)
    return False


def run_folders(place: str | Path) -> list[Path]:
    """The run folders in a folder and in the sweeps in it; the folder itself if it is one.

    A sweep includes the runs elsewhere that its record names.
    """
    folder, found = project_path(place), []
    if _is_run(folder):
        return [folder]
    for path in sorted(folder.glob("*/")):
        if not path.is_symlink() and (_is_run(path) or (path / SWEEP).is_file()):
            found += run_folders(path)
    return list(dict.fromkeys([*found, *runs_elsewhere(folder)]))


def runs_elsewhere(sweep: Path) -> list[Path]:
    """Runs outside a sweep's folder that its record names, because they were done already."""
    try:
        entries = read_record(sweep / SWEEP).get("jobs", {}).values()
        named = [project_path(entry["same_as"]) for entry in entries if entry.get("same_as")]
        return [folder for folder in named if _is_run(folder)]
    except (ValueError, OSError):  # a sweep that is damaged has its own runs still
        return []


def _is_run(folder: Path) -> bool:
    try:
        return RunFolder(folder).parameters.is_file()
    except OSError:  # a folder that may not be looked into is listed as damaged
        return True


def done_runs(runs_dir: Path) -> dict[str, Path]:
    """Runs in a folder, and in the sweeps in it, with all notebooks done; by identity."""
    records = [read_run(folder) for folder in run_folders(runs_dir)]
    done = {one.environment.get("identity"): one.folder for one in records if one.state == "done"}
    return {identity: folder for identity, folder in done.items() if identity}


def export_runs(records: Sequence[RunRecord], uri: str = "") -> None:
    """Write runs that are not under way to MLflow, each once, and print how many were new.

    `uri` is that of a server or a store; empty for a folder among the runs.

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

    ended = [one for one in records if one.state not in ("running", "damaged")]
    client = MlflowClient(tracking_uri=uri or (project_path("runs") / "mlruns").as_uri())
    try:
        found = client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else client.create_experiment(PROJECT)
        known = {run.data.tags.get("workbench.key") for run in client.search_runs([experiment], "")}
        new = [record for record in ended if _key(record) not in known]
        for record in new:
            _export_run(client, experiment, record)
    except MlflowException as error:
        raise RequestError(f"--export: {first_line(error)}") from error
    print(f"mlflow: {len(new)} runs exported, {len(ended) - len(new)} were there already")


def _export_run(client: Any, experiment: str, record: RunRecord) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run = client.create_run(experiment, run_name=record.name).info.run_id
    metrics = [Metric(name, value, when, step) for name, value, step, when in _metrics(record)]
    for start in range(0, len(metrics), 1000):  # of one request
        client.log_batch(run, metrics=metrics[start : start + 1000])
    tags = [
        RunTag("workbench.key", _key(record)),
        RunTag("workbench.state", record.state),
        RunTag("workbench.folder", str(record.folder)),
        RunTag("workbench.commit", str(record.environment.get("commit") or "")),
        RunTag("workbench.data", str(record.data.get("sha256", ""))),
    ]
    params = [Param(name, str(value)[:6000]) for name, value in record.parameters.items()]
    client.log_batch(run, params=params, tags=tags)
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
    found, when = list[tuple[str, Any, int, int]](), 0
    for row in log_rows(RunFolder(record.folder).training_log):
        when = int(1000 * float(row.get("seconds") or 0))
        found += [(name, row.get(name), int(row.get("step") or 0), when) for name in MEASURED]
    final = {f"{n}.{part}": value for n, of in record.metrics.items() for part, value in of.items()}
    for name, value in (final | {"seconds": record.seconds}).items():
        found.append((name.removesuffix(".mean").replace("@", "_at_"), value, 0, when))
    for name, value, step, time in found:
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value), step, time
