"""What a stage starts with: the base model, repaired and warmed up, and the pairs to learn from."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers.cross_encoder import CrossEncoder

from workbench.data.pairs import POSITIVE, text_pairs
from workbench.models import ModelLocation, load_tokenizer, read_lineage
from workbench.ranking.uncertainty import sigmoid
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training.checkpoints import save_model
from workbench.training.log import TrainingLog
from workbench.training.mining import hard_negatives, lexical_pairs
from workbench.training.recipe import Recipe
from workbench.training.trainer import make_trainer
from workbench.vocabulary.repair import (
    apply_repair,
    random_rows,
    repair_vocabulary,
    spectral_rows,
    training_texts,
)

LEXICAL = "lexical warm-up"  # its name in the training log
AGREEMENT_PAIRS = 500


def start_model(
    base: ModelLocation, recipe: Recipe, train: pd.DataFrame
) -> tuple[CrossEncoder, dict[str, Any]]:
    """The base model, its vocabulary repaired if the recipe says so, and a record of the repair."""
    model = load_cross_encoder(base, recipe.max_length, recipe.seed)
    if recipe.vocabulary == "keep":
        return model, {"vocabulary": "keep"}
    texts = training_texts(train)
    repair = repair_vocabulary(load_tokenizer(base), texts, recipe.vocabulary)
    body: Any = model[0].model
    matrix = body.get_input_embeddings().weight.numpy(force=True)
    if recipe.new_embeddings == "spectral":
        rows = spectral_rows(matrix, repair.tokenizer, texts, repair.ids, recipe.seed)
    else:
        rows = random_rows(matrix, len(repair.ids), recipe.seed)
    apply_repair(model, repair, rows)
    return model, repair.record() | {"new_embeddings": recipe.new_embeddings}


def warm_up(
    model: CrossEncoder, checkpoints: Path, train: pd.DataFrame, recipe: Recipe, log: TrainingLog
) -> tuple[CrossEncoder, dict[str, Any]]:
    """Train on soft lexical targets, unless an interrupted run has finished that already.

    Args:
        model: changed in place.
        checkpoints: folder of the warm-up's checkpoints and of its result.
        train: the training split.
        recipe: of the stage.
        log: receives the values.

    Returns:
        The model as it was saved after the warm-up, and the warm-up's record.
    """
    done = checkpoints / "model"
    if not done.is_dir():
        pairs = lexical_pairs(train, recipe.lexical_pairs, recipe.seed)
        rate = recipe.lexical_learning_rate
        changes = {
            "epochs": 1.0,
            "learning_rate": rate,
            "embedding_learning_rate": rate / recipe.learning_rate * recipe.embedding_learning_rate,
            "warmup_ratio": max(recipe.warmup_ratio, 0.06),
        }
        dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        rates = [module.p for module in dropouts]
        for module in dropouts:  # the targets are a function of the texts: nothing to overfit
            module.p = 0.0
        settings = recipe.model_copy(update=changes)
        trainer = make_trainer(model, checkpoints, pairs, pairs.head(0), settings, log)
        trainer.train()
        for module, dropout in zip(dropouts, rates, strict=True):
            module.p = dropout
        record = {
            "pairs": len(pairs),
            "steps": trainer.state.global_step,
            "learning_rate": rate,
            "train_loss": trainer.mean_loss(),
            "seconds": trainer.spent()["seconds"],
            "agreement": agreement(model, pairs),
        }
        save_model(model, done, [record])
    location = ModelLocation(LEXICAL, "folder", done, "", "", LEXICAL)
    finished = load_cross_encoder(location, recipe.max_length, recipe.seed)
    return finished, read_lineage(location)[-1]


def agreement(model: CrossEncoder, pairs: pd.DataFrame) -> float | None:
    """Correlation of the model's probabilities with the soft targets, on some of the pairs.

    Args:
        model: after the warm-up.
        pairs: used in the warm-up, columns `sentence_0`, `sentence_1`, `label`.

    Returns:
        Pearson's, in [-1, 1], over at most 500 pairs; None where one of the two is constant.
    """
    some = pairs.sample(min(len(pairs), AGREEMENT_PAIRS), random_state=0)
    probabilities = sigmoid(ModelScorer(model).score(text_pairs(some)))
    target = some["label"].to_numpy(dtype=float)
    if min(np.ptp(probabilities), np.ptp(target)) == 0:
        return None
    return float(np.corrcoef(probabilities, target)[0, 1])


def with_mined(labelled: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, int]]:
    """The labelled pairs and those the recipe adds to them, with counts of the added ones."""
    parts, added = [labelled[["sentence_0", "sentence_1", "label"]]], {}
    if recipe.symmetric:
        positive = parts[0][parts[0]["label"] >= POSITIVE]
        swapped = {"sentence_0": "sentence_1", "sentence_1": "sentence_0"}
        parts.append(positive.rename(columns=swapped))
        added["swapped_positives"] = len(positive)
    if recipe.hard_negatives:
        parts.append(hard_negatives(labelled, recipe.hard_negatives, recipe.seed))
        added["hard_negatives"] = len(parts[-1])
    return pd.concat(parts, ignore_index=True), added
