"""Runs handed to MLflow: into a store, through a server of its own, once, and nowhere unasked."""

import json
import subprocess
import sys

import pytest
from filelock import FileLock

from tests.benchmarks.comparing import make_runs
from workbench import tracking
from workbench.__main__ import main
from workbench.catalog import read_run


@pytest.fixture
def folder(tmp_path):
    make_runs(tmp_path / "runs", 2, queries=5, seeds=1)
    return tmp_path / "runs"


def test_every_figure_has_a_name_a_step_and_a_finite_value(folder):
    found = list(tracking.metrics(read_run(folder / "run-000")))
    names = [name for name, *_ in found]
    assert names.count("loss") == 100
    assert {"ndcg@10", "ndcg@10.low", "ndcg@10.high", "seconds"} <= set(names)
    assert [step for name, _, step, _ in found if name == "loss"] == list(range(10, 1001, 10))


def test_runs_that_go_on_are_left_out_and_others_handed_over_once(folder, capsys, monkeypatch):
    seen = set()

    def store(records, uri):
        new = [record for record in records if tracking.key(record) not in seen]
        seen.update(map(tracking.key, records))
        return len(new)

    monkeypatch.setattr(tracking, "to_mlflow", store)
    status = folder / "run-001/status.json"
    status.write_text(json.dumps({"schema": 1, "state": "running", "acts": {}}), encoding="utf-8")
    with FileLock(folder / "run-001/.lock"):
        for said in ("1 runs handed over, 0 were there", "0 runs handed over, 1 were there"):
            assert main(["runs", "--export", "mlflow", "--runs-dir", str(folder)]) == 0
            assert said in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert main(["runs", "--export", "trackio", "--runs-dir", str(folder)]) == 2
    assert "pip install 'trackio'" in capsys.readouterr().err
    assert main(["runs", "--export", "trackio", "--uri", "x", "--runs-dir", str(folder)]) == 2
    assert "writes locally only" in capsys.readouterr().err


def test_runs_go_into_a_store_of_mlflow_once(folder, tmp_path):
    """In a process of its own: the client leaves threads and settings behind."""
    pytest.importorskip("mlflow")
    store = (tmp_path / "store").as_uri()
    arguments = ["runs", "--export", "mlflow", "--uri", store, "--runs-dir", str(folder)]
    for said in ("2 runs handed over, 0 were there", "0 runs handed over, 2 were there"):
        done = subprocess.run([sys.executable, "-m", "workbench", *arguments], text=True,
                              capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    params = list((tmp_path / "store").rglob("params/vocabulary"))
    assert sorted(path.read_text() for path in params) == ["keep", "unused"]
    losses = list((tmp_path / "store").rglob("metrics/loss"))
    assert [len(path.read_text().splitlines()) for path in losses] == [100, 100]
