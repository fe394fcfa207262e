"""Two processes train the same recipe as one: same batches, one log, weights that agree."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from workbench.runs.parameters import Parameters

from tests.conftest import ROOT
from workbench.cli import main
from workbench.data.splits import prepare_data
from workbench.models import find_model, read_lineage
from workbench.training.log import read_training_log
from workbench.training.recipe import Recipe
from workbench.training.trainer import make_trainer

TOLERANCE = 1e-4  # sums of a batch are taken in another order, and rounding grows from step to step


@pytest.fixture
def runs(tmp_path, tiny_model):
    """Two equal run folders, and a base without dropout, whose draws differ between processes."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "config.json").write_text(json.dumps(config))
    values = Parameters().model_dump() | {
        "base_model": str(base),
        "max_length": 32,
        "learning_rate": 1e-3,
        "stages": "64,64",
    }
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        prepare_data(folder, "data/sample_pairs.csv", max_pairs=120, dev_share=0.1, test_share=0.1)
        (folder / "parameters.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
    return folders


@pytest.mark.slow
def test_two_processes_agree_with_one(runs):
    one, two = runs
    assert main(["train", str(one)]) == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29577",
        "-m",
        "workbench",
        "train",
        str(two),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [load_file(folder / "model/model.safetensors") for folder in runs]
    before = load_file(find_model(str(one.parent / "base")).path / "model.safetensors")
    moved = max(np.abs(weights[0][name] - before[name]).max() for name in before)
    assert moved > 10 * TOLERANCE  # so that agreement means something
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, atol=TOLERANCE, err_msg=name)
    logs = [read_training_log(folder).drop(columns="seconds") for folder in runs]
    assert logs[0][["stage", "step"]].equals(logs[1][["stage", "step"]])  # written once
    for name in ("loss", "dev_loss", "learning_rate", "grad_norm"):
        np.testing.assert_allclose(logs[1][name], logs[0][name], atol=TOLERANCE, rtol=1e-3)
    stages = [read_lineage(find_model(str(folder))) for folder in runs]
    assert [stage["steps"] for stage in stages[0]] == [stage["steps"] for stage in stages[1]]
    sizes = [s[0]["hyperparameters"]["per_device_train_batch_size"] for s in stages]
    assert sizes == [8, 4]
    assert main(["train", str(two), "--resume"]) == 0  # finished: any number of processes will do


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch_size 8: must be divisible by the 3 processes"):
        make_trainer(None, tmp_path, None, None, Recipe(), None)


def test_a_folder_without_data_is_refused(tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 2
    assert "has no data" in capsys.readouterr().err


def test_sigterm_is_handed_on_to_children_and_then_ends_the_parent():
    code = """
import signal, subprocess, sys
from workbench.processes import handing_on_sigterm
wait = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));"
child = subprocess.Popen([sys.executable, "-c", wait + "print(1, flush=True); time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
before = signal.getsignal(signal.SIGTERM)
try:
    with handing_on_sigterm(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        child.wait()
except KeyboardInterrupt:
    print("ended", child.returncode, signal.getsignal(signal.SIGTERM) is before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "ended 7 True\n", done.stderr
