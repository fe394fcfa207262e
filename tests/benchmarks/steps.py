"""How the memory of a long training grows: `speed: fast`, bfloat16, pairs of many lengths.

    python -m tests.benchmarks.steps [--steps N] [--batch N] [--out FILE.json]

A small model with the bundled base's tokenizer is trained on made-up pairs cut from the shipped
sample, whose lengths are spread as in real text (log-normal). What stays of each step, a kernel for
each shape above all, does not depend on the model's width. Resident memory is noted every 500
steps; what it grows by after step 2,000, when most shapes have been met, is the figure.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from tests.benchmarks.bench import RESULTS, machine
from workbench.data.pairs import read_pairs
from workbench.files import display_path, write_json
from workbench.models import BUNDLED_MODEL, find_model

EVERY, SETTLED, EPOCHS = 500, 2000, 10


def write_small_model(folder):
    """A BERT of two layers, 64 wide, with random weights and the bundled tokenizer; the folder."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(find_model(BUNDLED_MODEL).path)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_up(count, seed=1):
    """Pairs of texts of 2 to 120 signs, half of them below 13."""
    sample = read_pairs("data/sample_pairs.csv").frame
    signs = "".join(sample["sentence_0"])
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(13), 0.6, 2 * count), 2, 120).astype(int)
    starts = rng.integers(0, len(signs) - 120, 2 * count)
    texts = [signs[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    return pd.DataFrame(
        {
            "sentence_0": texts[:count],
            "sentence_1": texts[count:],
            "label": rng.integers(0, 2, count).astype(float),
        }
    )


def main(arguments=None):
    import torch
    from transformers import TrainerCallback

    from workbench.scoring.cross_encoder import load_cross_encoder
    from workbench.training.log import TrainingLog
    from workbench.training.recipe import Recipe
    from workbench.training.trainer import make_trainer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", default=str(RESULTS / "steps.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # so small a model gains nothing by more
    noted = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % EVERY == 0:
                noted.append((state.global_step, psutil.Process().memory_info().rss))

    with tempfile.TemporaryDirectory(prefix="steps-") as name:
        folder = Path(name)
        frame = made_up(options.steps * options.batch // EPOCHS)
        model = load_cross_encoder(find_model(str(write_small_model(folder / "model"))), 128)
        recipe = Recipe(
            precision="bfloat16",
            speed="fast",
            batch_size=options.batch,
            epochs=EPOCHS,
            max_length=128,
        )
        log = TrainingLog(folder, "steps")
        trainer = make_trainer(model, folder / "checkpoints", frame, frame.head(0), recipe, log)
        trainer.args.save_strategy = "no"
        trainer.add_callback(Watch())
        trainer.train()
        lengths = trainer.encoder.encode(
            list(zip(frame["sentence_0"], frame["sentence_1"], strict=True))
        ).lengths
    for step, size in noted:
        print(f"step {step:7,} {size / 2**20:8.0f} MiB")
    since, settled = next((note for note in noted if note[0] >= SETTLED), noted[0])
    grown = (noted[-1][1] - settled) / 2**20
    print(
        f"{len(set(lengths))} lengths, {lengths.min()} to {lengths.max()} tokens, mean "
        f"{lengths.mean():.0f}; from step {since:,} to {noted[-1][0]:,} memory grew by "
        f"{grown:.0f} MiB"
    )
    write_json(
        options.out,
        {
            "schema": 1,
            "machine": machine(),
            "steps": options.steps,
            "batch": options.batch,
            "lengths": len(set(lengths)),
            "mean_length": float(lengths.mean()),
            "resident_bytes": dict(noted),
            "grown_mib_after": {"step": since, "mib": grown},
        },
    )
    print(f"written: {display_path(options.out)}")


if __name__ == "__main__":
    main()
