"""Fine-tune a cross-encoder on the pairs prepared in a run folder."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sentence_transformers.cross_encoder import CrossEncoder
from transformers.trainer_utils import get_last_checkpoint

from workbench.embeddings import mean_rows, random_rows, spectral_rows
from workbench.files import display_path, project_path, set_aside, write_json
from workbench.logs import LOG_NAME, TrainingLog
from workbench.masked import learn_masked
from workbench.mining import hard_negatives, lexical_pairs
from workbench.models import ModelLocation, find_model, load_tokenizer, read_lineage
from workbench.recipes import Recipe
from workbench.repair import apply_repair, repair_vocabulary, training_texts
from workbench.scoring import load_cross_encoder
from workbench.snapshots import SnapshotCallback
from workbench.splits import DataError, read_manifest, read_side
from workbench.stages import STAGES, pairs_sha256, read_stages, stage_pairs
from workbench.trainer import hyperparameters, make_trainer

DEV_PAIRS = 1000  # the most dev pairs looked at each time during training
LEXICAL = "lexical warm-up"
MADE_BY_TRAINING = ("model", STAGES, "checkpoints", LOG_NAME, "evaluation", "snapshots")


def fine_tune(
    run_dir: str | Path,
    base: ModelLocation,
    recipe: Recipe | None = None,
    resume: bool = False,
    stage: str = "",
    snapshots: int = 0,
    stages: str = "",
) -> dict[str, Any]:
    """Train on `run_dir/data/train.parquet` and write `run_dir/model`, log and lineage.

    In order, each step only if the recipe asks for it: repair the vocabulary with the training
    texts, warm up on soft lexical targets, train on the labels, once for each stage. A stage starts
    from the last one's saved result with a fresh optimiser and schedule. A model that already
    stands in the run folder is set aside under `earlier/`, with its log. With `resume`, training
    goes on from the last checkpoint instead; what is finished is kept as is.

    Args:
        run_dir: a run folder whose data notebook 1 prepared.
        base: the model to start from.
        recipe: how to train; the reference card's values if None.
        resume: continue an interrupted training of the same run.
        stage: the name of the first stage in logs and lineage; "stage N" if empty.
        snapshots: models to keep along each stage under `snapshots/`, for a learning curve.
        stages: training pairs of each stage, such as `2000,0,0` (0: all); empty: one, with all.

    Returns:
        The record of the last stage, as appended to `model/lineage.json`.

    Raises:
        DataError: there are no prepared pairs, or none on the training side.
        ModelError: the base model's vocabulary cannot be repaired.
        ValueError: `stages` is no list of whole numbers.
    """
    recipe, sizes = recipe or Recipe(), read_stages(stages)
    folder = project_path(run_dir)
    train, dev = read_side(folder, "train"), read_side(folder, "dev").head(DEV_PAIRS)
    if train.empty:
        raise DataError(f"{run_dir}: there is no training pair")
    checkpoints = folder / "checkpoints"
    if resume and (folder / "model" / "lineage.json").is_file():
        return read_lineage(_location(folder / "model"))[-1]
    if not (resume and (checkpoints.is_dir() or (folder / STAGES).is_dir())):
        set_aside(folder, MADE_BY_TRAINING)
    seen = {"steps": 0, "pairs": 0}
    for number, size in enumerate(sizes, 1):
        last = number == len(sizes)
        place = folder / "model" if last else folder / STAGES / str(number)
        if not (place / "lineage.json").is_file():
            plan = _Plan(
                name=stage if stage and number == 1 else f"stage {len(read_lineage(base)) + 1}",
                place=place,
                checkpoints=checkpoints / f"stage-{number}",
                pairs=stage_pairs(train, size, recipe.seed),
                number=number,
                stages=len(sizes),
            )
            first = recipe if number == 1 else replace(recipe, vocabulary="keep", lexical_pairs=0)
            _train_stage(folder, plan, base, first, train, dev, snapshots, seen)
        base = _location(place)
        record = read_lineage(base)[-1]
        seen = {key: seen[key] + record[key] for key in seen}
    shutil.rmtree(checkpoints, ignore_errors=True)  # they served resuming; the result is in model/
    return record


@dataclass(frozen=True)
class _Plan:
    """One stage: its name, where its model goes, its checkpoints, its pairs, which of how many."""

    name: str
    place: Path
    checkpoints: Path
    pairs: pd.DataFrame
    number: int
    stages: int


def _train_stage(
    folder: Path,
    plan: _Plan,
    base: ModelLocation,
    recipe: Recipe,
    train: pd.DataFrame,
    dev: pd.DataFrame,
    snapshots: int,
    seen: dict[str, int],
) -> None:
    """Train one stage and save its model with the lineage up to it."""
    earlier = read_lineage(base)
    model, repaired = _start(base, recipe, train)
    warm_up = None
    if recipe.lexical_pairs:
        lexical_log = TrainingLog(folder, LEXICAL)
        model, warm_up = _warm_up(model, plan.checkpoints, train, recipe, lexical_log)
    pairs, added = _with_mined(plan.pairs, recipe)
    log = TrainingLog(folder, plan.name)
    trainer = make_trainer(model, plan.checkpoints, pairs, dev, recipe, log)
    if snapshots:
        trainer.add_callback(
            SnapshotCallback(model, folder / "snapshots", snapshots, len(pairs), seen)
        )
    result = trainer.train(resume_from_checkpoint=_last(plan.checkpoints, log))
    record = {
        "stage": plan.name,
        "number": plan.number,
        "stages": plan.stages,
        "base": base.record(),
        "parent": earlier[-1]["stage"] if earlier else base.name,
        "data": read_manifest(folder),
        "pairs": len(pairs),
        "pairs_sha256": pairs_sha256(pairs),
        "label_mean": float(pairs["label"].mean()),
        "recipe": asdict(recipe),
        "vocabulary": repaired,
        "lexical_warm_up": warm_up,
        "pairs_seen": {"labelled": len(plan.pairs), **added},
        "precision": recipe.resolved_precision(),
        "device": str(model.device),
        "loss": "BinaryCrossEntropyLoss",
        "hyperparameters": hyperparameters(trainer.args),
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "seconds": result.metrics["train_runtime"],
        "pairs_per_second": result.metrics["train_samples_per_second"],
    }
    _save(model, plan.place, [*earlier, record])


def _location(folder: Path) -> ModelLocation:
    """A model folder of this run, as the base of its next stage."""
    return find_model(display_path(folder))


def _start(
    base: ModelLocation, recipe: Recipe, train: pd.DataFrame
) -> tuple[CrossEncoder, dict[str, Any]]:
    """The base model, its vocabulary repaired if the recipe says so, and what was done."""
    fast = recipe.speed == "fast"
    model = load_cross_encoder(base, recipe.max_length, recipe.seed, "eager" if fast else None)
    if recipe.vocabulary == "keep":
        return model, {"vocabulary": "keep"}
    texts = training_texts(train)
    repair = repair_vocabulary(load_tokenizer(base), texts, recipe.vocabulary)
    body: Any = model[0].model
    matrix = body.get_input_embeddings().weight.numpy(force=True)
    if recipe.new_embeddings in ("spectral", "masked"):
        rows = spectral_rows(matrix, repair.tokenizer, texts, repair.ids, recipe.seed)
    else:
        make = {"random": random_rows, "mean": mean_rows}[recipe.new_embeddings]
        rows = make(matrix, len(repair.ids), recipe.seed)
    apply_repair(model, repair, rows)
    if recipe.new_embeddings == "masked":
        learn_masked(model, repair, texts, recipe.seed, recipe.resolved_precision() == "bfloat16")
    return model, repair.record() | {"new_embeddings": recipe.new_embeddings}


def _warm_up(
    model: CrossEncoder,
    checkpoints: Path,
    train: pd.DataFrame,
    recipe: Recipe,
    log: TrainingLog,
) -> tuple[CrossEncoder, dict[str, Any]]:
    """Train on soft lexical targets; a warm-up that an interrupted run finished is taken over."""
    place = checkpoints / "lexical"
    done = place / "model"
    if not done.is_dir():
        pairs = lexical_pairs(train, recipe.lexical_pairs, recipe.seed)
        rate = recipe.lexical_learning_rate
        scale = rate / recipe.learning_rate
        settings = replace(
            recipe,
            epochs=1.0,
            learning_rate=rate,
            embedding_learning_rate=scale * recipe.embedding_learning_rate,
            warmup_ratio=max(recipe.warmup_ratio, 0.06),
        )
        dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        shares = [module.p for module in dropouts]
        for module in dropouts:  # the targets are a function of the texts: nothing to overfit
            module.p = 0.0
        trainer = make_trainer(model, place, pairs, pairs.head(0), settings, log)
        result = trainer.train(resume_from_checkpoint=_last(place, log))
        for module, share in zip(dropouts, shares, strict=True):
            module.p = share
        record = {
            "pairs": len(pairs),
            "steps": trainer.state.global_step,
            "learning_rate": rate,
            "train_loss": result.training_loss,
            "seconds": result.metrics["train_runtime"],
        }
        _save(model, done, [record])
        return model, record
    location = ModelLocation(LEXICAL, "folder", done, "", "", LEXICAL)
    attention = "eager" if recipe.speed == "fast" else None
    finished = load_cross_encoder(location, recipe.max_length, recipe.seed, attention)
    return finished, read_lineage(location)[-1]


def _with_mined(train: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, int]]:
    """The labelled pairs and what the recipe adds to them, with the counts of what was added."""
    parts, added = [train[["sentence_0", "sentence_1", "label"]]], {}
    if recipe.symmetric:
        positive = parts[0][parts[0]["label"] >= 0.5]
        swapped = {"sentence_0": "sentence_1", "sentence_1": "sentence_0"}
        parts.append(positive.rename(columns=swapped))
        added["swapped_positives"] = len(positive)
    if recipe.hard_negatives:
        parts.append(hard_negatives(train, recipe.hard_negatives, recipe.seed))
        added["hard_negatives"] = len(parts[-1])
    return pd.concat(parts, ignore_index=True), added


def _last(checkpoints: Path, log: TrainingLog) -> str | None:
    """The last checkpoint of a phase, the log set back to it; None where there is none."""
    found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    log.rewind(int(Path(found).name.rpartition("-")[2]) if found else 0)
    return found


def _save(model: CrossEncoder, folder: Path, stages: list[dict[str, Any]]) -> None:
    """Write a model folder beside its final place and rename it there once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished), create_model_card=False, safe_serialization=True)
    write_json(unfinished / "lineage.json", {"schema": 1, "stages": stages})
    unfinished.rename(folder)
