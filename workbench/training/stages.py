"""Stages: one training after another, each from the last one's result, on pairs of its own."""

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.data.splits import DataError, read_manifest, read_split
from workbench.files import display_path, project_path, read_json, write_json
from workbench.machine import is_main, process_count, torch_threads, wait_for_all
from workbench.models import ModelLocation, find_model, read_lineage
from workbench.run_folder import STAGES, set_aside
from workbench.training.checkpoints import ASKED, SnapshotCallback, check_asked, save_model
from workbench.training.log import LOG_NAME, TrainingLog
from workbench.training.recipe import Recipe, read_stages
from workbench.training.start import LEXICAL, rewound, start_model, warm_up, with_mined
from workbench.training.trainer import (
    CHECKPOINT_STEPS,
    FastTrainer,
    framework_versions,
    hyperparameters,
    make_trainer,
    non_default,
)


def stage_pairs(train: pd.DataFrame, size: int, seed: int = 42) -> pd.DataFrame:
    """A seeded random sample of `size` rows in their given order; all rows for 0 or too many."""
    import numpy as np

    if not 0 < size < len(train):
        return train
    chosen = np.random.default_rng(seed).choice(len(train), size, replace=False)
    return train.iloc[np.sort(chosen)].reset_index(drop=True)


def describe_pairs(pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """`min`, `mean` and `max` over all rows: characters of each column of texts, and labels."""
    measured = {name: pairs[name].str.len() for name in ("sentence_0", "sentence_1")}
    measured["label"] = pairs["label"].astype(float)
    return {
        name: {"min": values.min().item(), "mean": float(values.mean()), "max": values.max().item()}
        for name, values in measured.items()
    }


def record_figures(run_dir: str | Path) -> None:
    """Write into the lineage how the result of each stage ranked, as the evaluation found it.

    Nothing is written for a stage that was not evaluated.
    """
    folder = project_path(run_dir)
    file, metrics = folder / "model" / "lineage.json", folder / "evaluation" / "metrics.json"
    lineage, found = read_json(file), read_json(metrics)
    rows = {row["scorer"]: row for row in found["rows"]}
    stages = lineage["stages"]
    for stage in stages:
        row = rows.get("model" if stage is stages[-1] else stage["stage"])
        if row is not None:
            stage["evaluation"] = {
                "queries": found["queries"],
                "ties": found["ties"],
                "test": found.get("recipe", {}).get("source"),
                "ndcg@10": row["ndcg@10"],
                "mrr@10": row["mrr@10"],
            }
    write_json(file, lineage)


def pairs_sha256(pairs: pd.DataFrame) -> str:
    """SHA-256 over texts and labels of all rows, in order: the same pairs give the same value."""
    digest = hashlib.sha256()
    for first, second, label in pairs[["sentence_0", "sentence_1", "label"]].itertuples(
        index=False
    ):
        for value in (first, second, repr(float(label))):
            part = value.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


THREADS = "threads"  # of torch: they decide the order of sums, and in `fast` the dropout


DEV_PAIRS = 1000  # the most dev pairs looked at each time during training


MADE_BY_TRAINING = ("model", STAGES, "checkpoints", LOG_NAME, "evaluation", "snapshots")


def fine_tune(
    run_dir: str | Path,
    base: ModelLocation,
    recipe: Recipe | None = None,
    resume: bool = False,
    stage: str = "",
    snapshots: int = 0,
    stages: str = "",
    checkpoint_steps: int = CHECKPOINT_STEPS,
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
        checkpoint_steps: steps between two checkpoints.

    Returns:
        The record of the last stage, as appended to `model/lineage.json`.

    Raises:
        DataError: there are no prepared pairs, or none on the training side.
        ModelError: the base model's vocabulary cannot be repaired.
        ResumeError: data or parameters are not those of the training to resume.
        TrainingStoppedError: SIGTERM came; a checkpoint was written.
        ValueError: `stages` is no list of whole numbers.
    """
    recipe, sizes = recipe or Recipe(), read_stages(stages)
    folder = project_path(run_dir)
    train, dev = read_split(folder, "train"), read_split(folder, "dev").head(DEV_PAIRS)
    if train.empty:
        raise DataError(f"{run_dir}: there is no training pair")
    request = _request(base, recipe, sizes, train, dev)
    checkpoints, model = folder / "checkpoints", folder / "model"
    asked = checkpoints / ASKED
    if resume and asked.is_file():  # as it was then, and maybe elsewhere
        before = read_json(asked)
        if recipe.precision == "auto":
            request["precision used"] = before["precision used"]
        if THREADS in before or recipe.speed == "exact":  # before, `fast` had other batches
            request[THREADS] = before.get(THREADS)
    if is_main():
        _make_room(folder, run_dir, request, resume)
    wait_for_all()
    if (model / "lineage.json").is_file():  # only if resumed: it is finished
        return read_lineage(find_model(display_path(model)))[-1]
    agreed = read_json(asked)  # of all processes, one has measured what is quick
    recipe = replace(recipe, precision=agreed["precision used"])
    with torch_threads(agreed[THREADS]):
        record = _train_stages(
            folder, request, base, recipe, sizes, train, dev, stage, snapshots, checkpoint_steps
        )
    if is_main():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return record


def _train_stages(
    folder: Path,
    request: dict[str, Any],
    base: ModelLocation,
    recipe: Recipe,
    sizes: tuple[int, ...],
    train: pd.DataFrame,
    dev: pd.DataFrame,
    stage: str,
    snapshots: int,
    checkpoint_steps: int,
) -> dict[str, Any]:
    """Train the stages that are not finished; the record of the last."""
    checkpoints = folder / "checkpoints"
    seen = {"steps": 0, "pairs": 0}
    for number, size in enumerate(sizes, 1):
        place = folder / ("model" if number == len(sizes) else f"{STAGES}/{number}")
        if not (place / "lineage.json").is_file():
            plan = _Plan(
                name=stage if stage and number == 1 else f"stage {len(read_lineage(base)) + 1}",
                place=place,
                checkpoints=checkpoints / f"stage-{number}",
                pairs=stage_pairs(train, size, recipe.seed),
                number=number,
                stages=len(sizes),
                request=request,
            )
            first = recipe if number == 1 else replace(recipe, vocabulary="keep", lexical_pairs=0)
            _train_stage(folder, plan, base, first, train, dev, snapshots, seen, checkpoint_steps)
        wait_for_all()
        if is_main():  # they served resuming; the result is saved
            shutil.rmtree(checkpoints / f"stage-{number}", ignore_errors=True)
        base = find_model(display_path(place))
        record = read_lineage(base)[-1]
        seen = {key: seen[key] + record[key] for key in seen}
    return record


def _request(
    base: ModelLocation,
    recipe: Recipe,
    sizes: tuple[int, ...],
    train: pd.DataFrame,
    dev: pd.DataFrame,
) -> dict[str, Any]:
    """All that decides what comes out: the same request gives the same model, bit for bit."""
    return {
        "base_model (sha256 of its weights)": base.sha256,
        "pairs (sha256 of the training side)": pairs_sha256(train),
        "dev pairs (sha256)": pairs_sha256(dev),
        "stages": list(sizes),
        **asdict(recipe),
        "precision used": recipe.resolved_precision(),
        "processes": process_count(),
        THREADS: torch.get_num_threads(),
    }


def _make_room(folder: Path, run_dir: str | Path, request: dict[str, Any], resume: bool) -> None:
    """Set aside what an earlier training left, or see that it can be gone on with."""
    asked, model = folder / "checkpoints" / ASKED, folder / "model" / "lineage.json"
    if resume and model.is_file():
        # It is finished, so it no longer matters which machine goes on.
        before = read_json(model)["stages"][-1].get("request")
        if before is not None:
            here = ("precision used", "processes", THREADS)
            request = request | {name: before.get(name) for name in here}
        check_asked(before, request, str(run_dir))
    elif resume and asked.is_file():
        check_asked(read_json(asked), request, str(run_dir))
    else:
        set_aside(folder, MADE_BY_TRAINING)
    if not model.is_file():
        write_json(asked, request)


@dataclass(frozen=True)
class _Plan:
    """One stage: its name, where its model goes, its checkpoints, its pairs, which of how many."""

    name: str
    place: Path
    checkpoints: Path
    pairs: pd.DataFrame
    number: int
    stages: int
    request: dict[str, Any]


def _train_stage(
    folder: Path,
    plan: _Plan,
    base: ModelLocation,
    recipe: Recipe,
    train: pd.DataFrame,
    dev: pd.DataFrame,
    snapshots: int,
    seen: dict[str, int],
    checkpoint_steps: int,
) -> None:
    """Train one stage and save its model with the lineage up to it."""
    earlier = read_lineage(base)
    model, repaired = start_model(base, recipe, train)
    warmed = None
    if recipe.lexical_pairs:
        lexical_log = TrainingLog(folder, LEXICAL)
        model, warmed = warm_up(model, plan.checkpoints, train, recipe, lexical_log)
    pairs, added = with_mined(plan.pairs, recipe)
    log = TrainingLog(folder, plan.name)
    trainer = make_trainer(model, plan.checkpoints, pairs, dev, recipe, log, checkpoint_steps)
    if snapshots:
        trainer.add_callback(
            SnapshotCallback(model, folder / "snapshots", snapshots, len(pairs), seen)
        )
    trainer.train(resume_from_checkpoint=rewound(plan.checkpoints, log))
    loss = trainer.mean_loss()
    if not is_main():
        return
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
        "statistics": describe_pairs(pairs),
        "recipe": asdict(recipe),
        "speed": "fast" if isinstance(trainer, FastTrainer) else "exact",
        "vocabulary": repaired,
        "lexical_warm_up": warmed,
        "pairs_seen": {"labelled": len(plan.pairs), **added},
        "precision": recipe.resolved_precision(),
        "device": str(model.device),
        "loss": "BinaryCrossEntropyLoss",
        "hyperparameters": hyperparameters(trainer.args),
        "non_default": non_default(trainer.given),
        "versions": framework_versions(),
        "steps": trainer.state.global_step,
        "train_loss": loss,
        **trainer.spent(),
        "pairs_per_second": len(pairs) * recipe.epochs / max(trainer.seconds(), 1e-9),
        "log": log.rows(),
        "request": plan.request,
    }
    save_model(model, plan.place, [*earlier, record])
