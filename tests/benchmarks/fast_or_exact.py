"""What `speed: fast` costs in quality: dev AP after the same training, fast and exact, by seeds.

    python -m tests.benchmarks.fast_or_exact [--model MODEL] [--pairs FILE] [--count N]
                    [--seeds 1,2,3] [--batch N] [--learning-rate X] [--precision P] [--no-dropout]
                    [--out FILE.json]

Both start from the same weights, the head's included, and see the same batches in the same order;
the random numbers of dropout differ. Each seed gives a difference; the standard error over the
seeds is what their mean is to be measured with. Without dropout the two do the same sums in
another order, and only rounding is left between them.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.bench import RESULTS, machine
from workbench.data.pairs import read_pairs, text_pairs
from workbench.data.splits import split_pairs
from workbench.files import display_path, write_json
from workbench.models import BUNDLED_MODEL, find_model
from workbench.training.recipe import Recipe

SPEEDS = ("exact", "fast")


def trained(speed, seed, sides, options, folder):
    """Average precision on the dev side after a training."""
    import torch
    from sklearn.metrics import average_precision_score

    from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
    from workbench.training.log import TrainingLog
    from workbench.training.trainer import make_trainer

    recipe = Recipe(
        speed=speed,
        seed=seed,
        batch_size=options.batch,
        max_length=128,
        learning_rate=options.learning_rate,
        precision=options.precision,
    )
    model = load_cross_encoder(find_model(options.model), 128, seed)
    for module in model.modules():
        if options.no_dropout and isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    log = TrainingLog(folder, f"{speed} {seed}")
    train, dev = sides["train"], sides["dev"]
    trainer = make_trainer(model, folder / "checkpoints", train, train.head(0), recipe, log)
    trainer.args.save_strategy = "no"
    trainer.train()
    scores = ModelScorer(model).score(text_pairs(dev))
    return float(average_precision_score(dev["label"] >= 0.5, scores))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=BUNDLED_MODEL)
    parser.add_argument("--pairs", default="data/sample_pairs.csv")
    parser.add_argument("--count", type=int, default=12_000, help="pairs to split, four to one")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--out", default=str(RESULTS / "fast_or_exact.json"))
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    sides = split_pairs(read_pairs(options.pairs).frame.head(options.count), 0.2, 0.0)
    rows = []
    for seed in seeds:
        for speed in SPEEDS:
            with tempfile.TemporaryDirectory(prefix="speeds-") as name:
                found = trained(speed, seed, sides, options, Path(name))
            rows.append({"speed": speed, "seed": seed, "dev_ap": found})
            print(f"{speed:5} seed {seed}: dev AP {found:.4f}", flush=True)
    by = {speed: [row["dev_ap"] for row in rows if row["speed"] == speed] for speed in SPEEDS}
    mean = {speed: statistics.mean(values) for speed, values in by.items()}
    spread = {speed: max(values) - min(values) for speed, values in by.items()}
    each = [fast - exact for fast, exact in zip(by["fast"], by["exact"], strict=True)]
    difference = statistics.mean(each)
    error = statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else None
    print(
        f"{len(sides['train']):,} training and {len(sides['dev']):,} dev pairs: "
        + "; ".join(
            f"{speed} {mean[speed]:.4f}, seeds within {spread[speed]:.4f}" for speed in SPEEDS
        )
        + f"; fast minus exact {difference:+.4f}, standard error "
        + ("unknown" if error is None else f"{error:.4f}")
    )
    write_json(
        options.out,
        {
            "schema": 1,
            "machine": machine(),
            "bundled_base": options.model == BUNDLED_MODEL,
            "batch": options.batch,
            "learning_rate": options.learning_rate,
            "train_pairs": len(sides["train"]),
            "dev_pairs": len(sides["dev"]),
            "precision": Recipe(speed="fast", precision=options.precision).resolved_precision(),
            "dropout": not options.no_dropout,
            "trainings": rows,
            "fast_minus_exact": difference,
            "standard_error": error,
        },
    )
    print(f"written: {display_path(options.out)}")


if __name__ == "__main__":
    main()
