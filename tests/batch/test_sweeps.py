"""Sweeps: every run made once, none lost, whatever happens to the sweep or to a run."""

import json
import signal
import time

import psutil
import pytest
import yaml
from filelock import FileLock

from tests.batch.tiny_project import TinyProject, await_end, await_file
from tests.conftest import processes_of
from workbench.batch.engines import connected
from workbench.batch.plan import OptunaSearch, Plan, SweepFile, read_plan
from workbench.batch.sweep import Sweep
from workbench.files import RequestError, write_json, write_text
from workbench.runs.folder import DATA_PARAMETERS


@pytest.fixture
def project(tmp_path, tiny_model):
    return TinyProject(tmp_path, tiny_model)


@pytest.fixture
def plan_file(tmp_path, tiny_model):
    def write(**parts):
        path = tmp_path / "sweep.yaml"
        parts.setdefault("base", {"base_model": str(tiny_model)})
        path.write_text(yaml.safe_dump(parts), encoding="utf-8")
        return path

    return write


def sweep_file(project, **parts):
    path = project.root / "sweep.yaml"
    path.write_text(yaml.safe_dump(parts | {"parameters": str(project.request)}), encoding="utf-8")
    return path


def record(project, name="s"):
    return json.loads((project.runs / name / "sweep.json").read_text(encoding="utf-8"))


def states(project, name="s"):
    return {
        job["values"].get("seed"): job["state"] for job in record(project, name)["jobs"].values()
    }


def start(project, path, *options, **process_options):
    """A sweep whose runs all wait in notebook 02: its process, and the names of runs by seed."""
    (project.root / "wait").write_text("02")
    process = project.ask("sweep", path, "--name", "s", *options, **process_options)
    await_file(project.runs / "s/sweep.json", process)
    names = {job["values"]["seed"]: name for name, job in record(project)["jobs"].items()}
    for name in names.values():
        await_file(project.runs / "s" / name / "at-02", process)
    return process, names


