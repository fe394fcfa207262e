"""Snapshots of the model along a training, from which notebook 4 draws a learning curve."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from workbench.files import write_json

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


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
