"""What can go wrong in a run: it is reported, nothing is lost, and the run can go on."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock, Mock

import nbformat
import psutil
import pytest
from filelock import FileLock

import workbench
from tests.batch.test_preflight import snapshot
from tests.batch.tiny_project import SIGNALS, TinyProject, await_end, await_file
from workbench.batch.execute import execute, run_chain
from workbench.cli import csv_cell, main, show
from workbench.files import remove_leftovers, write_json, write_text
from workbench.run_folder import NOTEBOOKS, RunFolder, read_record, set_aside
from workbench.runs.parameters import Parameters, check_parameters, read_settings


@pytest.fixture
def project(tmp_path, tiny_model):
    """A project whose notebooks run in kernels."""
    return TinyProject(tmp_path, tiny_model, "kernels", "report")


@pytest.fixture
def quick(tmp_path, tiny_model):
    """A project whose notebooks take no time, nor what is around them."""
    return TinyProject(tmp_path, tiny_model)


@pytest.mark.parametrize(
    ("number", "name"),
    [("01", "SIGKILL"), ("02", "SIGTERM"), ("04", "Ctrl-C")],
)
def test_a_signal_in_a_notebook(tmp_path, tiny_model, number, name):
    """Ended in any notebook, in any way: no kernel is left, earlier ones stay, the run goes on."""
    project = TinyProject(tmp_path, tiny_model, "kernels")
    run, earlier = project.runs / "x", [one for one in NOTEBOOKS if one < number]
    (project.root / "wait").write_text(number)
    process = project.ask("run", project.request, "--name", "x", "-p", "seed", "5")
    await_file(run / f"at-{number}", process)
    kernels = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    before = snapshot(run / "data")
    assert kernels
    process.send_signal(SIGNALS[name])
    _, error = process.communicate(timeout=120)
    assert await_end(kernels) == []
    status = project.status("x")
    assert [a for a, one in status["notebooks"].items() if one["state"] == "done"] == earlier
    assert snapshot(run / "data") == before
    if name == "SIGKILL":
        assert process.returncode == -9
        assert status["state"] == "running"  # nobody was left to say otherwise; `runs` sees it
    else:
        assert process.returncode == 1
        assert error.splitlines()[-1] == "interrupted; go on with --name x --resume"
        assert "Traceback" not in error
        assert (status["state"], status["notebook"]) == ("failed", number)
    assert "interrupted" in project.run("runs")[1]
    (project.root / "wait").unlink()
    code, out, error = project.run("run", "--name", "x", "--resume")
    assert code == 0, error
    assert out.count("done earlier, kept") == len(earlier)
    assert (run / "result.txt").read_text() == "seed 5"
    assert not list(run.rglob("*.tmp"))


def test_a_kernel_that_is_killed_as_if_for_its_memory(project):
    (project.root / "die").write_text("02")
    code, _, error = project.run("run", project.request, "--name", "x")
    assert code == 1
    assert "notebook 02_fine_tune: DeadKernelError" in error
    assert "want of memory; try a smaller batch_size" in error
    status = project.status("x")
    assert (status["state"], status["notebook"], status["cell"]) == ("failed", "02", None)
    assert status["notebooks"]["01"]["state"] == "done"
    assert "This run failed" in (project.runs / "x/report.html").read_text(encoding="utf-8")


def limited_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_disk_that_is_full_in_mid_run(project):
    """A file may grow to a megabyte and no further: what a full disk does, by the same OSError."""
    (project.root / "fill").write_text("02")
    code, _, error = project.run("run", project.request, "--name", "x", preexec_fn=limited_files)
    assert code == 1
    assert "notebook 02_fine_tune, cell" in error
    assert "OSError" in error
    assert project.status("x")["notebooks"]["01"]["state"] == "done"
    assert project.status("x")["state"] == "failed"
    (project.root / "fill").unlink()
    assert project.run("run", "--name", "x", "--resume")[0] == 0


def test_two_runs_with_one_name_at_once(quick):
    (quick.root / "wait").write_text("01")
    first = quick.ask("run", quick.request, "--name", "x")
    await_file(quick.runs / "x" / "at-01", first)
    before = snapshot(quick.runs / "x")
    for options in ([], ["--resume"], ["--only", "01"]):
        code, _, error = quick.run("run", quick.request, "--name", "x", *options)
        assert code == 2
        assert "in use by another process" in error or "choose another --name" in error
    code, _, error = quick.run("runs", "rm", "x", "--yes")
    assert code == 2
    assert "in use by another process" in error
    assert snapshot(quick.runs / "x") == before
    (quick.root / "wait").unlink()
    _, error = first.communicate(timeout=120)
    assert first.returncode == 0, error
    assert quick.status("x")["state"] == "done"


SAME_SECOND = """
import time
plain = time.strftime
time.strftime = lambda form, *at: "20300101-000000" if form == "%Y%m%d-%H%M%S" else plain(form, *at)
"""


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_requests_without_a_name_in_the_same_second(quick, command):
    """Each gets its own folder, though all have the same idea of its name."""
    (quick.site / "sitecustomize.py").write_text(SAME_SECOND)
    asked = quick.request
    if command == "sweep":
        asked = quick.root / "sweep.yaml"
        write_text(asked, f"parameters: {quick.request}\nseeds: [1]\n")
    processes = [quick.ask(command, asked) for _ in range(2)]
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    stamp = f"{asked.stem}-20300101-000000"
    assert {path.name for path in quick.runs.iterdir()} == {stamp, f"{stamp}-2"}
    before = snapshot(quick.root.parent)
    assert quick.run(command, asked, "-p", "epochs", "many")[0] == 2
    assert snapshot(quick.root.parent) == before
    assert len(list(quick.runs.iterdir())) == 2


BROKEN = {
    "is no JSON": (lambda file: file.write_text("{"), "02_fine_tune"),
    "is gone": (lambda file: file.unlink(), "02_fine_tune"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_notebook_that_was_edited_and_is_broken(quick, name):
    damage, message = BROKEN[name]
    damage(quick.root / "notebooks/02_fine_tune.ipynb")
    code, _, error = quick.run("run", quick.request, "--name", "x")
    assert code == 1
    assert message in error
    status = quick.status("x")
    assert (status["state"], status["notebook"]) == ("failed", "02")
    assert status["notebooks"]["01"]["state"] == "done"
    assert (quick.runs / "x/data/manifest.json").is_file()


def test_a_notebook_that_takes_no_parameters_is_not_executed(tmp_path):
    source = tmp_path / "in.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), source)
    with pytest.raises(ValueError, match="no cell tagged 'parameters' that declares run_dir"):
        execute(source, tmp_path / "out.ipynb", {}, Mock())
    assert not (tmp_path / "out.ipynb").exists()


def test_a_file_that_vanishes_after_the_preflight_has_seen_it(
    chain, tiny_model, tmp_path, capsys, monkeypatch
):
    """The real notebook 2 on what the first has left, but for one file."""
    run, file, lost = tmp_path / "runs/x", tmp_path / "runs/x/data/train.parquet", tmp_path / "lost"
    shutil.copytree(chain, run)
    write_text(run / "parameters.yaml", f"base_model: {tiny_model}\nmax_pairs: 300\n")
    before = snapshot(run / "data") | snapshot(run / "model")

    def late(*arguments):
        file.rename(lost)
        execute(*arguments)

    monkeypatch.setattr("workbench.batch.execute.execute", late)
    asked = ["--runs-dir", str(tmp_path / "runs"), "--name", "x", "--only", "02"]
    assert main(["run", str(run / "parameters.yaml"), *asked]) == 1
    error = capsys.readouterr().err
    assert "notebook 02_fine_tune, cell" in error
    assert file.name in error
    status = read_record(RunFolder(run).status)
    assert (status["state"], status["notebook"]) == ("failed", "02")
    lost.rename(file)
    assert snapshot(run / "data") | snapshot(run / "model") == before


SIDES = {"sides": {"test": {"positives": 9}}}


def test_notebooks_are_run_in_their_order_and_once_however_they_are_named(tmp_path, monkeypatch):
    run = Mock()
    monkeypatch.setattr("workbench.batch.execute._run_notebooks", run)
    monkeypatch.setattr("workbench.runs.folder.run_identity", Mock(return_value=""))
    run_chain(Parameters(), tmp_path / "run", ["03", "01", "03"], checked=True)
    assert run.call_args.args[2] == ["01", "03"]


def test_a_clock_that_goes_backwards(quick, monkeypatch, tmp_path):
    """Each look at the clock gives an earlier time; durations come from another one."""
    hour = iter(range(100_000, 0, -1))
    monkeypatch.setattr(time, "strftime", lambda *_: f"20300101-{next(hour):06d}")
    monkeypatch.setattr(time, "time", lambda: float(next(hour)))
    for number in range(3):
        (tmp_path / "a").write_text(str(number))
        set_aside(tmp_path, ["a"])
    assert sorted(p.read_text() for p in tmp_path.glob("earlier/*/a")) == ["0", "1", "2"]

    def prepared(_source, _target, values, _kernel):
        write_json(Path(values["run_dir"]) / "data/manifest.json", SIDES)

    monkeypatch.setattr("workbench.batch.execute.execute", prepared)
    monkeypatch.setattr("workbench.batch.execute.Kernels", MagicMock())
    run_chain(check_parameters(read_settings(quick.request)), quick.runs / "x")
    status = quick.status("x")
    assert status["state"] == "done"
    assert status["finished"] < status["started"]
    assert all(entry["seconds"] >= 0 for entry in status["notebooks"].values())


def test_runs_at_once_do_not_race(tmp_path, tiny_model):
    """Kernels that start at the same moment: sockets, caches, figures, names."""
    project = TinyProject(tmp_path, tiny_model, "kernels", draws=True)
    processes = [
        project.ask("run", project.request, "--name", f"r{n}", "-p", "seed", n) for n in range(3)
    ]
    for number, process in enumerate(processes):
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert (project.runs / f"r{number}" / "result.txt").read_text() == f"seed {number}"
        assert (project.runs / f"r{number}" / "figures/a.png").stat().st_size > 1000
    assert not [path for path in project.root.iterdir() if "ipc" in path.name]


FORMULAS = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text_in_a_csv_export(text, capsys):
    assert csv_cell(text) == f"'{text}"
    show([{"name": text, "state": "done", "problem": "", "ndcg@10": -0.5}], "csv")
    line = capsys.readouterr().out.split("\n", 1)[1]
    assert line.lstrip('"').startswith("'")
    assert "-0.5" in line  # a number stays a number


def test_a_damaged_run_is_listed_and_stops_nobody(tmp_path, capsys):
    done, bomb = '{"schema": 1, "state": "done"}', "a: !!python/object/apply:os.system [id]\n"
    for name, parameters, status in (
        ("good", "seed: 1\n", done),
        ("bad", "seed: 1\n", "{"),
        ("bomb", bomb, done),
        ("future", "seed: 1\n", done.replace("1", "5")),
    ):
        write_text(tmp_path / name / "parameters.yaml", parameters)
        write_text(tmp_path / name / "status.json", status)
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out
    states = dict(line.split()[:2] for line in lines.splitlines()[1:5])
    assert states == dict.fromkeys(("bad", "bomb", "future"), "damaged") | {"good": "incomplete"}
    assert "newer workbench" in lines


def test_removing_asks_and_follows_no_link(tmp_path, capsys, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("x")
    write_text(tmp_path / "runs/a/parameters.yaml", "seed: 1\n")
    (tmp_path / "runs/a/link").symlink_to(outside)
    (tmp_path / "runs/out").symlink_to(outside)
    write_text(outside / "parameters.yaml", "seed: 1\n")
    arguments = ["runs", "rm", "a", "--runs-dir", str(tmp_path / "runs")]
    assert main(arguments) == 2  # nobody is there to ask
    assert "add --yes" in capsys.readouterr().err
    for name in ("out", "../outside", "..", ".", "/etc", "none"):
        assert main(["runs", "rm", name, "--yes", "--runs-dir", str(tmp_path / "runs")]) == 2
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(arguments) == 0
    assert (tmp_path / "runs/a").is_dir()
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(["runs", "--runs-dir", str(tmp_path / "runs"), "rm", "a"]) == 0
    assert not (tmp_path / "runs/a").exists()
    assert (outside / "thesis.txt").read_text() == "x"


def test_removing_says_which_runs_need_it_and_takes_paths_too(tmp_path, capsys, monkeypatch):
    runs = tmp_path / "other_runs"
    needs = {
        "base": f"base_model: {runs}/a",
        "teacher": f"teacher: {runs}/a/model",
        "ladder": f"zero_shot: [bundled:x, {runs}/a]",
        "beside": f"compare_runs: '{runs}/b, {runs}/a'",
        "lists": f"candidates: {runs}/a/evaluation/candidates.jsonl",
        "other": f"base_model: {runs}/ab\nteacher: bm25\npairs: {'x' * 5000}",
        "a": "seed: 1",
    }
    for name, text in needs.items():
        write_text(runs / name / "parameters.yaml", f"{text}\n")
    write_json(runs / "swept/sweep.json", {"jobs": {"kept": {"same_as": str(runs / "a")}}})
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", Mock(side_effect=EOFError))
    for given in ("a", str(runs / "a"), "other_runs/a/"):
        monkeypatch.chdir(tmp_path)
        assert main(["runs", "rm", given, "--runs-dir", str(runs)]) == 0
        told = capsys.readouterr().out
        assert "used by base, beside, ladder, lists, teacher, swept\n" in told
        assert "nothing was deleted" in told
    assert main(["runs", "rm", "x" * 5000, "--yes", "--runs-dir", str(runs)]) == 2
    assert len(list(runs.iterdir())) == len(needs) + 1


def test_no_module_loads_a_pickle_or_runs_a_text():
    """None of the ways in which a file or a text could become code is used anywhere."""
    never = re.compile(
        r"\bpickle\b(?!d)|torch\.load(?!\(.*weights_only=True\))|joblib|allow_pickle|(?<!\.)\b(eval|exec)\(|shell=True|"
        r"os\.system|os\.popen|trust_remote_code=True|yaml\.(unsafe_load|full_load)|read_pickle|dill|marshal"
    )
    for path in sorted(Path(workbench.__file__).parent.rglob("*.py")):
        code = [line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
        found = [line for line in code if never.search(line)]
        assert not found, f"{path.name}: {found}"


HANDED_ON = """
import signal, subprocess, sys
from workbench.batch.kernels import sigterm_for_kernels
from workbench.run_folder import Terminated
wait = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
child = subprocess.Popen([sys.executable, "-c", wait + "print(1, flush=True); time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
before = signal.getsignal(signal.SIGTERM)
try:
    with sigterm_for_kernels():
        signal.raise_signal(signal.SIGTERM)
        child.wait()
except Terminated:
    print("ended", child.returncode, signal.getsignal(signal.SIGTERM) is before)
"""


def test_sigterm_is_handed_on_to_the_kernel_and_then_ends_the_run():
    done = subprocess.run([sys.executable, "-c", HANDED_ON], capture_output=True, text=True)
    assert done.stdout == "ended 7 True\n", done.stderr


RECORDS = {
    "status.json": ['{"notebooks": {"01": {"seconds": NaN}}}'],
    "data/manifest.json": ['{"sides": {"test": []}}'],
    "evaluation/metrics.json": [
        '{"rows": [{"scorer": "model"}], "queries": 1, "model_minus": {}}',
        '{"rows": [], "queries": 1, "model_minus": {"a": {"low": 1}}}',
    ],
    "evaluation/browser.json": ["{}", '[{"query": 1}]'],
    "model/lineage.json": ["{}", '{"stages": []}', '{"stages": [{"stage": "one"}]}'],
}


@pytest.fixture
def small_run(tmp_path, tiny_model):
    """A run folder with parameters, a model and a status, and nothing else."""
    run = tmp_path / "runs/x"
    shutil.copytree(tiny_model, run / "model")
    write_text(run / "parameters.yaml", f"base_model: {tiny_model}\n")
    write_json(run / "status.json", {"schema": 1, "state": "done", "notebooks": {}})
    return run


@pytest.mark.parametrize(
    ("name", "text"), [(n, text) for n, ts in RECORDS.items() for text in [*ts, "[" * 100_000]]
)
def test_a_damaged_record_is_refused_by_name_and_stops_no_listing(small_run, capsys, name, text):
    write_text(small_run / name, text)
    place = ["--runs-dir", str(small_run.parent)]
    asked = ["card", str(small_run)]
    if name != "model/lineage.json":
        asked = ["run", "--name", "x", "--resume", *place]
    assert main(asked) == 2
    assert f"{name} is damaged (" in capsys.readouterr().err
    assert main(["runs", *place]) == 0
    assert re.search(r"^x +", capsys.readouterr().out, re.MULTILINE)


ODD = "a\x1b]0;owned\x07\x1b[2J\u202e\u200e\u200f\u061c\u200b\ufeff\x7f\x9b\r\U000e0041b"


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_record_reaches_a_terminal_raw(small_run, capsys, monkeypatch, form, terminal):
    status = {"state": "failed", "error": ODD, "notebooks": {}}
    write_json(small_run / "status.json", status)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert main(["runs", *form, "--runs-dir", str(small_run.parent)]) == 0
    told = capsys.readouterr().out
    if form == ["--json"]:
        assert json.loads(told)[0]["problem"] == ODD
    if form == ["--csv"] and not terminal:
        assert ODD in told  # a file gets what the record holds
    else:
        assert "owned" in told
        assert not {*ODD} - {*"a]0;owned[2Jb"} & {*told}


@pytest.mark.parametrize(
    "asked", [["preflight", ODD], ["export", ODD], ["preflight", f"--{ODD}"], [ODD]]
)
def test_no_refusal_reaches_a_terminal_raw(asked, capsys):
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "owned" in told
    assert not {*ODD} - {*"a]0;owned[2Jb"} & {*told}


OUTPUTS = {
    "a reader that goes": "{} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}",
    "a closed output": "{} >&-",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_nobody_reads_is_no_failure(small_run, name):
    command = f"{sys.executable} -m workbench runs --runs-dir {small_run.parent}"
    form = OUTPUTS[name].format(command)
    done = subprocess.run(["bash", "-c", form], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("path", ["~nosuchuser/x.csv", "x/" * 2500 + "x.csv", "y" * 300 + ".csv"])
def test_a_path_that_no_file_can_have_is_a_wrong_request(small_run, capsys, path):
    request = str(small_run / "parameters.yaml")
    runs = ["--runs-dir", str(small_run.parent)]
    assert main(["preflight", request, "-p", "pairs", path, *runs]) == 2
    assert "pairs: " in capsys.readouterr().err
    for asked in (["preflight", path], ["runs", "--runs-dir", path], ["score", path, path, "o"]):
        assert main(asked) == 2


def test_a_run_on_a_disk_that_is_read_only_is_not_in_use(small_run, capsys, monkeypatch):
    (small_run / ".lock").touch()

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", str(small_run))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["runs", "rm", "x", "--yes", "--runs-dir", str(small_run.parent)]) == 2
    assert "read-only" in capsys.readouterr().err
    assert small_run.is_dir()


def test_what_a_killed_command_left_in_the_temporary_folder_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("wb-left", "wb-new", "wb-used", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.json").touch()
    hour_ago = time.time() - 3600
    with FileLock(tmp_path / "wb-used/.lock"):
        for name in ("wb-left", "wb-used", "other"):
            os.utime(tmp_path / name, (hour_ago, hour_ago))
        remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {"wb-new", "wb-used", "other"}


def test_the_kernel_is_of_this_python_and_the_report_comes_before_done(project, monkeypatch):
    spec = project.root / "jupyter/kernels/python3/kernel.json"
    other = {"argv": ["/bin/false"], "display_name": "other", "language": "python"}
    spec.parent.mkdir(parents=True)
    write_json(spec, other)
    monkeypatch.setenv("JUPYTER_PATH", str(project.root / "jupyter"))
    code, out, error = project.run("run", project.request, "--name", "x")
    assert code == 0, error
    assert "KeyboardInterrupt" not in error
    lines = out.splitlines()
    assert lines.index("writing the report") > lines.index("[04] 04_evaluate_ranking")
    report = project.runs / "x/report.html"
    assert report.stat().st_mtime_ns < (project.runs / "x/status.json").stat().st_mtime_ns
    assert lines[-1] == f"report: {report}"
