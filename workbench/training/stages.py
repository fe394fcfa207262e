"""Stages: one training after another, each from the result of the one before.

Notebook 2 shows the loop over the stages of a training; `fine_tune` is that loop in one call.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sentence_transformers.cross_encoder import CrossEncoder

from workbench.data.pairs import DataError, read_manifest, read_split, sample_pairs
from workbench.data.readers import COLUMNS
from workbench.data.texts import distinct_texts, text_pairs
from workbench.files import display_path, read_json, write_json
from workbench.machine import torch_threads
from workbench.models import ModelLocation, find_model, load_tokenizer, read_lineage
from workbench.ranking.metrics import MAIN_METRIC
from workbench.run_folder import MADE_BY_TRAINING, RunFolder, changes, read_record, set_aside
from workbench.scoring.cross_encoder import ModelScorer, ZeroShot, load_cross_encoder
from workbench.training import trainer as trainers
from workbench.training.checkpoints import ResumeError, SnapshotCallback, save_model
from workbench.training.examples import check_training, lexical_pairs, origin_of, with_mined
from workbench.training.log import TrainingLog
from workbench.training.recipe import Recipe, read_stages, stored_activation
from workbench.training.trainer import CHECKPOINT_STEPS, ResumableTrainer
from workbench.vocabulary.repair import check_repair, repair_model

LEXICAL = "lexical warm-up"  # its name in the training log
REQUEST = "asked.json"  # in the folder of checkpoints: what decides the result of the training
PRECISION, THREADS = "precision used", "threads"  # decided by the machine; threads order the sums
DEV_PAIRS = 1000  # the most dev pairs scored each time during training


def fine_tune(
    run_dir: str | Path, base: ModelLocation, recipe: Recipe | None = None, **settings: Any
) -> dict[str, Any]:
    """Train a run from a base by the recipe (None: that of the reference card).

    The other settings are those of `Training`, which names the errors too.

    Returns:
        The record of the last stage, as appended to `model/lineage.json`.

    Example:
        >>> base = find_model("bundled:all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> fine_tune("runs/mine", base, Recipe(epochs=2))["steps"]  # doctest: +SKIP
        1200
    """
    training = Training(run_dir, base, recipe or Recipe(), **settings)
    for stage in training.stages():
        stage.run(stage.trainer(stage.start_model()))
    return training.record()


class Training:
    """The training of a run folder whose data notebook 1 prepared, ready to start or to go on.

    Args:
        run_dir: the run folder. A model in it is moved to `earlier/`, with its log.
        base: the model to start from.
        recipe: how to train.
        stages: training pairs of each stage, see `read_stages`.
        snapshots: models to keep along each stage under `snapshots/`, for a learning curve.
        checkpoint_steps: steps between two checkpoints.
        resume: leave what is there, and go on from the last checkpoint.

    Raises:
        DataError: there are no prepared pairs, none in the training split, or all of one class.
        ModelError: the base model's vocabulary cannot be repaired.
        ResumeError: data or parameters are not those of the training to resume.
        ValueError: `stages` is not a list of whole numbers.
    """

    def __init__(
        self,
        run_dir: str | Path,
        base: ModelLocation,
        recipe: Recipe,
        stages: str = "",
        snapshots: int = 0,
        checkpoint_steps: int = CHECKPOINT_STEPS,
        resume: bool = False,
    ) -> None:
        self.folder, self.base, self.sizes = RunFolder(run_dir), base, read_stages(stages)
        self.snapshots, self.checkpoint_steps = snapshots, checkpoint_steps
        self.train = read_split(run_dir, "train")
        self.dev = read_split(run_dir, "dev").head(DEV_PAIRS)
        try:
            check_training(self.train, recipe, self.sizes, origin_of(run_dir))
        except DataError as error:
            raise DataError(f"{run_dir}: {error}") from error
        if recipe.vocabulary != "keep":  # raises ModelError before anything is set aside
            how = recipe.vocabulary, recipe.new_embeddings, recipe.dictionary
            check_repair(load_tokenizer(base), *how)
        request = {  # all that decides the result: the same request gives the same model
            "base_model (sha256 of its weights)": base.sha256,
            "pairs (sha256 of the training side)": pairs_sha256(self.train),
            "dev pairs (sha256)": pairs_sha256(self.dev),
            "stages": list(self.sizes),
            **recipe.model_dump(),
            PRECISION: recipe.resolved_precision(),
            THREADS: torch.get_num_threads(),
        }
        asked, before = self.folder.checkpoints / REQUEST, None
        if resume and self.folder.lineage.is_file():
            before = self.record().get("request")
        elif resume and asked.is_file():
            before = read_json(asked, dict[str, Any])
        else:
            set_aside(run_dir, MADE_BY_TRAINING)
        if before:  # what another machine or a measurement has decided then, holds now
            request |= {name: before.get(name) for name in (THREADS, PRECISION)}
            if changed := changes("training", before, request):
                first = f"{run_dir} cannot be resumed, because this has changed:"
                last = "Train without resume (old files are set aside), or undo the change."
                raise ResumeError("\n".join([first, *changed, last]))
        if not self.folder.lineage.is_file():
            write_json(asked, request)
        self.request, self.threads = request, request[THREADS]
        self.recipe = recipe.model_copy(update={"precision": request[PRECISION]})

    def stages(self) -> Iterator["Stage"]:
        """The stages that are not finished; each starts from the saved model of the one before."""
        base, folder = self.base, self.folder
        numbers = range(1, len(self.sizes) + 1)
        for number in [] if folder.lineage.is_file() else numbers:
            place = folder.model if number == numbers[-1] else folder.stages / str(number)
            stage = Stage(self, number, base, place)
            if not (place / "lineage.json").is_file():
                yield stage
            if not (place / "lineage.json").is_file():
                raise RuntimeError(f"stage {number} was not run: call `stage.run(trainer)`")
            shutil.rmtree(stage.checkpoints, ignore_errors=True)
            base = find_model(display_path(place))
        shutil.rmtree(folder.checkpoints, ignore_errors=True)

    def record(self) -> dict[str, Any]:
        """The record of the last stage, once all stages are finished."""
        return read_lineage(find_model(display_path(self.folder.model)))[-1]


class Stage:
    """One stage of a training: its model, a trainer for it, and the run that saves the result."""

    def __init__(self, training: Training, number: int, base: ModelLocation, place: Path) -> None:
        self.training, self.number, self.place = training, number, place
        self.base, self.earlier = base, read_lineage(base)
        self.checkpoints = training.folder.checkpoints / f"stage-{number}"
        self.log = TrainingLog(training.folder.path, f"stage {len(self.earlier) + 1}")
        later = {"vocabulary": "keep", "lexical_pairs": 0}  # done by the first stage
        self.recipe = training.recipe.model_copy(update=later if number > 1 else {})
        self.facts: dict[str, Any] = {"vocabulary": {"vocabulary": "keep"}, "lexical_warm_up": None}

    def start_model(self) -> CrossEncoder:
        """The base model; its vocabulary repaired and warmed up if the recipe says so."""
        recipe = self.recipe
        with torch_threads(self.training.threads):
            model = load_cross_encoder(self.base, recipe.max_length, recipe.seed)
            if recipe.vocabulary != "keep":
                how = recipe.vocabulary, recipe.new_embeddings, recipe.dictionary, recipe.seed
                texts = distinct_texts(self.training.train)
                repaired = repair_model(model, load_tokenizer(self.base), texts, *how)
                self.facts["vocabulary"] = repaired
            return self._warmed_up(model) if recipe.lexical_pairs else model

    def _warmed_up(self, model: CrossEncoder) -> CrossEncoder:
        """The model after training on soft lexical targets, as an interrupted run has saved it."""
        recipe, place = self.recipe, self.checkpoints / "lexical"
        if not (place / "model").is_dir():
            teacher = None
            if recipe.vocabulary != "keep" and recipe.new_embeddings == "dictionary":
                texts = distinct_texts(self.training.train)
                teacher = ZeroShot(model, self.base.head, texts)
            pairs = lexical_pairs(self.training.train, recipe.lexical_pairs, recipe.seed, teacher)
            factor = recipe.lexical_learning_rate / recipe.learning_rate
            changes = {
                "loss": "bce",
                "loss_parameters": {},
                "epochs": 1.0,
                "learning_rate": recipe.lexical_learning_rate,
                "embedding_learning_rate": factor * recipe.embedding_learning_rate,
                "warmup_ratio": max(recipe.warmup_ratio, 0.06),
                "max_steps": 0,
                "dropout": False,  # the targets are a function of the texts: no overfitting
            }
            settings = recipe.model_copy(update=changes)
            log = TrainingLog(self.training.folder.path, LEXICAL)
            trainer = trainers.make_trainer(model, place, pairs, pairs.head(0), settings, log)
            trainer.train()
            record = {
                "pairs": len(pairs),
                "steps": trainer.state.global_step,
                "learning_rate": recipe.lexical_learning_rate,
                "train_loss": trainer.mean_loss(),
                "seconds": trainer.spent()["seconds"],
                "agreement": agreement(ModelScorer(model, backend=trainer.backend), pairs),
            }
            save_model(model, place / "model", {"schema": 1, "stages": [record]})
        saved = ModelLocation(LEXICAL, "folder", place / "model", "", "", LEXICAL)
        self.facts["lexical_warm_up"] = read_lineage(saved)[-1]
        return load_cross_encoder(saved, recipe.max_length, recipe.seed)

    def trainer(self, model: CrossEncoder, loss: torch.nn.Module | None = None) -> ResumableTrainer:
        """A trainer of the started model on the stage's pairs; the recipe's loss if it is None.

        Raises:
            DataError: the pairs do not have what the loss, one of the library, needs.
        """
        training, log, every = self.training, self.log, self.training.checkpoint_steps
        labelled = sample_pairs(training.train, training.sizes[self.number - 1], self.recipe.seed)
        with torch_threads(training.threads):
            pairs, added = with_mined(labelled, self.recipe)
            trainer = trainers.make_trainer(
                model, self.checkpoints, pairs, training.dev, self.recipe, log, every, loss
            )
        model.activation_fn = stored_activation(trainer.loss)
        if count := training.snapshots:
            of_run = self.earlier[len(self.earlier) + 1 - self.number :]
            seen = {name: sum(stage[name] for stage in of_run) for name in ("steps", "pairs")}
            folder = training.folder.snapshots
            trainer.add_callback(SnapshotCallback(model, folder, count, len(pairs), seen))
        self.facts |= {
            "pairs": len(pairs),
            "pairs_sha256": pairs_sha256(pairs),
            "label_mean": float(pairs["label"].mean()),
            "statistics": describe_pairs(pairs),
            "pairs_seen": {"labelled": len(labelled), **added, **trainer.made},
        }
        return trainer

    def run(self, trainer: ResumableTrainer) -> None:
        """Train to the end, from the last checkpoint if there is one, and save model and lineage.

        Raises:
            ResumeError: the checkpoint was written with another loss.
            TrainingStoppedError: SIGTERM came; a checkpoint was written.
            DivergedError: the loss or a weight is not finite.
        """
        with torch_threads(self.training.threads):
            trainer.train()
        spent, pairs, model = trainer.spent(), self.facts["pairs"], trainer.model
        record = {
            "stage": self.log.stage,
            "number": self.number,
            "stages": len(self.training.sizes),
            "base": self.base.record(),
            "parent": self.earlier[-1]["stage"] if self.earlier else self.base.name,
            "data": read_manifest(self.training.folder.path),
            **self.facts,
            "recipe": self.recipe.model_dump(),
            "not_fast": trainer.not_fast,
            "speed": "fast" if isinstance(trainer, trainers.FastTrainer) else "exact",
            "precision": self.recipe.precision,
            "device": str(model.device),
            **trainers.describe_training(trainer),
            "steps": trainer.state.global_step,
            "planned_steps": trainer.state.max_steps,
            "kept": {"model": "best" if trainer.keep_best else "last", **trainer.best},
            "dev": trainer.in_each_row["dev"],
            "activation": type(model.activation_fn).__name__,
            "train_loss": trainer.mean_loss(),
            **spent,
            "pairs_per_second": pairs * (trainer.state.epoch or 0) / max(spent["seconds"], 1e-9),
            "log": self.log.rows(),
            "request": self.training.request,
        }
        save_model(model, self.place, {"schema": 1, "stages": [*self.earlier, record]})


def agreement(scorer: ModelScorer, pairs: pd.DataFrame) -> float | None:
    """Pearson correlation of a model's probabilities with at most 300 soft targets, if defined."""
    some = pairs.sample(min(len(pairs), 300), random_state=0)
    probabilities = expit(scorer.score(text_pairs(some)))
    target = some["label"].to_numpy(dtype=float)
    if min(np.ptp(probabilities), np.ptp(target)) == 0:
        return None
    return float(np.corrcoef(probabilities, target)[0, 1])


def describe_pairs(pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """`min`, `mean` and `max` over all rows: characters of each text column, and labels."""
    measured = pairs[COLUMNS].assign(**{name: pairs[name].str.len() for name in COLUMNS[:2]})
    return measured.astype(float).agg(["min", "mean", "max"]).to_dict()


def pairs_sha256(pairs: pd.DataFrame) -> str:
    """SHA-256 over texts and labels of all rows, in order: the same pairs give the same value."""
    digest = hashlib.sha256()
    for *texts, label in zip(*(pairs[name].tolist() for name in COLUMNS), strict=True):
        for value in (*texts, repr(float(label))):
            part = value.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def record_figures(run_dir: str | Path) -> None:
    """Write into the lineage how the evaluated models of the run's stages ranked."""
    folder = RunFolder(run_dir)
    lineage, found = read_record(folder.lineage), read_record(folder.metrics)
    rows = {row["scorer"]: row for row in found["rows"]}
    test = {name: found[name] for name in ("queries", "ties")}
    test["test"] = found.get("recipe", {}).get("source")
    for stage in lineage["stages"]:
        row = rows.get("model" if stage is lineage["stages"][-1] else stage["stage"])
        if row is not None:
            stage["evaluation"] = test | {name: row[name] for name in (MAIN_METRIC, "mrr@10")}
    write_json(folder.lineage, lineage)
