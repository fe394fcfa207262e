"""Stages: one training after another, each from the result of the one before.

    training = open_training(run_dir, base, recipe)
    for stage in training.stages():
        model = stage.start_model()
        loss = BinaryCrossEntropyLoss(model)
        trainer = stage.trainer(model, loss)
        stage.run(trainer)

`fine_tune` is this loop in one call.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from workbench.data.splits import DataError, read_manifest, read_side
from workbench.files import display_path, project_path, read_json, set_aside, write_json
from workbench.machine import torch_threads
from workbench.models import ModelLocation, find_model, read_lineage
from workbench.run_folder import STAGES
from workbench.training.checkpoints import ResumeError, SnapshotCallback, save_model
from workbench.training.log import LOG_NAME, TrainingLog
from workbench.training.recipe import Recipe, read_stages
from workbench.training.start import LEXICAL, start_model, warm_up, with_mined
from workbench.training.trainer import (
    CHECKPOINT_STEPS,
    FastTrainer,
    ResumableTrainer,
    describe_training,
    make_trainer,
)

REQUEST = "asked.json"  # in the folder of checkpoints: what decides the result of the training
PRECISION, THREADS = "precision used", "threads"  # decided by the machine; threads order the sums
DEV_PAIRS = 1000  # the most dev pairs scored each time during training
MADE_BY_TRAINING = ("model", STAGES, "checkpoints", LOG_NAME, "evaluation", "snapshots")


def fine_tune(
    run_dir: str | Path, base: ModelLocation, recipe: Recipe | None = None, **settings: Any
) -> dict[str, Any]:
    """Train on `run_dir/data/train.parquet` with binary cross-entropy; write model, log, lineage.

    Args:
        run_dir: a run folder whose data notebook 1 prepared.
        base: the model to start from.
        recipe: how to train; the reference card's values if None.
        settings: `stages`, `snapshots`, `checkpoint_steps`, `resume`: see `open_training`.

    Returns:
        The record of the last stage, as appended to `model/lineage.json`.

    Raises:
        ModelError: the base model's vocabulary cannot be repaired.
        TrainingStoppedError: SIGTERM came; a checkpoint was written.
    """
    training = open_training(run_dir, base, recipe or Recipe(), **settings)
    for stage in training.stages():
        model = stage.start_model()
        stage.run(stage.trainer(model, BinaryCrossEntropyLoss(model)))
    return training.record()


def open_training(
    run_dir: str | Path,
    base: ModelLocation,
    recipe: Recipe,
    stages: str = "",
    snapshots: int = 0,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    resume: bool = False,
) -> "Training":
    """The training of a run folder, ready to start or to go on.

    A model that is already in the run folder is moved to `earlier/`, with its log. With `resume`,
    it stays, and an unfinished training goes on from its last checkpoint.

    Args:
        run_dir: a run folder whose data notebook 1 prepared.
        base: the model to start from.
        recipe: how to train.
        stages: training pairs of each stage, such as `2000,0,0` (0: all); empty: one, with all.
        snapshots: models to keep along each stage under `snapshots/`, for a learning curve.
        checkpoint_steps: steps between two checkpoints.
        resume: continue an interrupted training of the same run.

    Raises:
        DataError: there are no prepared pairs, or none in the training split.
        ResumeError: data or parameters are not those of the training to resume.
        ValueError: `stages` is not a list of whole numbers.
    """
    folder, sizes = project_path(run_dir), read_stages(stages)
    train, dev = read_side(folder, "train"), read_side(folder, "dev").head(DEV_PAIRS)
    if train.empty:
        raise DataError(f"{run_dir}: there is no training pair")
    request = {  # all that decides the result: the same request gives the same model, bit for bit
        "base_model (sha256 of its weights)": base.sha256,
        "pairs (sha256 of the training side)": pairs_sha256(train),
        "dev pairs (sha256)": pairs_sha256(dev),
        "stages": list(sizes),
        **recipe.model_dump(),
        PRECISION: recipe.resolved_precision(),
        THREADS: torch.get_num_threads(),
    }
    asked, lineage = folder / "checkpoints" / REQUEST, folder / "model" / "lineage.json"
    before: dict[str, Any] | None = None
    if resume and lineage.is_file():
        before = read_json(lineage)["stages"][-1].get("request")
    elif resume and asked.is_file():
        before = read_json(asked)
    else:
        set_aside(folder, MADE_BY_TRAINING)
    if before is not None:  # maybe begun on another machine: what was decided there holds here
        if recipe.precision == "auto" or lineage.is_file():
            request[PRECISION] = before.get(PRECISION)
        request[THREADS] = before.get(THREADS)
        _refuse_changes(before, request, run_dir)
    if not lineage.is_file():
        write_json(asked, request)
    recipe = recipe.model_copy(update={"precision": request[PRECISION]})
    return Training(folder, base, recipe, sizes, train, dev, request, snapshots, checkpoint_steps)


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], run_dir: str | Path) -> None:
    now = json.loads(json.dumps(now))
    changed = [
        f"{name}: the training was started with {before.get(name)!r}, not {now.get(name)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ResumeError(
            "\n".join([f"{run_dir} cannot be resumed, because this has changed:", *changed])
            + "\nTrain without resume (the old files are set aside), or undo the change."
        )


@dataclass(frozen=True)
class Training:
    """The stages of a run, as `open_training` returns them.

    Attributes:
        folder: the run's.
        base: the model that the first stage starts from.
        recipe: with the precision that `auto` stands for.
        sizes: training pairs of each stage; 0 for all.
        train: the training split; columns `sentence_0`, `sentence_1`, `label`.
        dev: the dev pairs that are scored during training.
        request: all that decides the result.
        snapshots: models to keep along each stage.
        checkpoint_steps: steps between two checkpoints.
    """

    folder: Path
    base: ModelLocation
    recipe: Recipe
    sizes: tuple[int, ...]
    train: pd.DataFrame
    dev: pd.DataFrame
    request: dict[str, Any]
    snapshots: int
    checkpoint_steps: int

    def stages(self) -> Iterator["Stage"]:
        """The stages that are not finished, each after the model of the one before is saved."""
        base, seen = self.base, {"steps": 0, "pairs": 0}
        checkpoints, finished = self.folder / "checkpoints", self.folder / "model" / "lineage.json"
        for number in [] if finished.is_file() else range(1, len(self.sizes) + 1):
            last = number == len(self.sizes)
            place = self.folder / ("model" if last else f"{STAGES}/{number}")
            if not (place / "lineage.json").is_file():
                yield Stage(self, number, base, place, checkpoints / f"stage-{number}", seen)
            shutil.rmtree(checkpoints / f"stage-{number}", ignore_errors=True)
            base = find_model(display_path(place))
            record = read_lineage(base)[-1]
            seen = {key: seen[key] + record[key] for key in seen}
        shutil.rmtree(checkpoints, ignore_errors=True)

    def record(self) -> dict[str, Any]:
        """The record of the last stage in `model/lineage.json`, once all stages are finished."""
        return read_lineage(find_model(display_path(self.folder / "model")))[-1]


@dataclass
class Stage:
    """One stage: a model, a trainer for it, and the run that saves the result.

    Attributes:
        training: the stage's training.
        number: 1 for the first.
        base: the model it starts from.
        place: the folder of its result.
        checkpoints: the folder of its checkpoints.
        seen: `steps` and `pairs` of the stages before it.
        facts: of its start, for the lineage.
    """

    training: Training
    number: int
    base: ModelLocation
    place: Path
    checkpoints: Path
    seen: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The training's; the vocabulary is repaired and warmed up in the first stage only."""
        later = {"vocabulary": "keep", "lexical_pairs": 0}
        return self.training.recipe.model_copy(update=later if self.number > 1 else {})

    @property
    def log(self) -> TrainingLog:
        """Where the stage's log rows go."""
        return TrainingLog(self.training.folder, f"stage {len(read_lineage(self.base)) + 1}")

    def start_model(self) -> CrossEncoder:
        """The base model; its vocabulary repaired and warmed up if the recipe says so."""
        train, recipe, warmed = self.training.train, self.recipe, None
        with torch_threads(self.training.request[THREADS]):
            model, repaired = start_model(self.base, recipe, train)
            if recipe.lexical_pairs:
                log = TrainingLog(self.training.folder, LEXICAL)
                model, warmed = warm_up(model, self.checkpoints / "lexical", train, recipe, log)
        self.facts |= {"vocabulary": repaired, "lexical_warm_up": warmed}
        return model

    def trainer(self, model: CrossEncoder, loss: torch.nn.Module) -> ResumableTrainer:
        """The library's trainer on the stage's pairs, made resumable.

        Args:
            model: from `start_model`; changed in place.
            loss: of the library, for pairs with a label in [0, 1]. `speed: fast` is for
                `BinaryCrossEntropyLoss` without options; any other has the library's own speed.
        """
        training, recipe = self.training, self.recipe
        size = training.sizes[self.number - 1]
        labelled = stage_pairs(training.train, size, recipe.seed)
        with torch_threads(training.request[THREADS]):
            pairs, added = with_mined(labelled, recipe)
            steps = training.checkpoint_steps
            trainer = make_trainer(
                model, self.checkpoints, pairs, training.dev, recipe, self.log, steps, loss
            )
        if count := training.snapshots:
            folder = training.folder / "snapshots"
            trainer.add_callback(SnapshotCallback(model, folder, count, len(pairs), self.seen))
        self.facts |= {
            "pairs": len(pairs),
            "pairs_sha256": pairs_sha256(pairs),
            "label_mean": float(pairs["label"].mean()),
            "statistics": describe_pairs(pairs),
            "pairs_seen": {"labelled": len(labelled), **added},
        }
        return trainer

    def run(self, trainer: ResumableTrainer) -> dict[str, Any]:
        """Train to the end, save the model with its lineage, and return the stage's record."""
        training, earlier, facts = self.training, read_lineage(self.base), dict(self.facts)
        with torch_threads(training.request[THREADS]):
            trainer.train()
        spent, model = trainer.spent(), trainer.model
        rate = facts["pairs"] * self.recipe.epochs / max(spent["seconds"], 1e-9)
        record = {
            "stage": self.log.stage,
            "number": self.number,
            "stages": len(training.sizes),
            "base": self.base.record(),
            "parent": earlier[-1]["stage"] if earlier else self.base.name,
            "data": read_manifest(training.folder),
            **facts,
            "recipe": self.recipe.model_dump(),
            "speed": "fast" if isinstance(trainer, FastTrainer) else "exact",
            "precision": self.recipe.resolved_precision(),
            "device": str(model.device),
            **describe_training(trainer),
            "steps": trainer.state.global_step,
            "train_loss": trainer.mean_loss(),
            **spent,
            "pairs_per_second": rate,
            "log": self.log.rows(),
            "request": training.request,
        }
        save_model(model, self.place, [*earlier, record])
        return record


