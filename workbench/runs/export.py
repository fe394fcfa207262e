"""Export of run records to MLflow (extra `tracking`)."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.files import project_path
from workbench.run_folder import RequestError, RunFolder
from workbench.runs.catalog import RunRecord

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
    # The client reports its use to its makers, and refuses plain files, unless told otherwise.
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