def told(project, act):
    lines = (project.root / "log.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(act)]


def test_a_plan_crosses_grid_and_seeds_and_lists_equal_runs_once(plan_file):
    plan = read_plan(
        plan_file(grid={"vocabulary": ["keep", "extend"], "epochs": [1, 1.0, 2]}, seeds=[1, 2])
    )
    assert len(plan.runs) == 8
    assert len({run.name for run in plan.runs}) == 8
    assert plan.runs[0].values == {"vocabulary": "keep", "epochs": 1.0, "seed": 1}


def test_a_plan_takes_settings_one_by_one_and_a_shared_file(plan_file, tmp_path, tiny_model):
    shared = tmp_path / "shared.yaml"
    shared.write_text(f"base_model: {tiny_model}\nbatch_size: 16\nepochs: 3\n", encoding="utf-8")
    settings = [{"vocabulary": "extend", "symmetric": True}, {"batch_size": 32}]
    path = plan_file(parameters=str(shared), base={"epochs": 2}, runs=settings)
    first, second = read_plan(path, [("max_length", "64")]).runs
    assert (first.parameters.batch_size, first.parameters.epochs) == (16, 2)
    assert (first.parameters.symmetric, second.parameters.symmetric) == (True, False)
    assert second.parameters.batch_size == 32
    assert first.parameters.max_length == second.parameters.max_length == 64


def test_identity_follows_what_is_read_and_not_where_it_goes(plan_file, tmp_path):
    rows = "sentence_0,sentence_1,label\na,b,1\n"
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(rows, encoding="utf-8")
    path, words = plan_file(seeds=[1]), tmp_path / "words.tsv"

    def identity(*given):
        return read_plan(path, [("pairs", str(pairs)), *given]).runs[0].identity

    first = identity()
    assert identity(("run_dir", "runs/x"), ("metric", "map")) == first
    assert identity(("epochs", "2")) != first
    pairs.write_text(rows + "c,d,0\n", encoding="utf-8")
    assert identity() != first
    found = set()
    for gloss in ("cat", "dog"):
        words.write_text(f"猫\t{gloss}\n", encoding="utf-8")
        found.add(identity(("dictionary", str(words))))
    assert len(found) == 2


WRONG = [
    ({"grid": {"learning_rat": [1]}}, "did you mean 'learning_rate'"),
    ({"grid": {"epochs": [1, "many"], "seed": [-1]}}, "epochs: input should be a valid number"),
    ({"grid": {"epochs": []}}, "the list is empty"),
    ({"grid": {"epochs": 3}}, "grid.epochs: input should be a valid list"),
    ({"grids": {"epochs": [1]}}, "grids: extra inputs are not permitted"),
    ({}, "nothing to sweep over"),
    ({"epochs": 2}, "epochs: parameters belong under `base`"),
    ({"grid": {"seed": list(range(200))}, "seeds": list(range(200))}, "40,000 runs are asked for"),
    ({"search": {"space": {"epochs": {"low": 1}}}}, "give either choices, or low and high"),
    ({"search": {"space": {"epochs": {"low": 2, "high": 1}}}}, "low 2.0 is above high 1.0"),
    ({"search": {"space": {"epoch": {"low": 1, "high": 2}}}}, "no such parameter"),
    ({"search": {"space": {}, "metric": "ndcg@10"}}, "'dev_ap', 'dev_ndcg' or 'dev_loss'"),
    ({"search": {"space": {"epochs": {"choices": [1]}}}, "seeds": [1]}, "cannot be combined"),
]


@pytest.mark.parametrize(("parts", "message"), WRONG)
def test_a_plan_that_cannot_be_carried_out(plan_file, parts, message):
    with pytest.raises(RequestError) as error:
        read_plan(plan_file(**parts))
    assert message in str(error.value)


def test_what_notebook_1_depends_on_is_what_it_takes():
    import papermill

    found = papermill.inspect_notebook("notebooks/01_inspect_data.ipynb")
    assert {"run_dir", *DATA_PARAMETERS} == set(found)


def test_a_sweep_makes_every_run_once(project):
    path = sweep_file(project, grid={"epochs": [1, 2]}, seeds=[1])
    before = sorted(project.runs.iterdir())
    code, out, error = project.run("sweep", path, "--name", "s", "--dry-run")
    assert code == 0, error
    assert "2 runs" in out
    assert sorted(project.runs.iterdir()) == before
    code, out, error = project.run("sweep", path, "--name", "s", "--jobs", "2")
    assert code == 0, error
    assert "2 done" in out
    assert len(told(project, "02")) == 2
    for name, job in record(project)["jobs"].items():
        run = project.runs / "s" / name
        assert (run / "result.txt").read_text() == f"seed {job['values']['seed']}"
        assert (run / "report.html").is_file()
    again = sweep_file(project, grid={"epochs": [2, 3]}, seeds=[1])
    code, out, error = project.run("sweep", again, "--name", "t")
    assert code == 0, error
    assert "1 kept" in out
    assert "1 done" in out
    assert len(told(project, "02")) == 3
    (kept,) = [job for job in record(project, "t")["jobs"].values() if job["state"] == "kept"]
    assert "runs/s/" in kept["same_as"]
    code, out, error = project.run("sweep", again, "--name", "t")
    assert code == 2
    assert "choose another --name, or --resume it" in error
    listed = project.run("runs", "--json")[1]
    assert len(json.loads(listed)) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_ended_goes_on_and_loses_nothing(project, how):
    process, _ = start(project, sweep_file(project, seeds=[1, 2]), "--jobs", "2")
    below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(how)
    _, error = process.communicate(timeout=120)
    assert await_end(below, 90) == []
    if how != signal.SIGKILL:
        assert process.returncode == 1
        assert "go on with: workbench sweep --name s --resume" in error
        assert record(project)["state"] == "stopped"
        assert set(states(project).values()) == {"stopped"}
    (project.root / "wait").unlink()
    code, out, error = project.run("sweep", "--name", "s", "--resume")
    assert code == 0, error
    assert "2 done" in out
    assert len(told(project, "01")) == 2  # once a run: not again after the kill
    assert len(told(project, "02")) == 4
    code, out, _ = project.run("sweep", "--name", "s", "--resume")
    assert (code, len(told(project, "02"))) == (0, 4)
    assert "2 kept" in out


def ignore_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_sweep_in_the_background_of_a_script_stops_its_runs_in_good_order(tmp_path, tiny_model):
    """There the shell has Ctrl-C ignored, and every process below inherits that."""
    project = TinyProject(tmp_path, tiny_model, "kernels")
    process, names = start(project, sweep_file(project, seeds=[1]), preexec_fn=ignore_ctrl_c)
    below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(below) >= 2  # the worker and its kernel
    process.send_signal(signal.SIGINT)
    process.terminate()
    _, error = process.communicate(timeout=120)
    assert "go on with: workbench sweep --name s --resume" in error
    assert await_end(below) == []
    status = project.status(f"s/{names[1]}")
    assert (status["state"], status["error"]) == ("failed", "KeyboardInterrupt")


def test_two_sweeps_with_one_name_at_once(project):
    """The first to hold the folder has it to itself; the other is refused and writes nothing."""
    (project.runs / "s").mkdir()
    path = sweep_file(project, seeds=[1])
    with FileLock(project.runs / "s/.lock"):  # as by a sweep that has not written anything yet
        code, _, error = project.run("sweep", path, "--name", "s")
    assert code == 2
    assert "s is in use by another process" in error
    assert [path.name for path in (project.runs / "s").iterdir()] == [".lock"]
    asked = {seed: path.with_name(f"{seed}.yaml") for seed in (1, 2)}
    for seed, file in asked.items():
        file.write_text(path.read_text().replace("- 1", f"- {seed}"))
    processes = {seed: project.ask("sweep", file, "--name", "s") for seed, file in asked.items()}
    errors = {seed: process.communicate(timeout=120)[1] for seed, process in processes.items()}
    codes = {process.returncode: seed for seed, process in processes.items()}
    assert codes.keys() == {0, 2}, errors
    refused = errors[codes[2]]
    assert "in use by another process" in refused or "choose another --name" in refused
    kept = yaml.safe_load((project.runs / "s/sweep.yaml").read_text(encoding="utf-8"))
    assert kept["seeds"] == [codes[0]]
    assert states(project) == {codes[0]: "done"}


def test_a_run_that_fails_is_recorded_and_the_rest_go_on(project):
    (project.root / "fail").write_text("2")
    path = sweep_file(project, grid={"epochs": [1]}, runs=[{"seed": n} for n in (2, 3)])
    code, out, _ = project.run("sweep", path, "--name", "s")
    assert code == 1
    assert states(project) == {2: "failed", 3: "done"}
    (failed,) = [job for job in record(project)["jobs"].values() if job["state"] == "failed"]
    assert "this seed fails" in failed["error"]
    assert "this seed fails" in out
    (project.root / "fail").unlink()
    assert project.run("sweep", "--name", "s", "--resume")[0] == 0
    assert states(project) == {2: "done", 3: "kept"}


def test_a_worker_that_is_killed_is_a_failed_run_and_no_more(project):
    process, names = start(project, sweep_file(project, seeds=[1, 2]), "--jobs", "2")
    for worker in psutil.Process(process.pid).children():
        if any(names[1] in file.path for file in worker.open_files()):
            worker.kill()
    (project.root / "wait").unlink()
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert states(project) == {1: "failed", 2: "done"}
    (failed,) = [job for job in record(project)["jobs"].values() if job["state"] == "failed"]
    assert "its process was killed" in failed["error"]
    assert project.run("sweep", "--name", "s", "--resume")[0] == 0


@pytest.mark.cluster
def test_a_worker_of_ray_that_is_killed_loses_nothing(project):
    """The process that carries a task dies in mid-run: Ray starts it again, and the run goes on."""
    pytest.importorskip("ray")  # before the tests that share a cluster: here one is started
    process, names = start(project, sweep_file(project, seeds=[1]), "--engine", "ray")
    (carrier,) = processes_of("ray::run_task")
    carrier.kill()
    while len(told(project, "02")) < 2:  # until the run of the killed one is taken up again
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (project.root / "wait").unlink()
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, (out, error)
    assert states(project) == {1: "done"}
    assert len(told(project, "01")) == 1
    assert len(told(project, "02")) == 2
    assert project.status(f"s/{names[1]}")["state"] == "done"


def test_a_search_looks_on_dev(project):
    pytest.importorskip("optuna")
    search = {"method": "tpe", "trials": 6, "space": {"seed": {"low": 0, "high": 30}}}
    code, out, error = project.run("sweep", sweep_file(project, search=search), "--name", "s")
    found = record(project)["jobs"].values()
    assert code == 0, (out, error)
    assert 1 < len(found) <= 6
    assert {job["state"] for job in found} == {"done"}
    assert (project.runs / "s" / "study.log").is_file()


def a_search(folder, trials, slots):
    pytest.importorskip("optuna")
    folder.mkdir(exist_ok=True)
    return OptunaSearch(planned_search(trials, (1, 2, 3)).search, {}, folder, slots)


def planned_search(trials, choices):
    space = {"batch_size": {"choices": list(choices)}}
    return SweepFile(search={"method": "random", "trials": trials, "space": space})


def test_an_interrupted_search_makes_all_its_trials(tmp_path):
    folder = tmp_path / "s"
    first = a_search(folder, 3, 2)
    started = [first.next(), first.next()]
    assert first.next() is None
    again = a_search(folder, 3, 2)  # the first was interrupted, and has told nothing
    repeated = [again.next(), again.next()]
    assert [job.values for job in repeated] == [job.values for job in started]
    assert again.next() is None
    for job in {job.name: job for job in repeated}.values():
        again.tell(job, False, tmp_path)
    third = again.next()
    assert third is not None
    again.tell(third, False, tmp_path)
    assert again.next() is None  # a trial that fails is not made up for


@pytest.mark.parametrize(("metric", "best"), [("dev_ndcg", 0.9), ("dev_loss", 0.1)])
def test_a_search_goes_by_its_metric_and_says_where_it_is_not_logged(
    tmp_path, capsys, metric, best
):
    optuna = pytest.importorskip("optuna")
    search = planned_search(3, (1, 2, 3)).search.model_copy(update={"metric": metric})
    (tmp_path / "s").mkdir()
    made = OptunaSearch(search, {}, tmp_path / "s", 3)
    for value in (0.1, 0.9, None):
        row = {"step": 1, "dev_ap": 0.5, "dev_pairs": 40, "dev_positives": 3}
        row |= {} if value is None else {metric: value}
        write_text(tmp_path / "run/training_log.jsonl", json.dumps(row) + "\n")
        run = made.next()
        made.trials = {run.name: made.trials[run.name][-1:]}
        made.tell(run, True, tmp_path / "run")
    assert made.study.best_value == best
    states = [trial.state for trial in made.study.get_trials()]
    assert states.count(optuna.trial.TrialState.FAIL) == 1
    assert f"its log has no {metric}" in capsys.readouterr().out


def test_equal_proposals_are_one_run_and_earlier_trials_stay_on_record(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    folder = tmp_path / "s"
    started = []

    class Failing:
        def __init__(self, arguments, log):
            started.append(arguments[arguments.index("--name") + 1])
            log.parent.mkdir(exist_ok=True)
            log.touch()

        def poll(self):
            return 1

    earlier = {"schema": 1, "jobs": {"before": {"state": "done"}, "cut": {"state": "stopped"}}}
    write_json(folder / "sweep.json", earlier)
    monkeypatch.setattr("workbench.runs.folder.record_request", lambda *_: None)
    plan = Plan(planned_search(4, [8]), [])
    sweep = Sweep(folder, plan, Failing, 2)
    record = sweep.run()
    (run,) = started  # four trials, two at a time, all of one setting
    assert set(record["jobs"]) == {"before", run}
    assert record["state"] == "failed"
    assert sweep.search.next() is None


def test_an_engine_that_cannot_be_had_is_told_before_anything_starts(project):
    pytest.importorskip("ray")
    path = sweep_file(project, seeds=[1])
    code, _, error = project.run(
        "sweep", path, "--name", "s", "--engine", "ray", "--address", "127.0.0.1:9"
    )
    assert code == 2
    assert "no cluster at '127.0.0.1:9'" in error
    assert not (project.runs / "s").exists()


@pytest.mark.parametrize(("failures", "starts"), [(1, 2), (9, 3)])
def test_a_cluster_that_is_slow_to_start_is_started_again(monkeypatch, failures, starts):
    ray = pytest.importorskip("ray")
    given = []

    def init(**options):
        given.append(options)
        if len(given) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures < starts:
        with connected("", 2) as found:
            assert found is ray
    else:
        with (
            pytest.raises(RequestError, match=r"no cluster can be started .*timed out"),
            connected("", 2),
        ):
            pass
    assert [options["address"] for options in given] == ["local"] * starts
