"""One phase of training: pairs and labels in, a changed model out, by the library's own trainer."""

import dataclasses
import math
import os
import platform
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    CrossEncoderTrainer,
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

from workbench.data.pairs import text_pairs
from workbench.engine.forward import is_supported
from workbench.engine.gradients import BertGradients
from workbench.files import read_json, write_json
from workbench.machine import is_main, process_count, wait_for_all
from workbench.ranking.metrics import pair_metrics
from workbench.scoring.cross_encoder import ModelScorer, pair_encoder
from workbench.training.checkpoints import (
    TrainingStoppedError,
    last_checkpoint,
    prune,
    seal,
    step_of,
)
from workbench.training.log import TrainingLog
from workbench.training.recipe import Recipe

PROGRESS = "progress.json"  # in a checkpoint: what the library forgets


class ResumableTrainer(CrossEncoderTrainer):
    """A trainer whose log, after a resumption, is that of a training without interruption.

    The library starts its sum of losses anew when it resumes, so its next log line and its mean
    over the training differ. Here the loss of each step is kept until it is logged and goes into
    the checkpoint. A checkpoint counts once it is whole; SIGTERM writes one and stops.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fresh: list[torch.Tensor] = []  # losses of this process, not yet shared
        self.pending: list[float] = []  # losses since the last log line, means over processes
        self.total = 0.0  # of all losses before those
        self.before: dict[str, Any] = {"seconds": 0.0, "processor_seconds": 0.0}
        self.started, self.processor_started = time.monotonic(), time.process_time()
        self.told_to_stop = False
        self.given: dict[str, Any] = {}  # the arguments as they were asked for
        self.add_callback(_StopWhenTold(self))

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | None = None, **kwargs: Any
    ) -> Any:
        """Train to the end, from the beginning or from a checkpoint.

        Raises:
            TrainingStoppedError: SIGTERM came; a checkpoint was written.
        """
        if resume_from_checkpoint:
            progress = read_json(Path(resume_from_checkpoint) / PROGRESS)
            self.pending, self.total = progress["pending"], progress["total"]
            self.before = progress["spent"]
        self.started, self.processor_started = time.monotonic(), time.process_time()
        with self._listening(), warnings.catch_warnings():
            # The reference recipe pins memory; without a GPU torch warns that this does nothing.
            warnings.filterwarnings("ignore", message=".*pin_memory", category=UserWarning)
            result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        if self.told_to_stop:
            raise TrainingStoppedError(
                f"told to stop after step {self.state.global_step} of {self.state.max_steps}; "
                "the checkpoint is whole, resume goes on from it"
            )
        return result

    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.before["seconds"] + time.monotonic() - self.started

    def spent(self) -> dict[str, float]:
        """Seconds, and processor seconds of this process."""
        processor = time.process_time() - self.processor_started
        return {
            "seconds": self.seconds(),
            "processor_seconds": self.before["processor_seconds"] + processor,
        }

    def mean_loss(self) -> float:
        """The mean over all steps so far."""
        self._share()
        return math.fsum([self.total, *self.pending]) / max(1, self.state.global_step)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the library's; the loss is remembered."""
        loss = super().training_step(*args, **kwargs)
        self.remember(loss)
        return loss

    def remember(self, loss: torch.Tensor) -> None:
        """Keep the loss of a step until it is logged."""
        self.fresh.append(loss.detach().clone())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the library's, with the mean loss since the last line, whatever happened between."""
        if "loss" in logs:
            self._share()
            if self.pending:
                logs["loss"] = math.fsum(self.pending) / len(self.pending)
            self.total, self.pending = math.fsum([self.total, *self.pending]), []
        super().log(logs, start_time)

    def _share(self) -> None:
        """Turn this process's losses into means over all processes."""
        if self.fresh:
            losses = torch.stack(self.fresh).float()
            if process_count() > 1:
                losses = self.accelerator.reduce(losses, reduction="mean")
            self.pending += losses.tolist()
            self.fresh = []

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint that counts once it is whole; remove what it makes superfluous."""
        folder = Path(str(self.args.output_dir))
        place = folder / f"checkpoint-{self.state.global_step}"
        self._share()
        try:
            if is_main():
                shutil.rmtree(place, ignore_errors=True)  # half of one, from a kill at this step
            wait_for_all()
            super()._save_checkpoint(model, trial)
            wait_for_all()  # each process writes its own random state
            if is_main():
                (place / "training_args.bin").unlink(missing_ok=True)  # a pickle; nobody reads it
                progress = {"pending": self.pending, "total": self.total, "spent": self.spent()}
                write_json(place / PROGRESS, progress)
                seal(place)
                prune(folder)
        except Exception as error:
            shutil.rmtree(place, ignore_errors=True)  # it may be what fills the disk
            good = last_checkpoint(folder)
            state = f"that of step {step_of(good)} is whole" if good else "there is none before it"
            raise RuntimeError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder} "
                f"({type(error).__name__}: {error}); {state}. Is the disk full?"
            ) from error

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Take SIGTERM as a wish to stop, where signals can be received: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: Any) -> None:
            self.told_to_stop = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class _StopWhenTold(TrainerCallback):
    """Has a checkpoint written and the training stopped, after the step that is under way."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All processes stop at the same step, also if only one of them was told."""
        told = self.trainer.told_to_stop
        if process_count() > 1:
            flag = torch.tensor(float(told), device=args.device)
            told = bool(self.trainer.accelerator.reduce(flag, reduction="sum").item())
            self.trainer.told_to_stop = told
        if told:
            control.should_save = control.should_training_stop = True


