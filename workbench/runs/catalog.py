"""Which runs there are, and what each has recorded about itself."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench.files import display_path, project_path, read_json, sha256
from workbench.run_folder import ACTS, RequestError
from workbench.runs.folder import read_status, recorded_identity
from workbench.runs.parameters import LARGEST

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


PROJECT = "reranker-workbench"


FILES = ("parameters.yaml", "environment.json", "evaluation/metrics.json", "report.html")


def export_runs(records: Sequence[RunRecord], tracker: str, uri: str = "") -> int:
    """Hand finished and failed runs to a tracker and say how many were new; the exit code.

    Args:
        records: runs that are still going on are left out.
        tracker: `mlflow` or `trackio`.
        uri: of an MLflow server or store; empty for a folder beside the runs.

    Raises:
        RequestError: the tracker is not installed, or does not answer.
    """
    ended = [one for one in records if one.state in ("done", "incomplete", "failed", "interrupted")]
    export = {"mlflow": to_mlflow, "trackio": to_trackio}[tracker]
    try:
        new = export(ended, uri)
    except ImportError as error:
        extra = {"mlflow": "mlflow-skinny>=3", "trackio": "trackio"}[tracker]
        raise RequestError(f"--export {tracker}: install it with pip install '{extra}'") from error
    print(f"{tracker}: {new} runs handed over, {len(ended) - new} were there already")
    return 0


def to_mlflow(records: Sequence[RunRecord], uri: str = "") -> int:
    """Write runs to MLflow; how many were new."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # or the client reports its use to its makers
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    # Without a server: plain files, which newer versions allow only if told so.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=uri or (project_path("runs") / "mlruns").as_uri())
    try:
        found = client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else client.create_experiment(PROJECT)
        known = {run.data.tags.get("workbench.key") for run in client.search_runs([experiment], "")}
        new = [record for record in records if key(record) not in known]
        for record in new:
            run = client.create_run(experiment, run_name=record.name)
            values = [
                Metric(name.replace("@", "_at_"), value, when, step)
                for name, value, step, when in metrics(record)
            ]
            params = [Param(name, str(value)[:6000]) for name, value in record.parameters.items()]
            tags = [RunTag(name, value) for name, value in labels(record).items()]
            for start in range(0, len(values), 1000):
                client.log_batch(run.info.run_id, metrics=values[start : start + 1000])
            client.log_batch(run.info.run_id, params=params, tags=tags)
            for name in FILES:
                if (record.folder / name).is_file():
                    client.log_artifact(run.info.run_id, str(record.folder / name))
            ended = "FINISHED" if record.state in ("done", "incomplete") else "FAILED"
            client.set_terminated(run.info.run_id, status=ended)
    except MlflowException as error:
        raise RequestError(f"--export mlflow: {str(error).splitlines()[0]}") from error
    return len(new)


def to_trackio(records: Sequence[RunRecord], uri: str = "") -> int:
    """Write runs to trackio's local data base; how many were new.

    Raises:
        RequestError: an address was given: trackio would send the runs to a Space on the Hub.
    """
    if uri:
        raise RequestError("--export trackio: writes locally only; leave out --uri")
    import trackio

    known = {str(name) for name in _trackio_names()}
    new = [record for record in records if key(record) not in known]
    for record in new:
        trackio.init(
            project=PROJECT,
            name=key(record),
            config=dict(record.parameters),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,  # this machine's load now is not the run's
        )
        for name, value, step, _ in metrics(record):
            trackio.log({name: value}, step=step)
        trackio.finish()
    return len(new)


def _trackio_names() -> list[str]:
    from trackio.sqlite_storage import SQLiteStorage

    return list(SQLiteStorage.get_runs(PROJECT))


def key(record: RunRecord) -> str:
    """What tells a run from all others: its name, its identity and when it was started."""
    identity = str(record.environment.get("identity", ""))[:12]
    return f"{record.name} {identity} {record.status.get('started', '')}"


def labels(record: RunRecord) -> dict[str, str]:
    """What is known of a run besides parameters and figures, as texts."""
    return {
        "workbench.key": key(record),
        "workbench.state": record.state,
        "workbench.folder": str(record.folder),
        "workbench.commit": str(record.environment.get("commit") or ""),
        "workbench.data": str(record.data.get("sha256", "")),
    }


def metrics(record: RunRecord) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, step and milliseconds of all figures: the training's, then the test's."""
    when = 0
    for row in _log(record.folder):
        when = int(1000 * float(row.get("seconds") or 0))
        for name in ("loss", "learning_rate", "grad_norm", "dev_loss", "dev_ap"):
            if _finite(row.get(name)):
                yield name, float(row[name]), int(row.get("step") or 0), when
    for name, found in record.metrics.items():
        for part, value in found.items():
            if _finite(value):
                yield name if part == "mean" else f"{name}.{part}", float(value), 0, when
    yield "seconds", record.seconds, 0, when


def _log(folder: Path) -> list[dict[str, Any]]:
    import json

    try:
        lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
