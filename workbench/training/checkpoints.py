"""Checkpoints that are whole or do not count, and what a training must not change to go on."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from workbench.files import read_json, sha256, write_json

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

MARK = "complete.json"  # written last; names every file of the checkpoint with its sha256


KEPT = 2  # whole checkpoints that stay


ASKED = "asked.json"  # in the folder of checkpoints: what the training was asked for


class ResumeError(ValueError):
    """An interrupted training cannot go on as asked; the message names what changed."""


class TrainingStoppedError(RuntimeError):
    """The training was told to stop; its checkpoint is whole."""


def seal(checkpoint: Path) -> None:
    """Push every file of a checkpoint to the disk, then write the mark that makes it count."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files:
        push(path)
    sums = {str(path.relative_to(checkpoint)): sha256(path) for path in files if path.name != MARK}
    write_json(checkpoint / MARK, {"schema": 1, "files": sums})
    push(checkpoint)


def push(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_whole(checkpoint: Path) -> bool:
    """Whether the mark is there and every file is what it says."""
    try:
        files = read_json(checkpoint / MARK)["files"]
        return all(sha256(checkpoint / name) == value for name, value in files.items())
    except (OSError, ValueError, KeyError):
        return False


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; None if there is none."""
    return next((path for path in reversed(_checkpoints(folder)) if is_whole(path)), None)


def step_of(checkpoint: Path) -> int:
    """The training step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def prune(folder: Path, kept: int = KEPT) -> None:
    """Remove checkpoints that lack their mark, and all others but the newest `kept`."""
    marked = [path for path in _checkpoints(folder) if (path / MARK).is_file()]
    for path in _checkpoints(folder):
        if path not in marked[-kept:]:
            (path / MARK).unlink(missing_ok=True)  # first, or half a checkpoint would look whole
            shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=step_of)


def check_asked(before: Mapping[str, Any] | None, now: Mapping[str, Any], where: str) -> None:
    """Compare what a training was asked for with what is asked now.

    Raises:
        ResumeError: with one line for each value that differs; nothing is compared if `before` is
            None, as for a training whose request was not recorded.
    """
    if before is None:
        return
    now = json.loads(json.dumps(now))
    changed = [
        f"{name}: the training was started with {before.get(name)!r}, not {now.get(name)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ResumeError(
            "\n".join([f"{where} cannot be resumed, for this has changed:", *changed])
            + "\nTrain anew without resume (the old files are set aside), or undo the change."
        )


def save_model(model: "CrossEncoder", folder: Path, stages: list[dict[str, Any]]) -> None:
    """Write a model folder with its lineage beside its final place; rename it once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished), create_model_card=False, safe_serialization=True)
    write_json(unfinished / "lineage.json", {"schema": 1, "stages": stages})
    for path in unfinished.rglob("*"):
        push(path)
    unfinished.rename(folder)
    push(folder.parent)


class SnapshotCallback(TrainerCallback):
    """Saves the model (weights and tokenizer, no optimizer) at equally spaced steps.

    Args:
        model: the model in training.
        folder: where the snapshots go, each as `step-000123/`; one that is there already is kept.
        count: how many; the last is the end of the training.
        pairs: the number of training pairs, to say how many have been seen.
        before: `steps` and `pairs` of earlier stages of the same run, which are counted through.
    """

    def __init__(
        self,
        model: "CrossEncoder",
        folder: Path,
        count: int,
        pairs: int,
        before: Mapping[str, int] | None = None,
    ) -> None:
        self.model, self.folder, self.count, self.pairs = model, folder, count, pairs
        self.before = {"steps": 0, "pairs": 0, **(before or {})}
        self.steps: set[int] = set()

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the steps."""
        total = state.max_steps
        self.steps = {max(1, round(total * n / self.count)) for n in range(1, self.count + 1)}

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save if it is time: written beside its place and renamed once it is whole."""
        step = self.before["steps"] + state.global_step
        target = self.folder / f"step-{step:06d}"
        due = state.global_step in self.steps and state.is_world_process_zero
        if not due or target.exists():
            return
        unfinished = self.folder / ".snapshot.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.model.save_pretrained(str(unfinished), create_model_card=False)
        seen = self.before["pairs"] + round((state.epoch or 0.0) * self.pairs)
        write_json(unfinished / "snapshot.json", {"step": step, "pairs": seen})
        unfinished.rename(target)
