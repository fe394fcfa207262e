"""Fine-tune a cross-encoder on the pairs prepared in a run folder."""

import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from workbench.files import project_path, set_aside, write_json
from workbench.logs import LOG_NAME, TrainingLog
from workbench.metrics import pair_metrics
from workbench.models import ModelLocation, read_lineage
from workbench.scoring import ModelScorer, load_cross_encoder
from workbench.snapshots import SnapshotCallback
from workbench.splits import DataError, read_manifest, read_side

CHECKPOINT_STEPS = 500  # steps between checkpoints
DEV_PAIRS = 1000  # the most dev pairs looked at each time during training
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are those of the reference model's card.

    Attributes:
        max_length: tokens of a pair, special tokens included.
        epochs: passes over the training pairs.
        batch_size: pairs a step.
        learning_rate: at the start; it falls linearly to 0, without warm-up.
        precision: `float32`, `bfloat16` (autocast), or `auto`: bfloat16 on a GPU that has it.
        seed: of the new head, the order of the pairs and dropout.
    """

    max_length: int = 512
    epochs: float = 1.0
    batch_size: int = 8
    learning_rate: float = 5e-5
    precision: str = "auto"
    seed: int = 42

    def resolved_precision(self) -> str:
        """`float32` or `bfloat16`."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.precision != "auto":
            return self.precision
        gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bfloat16" if gpu else "float32"


def watched() -> bool:
    """Whether a person is looking: a notebook open in JupyterLab, or a terminal."""
    return "JPY_SESSION_NAME" in os.environ or sys.stderr.isatty()


def fine_tune(
    run_dir: str | Path,
    base: ModelLocation,
    recipe: Recipe | None = None,
    resume: bool = False,
    stage: str = "",
    snapshots: int = 0,
) -> dict[str, Any]:
    """Train on `run_dir/data/train.parquet` and write `run_dir/model`, log and lineage.

    A model that already stands in the run folder is set aside under `earlier/`, with its log. With
    `resume`, training goes on from the last checkpoint instead; a finished model is kept as is.

    Args:
        run_dir: a run folder whose data notebook 1 prepared.
        base: the model to start from.
        recipe: how to train; the reference card's values if None.
        resume: continue an interrupted training of the same run.
        stage: the name of this stage in logs and lineage; "stage N" if empty.
        snapshots: models to keep along the way under `snapshots/`, for a learning curve.

    Returns:
        The record of this stage, as appended to `model/lineage.json`.

    Raises:
        DataError: there are no prepared pairs, or none on the training side.
    """
    recipe = recipe or Recipe()
    folder = project_path(run_dir)
    train, dev = read_side(folder, "train"), read_side(folder, "dev").head(DEV_PAIRS)
    if train.empty:
        raise DataError(f"{run_dir}: there is no training pair")
    earlier = read_lineage(base)
    if resume and (folder / "model" / "lineage.json").is_file():
        own = ModelLocation(str(run_dir), "run", folder / "model", "", "", str(run_dir))
        return read_lineage(own)[-1]
    checkpoints = folder / "checkpoints"
    checkpoint = get_last_checkpoint(str(checkpoints)) if resume and checkpoints.is_dir() else None
    if checkpoint is None:
        set_aside(folder, ["model", "checkpoints", LOG_NAME, "evaluation", "snapshots"])
    log = TrainingLog(folder, stage or f"stage {len(earlier) + 1}")
    if checkpoint is not None:
        log.rewind(int(Path(checkpoint).name.rpartition("-")[2]))

    model = load_cross_encoder(base, recipe.max_length, recipe.seed)
    trainer = _trainer(model, folder, train, dev, recipe, log)
    if snapshots:
        trainer.add_callback(SnapshotCallback(model, folder / "snapshots", snapshots, len(train)))
    result = trainer.train(resume_from_checkpoint=checkpoint)
    record = {
        "stage": log.stage,
        "base": base.record(),
        "data": read_manifest(folder),
        "recipe": asdict(recipe),
        "precision": recipe.resolved_precision(),
        "device": str(model.device),
        "loss": "BinaryCrossEntropyLoss",
        "hyperparameters": _hyperparameters(trainer.args),
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "seconds": result.metrics["train_runtime"],
        "pairs_per_second": result.metrics["train_samples_per_second"],
    }
    _save(model, folder, [*earlier, record])
    shutil.rmtree(folder / "checkpoints")  # they served resuming; the result is in model/
    return record


