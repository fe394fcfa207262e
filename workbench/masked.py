"""Embeddings of new tokens learned by guessing masked tokens, all else in the model fixed."""

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.repair import Repair

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
