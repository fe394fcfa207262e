"""One phase of training: pairs and labels in, a changed model out, by the library's own trainer."""

import copy
import gc
import math
import os
import platform
import re
import shutil
import signal
import sys
import threading
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from safetensors.torch import load_model, save_model
from scipy.special import entr
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments as Arguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import PrinterCallback, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_pt_utils import get_parameter_names

from workbench import __version__
from workbench.data import POSITIVE
from workbench.data.build_lists import ranking_lists
from workbench.data.lists import CandidateList
from workbench.data.pairs import known_positives
from workbench.data.readers import COLUMNS
from workbench.data.texts import text_pairs
from workbench.engine.bert import BertGradients, unsupported
from workbench.files import read_json, replacing, write_json
from workbench.ranking.evaluation import rank_lists, split_scores
from workbench.ranking.metrics import MAIN_METRIC, pair_metrics
from workbench.scoring.backends import pair_encoder
from workbench.scoring.cross_encoder import ModelScorer
from workbench.training import checkpoints
from workbench.training.examples import find_teacher, origin_of, training_rows
from workbench.training.log import MEASURED, TrainingLog
from workbench.training.recipe import LOSSES, MIN_DEV, TAUGHT, Recipe, make_loss

PROGRESS = "progress.json"  # in a checkpoint: what the library does not keep
KEPT = ("pending", "total", "count", "best", "before")  # there, of the trainer
BEST = "best.safetensors"  # beside the checkpoints: the weights that were best on dev
WEIGHTS = "model.safetensors"  # in a checkpoint
MAX_LISTS, LIST_SIZE = 100, 10  # of dev: few candidates, for they are scored again and again
CHECKPOINT_STEPS = 500  # steps between checkpoints
LIBRARIES = "Sentence Transformers, Transformers, PyTorch, Accelerate, Datasets, Tokenizers"
SAME_NAME = (  # parameters that are arguments of the library's trainer as they are
    *("learning_rate", "lr_scheduler_type", "weight_decay", "optim", "seed"),
    "gradient_accumulation_steps",
)

gc.freeze()  # or each training begins with a search for garbage in all that the libraries hold


