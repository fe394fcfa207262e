"""One phase of training: pairs and labels in, a changed model out, by the library's own trainer."""

import dataclasses
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from workbench.baselines import text_pairs
from workbench.fast_trainer import FastTrainer, can_train_fast
from workbench.logs import TrainingLog
from workbench.metrics import pair_metrics
from workbench.processes import process_count
from workbench.recipes import Recipe
from workbench.resumable import ResumableTrainer
from workbench.scoring import ModelScorer

CHECKPOINT_STEPS = 500  # steps between checkpoints
CADENCE = {"output_dir", "report_to", "logging_steps", "eval_strategy", "eval_steps",
           "save_strategy", "save_steps"}  # fmt: skip


def watched() -> bool:
    """Whether a person is looking: a notebook open in JupyterLab, or a terminal."""
    return "JPY_SESSION_NAME" in os.environ or sys.stderr.isatty()


def logging_steps(total_steps: int) -> int:
    """Every 500 steps or at least ten times a run, by a divisor of 500.

    So the mean loss of every 500 steps, which is what the reference card lists, is always known.
    """
    return max((n for n in range(1, 501) if 500 % n == 0 and n <= total_steps // 10), default=1)


def make_trainer(
    model: CrossEncoder,
    checkpoints: Path,
    train: pd.DataFrame,
    dev: pd.DataFrame,
    recipe: Recipe,
    log: TrainingLog,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> ResumableTrainer:
    """A trainer for binary cross-entropy on labelled pairs.

    Args:
        model: changed in place by `train()`.
        checkpoints: the folder for them.
        train: columns `sentence_0`, `sentence_1`, `label` in [0, 1]; n rows.
        dev: the same, looked at each time the log gets a line; may be empty.
        recipe: of this phase.
        log: where the values go.
        checkpoint_steps: steps between two checkpoints.

    Raises:
        ValueError: several processes train, and they cannot share a batch equally.
    """
    processes = process_count()
    if recipe.batch_size % processes:
        raise ValueError(
            f"batch_size {recipe.batch_size}: must be divisible by the {processes} processes"
        )
    steps = math.ceil(math.ceil(len(train) / recipe.batch_size) * recipe.epochs)
    every = logging_steps(steps)
    show_bar = watched()
    half = recipe.resolved_precision() == "bfloat16"
    rate = recipe.embedding_learning_rate
    given: dict[str, Any] = dict(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size // processes,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        learning_rate_mapping={r".*word_embeddings\.weight": rate} if rate else {},
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=recipe.seed,
        bf16=half,
        # else bfloat16, and several processes, are taken to be for a GPU
        use_cpu=(half or processes > 1) and not torch.cuda.is_available(),
        logging_steps=every,
        eval_strategy="steps" if len(dev) else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        # it looks for them in the model's output, which the library hides from it
        ddp_find_unused_parameters=False if processes > 1 else None,
        report_to="none",
    )
    arguments = CrossEncoderTrainingArguments(**given)
    texts = text_pairs(dev)
    fast = recipe.speed == "fast" and can_train_fast(model)
    backend = ("torch-bfloat16" if half else "torch-float32") if fast else "predict"
    trainer = (FastTrainer if fast else ResumableTrainer)(
        model=model,
        args=arguments,
        train_dataset=_dataset(train),
        # with the evaluator alone, whose loss is the same, dev pairs are looked at once, not twice
        eval_dataset=_dataset(dev) if len(dev) and not fast else None,
        evaluator=PairEvaluator(texts, list(dev["label"]), backend) if len(dev) else None,
        loss=BinaryCrossEntropyLoss(model),
    )
    trainer.given = given
    trainer.add_callback(LogCallback(log, recipe.batch_size, trainer, lines=not show_bar))
    trainer.remove_callback(PrinterCallback)  # our log lines say the same, and more readably
    if not show_bar:
        trainer.remove_callback(ProgressCallback)
    return trainer


def hyperparameters(arguments: CrossEncoderTrainingArguments) -> dict[str, Any]:
    """The trainer's arguments as plain values, without places on this machine."""
    skipped = {"output_dir", "logging_dir", "hub_token", "run_name"}
    return {k: v for k, v in arguments.to_dict().items() if k not in skipped}


def non_default(given: Mapping[str, Any]) -> list[str]:
    """The names of arguments given to the trainer whose values are not the library's defaults.

    How often it logs, looks at dev pairs and saves is left out: nothing in the result hangs on it.
    """
    names = []
    for field in dataclasses.fields(CrossEncoderTrainingArguments):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = given.get(field.name, default)
        if field.name not in CADENCE and value not in (default, getattr(default, "value", default)):
            names.append(field.name)
    return names


def framework_versions() -> dict[str, str]:
    """The versions of what a training depends on, by the names that people know them by."""
    packages = {
        "Sentence Transformers": "sentence-transformers",
        "Transformers": "transformers",
        "PyTorch": "torch",
        "Accelerate": "accelerate",
        "Datasets": "datasets",
        "Tokenizers": "tokenizers",
        "Reranker Workbench": "reranker-workbench",
    }
    installed = {name: metadata.version(package) for name, package in packages.items()}
    return {"Python": platform.python_version(), **installed}


class PairEvaluator(BaseEvaluator):
    """Average precision and loss of the model on dev pairs, for the trainer to call."""

    def __init__(
        self, sentences: list[tuple[str, str]], labels: list[float], backend: str = "predict"
    ) -> None:
        super().__init__()
        self.sentences, self.labels, self.backend = sentences, labels, backend

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the pairs and return `ap`, and `loss`, which several processes would not log."""
        logits = ModelScorer(model, backend=self.backend).score(self.sentences).astype(float)
        loss = np.mean(np.logaddexp(0.0, logits) - np.asarray(self.labels) * logits)
        return {"ap": pair_metrics(logits, self.labels)["ap"], "loss": float(loss)}


class LogCallback(TrainerCallback):
    """Writes each log line to the run's training log and, in batch, prints it."""

    def __init__(
        self, log: TrainingLog, batch_size: int, trainer: ResumableTrainer, lines: bool
    ) -> None:
        self.log, self.batch_size, self.trainer, self.lines = log, batch_size, trainer, lines

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the values under the names of the training log."""
        given = kwargs.get("logs") or {}
        names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm",
                 "eval_loss": "dev_loss", "eval_ap": "dev_ap"}  # fmt: skip
        values = {ours: float(given[name]) for name, ours in names.items() if name in given}
        if not values or not state.is_world_process_zero:
            return
        seconds = self.trainer.seconds()
        place = {"step": state.global_step, "steps": state.max_steps, "epoch": state.epoch}
        self.log.append({**place, "seconds": round(seconds, 3), **values})
        if self.lines:
            print(self._line(state, values, seconds), flush=True)

    def _line(self, state: TrainerState, values: dict[str, float], seconds: float) -> str:
        left = seconds / max(1, state.global_step) * (state.max_steps - state.global_step)
        rate = state.global_step * self.batch_size / max(seconds, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        place = f"step {state.global_step}/{state.max_steps}"
        return f"{place}  {shown}  {rate:.0f} pairs/s  {left:.0f} s left"


class Stopwatch(TrainerCallback):
    """Ends a training after some seconds, and counts its steps.

    Args:
        seconds: counted from the end of the first step, which pays for what is set up once.

    Attributes:
        steps: those after the first.
        taken: the seconds they took.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps, self.taken, self.start = seconds, -1, 0.0, 0.0

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the clock."""
        self.steps += 1
        if not self.steps:
            self.start = time.monotonic()
        self.taken = time.monotonic() - self.start
        control.should_training_stop = self.steps > 0 and self.taken >= self.seconds


def _dataset(pairs: pd.DataFrame) -> Dataset:
    return Dataset.from_pandas(pairs[["sentence_0", "sentence_1", "label"]], preserve_index=False)