def stage_pairs(train: pd.DataFrame, size: int, seed: int = 42) -> pd.DataFrame:
    """A seeded random sample of `size` rows in their given order; all rows for 0 or too many."""
    if not 0 < size < len(train):
        return train
    chosen = np.random.default_rng(seed).choice(len(train), size, replace=False)
    return train.iloc[np.sort(chosen)].reset_index(drop=True)


def describe_pairs(pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """`min`, `mean` and `max` over all rows: characters of each text column, and labels."""
    measured = {name: pairs[name].str.len() for name in ("sentence_0", "sentence_1")}
    measured["label"] = pairs["label"].astype(float)
    return {
        name: {"min": values.min().item(), "mean": float(values.mean()), "max": values.max().item()}
        for name, values in measured.items()
    }


def pairs_sha256(pairs: pd.DataFrame) -> str:
    """SHA-256 over texts and labels of all rows, in order: the same pairs give the same value."""
    digest = hashlib.sha256()
    columns = (pairs[name].tolist() for name in ("sentence_0", "sentence_1", "label"))
    for first, second, label in zip(*columns, strict=True):
        for value in (first, second, repr(float(label))):
            part = value.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def record_figures(run_dir: str | Path) -> None:
    """Write into the lineage how the model of each stage ranked in the run's evaluation.

    Stages that were not evaluated stay as they are.
    """
    folder = project_path(run_dir)
    file, found = folder / "model" / "lineage.json", read_json(folder / "evaluation/metrics.json")
    lineage, rows = read_json(file), {row["scorer"]: row for row in found["rows"]}
    for stage in lineage["stages"]:
        row = rows.get("model" if stage is lineage["stages"][-1] else stage["stage"])
        if row is not None:
            stage["evaluation"] = {
                "queries": found["queries"],
                "ties": found["ties"],
                "test": found.get("recipe", {}).get("source"),
                "ndcg@10": row["ndcg@10"],
                "mrr@10": row["mrr@10"],
            }
    write_json(file, lineage)