class ResumableTrainer(CrossEncoderTrainer):
    """A trainer whose result and log, after a kill, are those of a training without interruption.

    The library forgets its sum of losses when it resumes; here they are kept until they are logged
    and go into the checkpoint. A checkpoint counts once it is whole; SIGTERM writes one and stops.
    Scoring dev pairs does not move the random numbers of the training.

    `best` has step and value of the best dev score, and how many came after it; step 0: none yet.
    """

    training_log: TrainingLog
    in_each_row: dict[str, dict[str, float]]  # values of log rows with `loss`, or any of `dev`
    made: dict[str, int]  # what the labelled pairs have become
    not_fast: str  # why `speed: fast` does not apply
    backend: str  # that scores what is looked at during the training
    metric = "dev_ap"  # the column of the log by which a model is best
    keep_best = False  # whether the training ends with that model
    patience = 0  # dev scores in a row without a better one that end the training; 0: none do
    stopping = False
    untried: Any = None  # what each batch size of `auto_find_batch_size` has
    take_step = CrossEncoderTrainer.training_step

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = Path(str(self.args.output_dir))
        self.pending: list[float] = []  # losses since the last log row
        self.total, self.count = 0.0, 0  # of the losses before those
        self.best: dict[str, Any] = {"step": 0, "after": 0}
        self.before = {"seconds": 0.0, "processor_seconds": 0.0}

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Nothing: a run has another card, and this one's statistics need each text alone."""

    def train(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Train to the end, from the last whole checkpoint or else from the beginning."""
        if checkpoint := checkpoints.last_checkpoint(self.folder):
            progress, loss = read_json(checkpoint / PROGRESS), describe_loss(self.loss)
            if progress["loss"] != loss:
                message = f"{checkpoint} was written with {progress['loss']}, not {loss}: "
                raise checkpoints.ResumeError(f"{message}train without resume, or undo the change")
            for name in KEPT:
                setattr(self, name, progress[name])
            kwargs["resume_from_checkpoint"] = str(checkpoint)
        self.first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
        self.training_log.rewind(self.first_step)
        self.started = time.monotonic(), time.process_time()
        main_thread = threading.current_thread() is threading.main_thread()
        if main_thread:  # only there can a signal be received
            handler = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        try:
            with warnings.catch_warnings():
                # the reference recipe pins memory, which has no effect without a GPU; and a model
                # library has not followed a new name yet
                warnings.filterwarnings("ignore", ".*(pin_memory|gradient_checkpointing)")
                if checkpoint and self._patience_is_over():  # it was killed after its last step
                    self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
                    self._load_from_checkpoint(str(checkpoint))
                else:
                    super().train(*args, **kwargs)
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
            load_model(self.model, str(self.folder / BEST))

    def _inner_training_loop(self, batch_size: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """The library's; where memory was too small for a batch, again from the same beginning."""
        if self.args.auto_find_batch_size:
            # sentence-transformers' loader reads the size there
            self.args.per_device_train_batch_size = batch_size // max(1, self.args.n_gpu)
            if self.untried is None:
                state = self.model.state_dict().items()
                weights = {name: one.to("cpu", copy=True) for name, one in state}
                kept = {name: copy.copy(getattr(self, name)) for name in KEPT}
                self.untried = weights, kept, torch.get_rng_state()
            else:
                print(f"memory is too small: batches of {batch_size} from here on", flush=True)
                weights, kept, random = self.untried
                self.model.load_state_dict(weights)
                vars(self).update(copy.deepcopy(kept))
                torch.set_rng_state(random)
                self.optimizer = self.lr_scheduler = None
                self.training_log.rewind(self.first_step)
        return super()._inner_training_loop(batch_size, **kwargs)

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
        found = metrics.get(self.metric.replace("dev", "eval"), -1.0)
        if found > self.best.get(self.metric, -1.0):
            self.best = {"step": self.state.global_step, self.metric: found, "after": 0}
            if self.keep_best:
                with replacing(self.folder / BEST) as file:
                    save_model(self.model, str(file))
        else:
            self.best["after"] += 1
        if self._patience_is_over():
            self.control.should_save = self.control.should_training_stop = True
        return metrics

    def _patience_is_over(self) -> bool:
        return 0 < self.patience <= self.best["after"]

    def _diverged(self, what: str) -> checkpoints.DivergedError:
        step, steps = self.state.global_step, self.state.max_steps
        return checkpoints.DivergedError(
            f"{self.training_log.stage}: {what} after step {step:,} of {steps:,}: the training has "
            f"diverged; {self._last_good()}. Lower learning_rate (it is "
            f"{self.args.learning_rate:g}), raise warmup_ratio, or take precision float32; look "
            "for damaged pairs too."
        )

    def _refuse_weights_not_finite(self) -> None:
        for name, weights in self.model.named_parameters():
            if not torch.isfinite(weights).all():
                raise self._diverged(f"the weights {name} are not finite")

    def _last_good(self) -> str:
        if good := checkpoints.last_checkpoint(self.folder):
            return f"the checkpoint of step {checkpoints.step_of(good)} is whole"
        return "there is no checkpoint before it"

    def spent(self) -> dict[str, float]:
        """Seconds and processor seconds of training, those before an interruption included."""
        now = time.monotonic(), time.process_time()
        clocks = zip(self.before.items(), now, self.started, strict=True)
        return {name: before + end - start for (name, before), end, start in clocks}

    def mean_loss(self) -> float:
        """The mean over all steps so far."""
        return math.fsum([self.total, *self.pending]) / max(1, self.count + len(self.pending))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The library's; the loss is kept until it is logged. It ends if that is not finite."""
        loss = self.take_step(*args, **kwargs)
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
            self.total = math.fsum([self.total, *self.pending])
            self.count, self.pending = self.count + len(self.pending), []
        super().log(logs, start_time)
        named = {name.replace("eval", "dev"): value for name, value in logs.items()}
        values = {name: float(named[name]) for name in MEASURED if name in named}
        if not values:
            return
        step, steps, seconds = self.state.global_step, self.state.max_steps, self.spent()["seconds"]
        row = {"step": step, "steps": steps, "epoch": self.state.epoch}
        row["seconds"] = round(seconds, 3)
        for kind, facts in self.in_each_row.items():
            row |= facts if any(name.startswith(kind) for name in values) else {}
        self.training_log.append(row | values)
        if not watched():
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
            unit = next(iter(self.made), "pairs").replace("_", " ")
            rate, left = step * batch / max(seconds, 1e-9), seconds / max(1, step) * (steps - step)
            text = f"step {step}/{steps}  {shown}  {rate:.0f} {unit}/s  {left:.0f} s left"
            print(text, flush=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint that counts once it is whole; remove older ones."""
        self._refuse_weights_not_finite()
        place = self.folder / f"checkpoint-{self.state.global_step}"
        try:
            shutil.rmtree(place, ignore_errors=True)  # half of one, from a kill at this step
            super()._save_checkpoint(model, trial)
            progress = {name: getattr(self, name) for name in KEPT}
            progress |= {"before": self.spent(), "loss": describe_loss(self.loss)}
            write_json(place / PROGRESS, progress)
            checkpoints.seal(place)
            checkpoints.prune(self.folder)
        except Exception as error:
            shutil.rmtree(place, ignore_errors=True)  # it may be what fills the disk
            raise RuntimeError(
                f"the checkpoint of step {self.state.global_step} cannot be written to "
                f"{self.folder} ({type(error).__name__}: {error}); {self._last_good()}. Is the "
                "disk full?"
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The weights alone, as they are trained; the rest of the model does not change."""
        folder = Path(output_dir or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_model(self.model, str(Path(resume_from_checkpoint) / WEIGHTS))

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """The library's, which spares biases and norms, without embeddings."""
        others = get_parameter_names(model, [torch.nn.Embedding])
        return [name for name in super().get_decay_parameter_names(model) if name in others]


class FastTrainer(ResumableTrainer):
    """The library's trainer, but for the gradients of a step, which `BertGradients` computes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cross_encoder: Any = self.model
        dataset: Any = self.train_dataset
        pairs = text_pairs(dataset[:])
        self.encoded = pair_encoder(cross_encoder).encode(pairs)
        self.place = {pair: number for number, pair in enumerate(pairs)}
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        self.gradients = BertGradients(cross_encoder.model, np.unique(self.encoded.ids), dtype)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The library's, of those token embeddings that occur; updates go into the matrix."""
        optimizer, own = super().create_optimizer(model), self.gradients
        for group in optimizer.param_groups:
            group["params"] = [own.tokens if one is own.matrix else one for one in group["params"]]
        optimizer.register_step_post_hook(lambda *_: own.write_back())
        return optimizer

    def take_step(self, model: Any, inputs: dict[str, Any], *_: Any) -> torch.Tensor:
        """The loss of a batch; its gradients are set."""
        if not model.training:  # it would go through all its modules
            model.train()
        pairs = self.encoded.at([self.place[pair] for pair in text_pairs(inputs)])
        seed = self.args.seed, self.state.global_step
        return self.gradients.step(pairs, inputs["label"], seed)

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.gradients.learned, self.args.max_grad_norm)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint)
        self.gradients.read()


def why_not_fast(model: Any, loss: Any, recipe: Recipe) -> str:
    """What of the model, the loss or the recipe `FastTrainer` cannot do; empty for nothing."""
    options = "optim", "gradient_accumulation_steps", "gradient_checkpointing", "trainer_arguments"
    for name in options:
        if (value := getattr(recipe, name)) != Recipe.model_fields[name].default:
            return f"{name} is {value}"
    if recipe.precision == "float16":
        return "precision is float16"
    if not _is_plain(loss):
        return f"the loss is {describe_loss(loss)}"
    if model.model is None or model.device.type != "cpu":
        return "it trains one BERT on the CPU"
    try:
        pair_encoder(model)
    except ValueError as error:  # its tokenizer joins pairs in its own way
        return str(error)
    return unsupported(model.model)


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
    """A trainer of a model on labelled pairs: columns `sentence_0`, `sentence_1`, `label`.

    `train()` goes on from the last checkpoint in the folder and writes one every `checkpoint_steps`
    steps. Dev pairs, if there are any, are scored whenever a log row is written. The loss is that
    of the recipe if None.
    """
    loss = loss or make_loss(recipe.loss, model, **recipe.loss_parameters)
    needed = dict(LOSSES.values()).get(type(loss).__name__, "pairs")
    plain = _is_plain(loss)
    taught = bool(recipe.teacher) and type(loss).__name__ in {LOSSES[name][0] for name in TAUGHT}
    teacher = find_teacher(recipe, train, origin_of(log.path.parent)) if taught else None
    rows, made = training_rows(train, needed, teacher and teacher())
    if recipe.lora_rank:
        checkpoints.add_lora(model, recipe)
    if not recipe.dropout:
        remove_dropout(model)
    steps, precision = recipe.steps(len(rows)), recipe.resolved_precision()
    every, bfloat16 = logging_steps(steps), precision == "bfloat16"
    arguments = Arguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate_mapping=_embedding_rate(model, recipe),
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        max_steps=recipe.max_steps or -1,
        batch_sampler="no_duplicates" if needed == "positives" else "batch_sampler",
        bf16=bfloat16,
        fp16=precision == "float16",
        use_cpu=bfloat16 and not torch.cuda.is_available(),  # else bfloat16 asks for a GPU
        logging_steps=every,
        eval_strategy="steps" if len(dev) else "no",
        eval_steps=(recipe.eval_steps or every) if len(dev) else None,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        report_to="none",
        activation_checkpointing=recipe.gradient_checkpointing or None,
        **{name: getattr(recipe, name) for name in SAME_NAME},
        **recipe.trainer_arguments,
    )
    not_fast = why_not_fast(model, loss, recipe) if recipe.speed == "fast" else ""
    fast = recipe.speed == "fast" and not not_fast
    backend = ("torch-bfloat16" if bfloat16 else "torch-float32") if fast else "predict"
    lists, positives = _dev_lists(dev, recipe, log), int((dev["label"] >= POSITIVE).sum())
    dev_rows = None  # the dev scores include the plain loss: the pairs are scored once, not twice
    if len(dev) and needed == "pairs" and not plain and not taught:
        dev_rows = Dataset.from_pandas(dev[COLUMNS], preserve_index=False)
    trainer = (FastTrainer if fast else ResumableTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_pandas(rows, preserve_index=False),
        eval_dataset=dev_rows,
        evaluator=DevScores(dev, lists, backend, plain) if len(dev) else None,
        loss=loss,
    )
    trainer.training_log, trainer.made, trainer.not_fast = log, made, not_fast
    trainer.backend = backend
    trainer.in_each_row = {
        "loss": {"constant_loss": constant_loss(train)} if plain else {},
        "dev": {"dev_pairs": len(dev), "dev_positives": positives},
    }
    if lists:
        trainer.metric = "dev_ndcg"
        trainer.in_each_row["dev"]["dev_lists"] = len(lists)
    if lists or min(positives, len(dev) - positives) >= MIN_DEV:
        trainer.keep_best = recipe.keep_model == "best"
        trainer.patience = recipe.early_stopping_patience
    trainer.remove_callback(PrinterCallback)  # our log lines say the same, and more readably
    if not watched():
        trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)
    return trainer


