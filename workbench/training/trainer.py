"""One phase of training: pairs and labels in, a changed model out, by the library's own trainer."""

import math
import os
import platform
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from safetensors.torch import load_model, save_model
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import PrinterCallback, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from workbench.data import POSITIVE
from workbench.data.pairs import text_pairs
from workbench.engine.forward import unsupported
from workbench.engine.gradients import BertGradients
from workbench.files import read_json, replacing, write_json
from workbench.ranking.metrics import pair_metrics
from workbench.scoring.cross_encoder import ModelScorer, pair_encoder
from workbench.training import checkpoints
from workbench.training.log import TrainingLog
from workbench.training.losses import needs, training_rows
from workbench.training.mining import COLUMNS
from workbench.training.recipe import Recipe

PROGRESS = "progress.json"  # in a checkpoint: what the library does not keep
BEST = "best.safetensors"  # beside the checkpoints: the weights that were best on dev
MIN_DEV = 50  # dev pairs of each class from which average precision chooses a model
CHECKPOINT_STEPS = 500  # steps between checkpoints
LOGGED = ("loss", "learning_rate", "grad_norm", "eval_loss", "eval_ap")


class ResumableTrainer(CrossEncoderTrainer):
    """A trainer whose result and log, after a kill, are those of a training without interruption.

    The library restarts its sum of losses when it resumes, so its next log row and its mean over
    the training differ. Here the losses are kept until they are logged and go into the checkpoint.
    A checkpoint counts once it is whole; SIGTERM writes one and stops. Scoring dev pairs does not
    move the random numbers of the training.

    Attributes:
        training_log: receives the log rows.
        in_each_row: values of the log rows that hold a loss, and of those that hold dev scores.
        keep_best: whether the model ends with the weights that were best on dev.
        patience: dev scores in a row without a better one that end the training; 0: none do.
        best: `step` and `dev_ap` of the best dev score, and how many came after it; step 0: none.
    """

    training_log: TrainingLog
    in_each_row: dict[str, dict[str, float]]
    keep_best = False
    patience = 0
    unit = "pairs"  # what a batch holds
    made: Mapping[str, int] = MappingProxyType({})  # what the labelled pairs have become
    not_fast = ""  # why `speed: fast` does not apply

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pending: list[float] = []  # losses since the last log row
        self.total, self.count = 0.0, 0  # of the losses before those
        self.best: dict[str, Any] = {"step": 0, "dev_ap": -1.0, "after": 0}
        self.before = {"seconds": 0.0, "processor_seconds": 0.0}
        self.started = time.monotonic(), time.process_time()
        self.stopping = False

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train to the end, from the last whole checkpoint or else from the beginning.

        Raises:
            ResumeError: the checkpoint was written with another loss.
            TrainingStoppedError: SIGTERM came; a checkpoint was written.
            DivergedError: the loss or a weight is not finite.
        """
        checkpoint = checkpoints.last_checkpoint(Path(str(self.args.output_dir)))
        if checkpoint:
            progress, loss = read_json(checkpoint / PROGRESS), describe_loss(self.loss)
            if progress["loss"] != loss:
                message = f"{checkpoint} was written with {progress['loss']}, not {loss}"
                raise checkpoints.ResumeError(
                    f"{message}: train without resume, or undo the change"
                )
            self.pending, self.total = progress["pending"], progress["total"]
            self.count = progress["count"]
            self.before, self.best = progress["spent"], progress["best"]
            kwargs["resume_from_checkpoint"] = str(checkpoint)
        self.training_log.rewind(checkpoints.step_of(checkpoint) if checkpoint else 0)
        self.started = time.monotonic(), time.process_time()
        main_thread = threading.current_thread() is threading.main_thread()
        if main_thread:  # only there can a signal be received
            handler = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        try:
            with warnings.catch_warnings():
                # the reference recipe pins memory; without a GPU torch warns: it has no effect
                warnings.filterwarnings("ignore", message=".*pin_memory", category=UserWarning)
                # of gradient checkpointing: the model library has not followed a new name yet
                warnings.filterwarnings(
                    "ignore", ".*gradient_checkpointing", category=FutureWarning
                )
                if checkpoint and self._patience_is_over():  # it was killed after its last step
                    self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
                    self._load_from_checkpoint(str(checkpoint))
                    result = None
                else:
                    result = super().train(*args, **kwargs)
        finally:
            if main_thread:
                signal.signal(signal.SIGTERM, handler)
        if self.stopping:
            raise checkpoints.TrainingStoppedError(
                f"stopped by SIGTERM after step {self.state.global_step} of "
                f"{self.state.max_steps}; the checkpoint is whole, resume continues from it"
            )
        self._refuse_weights_not_finite()
        if self.keep_best and self.best["step"]:
            load_model(self.model, str(Path(str(self.args.output_dir)) / BEST))
        return result

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """The library's, after each step; once SIGTERM has come, the step is the last."""
        if self.stopping:
            self.control.should_save = self.control.should_training_stop = True
        if self.state.global_step >= self.state.max_steps and self.keep_best:
            self.control.should_evaluate = True  # or the last model could not be the best
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The library's, from a copy of the random state; the best weights are written down."""
        cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=cuda):
            metrics = super().evaluate(*args, **kwargs)
        if (found := metrics.get("eval_ap", -1.0)) > self.best["dev_ap"]:
            self.best = {"step": self.state.global_step, "dev_ap": found, "after": 0}
            if self.keep_best:
                with replacing(Path(str(self.args.output_dir)) / BEST) as file:
                    save_model(self.model, str(file))
        else:
            self.best["after"] += 1
        if self._patience_is_over():
            self.control.should_save = self.control.should_training_stop = True
        return metrics

    def _patience_is_over(self) -> bool:
        return 0 < self.patience <= self.best["after"]

    def _diverged(self, what: str) -> checkpoints.DivergedError:
        step, args = self.state.global_step, self.args
        return checkpoints.DivergedError(
            f"{self.training_log.stage}: {what} after step {step:,} of {self.state.max_steps:,}: "
            f"the training has diverged; {self._last_good()}. Lower learning_rate (it is "
            f"{args.learning_rate:g}), raise warmup_ratio, or take precision float32; look for "
            "damaged pairs too."
        )

    def _refuse_weights_not_finite(self) -> None:
        for name, weights in self.model.named_parameters():
            if not torch.isfinite(weights).all():
                raise self._diverged(f"the weights {name} are not finite")

    def _last_good(self) -> str:
        good = checkpoints.last_checkpoint(Path(str(self.args.output_dir)))
        if good is None:
            return "there is no checkpoint before it"
        return f"the checkpoint of step {checkpoints.step_of(good)} is whole"

    def spent(self) -> dict[str, float]:
        """Seconds and processor seconds of training, those before an interruption included."""
        now = time.monotonic(), time.process_time()
        clocks = zip(self.before.items(), now, self.started, strict=True)
        return {name: before + end - start for (name, before), end, start in clocks}

    def mean_loss(self) -> float:
        """The mean over all steps so far."""
        return math.fsum([self.total, *self.pending]) / max(1, self.count + len(self.pending))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The library's; the loss is kept until it is logged."""
        return self._noted(super().training_step(*args, **kwargs))

    def _noted(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of a step, kept until it is logged; if it is not finite, the training ends."""
        value = float(loss.detach()) * self.current_gradient_accumulation_steps
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.pending.append(value)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's, with the mean loss since the last row, and a row in the training log."""
        if "loss" in logs:
            if self.pending:
                logs["loss"] = math.fsum(self.pending) / len(self.pending)
            self.total, self.count = (
                math.fsum([self.total, *self.pending]),
                self.count + len(self.pending),
            )
            self.pending = []
        super().log(logs, start_time)
        values = {n.replace("eval", "dev"): float(logs[n]) for n in LOGGED if n in logs}
        if not values:
            return
        step, steps, seconds = self.state.global_step, self.state.max_steps, self.spent()["seconds"]
        row = {
            "step": step,
            "steps": steps,
            "epoch": self.state.epoch,
            "seconds": round(seconds, 3),
        }
        extra = [self.in_each_row[n] for n in ("loss", "dev_ap") if n in values]
        self.training_log.append(row | values | {n: v for one in extra for n, v in one.items()})
        if not watched():
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
            rate = step * batch / max(seconds, 1e-9)
            left = seconds / max(1, step) * (steps - step)
            shown = f"step {step}/{steps}  {shown}  {rate:.0f} {self.unit}/s  {left:.0f} s left"
            print(shown, flush=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint that counts once it is whole; remove older ones."""
        self._refuse_weights_not_finite()
        folder = Path(str(self.args.output_dir))
        place = folder / f"checkpoint-{self.state.global_step}"
        try:
            shutil.rmtree(place, ignore_errors=True)  # half of one, from a kill at this step
            super()._save_checkpoint(model, trial)
            (place / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody reads
            progress: dict[str, Any] = {"pending": self.pending, "total": self.total}
            progress |= {
                "count": self.count,
                "best": self.best,
                "spent": self.spent(),
                "loss": describe_loss(self.loss),
            }
            write_json(place / PROGRESS, progress)
            checkpoints.seal(place)
            checkpoints.prune(folder)
        except Exception as error:
            shutil.rmtree(place, ignore_errors=True)  # it may be what fills the disk
            raise RuntimeError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder} "
                f"({type(error).__name__}: {error}); {self._last_good()}. Is the disk full?"
            ) from error


class FastTrainer(ResumableTrainer):
    """The library's trainer, with the gradients of a step computed by `BertGradients`.

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
        """The library's, with only those token embeddings that occur in the training pairs.

        After each update they are copied into the model's own matrix.
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
        """The loss of a batch; its gradients are set."""
        model.train()
        pairs = self.encoder.encode(_pairs(inputs))
        seed = self.args.seed, self.state.global_step
        return self._noted(self.gradients.step(pairs, inputs["label"], seed))

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.gradients.learned, self.args.max_grad_norm)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(*args, **kwargs)
        self.gradients.read()


def can_train_fast(model: Any, loss: torch.nn.Module | None = None) -> bool:
    """Whether `FastTrainer` trains this here: a plain BERT with the plain loss, on the CPU."""
    if model.model is None or unsupported(model.model) or model.device.type != "cpu":
        return False
    try:
        pair_encoder(model)
    except ValueError:  # its tokenizer joins pairs in its own way
        return False
    return loss is None or _is_plain(loss)


def why_not_fast(model: Any, loss: torch.nn.Module, recipe: Recipe) -> str:
    """What of the model, the loss or the recipe `FastTrainer` cannot do; empty for nothing."""
    plain = Recipe().model_dump()
    options = ("weight_decay", "optim", "gradient_accumulation_steps", "gradient_checkpointing")
    for name in (*options, "trainer_arguments"):
        if (value := getattr(recipe, name)) != plain[name]:
            return f"{name} is {value}"
    if recipe.precision == "float16":
        return "precision is float16"
    if not _is_plain(loss):
        return f"the loss is {describe_loss(loss)}"
    return "" if can_train_fast(model) else "the model is not such a BERT, or not on the CPU"


def _is_plain(loss: Any) -> bool:
    """Whether a loss is the library's binary cross-entropy without any option."""
    if type(loss) is not BinaryCrossEntropyLoss:
        return False
    bce = loss.bce_with_logits_loss
    options = bce.reduction, bce.weight, bce.pos_weight
    return isinstance(loss.activation_fn, torch.nn.Identity) and options == ("mean", None, None)


def describe_loss(loss: Any) -> str:
    """A loss by the name of its class and its options."""
    options = loss.get_config_dict() if hasattr(loss, "get_config_dict") else {}
    return f"{type(loss).__name__}({', '.join(f'{k}={v}' for k, v in options.items())})"


def _pairs(columns: dict[str, Sequence[Any]]) -> list[tuple[str, str]]:
    return list(zip(columns["sentence_0"], columns["sentence_1"], strict=True))


def watched() -> bool:
    """Whether a person is looking: a notebook open in JupyterLab, or a terminal."""
    return "JPY_SESSION_NAME" in os.environ or sys.stderr.isatty()


def logging_steps(total_steps: int) -> int:
    """Every 500 steps or at least ten times in a training, by a divisor of 500.

    So the mean loss of every 500 steps, which the reference card lists, is always known.
    """
    return max((n for n in range(1, 501) if 500 % n == 0 and n <= total_steps // 10), default=1)


def make_trainer(
    model: CrossEncoder,
    folder: Path,
    train: pd.DataFrame,
    dev: pd.DataFrame,
    recipe: Recipe,
    log: TrainingLog,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    loss: torch.nn.Module | None = None,
) -> ResumableTrainer:
    """A trainer on labelled pairs.

    Args:
        model: changed in place by `train()`.
        folder: of the checkpoints; `train()` resumes from the last one in it.
        train: columns `sentence_0`, `sentence_1`, `label` in [0, 1].
        dev: the same, scored whenever a log row is written; may be empty.
        recipe: of this phase.
        log: receives the log rows.
        checkpoint_steps: steps between two checkpoints.
        loss: of the library; binary cross-entropy if None.
    """
    loss = loss or BinaryCrossEntropyLoss(model)
    rows, made = training_rows(train, needs(loss))
    batches = math.ceil(len(rows) / recipe.batch_size)
    updates = math.ceil(batches / recipe.gradient_accumulation_steps)
    steps = recipe.max_steps or math.ceil(updates * recipe.epochs)
    every, rate = logging_steps(steps), recipe.embedding_learning_rate
    precision = recipe.resolved_precision()
    bfloat16 = precision == "bfloat16"
    others: dict[str, Any] = {"max_grad_norm": 1.0} | recipe.trainer_arguments
    if recipe.gradient_checkpointing:
        others["activation_checkpointing"] = True
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        learning_rate_mapping={r".*word_embeddings\.weight": rate} if rate else {},
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        weight_decay=recipe.weight_decay,
        optim=recipe.optim,
        max_steps=recipe.max_steps or -1,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        batch_sampler="no_duplicates" if needs(loss) == "positives" else "batch_sampler",
        seed=recipe.seed,
        bf16=bfloat16,
        fp16=precision == "float16",
        use_cpu=bfloat16 and not torch.cuda.is_available(),  # else bfloat16 asks for a GPU
        logging_steps=every,
        eval_strategy="steps" if len(dev) else "no",
        eval_steps=recipe.eval_steps or every,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        report_to="none",
        **others,
    )
    not_fast = why_not_fast(model, loss, recipe) if recipe.speed == "fast" else ""
    fast = recipe.speed == "fast" and not not_fast
    backend = ("torch-bfloat16" if bfloat16 else "torch-float32") if fast else "predict"
    datasets = [Dataset.from_pandas(one, preserve_index=False) for one in (rows, dev[COLUMNS])]
    by_library = len(dev) and needs(loss) == "pairs" and not _is_plain(loss)
    trainer = (FastTrainer if fast else ResumableTrainer)(
        model=model,
        args=arguments,
        train_dataset=datasets[0],
        # the evaluator computes the plain loss too, so that dev pairs are scored once, not twice
        eval_dataset=datasets[1] if by_library else None,
        evaluator=PairEvaluator(dev, backend, _is_plain(loss)) if len(dev) else None,
        loss=loss,
    )
    trainer.training_log = log
    trainer.made, trainer.not_fast = made, not_fast
    trainer.unit = "pairs" if needs(loss) == "pairs" else next(iter(made)).replace("_", " ")
    positives = int((dev["label"] >= POSITIVE).sum())
    trainer.in_each_row = {
        "loss": {"constant_loss": constant_loss(train)} if _is_plain(loss) else {},
        "dev_ap": {"dev_pairs": len(dev), "dev_positives": positives},
    }
    if min(positives, len(dev) - positives) >= MIN_DEV:
        trainer.keep_best = recipe.keep_model == "best"
        trainer.patience = recipe.early_stopping_patience
    trainer.remove_callback(PrinterCallback)  # our log lines say the same, and more readably
    if not watched():
        trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)
    return trainer


def constant_loss(pairs: pd.DataFrame) -> float:
    """The binary cross-entropy, in nats, of a model that answers the mean label to every pair."""
    mean = np.clip(float(pairs["label"].mean()), 1e-12, 1 - 1e-12)
    return float(-mean * np.log(mean) - (1 - mean) * np.log(1 - mean))


class PairEvaluator(BaseEvaluator):
    """Average precision and binary cross-entropy of the model on dev pairs, for the trainer."""

    def __init__(self, dev: pd.DataFrame, backend: str = "predict", with_loss: bool = True) -> None:
        super().__init__()
        self.dev, self.backend, self.with_loss = dev, backend, with_loss

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """`ap`, and `loss` in place of the library's."""
        labels = self.dev["label"].to_numpy(dtype=float)
        scorer = ModelScorer(model, backend=self.backend)
        logits = scorer.score(text_pairs(self.dev)).astype(float)
        found = {"ap": pair_metrics(logits, list(labels))["ap"]}
        if self.with_loss:
            found["loss"] = float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
        return found


def describe_training(trainer: ResumableTrainer) -> dict[str, Any]:
    """What lineage and model card keep: loss, hyperparameters, and versions.

    `non_default` names the hyperparameters whose values are not the library's defaults, except
    those that do not change the result, such as how often the trainer logs.
    """
    places = {"output_dir", "logging_dir", "hub_token", "run_name"}
    harmless = {"report_to", "logging_steps", "eval_strategy", "eval_steps", "do_eval"}
    harmless |= {"save_strategy", "save_steps", "dataloader_pin_memory"}
    defaults = CrossEncoderTrainingArguments(output_dir="unused").to_dict()
    used = {k: v for k, v in trainer.args.to_dict().items() if k not in places}
    packages = ("Sentence Transformers", "Transformers", "PyTorch", "Accelerate", "Datasets")
    versions = {"Python": platform.python_version()}
    for name in (*packages, "Tokenizers", "Reranker Workbench"):
        package = "torch" if name == "PyTorch" else name.lower().replace(" ", "-")
        versions[name] = metadata.version(package)
    return {
        "loss": type(trainer.loss).__name__,
        "loss_options": describe_loss(trainer.loss),
        "hyperparameters": used,
        "non_default": [k for k in used if k not in harmless and used[k] != defaults[k]],
        "versions": versions,
    }
