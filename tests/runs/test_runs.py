"""The command, its refusals, and what a run folder holds after success and after failure."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from workbench.batch.execute import run_chain, still_valid
from workbench.cli import main
from workbench.files import read_json, replacing, sha256, write_json
from workbench.run_folder import NOTEBOOKS, RequestError
from workbench.runs.catalog import in_use
from workbench.runs.folder import changed_parameters, fresh_folder, fresh_name, holding
from workbench.runs.parameters import ParameterError, Parameters, check_parameters, load_parameters

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def request_file(tmp_path, tiny_model):
    path = tmp_path / "tiny.yaml"
    values = {"base_model": str(tiny_model), "max_pairs": 200, "test_share": 0.3, "max_length": 64}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def command(*arguments):
    return [sys.executable, "-m", "workbench", *map(str, arguments)]


@pytest.fixture
def finished(once, tiny_model):
    """A whole run through the command, in a process of its own, and what it printed.

    Only one test at a time has it, for a run that is resumed cannot be looked at.
    """

    def make(folder):
        folder.mkdir()
        values = {
            "base_model": str(tiny_model),
            "max_pairs": 250,
            "test_share": 0.3,
            "max_length": 64,
        }
        (folder / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        done = subprocess.run(
            command(
                "run", folder / "tiny.yaml", "--runs-dir", folder, "--name", "one", "-p", "seed", 7
            ),
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
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


def test_a_run_folder_holds_what_the_plan_says(finished):
    run, _ = finished
    for name in (
        "parameters.yaml",
        "environment.json",
        "status.json",
        "data/train.parquet",
        "data/dev.parquet",
        "data/test.parquet",
        "data/manifest.json",
        "inspection.json",
        "training_log.jsonl",
        "model/model.safetensors",
        "model/README.md",
        "evaluation/metrics.json",
        "evaluation/blend.json",
        "evaluation/per_query.parquet",
        "evaluation/errors.parquet",
        "report.html",
        "figures/loss.png",
        "figures/ladder.png",
    ):
        assert (run / name).is_file(), name
    assert len(list((run / "notebooks").glob("*.ipynb"))) == 4
    assert yaml.safe_load((run / "parameters.yaml").read_text(encoding="utf-8"))["seed"] == 7
    assert read_json(run / "environment.json")["packages"]["torch"]
    status = read_json(run / "status.json")
    assert status["state"] == "done"
    assert [entry["state"] for entry in status["notebooks"].values()] == ["done"] * 4
    rows = read_json(run / "evaluation/metrics.json")["rows"]
    names = {
        "model",
        "base",
        "base_dictionary",
        "ngram_regression",
        "bm25",
        "tfidf_cosine",
        "char_jaccard",
        "token_jaccard",
        "candidate_order",
        "random",
    }
    assert {row["scorer"] for row in rows} == names
    assert not list(run.rglob("*.tmp"))


def test_the_card_takes_up_the_figures(finished):
    card = (finished[0] / "model/README.md").read_text(encoding="utf-8")
    assert "| char_jaccard |" in card
    assert "unknown to the model's vocabulary" in card


def test_an_existing_run_is_refused_and_untouched(finished, capsys, request_file):
    run, _ = finished
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    code = main(["run", str(request_file), "--runs-dir", str(run.parent), "--name", "one"])
    assert code == 2
    assert "choose another --name" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_resuming_with_other_parameters_names_what_changed(finished, capsys, request_file):
    arguments = ["run", str(request_file), "--runs-dir", str(finished[0].parent), "--name", "one"]
    assert main([*arguments, "--resume"]) == 2
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


def test_bad_candidates_stop_the_run_before_it_starts(tmp_path, request_file, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": "q"}\n', encoding="utf-8")
    arguments = [
        "run",
        str(request_file),
        "--runs-dir",
        str(tmp_path),
        "--name",
        "bad",
        "-p",
        "candidates",
        str(bad),
        "-p",
        "max_pairs",
        "60",
    ]
    assert main(arguments) == 2
    assert "line 1, column positive" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_a_notebook_that_runs_again_fails_and_goes_on(finished, tmp_path, tiny_model, capsys):
    """With the run's own parameters; earlier files stay, and what is replaced is kept."""
    run, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(finished[0], run)
    other.mkdir()  # no model in it yet
    asked = ["run", "--runs-dir", str(tmp_path), "--name", "one", "-p", "compare_runs", str(other)]
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
    shutil.copytree(tiny_model, other, dirs_exist_ok=True)
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning_rat", "1"], "did you mean 'learning_rate'?"),
        (["epochs", "many"], "epochs: input should be a valid number"),
        (["batch_size", "0"], "batch_size: input should be greater than or equal to 1"),
        (
            ["precision", "half"],
            "precision: input should be 'auto', 'float32', 'bfloat16' or 'float16'",
        ),
        (["pairs", "no/such.csv"], "there is no file 'no/such.csv'"),
        (["candidates", "no/such.jsonl"], "there is no file 'no/such.jsonl'"),
        (["base_model", "bundled:none"], "the only bundled model"),
        (["dev_share", "0.9"], "together they must stay below 1"),
    ],
)
def test_a_wrong_request_starts_nothing(tmp_path, request_file, capsys, overrides, message):
    runs_dir = tmp_path / "runs"
    code = main(
        ["run", str(request_file), "--runs-dir", str(runs_dir), "--name", "x", "-p", *overrides]
    )
    assert code == 2
    assert message in capsys.readouterr().err
    assert not runs_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "07", "--name", "x"], "--only 07"),
        (["--resume"], "say which run"),
        (["--resume", "--name", "none"], "cannot be resumed"),
        (["--name", "../up"], "plain folder name"),
    ],
)
def test_wrong_options_start_nothing(tmp_path, request_file, capsys, arguments, message):
    code = main(["run", str(request_file), "--runs-dir", str(tmp_path / "runs"), *arguments])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_run_is_not_written_into(tmp_path, request_file, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    assert main(["run", str(request_file), "--runs-dir", str(tmp_path), "--name", "mine"]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_run_in_use_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    request = Parameters(base_model="bundled:all-MiniLM-L6-v2")
    with (
        FileLock(tmp_path / "run/.lock"),
        pytest.raises(RequestError, match="in use by another process"),
    ):
        run_chain(request, tmp_path / "run")


def test_a_look_at_a_run_does_not_keep_it_from_starting(tmp_path):
    """Who lists runs takes a lock for an instant, to see whether it is free."""
    looking = FileLock(tmp_path / ".lock", thread_local=False)
    looking.acquire()
    threading.Timer(0.1, looking.release).start()
    with holding(tmp_path):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)


def test_fresh_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20300101-000000")
    names = []
    for _ in range(3):
        names.append(fresh_name("quickstart", tmp_path))
        (tmp_path / names[-1]).mkdir()
    assert names == [
        "quickstart-20300101-000000",
        "quickstart-20300101-000000-2",
        "quickstart-20300101-000000-3",
    ]


def test_a_folder_that_another_process_makes_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    names = iter(["a", "a", "b"])  # the second look still finds that name free
    monkeypatch.setattr("workbench.runs.folder.fresh_name", lambda *_: next(names))
    assert fresh_folder("x", tmp_path / "runs") == tmp_path / "runs/a"
    assert fresh_folder("x", tmp_path / "runs") == tmp_path / "runs/b"
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"file cannot be written \("):
        fresh_folder("x", tmp_path / "file")


