"""Going on after a kill: the same weights, optimiser, log and order as without one."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest
import torch

from tests.conftest import ROOT, interrupted_at
from workbench.files import read_json, sha256
from workbench.models import find_model, read_lineage
from workbench.training import checkpoints
from workbench.training.checkpoints import (
    MARK,
    ResumeError,
    TrainingStoppedError,
    is_whole,
    last_checkpoint,
    prune,
    seal,
)
from workbench.training.log import TrainingLog, read_training_log
from workbench.training.recipe import Recipe
from workbench.training.stages import fine_tune

RECIPE = Recipe(max_length=32, learning_rate=1e-3)


def order(folder):
    """What every step has seen; of a step taken twice, the second time."""
    rows = [json.loads(line) for line in (folder / "order.jsonl").read_text().splitlines()]
    return {(stage, step): seen for stage, step, seen in rows}


def without_clock(record):
    clock = {"seconds", "processor_seconds", "pairs_per_second", "base", "parent"}
    return {name: value for name, value in record.items() if name not in clock}


@pytest.mark.slow
def test_a_training_killed_anywhere_ends_as_if_it_had_not_been(prepared, tmp_path, tiny_model):
    shutil.copytree(prepared, tmp_path / "whole")
    command = [sys.executable, "-m", "tests.training.kill_driver", tmp_path, tiny_model, "7", "24"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    kinds = Counter(kind.partition(":")[0] for kind in told["killed"])
    assert len(told["killed"]) >= 24
    assert set(kinds) == {"step", "checkpoint", "log", "model", "stage", "removal"}
    whole = tmp_path / "whole"
    log = read_training_log(whole).drop(columns="seconds")
    assert log["stage"].nunique() == 3
    for number in range(1, told["runs"] + 1):
        cut = tmp_path / f"cut-{number}"
        for model in ("stages/1", "stages/2", "model"):
            weights = [(run / model / "model.safetensors").read_bytes() for run in (whole, cut)]
            assert weights[0] == weights[1], (number, model)
        for stage in ("stage-1", "stage-2", "stage-3"):
            states = [
                torch.load(run / f"optimizer-{stage}.pt", weights_only=True)["state"]
                for run in (whole, cut)
            ]
            assert states[0].keys() == states[1].keys()
            for place, state in states[0].items():
                for name, value in state.items():
                    assert torch.equal(value, states[1][place][name]), (number, stage, name)
        assert read_training_log(cut).drop(columns="seconds").equals(log), number
        assert order(cut) == order(whole), number
        lineages = [read_json(run / "model/lineage.json")["stages"] for run in (whole, cut)]
        assert [without_clock(record) for record in lineages[0]] == [
            without_clock(record) for record in lineages[1]
        ]
        assert not (cut / "checkpoints").exists()


def checkpoint(folder, step, whole=True):
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"x" * 100)
    if whole:
        seal(place)
    return place


def test_the_newest_whole_checkpoint_is_chosen_and_old_ones_go(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    for step in (5, 10, 15):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 100, whole=False)  # killed before its mark
    assert last_checkpoint(tmp_path).name == "checkpoint-15"
    (tmp_path / "checkpoint-15/model.safetensors").write_bytes(b"x" * 99)
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / f"checkpoint-10{MARK}").write_text("2cf2")
    assert last_checkpoint(tmp_path).name == "checkpoint-5"
    (tmp_path / "checkpoint-5/model.safetensors").unlink()
    assert last_checkpoint(tmp_path) is None
    assert not is_whole(tmp_path)


def test_a_checkpoint_that_cannot_be_read_is_not_whole(tmp_path, monkeypatch):
    """Such as after a power cut: the one before it is taken."""
    good, bad = (checkpoint(tmp_path, step) for step in (5, 10))

    def digest(path):
        if path.parent == bad:
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)

    monkeypatch.setattr(checkpoints, "sha256", digest)
    assert last_checkpoint(tmp_path) == good


def test_pruning_keeps_the_newest_whole_ones(tmp_path):
    for step in (5, 10, 20, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 200, whole=False)
    prune(tmp_path)
    kept = ["checkpoint-100", f"checkpoint-100{MARK}", "checkpoint-20", f"checkpoint-20{MARK}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_sigterm_writes_a_checkpoint_and_resume_goes_on(
    run, prepared, tmp_path, tiny_model, monkeypatch
):
    base, whole = find_model(str(tiny_model)), tmp_path / "whole"
    shutil.copytree(prepared, whole)
    fine_tune(whole, base, RECIPE)

    def terminated(self, row, append=TrainingLog.append):
        append(self, row)
        if row["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "append", terminated)
        with pytest.raises(TrainingStoppedError, match="stopped by SIGTERM after step 4"):
            fine_tune(run, base, RECIPE)
    found = last_checkpoint(run / "checkpoints/stage-1")
    assert found.name == "checkpoint-4"
    assert not list(found.glob("*.bin"))
    fine_tune(run, base, RECIPE, resume=True)
    logs = [read_training_log(folder).drop(columns="seconds") for folder in (whole, run)]
    assert logs[0].equals(logs[1])
    assert (run / "model/model.safetensors").read_bytes() == (
        whole / "model/model.safetensors"
    ).read_bytes()


def test_resuming_keeps_the_precision_that_auto_chose(run, tiny_model, monkeypatch):
    """It was chosen by a measurement, which may differ the second time, or elsewhere."""
    base, recipe = find_model(str(tiny_model)), RECIPE.model_copy(update={"speed": "fast"})
    quick = [True]
    monkeypatch.setattr("workbench.training.recipe.quick_in_bfloat16", lambda: quick[0])
    with interrupted_at(3):
        fine_tune(run, base, recipe)
    quick[0] = False
    record = fine_tune(run, base, recipe, resume=True)
    assert record["precision"] == "bfloat16"
    assert fine_tune(run, base, recipe, resume=True)["precision"] == "bfloat16"  # finished
    shutil.rmtree(run / "model")
    assert fine_tune(run, base, recipe)["precision"] == "float32"


def test_a_full_disk_leaves_the_last_good_checkpoint(run, tiny_model, monkeypatch):
    plain, count = torch.save, []

    def save(data, path, *args, **kwargs):
        count.append(path)
        if "checkpoint-4" in str(path):
            plain(data, path, *args, **kwargs)
            raise OSError(28, "No space left on device")
        plain(data, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(RuntimeError, match=r"step 4 .*No space left.*step 2 is whole"):
            fine_tune(run, find_model(str(tiny_model)), RECIPE, checkpoint_steps=2)
    left = (run / "checkpoints/stage-1").glob("checkpoint-*")
    assert sorted(path.name for path in left) == ["checkpoint-2", f"checkpoint-2{MARK}"]
    assert is_whole(run / "checkpoints/stage-1/checkpoint-2")
    record = fine_tune(run, find_model(str(tiny_model)), RECIPE, resume=True, checkpoint_steps=2)
    assert read_lineage(find_model(str(run)))[-1]["steps"] == record["steps"]


def test_resuming_something_else_is_refused_and_says_what_changed(run, tiny_model):
    base = find_model(str(tiny_model))
    with interrupted_at(3):
        fine_tune(run, base, RECIPE)
    other = Recipe(max_length=32, learning_rate=2e-3)
    with pytest.raises(ResumeError, match=r"learning_rate: .* 0\.001, not 0\.002"):
        fine_tune(run, base, other, resume=True)
    with pytest.raises(ResumeError, match="stages"):
        fine_tune(run, base, RECIPE, resume=True, stages="10,0")
    train = run / "data/train.parquet"
    before = train.read_bytes()
    shutil.copy(run / "data/dev.parquet", train)
    with pytest.raises(ResumeError, match="training side") as caught:
        fine_tune(run, base, RECIPE, resume=True)
    assert "learning_rate" not in str(caught.value)
    train.write_bytes(before)
    fine_tune(run, base, RECIPE, resume=True)
    with pytest.raises(ResumeError, match="learning_rate"):  # also when it is finished
        fine_tune(run, base, other, resume=True)


@pytest.mark.parametrize("mark", [b"", b"2cf2", b"\xff\x00", b"[" * 100_000])
def test_a_checkpoint_whose_mark_is_damaged_does_not_count(tmp_path, mark):
    checkpoint(tmp_path, 1)
    assert last_checkpoint(tmp_path)
    (tmp_path / f"checkpoint-1{MARK}").write_bytes(mark)
    assert last_checkpoint(tmp_path) is None
