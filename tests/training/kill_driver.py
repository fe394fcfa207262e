"""Trains in child processes that are killed at seeded places; run by test_resume.

    python -m tests.training.kill_driver FOLDER MODEL SEED KILLS

Imports are paid for once: every training is a fork. The places are counted: the beginning and the
end of each step, log rows, and the middle of every write of a checkpoint or model.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from transformers import modeling_utils

from workbench.models import find_model
from workbench.training import checkpoints, stages, trainer
from workbench.training.checkpoints import MARK, last_checkpoint
from workbench.training.log import TrainingLog
from workbench.training.recipe import Recipe
from workbench.training.stages import fine_tune
from workbench.training.trainer import ResumableTrainer

RECIPE = Recipe(max_length=32, learning_rate=1e-3, epochs=2)
STAGES = "32,0,0"
KINDS = ("step", "checkpoint", "log", "model", "stage", "removal")  # what is under way, in turn
EVERY = 3  # steps between checkpoints


class Killer:
    """Counts places by kind and, at the one asked for, kills the process that it is in."""

    def __init__(self, at, note):
        self.at, self.note, self.count = at, note, Counter()

    def place(self, kind, before=lambda: None):
        family = kind.partition(":")[0]
        self.count[family] += 1
        if (family, self.count[family]) == self.at:
            before()
            self.note.write_text(kind)
            os.kill(os.getpid(), signal.SIGKILL)


def instrument(killer, folder):
    """Put places into what training does, and note which texts each step has seen."""

    def around(owner, name, kind, half=None):
        plain = getattr(owner, name)

        def wrapped(*args, **kwargs):
            killer.place(f"{kind}: before", (lambda: half(*args, **kwargs)) if half else lambda: 0)
            value = plain(*args, **kwargs)
            killer.place(f"{kind}: after")
            return value

        setattr(owner, name, wrapped)

    def half_a_file(data, path, *args, **kwargs):
        Path(path).write_bytes(b"half a file")

    around(torch, "save", "checkpoint", half_a_file)
    around(trainer, "save_model", "checkpoint", half_a_file)
    around(checkpoints, "seal", "checkpoint", lambda p: p.with_suffix(MARK).write_text("2cf2"))
    around(checkpoints, "prune", "checkpoint")
    around(shutil, "rmtree", "removal")
    around(stages, "save_model", "stage")
    around(stages.Stage, "start_model", "stage")
    around(TrainingLog, "append", "log")
    around(modeling_utils, "safe_save_file", "model", half_a_file)

    plain = ResumableTrainer.training_step

    def step(self, model, inputs, *args, **kwargs):
        killer.place("step: before")
        loss = plain(self, model, inputs, *args, **kwargs)
        tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
        seen = hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors)).hexdigest()
        stage = Path(self.args.output_dir).name
        with (folder / "order.jsonl").open("a") as file:
            file.write(json.dumps([stage, self.state.global_step, seen]) + "\n")
        killer.place("step: after")
        return loss

    ResumableTrainer.training_step = step


def keep_optimizers(folder):
    """Before checkpoints are thrown away, keep the optimiser's last state of each stage."""
    plain = shutil.rmtree

    def rmtree(path, *args, **kwargs):
        path = Path(path)
        last = last_checkpoint(path) if path.name.startswith("stage-") else None
        if last is not None:
            shutil.copy(last / "optimizer.pt", folder / f"optimizer-{path.name}.pt")
        plain(path, *args, **kwargs)

    shutil.rmtree = rmtree


def train(folder, model, at):
    """Train in a fork, killed at place `at`, such as ("step", 3); never if it is None.

    Returns:
        What was under way when it was killed; None if it ended by itself; and the places counted.
    """
    note = folder / "killed.txt"
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            killer = Killer(at, note)
            with (folder / "output.txt").open("a") as output, contextlib.redirect_stdout(output):
                keep_optimizers(folder)
                instrument(killer, folder)
                fine_tune(
                    folder,
                    find_model(str(model)),
                    RECIPE,
                    resume=True,
                    stages=STAGES,
                    checkpoint_steps=EVERY,
                )
            (folder / "places.txt").write_text(json.dumps(killer.count))
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return note.read_text()
    if os.WEXITSTATUS(status):
        raise SystemExit(f"the training failed in {folder}")
    return None


def main(folder, model, seed, kills):
    """Train `whole` without interruption, and `cut-1`, ... with `kills` kills between them."""
    folder = Path(folder)
    whole = folder / "whole"
    assert train(whole, model, None) is None
    places = json.loads((whole / "places.txt").read_text())
    rng, killed, runs = random.Random(int(seed)), [], 0
    while len(killed) < int(kills):
        runs += 1
        cut = folder / f"cut-{runs}"
        shutil.copytree(whole / "data", cut / "data")
        for _ in range(8):  # then it may end in peace
            family = KINDS[len(killed) % len(KINDS)]
            kind = train(cut, model, (family, rng.randint(1, max(2, places[family] // 4))))
            if kind is None:
                break
            killed.append(kind)
        else:
            assert train(cut, model, None) is None
    print(json.dumps({"runs": runs, "killed": killed, "places": places}))


if __name__ == "__main__":
    main(*sys.argv[1:])
