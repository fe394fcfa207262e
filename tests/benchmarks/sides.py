"""The ways that `bench` compares, each in a process of its own, so that each has its own memory.

    python -m tests.benchmarks.sides WAY OPTIONS

It makes ready and says so; then, for each line it is given, it goes the way once and answers with
the seconds, its highest memory so far in bytes, and what it found. All are JSON, an object a line.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workbench.files import project_root

WAYS = {}  # by name: takes the options, makes ready, returns what is to be timed


class NotHereError(Exception):
    """A way cannot be gone on this machine; the message says why."""


def way(name):
    def add(function):
        WAYS[name] = function
        return function

    return add


def highest(status=None):
    """The most memory a process has had, in bytes; `ru_maxrss` would begin with its parent's.

    Of this one, or of the one whose `/proc/self/status` is given.
    """
    status = status or Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def some_pairs(options):
    """So many rows of a file, or of the shipped sample; and the distinct pairs among them."""
    from workbench.data.pairs import read_pairs

    frame = read_pairs(options["pairs"]).frame.head(options["count"])
    return frame, list(dict.fromkeys(zip(frame["sentence_0"], frame["sentence_1"], strict=True)))


def loaded(options):
    """The model, its folder, and how the row describes the pairs."""
    from workbench.models import find_model
    from workbench.scoring.cross_encoder import load_cross_encoder, pair_encoder

    location = find_model(options["model"])
    model = load_cross_encoder(location)
    frame, pairs = some_pairs(options)
    mean = pair_encoder(model).encode(pairs).lengths.mean()
    return model, location.path, frame, pairs, f"pairs of {mean:.0f} tokens"


@way("`CrossEncoder.predict`, batches of 32")
def predict(options):
    from torch.nn import Identity

    model, _, _, pairs, detail = loaded(options)

    def run():
        scores = model.predict(pairs, activation_fn=Identity(), show_progress_bar=False)
        return {"amount": len(pairs), "detail": detail, "scores": scores.tolist()}

    return run


@way("`backend: auto`")
def auto(options):
    from workbench.scoring.cross_encoder import ModelScorer

    model, folder, _, pairs, detail = loaded(options)
    scorer = ModelScorer(model, backend="auto", folder=folder)

    def run():
        scores, took = scorer.score(pairs).tolist(), scorer.backend_record["backend"]
        return {"amount": len(pairs), "detail": detail, "scores": scores, "took": took}

    return run


def must_compute_in(precision):
    """Leave out what would be slower than float32 on this processor."""
    from workbench.machine import quick_in_bfloat16

    if precision == "bfloat16" and not quick_in_bfloat16():
        raise NotHereError("this processor is not quicker in bfloat16")


def backend(name):
    def make(options):
        from workbench.scoring.cross_encoder import BackendError, open_backend
        from workbench.scoring.export import EXPORTED, ExportedError, write_onnx

        must_compute_in(name.removeprefix("torch-"))
        model, folder, _, pairs, detail = loaded(options)
        try:
            with tempfile.TemporaryDirectory() as exported:
                if name in EXPORTED and not (folder / EXPORTED[name]).is_file():
                    folder = Path(exported)
                    write_onnx(model, folder, int8=name == "onnx-int8")
                score = open_backend(name, model, folder=folder)
        except (BackendError, ExportedError) as error:
            raise NotHereError(str(error)) from error
        return lambda: {"amount": len(pairs), "detail": detail, "scores": score(pairs).tolist()}

    return make


for each in ("torch-float32", "torch-bfloat16", "onnx-int8"):
    WAYS[f"`backend: {each}`"] = backend(each)


@way("`CrossEncoderTrainer`, batches of 8, float32")
def library_training(options):
    """The reference card's recipe, without anything of ours."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    model, _, frame, _, detail = loaded(options)
    data = Dataset.from_pandas(frame[["sentence_0", "sentence_1", "label"]], preserve_index=False)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            arguments = CrossEncoderTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=8,
                learning_rate=5e-5,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                logging_steps=max(1, len(frame) // 80),
            )
            loss = BinaryCrossEntropyLoss(model)
            CrossEncoderTrainer(model, arguments, data, loss=loss).train()
        return {"amount": len(frame), "detail": detail}

    return run


