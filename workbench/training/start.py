"""Embeddings of new tokens learned by guessing masked tokens, all else in the model fixed."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers.cross_encoder import CrossEncoder

from workbench.data.pairs import POSITIVE, text_pairs
from workbench.machine import is_main, wait_for_all
from workbench.models import ModelLocation, load_tokenizer, read_lineage
from workbench.ranking.uncertainty import sigmoid
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training.checkpoints import last_checkpoint, save_model, step_of
from workbench.training.log import TrainingLog
from workbench.training.mining import hard_negatives, lexical_pairs
from workbench.training.recipe import Recipe
from workbench.training.trainer import make_trainer
from workbench.vocabulary.repair import (
    Repair,
    apply_repair,
    random_rows,
    repair_vocabulary,
    spectral_rows,
    training_texts,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

TEXTS = 20_000  # texts that are read, at most: about two minutes on one core


BATCH = 64


LEARNING_RATE = 1e-3


def learn_masked(
    model: "CrossEncoder", repair: Repair, texts: Sequence[str], seed: int = 42, bf16: bool = False
) -> float:
    """Move the rows of new tokens, in place, to where they help to guess masked tokens.

    Masked language modelling (Devlin et al., 2019) with one pass over the texts. The output layer
    shares its matrix with the embeddings; its transform is new and learned along, then dropped.
    The old rows and the body stay as they were, bit for bit.

    Args:
        model: with the repaired vocabulary, see `apply_repair`.
        repair: what was applied.
        texts: training texts; of more than `TEXTS`, a sample of that size is read.
        seed: of the sample, the masks and the transform.
        bf16: autocast to bfloat16.

    Returns:
        The mean loss over the pass, in nats a masked token; NaN if there is nothing to learn.
    """
    import torch
    from transformers import (
        AutoModelForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_callback import PrinterCallback

    if not repair.added or not texts:
        return float("nan")
    rng = np.random.default_rng(seed)
    chosen = [texts[n] for n in rng.permutation(len(texts))[:TEXTS]]
    tokens = model.tokenizer(chosen, truncation=True, max_length=model.max_seq_length)["input_ids"]
    set_seed(seed)
    classifier: Any = model[0].model
    guesser: Any = AutoModelForMaskedLM.from_config(classifier.config)
    setattr(guesser, guesser.base_model_prefix, classifier.base_model)
    guesser.tie_weights()
    matrix = classifier.get_input_embeddings().weight
    learned = [p for p in classifier.parameters() if p.requires_grad]
    classifier.requires_grad_(False)
    matrix.requires_grad_(True)
    new = torch.zeros(len(matrix), 1, device=matrix.device)
    new[torch.tensor(repair.ids)] = 1
    hook = matrix.register_hook(lambda gradient: gradient * new)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            scratch,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            num_train_epochs=1,
            seed=seed,
            bf16=bf16,
            use_cpu=matrix.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            guesser,
            settings,
            DataCollatorForLanguageModeling(model.tokenizer),
            [{"input_ids": ids} for ids in tokens],
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
    hook.remove()
    matrix.grad = None
    for parameter in learned:
        parameter.requires_grad_(True)
    return float(loss)


LEXICAL = "lexical warm-up"


AGREEMENT_PAIRS = 500


def start_model(
    base: ModelLocation, recipe: Recipe, train: pd.DataFrame
) -> tuple[CrossEncoder, dict[str, Any]]:
    """The base model, its vocabulary repaired if the recipe says so, and what was done."""
    model = load_cross_encoder(base, recipe.max_length, recipe.seed)
    if recipe.vocabulary == "keep":
        return model, {"vocabulary": "keep"}
    texts = training_texts(train)
    repair = repair_vocabulary(load_tokenizer(base), texts, recipe.vocabulary)
    body: Any = model[0].model
    matrix = body.get_input_embeddings().weight.numpy(force=True)
    if recipe.new_embeddings in ("spectral", "masked"):
        rows = spectral_rows(matrix, repair.tokenizer, texts, repair.ids, recipe.seed)
    else:
        rows = random_rows(matrix, len(repair.ids), recipe.seed)
    apply_repair(model, repair, rows)
    if recipe.new_embeddings == "masked":
        learn_masked(model, repair, texts, recipe.seed, recipe.resolved_precision() == "bfloat16")
    return model, repair.record() | {"new_embeddings": recipe.new_embeddings}


def warm_up(
    model: CrossEncoder,
    checkpoints: Path,
    train: pd.DataFrame,
    recipe: Recipe,
    log: TrainingLog,
) -> tuple[CrossEncoder, dict[str, Any]]:
    """Train on soft lexical targets; a warm-up that an interrupted run finished is taken over.

    Args:
        model: changed in place.
        checkpoints: of the stage; the warm-up has a folder of its own in it.
        train: the training side.
        recipe: of the stage.
        log: where the values go.

    Returns:
        The model as it was saved after the warm-up, and the warm-up's record.
    """
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
        trainer.train(resume_from_checkpoint=rewound(place, log))
        for module, share in zip(dropouts, shares, strict=True):
            module.p = share
        record = {
            "pairs": len(pairs),
            "steps": trainer.state.global_step,
            "learning_rate": rate,
            "train_loss": trainer.mean_loss(),
            "seconds": trainer.seconds(),
        }
        if is_main():
            save_model(model, done, [record | {"agreement": agreement(model, pairs)}])
        wait_for_all()
    location = ModelLocation(LEXICAL, "folder", done, "", "", LEXICAL)
    finished = load_cross_encoder(location, recipe.max_length, recipe.seed)
    return finished, read_lineage(location)[-1]


def agreement(model: CrossEncoder, pairs: pd.DataFrame) -> float | None:
    """Correlation of the model's probabilities with the soft targets, on some of the pairs.

    Args:
        model: after the warm-up.
        pairs: that it was warmed up on, columns `sentence_0`, `sentence_1`, `label`.

    Returns:
        Pearson's, in [-1, 1], over 500 pairs at most; None where one of the two is constant.
    """
    some = pairs.sample(min(len(pairs), AGREEMENT_PAIRS), random_state=0)
    given = sigmoid(ModelScorer(model).score(text_pairs(some)))
    target = some["label"].to_numpy(dtype=float)
    if min(np.ptp(given), np.ptp(target)) == 0:
        return None
    return float(np.corrcoef(given, target)[0, 1])


def with_mined(train: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, int]]:
    """The labelled pairs and what the recipe adds to them, with the counts of what was added."""
    parts, added = [train[["sentence_0", "sentence_1", "label"]]], {}
    if recipe.symmetric:
        positive = parts[0][parts[0]["label"] >= POSITIVE]
        swapped = {"sentence_0": "sentence_1", "sentence_1": "sentence_0"}
        parts.append(positive.rename(columns=swapped))
        added["swapped_positives"] = len(positive)
    if recipe.hard_negatives:
        parts.append(hard_negatives(train, recipe.hard_negatives, recipe.seed))
        added["hard_negatives"] = len(parts[-1])
    return pd.concat(parts, ignore_index=True), added


def rewound(checkpoints: Path, log: TrainingLog) -> str | None:
    """The last whole checkpoint of a phase, the log set back to it; None where there is none."""
    found = last_checkpoint(checkpoints)
    if is_main():
        log.rewind(step_of(found) if found else 0)
    return str(found) if found else None