def logging_steps(total_steps: int) -> int:
    """Every 500 steps or ten times a run, whichever is more often."""
    return max(1, min(500, total_steps // 10))


class PairEvaluator(BaseEvaluator):
    """Average precision of the model on dev pairs, for the trainer to call."""

    def __init__(self, sentences: list[tuple[str, str]], labels: list[float]) -> None:
        super().__init__()
        self.sentences, self.labels = sentences, labels

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the pairs and return `ap`."""
        return {"ap": pair_metrics(ModelScorer(model).score(self.sentences), self.labels)["ap"]}


class LogCallback(TrainerCallback):
    """Writes each log line to the run's training log and, in batch, prints it."""

    def __init__(self, log: TrainingLog, batch_size: int, lines: bool) -> None:
        self.log, self.batch_size, self.lines = log, batch_size, lines
        self.started = time.monotonic()
        self.first_step = 0

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the values under the names of the training log."""
        given = kwargs.get("logs") or {}
        names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm",
                 "eval_loss": "dev_loss", "eval_ap": "dev_ap"}  # fmt: skip
        values = {ours: float(given[name]) for name, ours in names.items() if name in given}
        if not values:
            return
        seconds = time.monotonic() - self.started
        place = {"step": state.global_step, "steps": state.max_steps, "epoch": state.epoch}
        self.log.append({**place, "seconds": round(seconds, 3), **values})
        if self.lines:
            print(self._line(state, values, seconds), flush=True)

    def _line(self, state: TrainerState, values: dict[str, float], seconds: float) -> str:
        done = state.global_step - self.first_step
        left = seconds / max(1, done) * (state.max_steps - state.global_step)
        rate = done * self.batch_size / max(seconds, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        place = f"step {state.global_step}/{state.max_steps}"
        return f"{place}  {shown}  {rate:.0f} pairs/s  {left:.0f} s left"


def _trainer(
    model: CrossEncoder, folder: Path, train: Any, dev: Any, recipe: Recipe, log: TrainingLog
) -> CrossEncoderTrainer:
    steps = math.ceil(math.ceil(len(train) / recipe.batch_size) * recipe.epochs)
    every = logging_steps(steps)
    show_bar = watched()
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=recipe.seed,
        bf16=recipe.resolved_precision() == "bfloat16",
        logging_steps=every,
        eval_strategy="steps" if len(dev) else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=CHECKPOINT_STEPS,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),  # of no use, and a warning, without a GPU
        disable_tqdm=not show_bar,
    )
    texts = list(zip(dev["sentence_0"], dev["sentence_1"], strict=True))
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(train),
        eval_dataset=_dataset(dev) if len(dev) else None,
        evaluator=PairEvaluator(texts, list(dev["label"])) if len(dev) else None,
        loss=BinaryCrossEntropyLoss(model),
        callbacks=[LogCallback(log, recipe.batch_size, lines=not show_bar)],
    )
    trainer.remove_callback(PrinterCallback)  # our log lines say the same, and more readably
    return trainer


def _dataset(pairs: Any) -> Dataset:
    return Dataset.from_pandas(pairs[["sentence_0", "sentence_1", "label"]], preserve_index=False)


def _hyperparameters(arguments: CrossEncoderTrainingArguments) -> dict[str, Any]:
    """The trainer's arguments as plain values, without places on this machine."""
    skipped = {"output_dir", "logging_dir", "hub_token", "run_name"}
    return {k: v for k, v in arguments.to_dict().items() if k not in skipped}


def _save(model: CrossEncoder, folder: Path, stages: list[dict[str, Any]]) -> None:
    """Write `model/` beside its final place and rename it there once it is whole."""
    unfinished = folder / ".model.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished), create_model_card=False, safe_serialization=True)
    write_json(unfinished / "lineage.json", {"schema": 1, "stages": stages})
    unfinished.rename(folder / "model")