def fast_training(batch_size, precision):
    def make(options):
        from workbench.training.log import TrainingLog
        from workbench.training.recipe import Recipe
        from workbench.training.trainer import make_trainer

        must_compute_in(precision)
        recipe = Recipe(precision=precision, speed="fast", batch_size=batch_size)
        model, _, frame, _, detail = loaded(options)

        def run():
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                log = TrainingLog(folder, "bench")
                trainer = make_trainer(model, folder, frame, frame.head(0), recipe, log)
                trainer.args.save_strategy = "no"  # as the other side
                trainer.train()
            return {"amount": len(frame), "detail": detail}

        return run

    return make


for size, precision in itertools.product((32, 64), ("float32", "bfloat16")):
    WAYS[f"`speed: fast`, batches of {size}, {precision}"] = fast_training(size, precision)


def started(code, arguments=()):
    """Run Python code in a process of its own; its highest memory, which it says in the end."""
    show = f"{code}\nprint(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", show, *arguments],
        check=True,
        text=True,
        capture_output=True,
        cwd=project_root(),
    )
    return highest(done.stdout)


for each in ("sentence_transformers", "workbench"):
    WAYS[f"`import {each}`"] = lambda options, each=each: (
        lambda: {"most_bytes": started(f"import {each}")}
    )


@way("`workbench --help`")
def helps(options):
    code = "from workbench.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    return lambda: {"most_bytes": started(code)}


@way("`pandas.read_csv`")
def read_by_pandas(options):
    import pandas as pd

    return lambda: {"found": f"{len(pd.read_csv(options['file'])):,} rows, none checked"}


@way('`datasets.load_dataset("csv")`')
def read_by_datasets(options):
    import datasets

    datasets.disable_progress_bars()

    def run():
        with tempfile.TemporaryDirectory() as cache:  # else it would take the last one's result
            data = datasets.load_dataset(
                "csv", data_files=options["file"], split="train", cache_dir=cache
            )
            return {"found": f"{len(data):,} rows, none checked"}

    return run


@way("`read_pairs`")
def read_by_us(options):
    from workbench.data.pairs import read_pairs

    def run():
        found = read_pairs(options["file"])
        return {
            "found": f"{found.rows_read:,} rows checked, {len(found.bad_rows):,} bad ones named"
        }

    return run


@way("`GroupShuffleSplit`, given the groups")
def split_by_sklearn(options):
    from sklearn.model_selection import GroupShuffleSplit

    from workbench.data.pairs import read_pairs
    from workbench.data.splits import text_groups

    frame = read_pairs(options["file"]).frame
    groups = text_groups(frame)

    def run():
        train, test = next(
            GroupShuffleSplit(1, test_size=0.1, random_state=42).split(frame, groups=groups)
        )
        sides = frame.iloc[train], frame.iloc[test]
        return {"found": f"train and test, {len(sides[1]) / len(frame):.1%} in test"}

    return run


@way("`split_pairs`")
def split_by_us(options):
    from workbench.data.pairs import read_pairs
    from workbench.data.splits import split_pairs

    frame = read_pairs(options["file"]).frame

    def run():
        sides = split_pairs(frame, 0.1, 0.1, 42)
        share = len(sides["test"]) / len(frame)
        return {"found": f"groups found, train, dev and test, {share:.1%} in test"}

    return run


@way("`workbench score`")
def score_file(options):
    from tests.benchmarks.tiny import write_tiny_model

    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=Path(options["file"]).parent))
    model, turns = options["file_model"], iter(range(1000))
    model = model or str(write_tiny_model(folder / "model"))

    def run():
        given = ["score", model, options["file"], str(folder / f"out-{next(turns)}")]
        code = "import sys; from workbench.__main__ import main; main(sys.argv[1:])"
        return {
            "most_bytes": started(code, [*given, "--max-length", "64"]),
            "amount": options["file_rows"],
        }

    return run


def main(name, options):
    answers = os.fdopen(os.dup(1), "w")  # what a library prints goes elsewhere
    os.dup2(2, 1)

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        run = WAYS[name](json.loads(options))
    except NotHereError as error:
        answer(not_here=str(error))
        return
    answer(ready=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        answer(**{"seconds": seconds, "most_bytes": highest()} | found)


if __name__ == "__main__":
    main(*sys.argv[1:])
