"""What a run will take: optimizer steps, bytes on the disk, and, if asked, pairs a second."""

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from workbench.models import ModelLocation
from workbench.parameters import Parameters
from workbench.recipes import Recipe
from workbench.rows import GoodRow
from workbench.stages import read_stages

CHECKPOINTS_KEPT = 2  # and each holds the weights and two numbers a weight for the optimizer
ENDLESS = 10**6  # epochs, and steps between checkpoints, of a trial that its clock ends
OTHER_BYTES = 20_000_000  # notebooks, figures, report, evaluation


class Estimate(NamedTuple):
    """What a run will take at most.

    Attributes:
        pairs: training pairs in one epoch, mined ones included.
        steps: optimizer steps, a lexical warm-up included.
        disk: bytes that the run folder holds at its fullest.
        kept: bytes that stay when it is done.
    """

    pairs: int
    steps: int
    disk: int
    kept: int


def estimate(
    parameters: Parameters, rows: int, positive_share: float, model_bytes: int, data_bytes: int
) -> Estimate:
    """The most a run will take, from what is known before it.

    Args:
        parameters: of the run.
        rows: usable pairs in the file.
        positive_share: of them, in [0, 1].
        model_bytes: the base model's weights.
        data_bytes: the file of pairs.
    """
    used = min(rows, parameters.max_pairs or rows)
    test_share = 0.0 if parameters.test_pairs else parameters.test_share
    train = math.ceil(used * (1 - parameters.dev_share - test_share))
    positives = math.ceil(train * positive_share)
    pairs = train + positives * parameters.symmetric + 2 * positives * parameters.hard_negatives
    sizes = [min(size, train) or train for size in read_stages(parameters.stages)]
    stages = [
        math.ceil(math.ceil(pairs * size / train / parameters.batch_size) * parameters.epochs)
        for size in sizes
    ]
    steps = sum(stages)
    warm_up = math.ceil(parameters.lexical_pairs / parameters.batch_size)
    kept = model_bytes * (len(stages) + parameters.snapshots) + data_bytes + OTHER_BYTES
    longest = max(*stages, warm_up)
    checkpoints = min(CHECKPOINTS_KEPT, longest // parameters.checkpoint_steps)
    spare = model_bytes * (3 * checkpoints + bool(warm_up))
    return Estimate(pairs, steps + warm_up, kept + spare + model_bytes, kept)


def weight_bytes(folder: Path) -> int:
    """Bytes of the safetensors files in a model folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def trial_rate(
    location: ModelLocation, recipe: Recipe, rows: list[GoodRow], seconds: float = 2.0
) -> float:
    """Training pairs a second: the trainer on real pairs for `seconds`, on a model thrown away."""
    import pandas as pd
    from transformers import ProgressCallback

    from workbench.logs import TrainingLog
    from workbench.scoring import load_cross_encoder
    from workbench.trainer import LogCallback, Stopwatch, make_trainer

    model = load_cross_encoder(location, recipe.max_length, recipe.seed)
    columns = ["sentence_0", "sentence_1", "label"]
    pairs = pd.DataFrame([row[1:4] for row in rows], columns=columns)
    endless = replace(recipe, epochs=ENDLESS)
    with TemporaryDirectory() as place:
        log = TrainingLog(place, "trial")
        trainer = make_trainer(model, Path(place), pairs, pairs.head(0), endless, log, ENDLESS)
        trainer.remove_callback(LogCallback)
        trainer.remove_callback(ProgressCallback)
        watch = Stopwatch(seconds)
        trainer.add_callback(watch)
        trainer.train()
    a_step = len(rows) / math.ceil(len(rows) / recipe.batch_size)  # the last of an epoch is shorter
    return watch.steps * a_step / watch.taken


def in_words(count: float) -> str:
    """Bytes as `12 MB` or `1.2 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{math.ceil(count / 1e6)} MB"


def duration(seconds: float) -> str:
    """Seconds as `40 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