def remove_dropout(model: torch.nn.Module) -> None:
    """Set all dropout rates of a model to 0: of its modules, and those kept as numbers."""
    for module in model.modules():
        plain = isinstance(module, torch.nn.Dropout)
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or (plain and name == "p")):
                setattr(module, name, 0.0)


def constant_loss(pairs: pd.DataFrame) -> float:
    """The binary cross-entropy, in nats, of a model that answers the mean label to every pair."""
    mean = float(pairs["label"].mean())
    return float(entr([mean, 1 - mean]).sum())


def _embedding_rate(model: CrossEncoder, recipe: Recipe) -> dict[str, float]:
    """The learning rate of the token embeddings, by a pattern of their name, if it differs."""
    if not recipe.embedding_learning_rate:
        return {}
    body: Any = model[0].model
    matrix = body.get_input_embeddings().weight
    name = next(name for name, one in body.named_parameters() if one is matrix)
    short = ".".join(name.split(".")[-2:])
    return {f".*{re.escape(short)}": recipe.embedding_learning_rate}


def _dev_lists(dev: pd.DataFrame, recipe: Recipe, log: TrainingLog) -> list[CandidateList]:
    """Lists of dev texts to choose a model by, built as those of the test; empty if too few."""
    if recipe.metric_for_best_model != MAIN_METRIC or dev.empty:
        return []
    lists = ranking_lists("", dev, LIST_SIZE, recipe.seed, known_positives(log.path.parent))
    return lists[:MAX_LISTS] if len(lists) >= MIN_DEV else []