def can_train_fast(model: Any) -> bool:
    """Whether `FastTrainer` trains this model here: a plain BERT, on the CPU, in one process."""
    inner = model.model
    if inner is None or not is_supported(inner) or model.device.type != "cpu":
        return False
    try:
        pair_encoder(model)
    except ValueError:  # its tokenizer joins pairs in a way of its own
        return False
    return process_count() == 1


class FastTrainer(ResumableTrainer):
    """The library's trainer; the gradients of a step are those of `BertGradients`.

    Data, order, optimizer, schedule, clipping, logs and checkpoints stay the library's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cross_encoder: Any = self.model
        self.encoder = pair_encoder(cross_encoder)
        dataset: Any = self.train_dataset
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        occurring = np.unique(self.encoder.encode(_pairs(dataset[:])).ids)
        self.gradients = BertGradients(cross_encoder.model, occurring, dtype)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As the library's; of the token embeddings it has those that are learned.

        After each update the model's own matrix has them too.
        """
        optimizer = super().create_optimizer(model)
        for group in optimizer.param_groups:
            group["params"] = [
                self.gradients.tokens if one is self.gradients.matrix else one
                for one in group["params"]
            ]
        optimizer.register_step_post_hook(lambda *_: self.gradients.write_back())
        return optimizer

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of a batch; the gradients are set."""
        model.train()
        pairs = self.encoder.encode(_pairs(inputs))
        seed = self.args.seed, self.state.global_step
        loss = self.gradients.step(pairs, inputs["label"], seed)
        self.remember(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.gradients.learned, self.args.max_grad_norm)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(*args, **kwargs)
        self.gradients.read()


def _pairs(columns: dict[str, Sequence[Any]]) -> list[tuple[str, str]]:
    return list(zip(columns["sentence_0"], columns["sentence_1"], strict=True))


CHECKPOINT_STEPS = 500  # steps between checkpoints


CADENCE = {
    "output_dir",
    "report_to",
    "logging_steps",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
}


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
        names = {
            "loss": "loss",
            "learning_rate": "learning_rate",
            "grad_norm": "grad_norm",
            "eval_loss": "dev_loss",
            "eval_ap": "dev_ap",
        }
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