@pytest.mark.parametrize("text", ["- a list", "a: b: c", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=r"bad\.yaml"):
        load_parameters(path)


def test_all_wrong_parameters_are_named_at_once():
    with pytest.raises(ParameterError) as error:
        check_parameters({"epochs": -1, "seeed": 1, "max_length": "x"})
    named = {line.split(":")[0] for line in str(error.value).splitlines()}
    assert named == {"epochs", "max_length", "seeed"}


@pytest.mark.parametrize("name", ["quickstart", "reference"])
def test_shipped_parameter_files_are_valid(name):
    parameters = load_parameters(f"notebooks/parameters/{name}.yaml")
    assert parameters.seed == 42


def test_reference_is_the_card_and_lets_nothing_stand_in():
    reference = load_parameters("notebooks/parameters/reference.yaml")
    assert reference.base_model == "cross-encoder/ms-marco-MiniLM-L6-v2"
    assert (reference.batch_size, reference.learning_rate, reference.epochs) == (8, 5e-5, 1)
    assert (reference.max_length, reference.precision) == (512, "float32")
    assert reference.fallback_model == ""


def test_a_missing_file_is_named(capsys):
    assert main(["run", "no/such.yaml"]) == 2
    assert "no/such.yaml" in capsys.readouterr().err


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


def test_the_report_escapes_texts_and_runs_no_script(tmp_path, finished):
    import nbformat

    from workbench.reports.page import write_report

    run = tmp_path / "run"
    (run / "notebooks").mkdir(parents=True)
    source = finished[0] / "notebooks/03_plot_loss.ipynb"
    shutil.copy(source, run / "notebooks/03_plot_loss.ipynb")
    notebook = nbformat.read(run / "notebooks/03_plot_loss.ipynb", as_version=4)
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)><td onclick=alert(3)>x</td>"
    cell = nbformat.v4.new_code_cell(
        source="1",
        outputs=[
            nbformat.v4.new_output("display_data", {"text/html": evil}),
            nbformat.v4.new_output("display_data", {"application/javascript": "alert(4)"}),
            nbformat.v4.new_output("stream", text=evil),
        ],
    )
    notebook.cells.append(cell)
    nbformat.write(notebook, run / "notebooks/03_plot_loss.ipynb")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "onerror=alert(2)>" not in page
    assert "<td onclick" not in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src:url(data:font" in (finished[0] / "report.html").read_text(encoding="utf-8")


def test_a_run_folder_that_is_not_there_is_no_name_on_the_hub(request_file, tmp_path, capsys):
    arguments = ["run", str(request_file), "--runs-dir", str(tmp_path), "--name", "one"]
    assert main([*arguments, "-p", "base_model", "data/nonesuch"]) == 2
    assert "'data/nonesuch' is neither a folder" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


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
