"""The command, its refusals, and what a run folder holds after success and after failure."""

import json
import re
import shutil
import subprocess
import sys
import threading

import pytest
import yaml
from filelock import FileLock

from workbench.batch.execute import execute, still_valid
from workbench.cli import main
from workbench.files import RequestError, read_json, replacing, sha256, write_json
from workbench.run_folder import NOTEBOOKS
from workbench.runs.catalog import in_use
from workbench.runs.folder import changed_parameters, fresh_folder, fresh_name, holding
from workbench.runs.parameters import check_parameters, read_settings
from workbench.scoring.baselines import BASELINES


def write_request(path, model, pairs):
    values = {"base_model": str(model), "max_pairs": pairs, "test_share": 0.3, "max_length": 64}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture
def finished(once, tiny_model):
    """A whole run through the command, in a process of its own, and what it printed.

    Only one test at a time has it, for a run that is resumed cannot be looked at.
    """

    def make(folder):
        folder.mkdir()
        write_request(folder / "tiny.yaml", tiny_model, 250)
        asked = ["tiny.yaml", "--runs-dir", folder, *["--name", "one", "-p", "seed", "7"]]
        command = [sys.executable, "-m", "workbench", "run", *asked]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "told.txt").write_text(done.stdout, encoding="utf-8")

    folder = once("finished", make)
    with FileLock(folder / "test.lock"):
        yield folder / "one", (folder / "told.txt").read_text(encoding="utf-8")


def test_the_command_runs_the_chain_and_prints_where_the_report_is(finished):
    run, told = finished
    ending = told[told.index("writing the report") :]
    assert f"report: {run / 'report.html'}\nnext:   workbench score {run} " in ending
    assert re.search(r"nDCG@10: model [\d.]+.*, best other: \w+ [\d.]+", ending)
    assert f"model:  {run / 'model'}\n" in ending
    assert "pairs/s" in told


LEFT = """
parameters.yaml environment.json status.json data/train.parquet data/dev.parquet data/test.parquet
data/manifest.json inspection.json training_log.jsonl model/model.safetensors model/README.md
evaluation/metrics.json evaluation/blend.json evaluation/per_query.parquet report.html
evaluation/errors.parquet figures/loss.png figures/ladder.png
"""


def test_a_run_folder_holds_what_the_plan_says(finished):
    run, _ = finished
    assert [name for name in LEFT.split() if not (run / name).is_file()] == []
    assert len(list((run / "notebooks").glob("*.ipynb"))) == 4
    assert yaml.safe_load((run / "parameters.yaml").read_text(encoding="utf-8"))["seed"] == 7
    assert read_json(run / "environment.json")["packages"]["torch"]
    status = read_json(run / "status.json")
    assert status["state"] == "done"
    assert [entry["state"] for entry in status["notebooks"].values()] == ["done"] * 4
    rows = read_json(run / "evaluation/metrics.json")["rows"]
    assert [row["scorer"] for row in rows] == ["model", "base", *BASELINES]
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert "| char_jaccard |" in card
    assert "unknown to the model's vocabulary" in card
    assert "src:url(data:font" in (run / "report.html").read_text(encoding="utf-8")
    assert not list(run.rglob("*.tmp"))