class DevScores(BaseEvaluator):
    """Scores of a model on dev pairs and dev lists, for the trainer."""

    def __init__(
        self, dev: pd.DataFrame, lists: list[CandidateList], backend: str, loss: bool
    ) -> None:
        super().__init__()
        self.dev, self.lists, self.backend, self.loss = dev, lists, backend, loss

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """`ap` of the pairs, `ndcg` of the lists, cross-entropy as `loss`, where defined."""
        labels = self.dev["label"].to_numpy(dtype=float)
        pairs = [*text_pairs(self.dev), *(pair for one in self.lists for pair in one.pairs())]
        scores = ModelScorer(model, backend=self.backend).score(pairs).astype(float)
        logits, listed = scores[: len(labels)], scores[len(labels) :]
        found = {"ap": pair_metrics(logits, labels)["ap"]}
        if self.lists:
            values = rank_lists(split_scores(listed, self.lists), self.lists, "expected")
            found["ndcg"] = float(values[MAIN_METRIC].mean())
        if self.loss:
            found["loss"] = float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
        return {name: value for name, value in found.items() if np.isfinite(value)}


def describe_training(trainer: ResumableTrainer) -> dict[str, Any]:
    """What lineage and model card keep: loss, hyperparameters, and versions.

    `non_default` names no hyperparameter that cannot change the result, such as `logging_steps`.
    """
    places = {"output_dir", "logging_dir", "hub_token", "run_name"}
    harmless = {"report_to", "logging_steps", "do_eval"}
    harmless |= {"save_strategy", "save_steps", "dataloader_pin_memory"}
    defaults = Arguments(output_dir="unused").to_dict()
    used = {k: v for k, v in trainer.args.to_dict().items() if k not in places}
    versions = {"Python": platform.python_version(), "Reranker Workbench": __version__}
    for name in LIBRARIES.split(", "):
        package = name.lower().replace(" ", "-").replace("py", "")
        versions[name] = metadata.version(package)
    return {
        "loss": type(trainer.loss).__name__,
        "loss_options": describe_loss(trainer.loss),
        "hyperparameters": used,
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "non_default": [k for k in used if k not in harmless and used[k] != defaults[k]],
        "versions": versions,
    }
