"""Runs exported to MLflow: to a store, to a server, each once, and nowhere unless asked."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml
from filelock import FileLock

from tests.benchmarks.comparing import make_runs
from workbench.batch.plan import last_value
from workbench.files import RequestError
from workbench.runs.catalog import PROJECT, _key, _metrics, export_runs, read_run


@pytest.fixture
def folder(tmp_path):
    make_runs(tmp_path / "runs", 2, queries=5, seeds=1)
    return tmp_path / "runs"


# Notes whom a process of Python asks for or connects to.
WATCH = """
import os, sys
def watch(event, given):
    if event in ("socket.getaddrinfo", "socket.connect"):
        place = given[0] if event == "socket.getaddrinfo" else given[1]
        host = place[0] if isinstance(place, tuple) else place
        if host not in ("127.0.0.1", "localhost", None):
            with open(os.environ["WATCHED"], "a") as file:
                print(event, place, file=file)
sys.addaudithook(watch)
"""


@pytest.fixture
def watched(tmp_path):
    """Variables as of a user's shell, for processes that must reach nothing outside; checked."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    report = tmp_path / "watch/report.txt"
    report.touch()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME") or name.startswith("COVERAGE")
    }
    yield kept | {
        "PYTHONPATH": f"{tmp_path / 'watch'}{os.pathsep}{Path.cwd()}",
        "WATCHED": str(report),
    }
    assert report.read_text() == ""


@pytest.fixture
def server(tmp_path, watched):
    """The address of a server of MLflow, at a port that the system chooses."""
    for name in ("mlflow", "flask_cors", "sqlalchemy"):
        pytest.importorskip(name)
    log = tmp_path / "server.log"
    options = "--workers 1 --host 127.0.0.1 --port 0 --artifacts-destination artifacts"
    options += " --backend-store-uri sqlite:///server.db"
    silent = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options.split()],
            env=watched | silent,
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def export(folder, environment, uri):
    """Export twice; the second time all is there."""
    arguments = ["runs", "--export", "mlflow", "--uri", uri, "--runs-dir", str(folder)]
    for said in ("2 runs exported, 0 were there", "0 runs exported, 2 were there"):
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *arguments],
            text=True,
            capture_output=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_every_figure_has_a_name_a_step_and_a_finite_value(folder):
    found = list(_metrics(read_run(folder / "run-000")))
    names = [name for name, *_ in found]
    assert names.count("loss") == 100
    assert {"ndcg_at_10", "ndcg_at_10.low", "ndcg_at_10.high", "seconds"} <= set(names)
    assert [step for name, _, step, _ in found if name == "loss"] == list(range(10, 1001, 10))


def test_damaged_lines_of_a_log_are_left_out(folder):
    log = folder / "run-000/training_log.jsonl"
    rows = ["[1]", "3", "[" * 100_000, '{"loss": "0.5"}', '{"step": [1]}', '{"seconds": NaN}', "{"]
    rows += ['{"step": 2, "loss": 0.5}', '{"step": 3, "dev_ap": 0.5, "dev_pairs": 40}']
    scored = {"dev_ap": 0.5, "dev_ndcg": 0.25, "dev_pairs": 40, "dev_positives": 3}
    rows.append(json.dumps({"stage": "stage 1", "step": 1001, **scored}))
    with log.open("a", encoding="utf-8") as file:
        file.write("\n".join(rows))
    found = list(_metrics(read_run(folder / "run-000")))
    assert ("dev_ndcg", 0.25, 1001, 0) in found
    assert [name for name, *_ in found].count("loss") == 100
    assert last_value(folder / "run-000", "dev_ndcg") == 0.25
    assert last_value(folder / "run-001", "dev_ap") is None