def test_resuming_with_other_parameters_names_what_changed(finished, capsys, tmp_path, tiny_model):
    write_request(tmp_path / "tiny.yaml", tiny_model, 200)
    place = ["--runs-dir", str(finished[0].parent), "--name", "one"]
    assert main(["run", str(tmp_path / "tiny.yaml"), *place, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "max_pairs: the run was started with 250, not 200" in error
    assert "seed: the run was started with 7, not 42" in error


@pytest.mark.parametrize("by_file", [True, False])
def test_a_finished_run_resumed_keeps_all_notebooks(finished, capsys, by_file):
    run, _ = finished
    before = (run / "model/model.safetensors").stat().st_mtime_ns
    file = [str(run.parent / "tiny.yaml"), "-p", "seed", "7"] if by_file else []
    assert main(["run", *file, "--runs-dir", str(run.parent), "--name", "one", "--resume"]) == 0
    assert capsys.readouterr().out.count("done earlier, kept") == 4
    assert (run / "model/model.safetensors").stat().st_mtime_ns == before


def test_a_notebook_that_runs_again_fails_and_goes_on(
    finished, tmp_path, tiny_model, capsys, monkeypatch
):
    """With the run's own parameters; earlier files stay, and what is replaced is kept."""
    run, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(finished[0], run)
    asked = ["run", "--runs-dir", str(tmp_path), "--name", "one", "-p", "compare_runs", str(other)]
    assert main([*asked, "--only", "04"]) == 2
    assert "compare_runs: " in capsys.readouterr().err
    shutil.copytree(tiny_model, other)

    def late(*given):  # it is gone when the notebook wants it
        shutil.rmtree(other)
        execute(*given)

    with monkeypatch.context() as patch:
        patch.setattr("workbench.batch.execute.execute", late)
        assert main([*asked, "--only", "04"]) == 1
    assert "04_evaluate_ranking" in capsys.readouterr().err
    before, status = (read_json(one / "status.json") for one in (finished[0], run))
    assert (status["state"], status["notebook"]) == ("failed", "04")
    assert status["cell"] > 0
    assert "ModelError" in status["error"]
    states = {number: entry["state"] for number, entry in status["notebooks"].items()}
    assert states == dict.fromkeys(NOTEBOOKS, "done") | {"04": "failed"}
    assert (run / "model/model.safetensors").is_file()
    executed = (run / "notebooks/04_evaluate_ranking.ipynb").read_text(encoding="utf-8")
    assert "ModelError" in executed
    assert "This run failed" in (run / "report.html").read_text(encoding="utf-8")
    shutil.copytree(tiny_model, other)
    assert main([*asked, "--only", "04", "--resume"]) == 0
    status = read_json(run / "status.json")
    assert status["state"] == "done"
    assert status["notebooks"]["03"] == before["notebooks"]["03"]
    used = yaml.safe_load((run / "parameters.yaml").read_text(encoding="utf-8"))
    assert used["seed"] == 7
    (old,) = (run / "earlier").glob("*/evaluation/metrics.json")
    assert read_json(old) == read_json(finished[0] / "evaluation/metrics.json")
    rows = {row["scorer"]: row for row in read_json(run / "evaluation/metrics.json")["rows"]}
    assert {row["scorer"]: row for row in read_json(old)["rows"]} == {
        name: row for name, row in rows.items() if name != "other"
    }
    assert "other" in rows


@pytest.mark.parametrize(
    ("again", "left"),
    [
        (["01"], []),
        (["02", "04"], ["01"]),
        (["03"], ["01", "02", "03", "04"]),
        (["04"], ["01", "02", "03"]),
        (["03", "04"], ["01", "02", "03"]),
    ],
)
def test_what_depends_on_a_notebook_that_runs_again_is_no_longer_done(again, left):
    entries = {act: {"state": "done"} for act in NOTEBOOKS}
    assert list(still_valid(entries, again)) == left


def test_a_look_at_a_run_does_not_keep_it_from_starting(tmp_path):
    """Who lists runs takes a lock for an instant, to see whether it is free."""
    looking = FileLock(tmp_path / ".lock", thread_local=False)
    looking.acquire()
    threading.Timer(0.1, looking.release).start()
    with holding(tmp_path):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)


def test_a_folder_that_another_process_makes_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20300101-000000")
    assert fresh_name("x", tmp_path) == "x-20300101-000000"
    assert fresh_folder("x", tmp_path).name == "x-20300101-000000"
    assert fresh_folder("x", tmp_path).name == "x-20300101-000000-2"
    names = iter(["a", "a", "b"])  # the second look still finds that name free
    monkeypatch.setattr("workbench.runs.folder.fresh_name", lambda *_: next(names))
    assert fresh_folder("x", tmp_path / "runs") == tmp_path / "runs/a"
    assert fresh_folder("x", tmp_path / "runs") == tmp_path / "runs/b"
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"file cannot be written \("):
        fresh_folder("x", tmp_path / "file")


def test_the_reference_is_the_card_and_has_no_fallback():
    quickstart = check_parameters(read_settings("notebooks/parameters/quickstart.yaml"))
    assert quickstart.seed == 42
    reference = check_parameters(read_settings("notebooks/parameters/reference.yaml"))
    assert reference.base_model == "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert (reference.batch_size, reference.learning_rate, reference.epochs) == (8, 5e-5, 1)
    assert (reference.max_length, reference.precision) == (512, "float32")
    assert (reference.fallback_model, reference.seed) == ("", 42)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_resuming_with_changed_pairs_is_refused_and_says_which(tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence_0,sentence_1,label\na,b,1\n", encoding="utf-8")
    run = tmp_path / "run"
    parameters = check_parameters({"pairs": str(pairs)})
    write_json(run / "data/manifest.json", {"sha256": sha256(pairs)})
    (run / "parameters.yaml").write_text(yaml.safe_dump(parameters.model_dump()), encoding="utf-8")
    assert changed_parameters(parameters, run) == []
    pairs.write_text("sentence_0,sentence_1,label\na,b,0\n", encoding="utf-8")
    (problem,) = changed_parameters(parameters, run)
    assert "pairs.csv has changed since the run was started" in problem
