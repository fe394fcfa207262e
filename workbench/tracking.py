"""Runs handed to a tracker, MLflow or trackio, for those who keep their figures there.

Off unless asked for; run folders remain the truth, and a tracker's copy can be made again at any
time. Without an address, MLflow writes into a folder beside the runs, and nothing leaves the
machine. A run that the tracker has already, by its identity and time, is not handed over twice.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.catalog import RunRecord
from workbench.files import project_path
from workbench.runs import RequestError

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
            values = [Metric(name.replace("@", "_at_"), value, when, step)
                      for name, value, step, when in metrics(record)]  # fmt: skip
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
            project=PROJECT, name=key(record), config=dict(record.parameters), embed=False,
            auto_log_cpu=False, auto_log_gpu=False,  # this machine's load now is not the run's
        )  # fmt: skip
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