def test_running_runs_are_left_out_and_others_exported_once(folder, capsys, monkeypatch):
    pytest.importorskip("mlflow")
    seen = []

    class Client:
        """As much of a client as asks which runs are there."""

        def __init__(self, tracking_uri):
            assert tracking_uri == "a"

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return "1"

        def search_runs(self, *_):
            tags = [{"workbench.key": _key(record)} for record in seen]
            return [SimpleNamespace(data=SimpleNamespace(tags=tag)) for tag in tags]

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    monkeypatch.setattr(
        "workbench.runs.catalog._export_run", lambda client, where, record: seen.append(record)
    )
    status = folder / "run-001/status.json"
    status.write_text(
        json.dumps({"schema": 1, "state": "running", "notebooks": {}}), encoding="utf-8"
    )
    with FileLock(folder / "run-001/.lock"):
        for said in ("1 runs exported, 0 were there", "0 runs exported, 1 were there"):
            export_runs([read_run(path) for path in sorted(folder.glob("run-*"))], "a")
            assert said in capsys.readouterr().out
    assert [record.name for record in seen] == ["run-000"]


def test_mlflow_that_is_not_installed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RequestError, match="pip install 'mlflow-skinny"):
        export_runs([read_run(folder / "run-000")])


def test_runs_go_into_a_store_of_mlflow_once(folder, tmp_path, watched):
    """In a process of its own: the client leaves threads and settings behind."""
    pytest.importorskip("mlflow")
    export(folder, watched, (tmp_path / "store").as_uri())
    params = list((tmp_path / "store").rglob("params/vocabulary"))
    assert sorted(path.read_text() for path in params) == ["keep", "unused"]
    losses = list((tmp_path / "store").rglob("metrics/loss"))
    assert [len(path.read_text().splitlines()) for path in losses] == [100, 100]


def asked(server, way, **values):
    """The answer of MLflow's interface, without its client."""
    address = f"{server}/api/2.0/mlflow/{way}"
    if way.endswith("search"):
        body = json.dumps(values).encode()
        address = Request(address, body, {"Content-Type": "application/json"})
    else:
        address += f"?{urlencode(values)}"
    with urlopen(address) as answer:
        return json.load(answer)


def test_a_server_of_mlflow_gives_back_what_the_run_folders_hold(folder, tmp_path, watched, server):
    export(folder, watched, server)
    experiment = asked(server, "experiments/get-by-name", experiment_name=PROJECT)
    number = experiment["experiment"]["experiment_id"]
    found = asked(server, "runs/search", experiment_ids=[number], max_results=100)["runs"]
    assert sorted(run["info"]["run_name"] for run in found) == ["run-000", "run-001"]
    for run in found:
        record = read_run(folder / run["info"]["run_name"])
        assert run["info"]["status"] == "FINISHED"
        params = yaml.safe_load((record.folder / "parameters.yaml").read_text(encoding="utf-8"))
        given = {one["key"]: one.get("value", "") for one in run["data"]["params"]}
        texts = {n: ", ".join(v) if isinstance(v, list) else str(v) for n, v in params.items()}
        assert given == texts
        tags = {one["key"]: one.get("value", "") for one in run["data"]["tags"]}
        assert (tags["workbench.key"], tags["workbench.state"]) == (_key(record), "done")
        assert tags["workbench.folder"] == str(record.folder)
        last = {one["key"]: one["value"] for one in run["data"]["metrics"]}
        lines = (record.folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [(row["step"], row["loss"]) for row in map(json.loads, lines)]
        (row,) = json.loads((record.folder / "evaluation/metrics.json").read_text())["rows"]
        figures = {
            "ndcg_at_10" + ("" if part == "mean" else f".{part}"): value
            for part, value in row["ndcg@10"].items()
        }
        assert last == {"loss": losses[-1][1], "seconds": 40.0, **figures}
        asked_for = {"run_id": run["info"]["run_id"], "metric_key": "loss", "max_results": 500}
        history = asked(server, "metrics/get-history", **asked_for)["metrics"]
        assert sorted((int(one.get("step", 0)), one["value"]) for one in history) == losses
        kept = [*(tmp_path / "artifacts").rglob(f"{run['info']['run_id']}/**/parameters.yaml")]
        assert [path.read_bytes() for path in kept] == [
            (record.folder / "parameters.yaml").read_bytes()
        ]
