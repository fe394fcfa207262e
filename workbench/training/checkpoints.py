"""Checkpoints that are whole or do not count, and models that are written whole."""

import copy
import os
import re
import shutil
from pathlib import Path
from typing import Any

from sentence_transformers.cross_encoder import CrossEncoder
from transformers import TrainerCallback, TrainerState, set_seed

from workbench.files import sha256, write_json, write_text
from workbench.training.recipe import KEPT_CHECKPOINTS, Recipe

MARK = ".sha256"  # suffix of the file beside a checkpoint that is written last, with its digest


class ResumeError(ValueError):
    """An interrupted training cannot go on as requested; the message names what changed."""


class TrainingStoppedError(RuntimeError):
    """SIGTERM stopped the training; its checkpoint is whole."""


class DivergedError(RuntimeError):
    """The loss or a weight is no longer a number; the checkpoints before that are kept."""


def seal(checkpoint: Path) -> None:
    """Flush every file of a checkpoint to the disk, then write the mark that makes it count."""
    for path in (*checkpoint.rglob("*"), checkpoint):
        flush(path)
    write_text(checkpoint.with_suffix(MARK), _digests(checkpoint))
    flush(checkpoint.parent)


def flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digests(checkpoint: Path) -> str:
    """The digest of each file of a checkpoint."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return "".join(f"{sha256(path)} {path.relative_to(checkpoint)}\n" for path in files)


def is_whole(checkpoint: Path) -> bool:
    """Whether the mark is there, and the files are those that it was made of."""
    try:
        return checkpoint.with_suffix(MARK).read_bytes() == _digests(checkpoint).encode()
    except OSError:  # no mark, or a file that cannot be read
        return False


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; None if there is none."""
    return next((path for path in reversed(_checkpoints(folder)) if is_whole(path)), None)


def step_of(checkpoint: Path) -> int:
    """The training step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def prune(folder: Path) -> None:
    """Remove all checkpoints but the newest `KEPT_CHECKPOINTS` that have their mark."""
    marked = [path for path in _checkpoints(folder) if path.with_suffix(MARK).is_file()]
    for path in _checkpoints(folder):
        if path not in marked[-KEPT_CHECKPOINTS:]:
            path.with_suffix(MARK).unlink(missing_ok=True)
            shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[Path]:
    found = (p for p in folder.glob("*") if re.fullmatch(r"checkpoint-\d+", p.name) and p.is_dir())
    return sorted(found, key=step_of)


def add_lora(model: CrossEncoder, recipe: Recipe) -> None:
    """Freeze a model's body and give its linear layers low-rank adapters (Hu et al., 2021).

    Trained with them are the head, a pooler, and the token embeddings if the recipe repairs the
    vocabulary or gives them a learning rate. `save_model` adds the adapters to the weights.
    """
    from peft import LoraConfig, inject_adapter_in_model

    whole: Any = model[0].model
    if (output := whole.get_output_embeddings()) is not None:  # of a language model
        output.requires_grad_(False)
    set_seed(recipe.seed)
    lora = LoraConfig(r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear")
    body: Any = inject_adapter_in_model(lora, whole.base_model)
    for name, weights in body.named_parameters():
        if name.startswith("pooler."):
            weights.requires_grad_(True)
    if recipe.vocabulary != "keep" or recipe.embedding_learning_rate:
        body.get_input_embeddings().requires_grad_(True)


def _merged(model: CrossEncoder) -> CrossEncoder:
    """The model with adapters added to the weights: a copy, for training may go on."""
    if not any(".lora_" in name for name, _ in model.named_parameters()):
        return model
    from peft.tuners.lora import LoraLayer

    model = copy.deepcopy(model)
    for name, layer in [*model.named_modules()]:
        if isinstance(layer, LoraLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
    return model


def save_model(
    model: CrossEncoder, folder: Path, record: dict[str, Any], name: str = "lineage.json"
) -> None:
    """Write a model and its record next to their final place; rename that once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    _merged(model).save_pretrained(str(unfinished), create_model_card=False)
    write_json(unfinished / name, record)
    for path in unfinished.rglob("*"):
        flush(path)
    unfinished.rename(folder)
    flush(folder.parent)


class SnapshotCallback(TrainerCallback):
    """Saves the model at `count` equally spaced steps, in a folder such as `step-000123/` each.

    It records the steps made and the pairs seen, those of earlier stages (`before`) included.
    """

    def __init__(
        self, model: CrossEncoder, folder: Path, count: int, pairs: int, before: dict[str, int]
    ) -> None:
        self.model, self.folder, self.count = model, folder, count
        self.pairs, self.before = pairs, before

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Save the model if a snapshot is due."""
        parts = range(1, self.count + 1)
        due = {max(1, round(state.max_steps * part / self.count)) for part in parts}
        step = self.before["steps"] + state.global_step
        target = self.folder / f"step-{step:06d}"
        if state.global_step in due and not target.exists():
            seen = self.before["pairs"] + round((state.epoch or 0.0) * self.pairs)
            save_model(self.model, target, {"step": step, "pairs": seen}, "snapshot.json")
