"""The ways that `bench` compares, each in its own process, so that each has its own memory.

    python -m tests.benchmarks.ways WAY OPTIONS

A way makes ready, and says so; then, for each line it is given, it runs once and answers with the
seconds, its highest memory so far in bytes, and what it found. All are JSON, one object a line.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workbench.files import project_root

TRAINED_SPREAD = 4.0  # standard deviation of a trained reranker's logits
SPREAD_PAIRS = 256


class NotHereError(Exception):
    """A way cannot run on this machine; the message says why."""


def loaded(options):
    """The model, its folder, the labelled rows, their distinct pairs, and how these are called.

    A head that is random gets the spread of a trained one's logits, so that orders mean something.
    With the option `vocabulary`, the model first learns the tokens of these texts.
    """
    from workbench.data.pairs import read_pairs
    from workbench.models import ModelError, find_model, load_tokenizer
    from workbench.scoring.backends import pair_encoder
    from workbench.scoring.cross_encoder import load_cross_encoder
    from workbench.vocabulary.repair import repair_model

    location = find_model(options["model"])
    model = load_cross_encoder(location)
    frame = read_pairs(options["pairs"]).frame.head(options["count"])
    pairs = list(dict.fromkeys(zip(frame["sentence_0"], frame["sentence_1"], strict=True)))
    if how := options.get("vocabulary"):
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        try:
            repair_model(model, load_tokenizer(location), texts, how, "random")
        except ModelError as error:
            raise NotHereError(str(error)) from error
    if not location.head:
        spread_logits(model, pairs[:SPREAD_PAIRS])
    mean = pair_encoder(model).encode(pairs).lengths.mean()
    return model, location.path, frame, pairs, f"{len(pairs):,} pairs of {mean:.0f} tokens"


def spread_logits(model, pairs):
    """Scale the last layer of a model, so that its logits of some pairs spread as if trained."""
    import torch

    head = [part for part in model.model.modules() if isinstance(part, torch.nn.Linear)][-1]
    logits = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    scale = TRAINED_SPREAD / max(float(logits.std()), 1e-6)
    with torch.no_grad():
        head.bias.copy_(scale * (head.bias - float(logits.mean())))
        head.weight.mul_(scale)


def answered(options, amount, detail, scores=()):
    """What a way answers; with another vocabulary other scores are right, so they are left out."""
    if "vocabulary" in options:
        return {"amount": amount, "found": detail}
    return {"amount": amount, "detail": detail} | ({"scores": list(scores)} if len(scores) else {})


def must_compute_in(precision):
    """Leave out what would be slower than float32 on this processor."""
    from workbench.machine import quick_in_bfloat16

    if precision == "bfloat16" and not quick_in_bfloat16():
        raise NotHereError("this processor is not faster in bfloat16")


def predict(options):
    from torch.nn import Identity

    model, _, _, pairs, detail = loaded(options)

    def run():
        scores = model.predict(pairs, activation_fn=Identity(), show_progress_bar=False)
        return answered(options, len(pairs), detail, scores.tolist())

    return run


def backend(options):
    from workbench.scoring.backends import (
        EXPORTED,
        BackendError,
        choose_backend,
        open_backend,
    )
    from workbench.scoring.export import write_onnx

    name = options["backend"]
    must_compute_in(name.removeprefix("torch-"))
    model, folder, _, pairs, detail = loaded(options)
    answer = {}
    try:
        with tempfile.TemporaryDirectory() as exported:
            if name in EXPORTED and not (folder / EXPORTED[name]).is_file():
                shutil.copy(folder / "tokenizer.json", exported)  # it goes with the file
                folder = Path(exported)
                write_onnx(model, folder, int8=name == "onnx-int8")
            if name == "auto":
                score, record = choose_backend(model, pairs[:256], folder=folder)
                answer["chosen"] = record["backend"]
            else:
                score = open_backend(name, model, folder=folder)
    except BackendError as error:
        raise NotHereError(str(error)) from error
    return lambda: answer | answered(options, len(pairs), detail, score(pairs).tolist())


def library_training(options):
    """The recipe of notebook 2, without anything of ours."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    must_compute_in(options["precision"])
    model, _, frame, _, detail = loaded(options)
    data = Dataset.from_pandas(frame[["sentence_0", "sentence_1", "label"]], preserve_index=False)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            arguments = CrossEncoderTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=options["batch_size"],
                learning_rate=5e-5,
                bf16=options["precision"] == "bfloat16",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                logging_steps=max(1, len(frame) // 80),
            )
            loss = BinaryCrossEntropyLoss(model)
            CrossEncoderTrainer(model, arguments, data, loss=loss).train()
        return answered(options, len(frame), detail)

    return run


def fast_training(options):
    from workbench.training.log import TrainingLog
    from workbench.training.recipe import Recipe
    from workbench.training.trainer import make_trainer

    must_compute_in(options["precision"])
    given = {name: options[name] for name in ("precision", "batch_size")}
    recipe = Recipe(speed="fast", **given)
    model, _, frame, _, detail = loaded(options)

    def run():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            log = TrainingLog(folder, "bench")
            trainer = make_trainer(model, folder, frame, frame.head(0), recipe, log)
            trainer.args.save_strategy = "no"  # as in `library_training`
            trainer.train()
        return answered(options, len(frame), detail)

    return run


def highest(status=None):
    """The most memory a process has had, in bytes; `ru_maxrss` would begin with its parent's.

    Of this one, or of the one whose `/proc/self/status` is given.
    """
    status = status or Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def started(code, arguments=()):
    """The highest memory of a new process that runs some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(open('/proc/self/status').read())", *arguments],
        check=True,
        text=True,
        capture_output=True,
        cwd=project_root(),
    )
    return highest(done.stdout)


def start(options):
    return lambda: {"most_bytes": started(options["code"])}


def read_by_pandas(options):
    import pandas as pd

    return lambda: {"found": f"{len(pd.read_csv(options['file'])):,} rows, none checked"}


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


def read_by_us(options):
    from workbench.data.pairs import read_pairs

    def run():
        found = read_pairs(options["file"])
        return {
            "found": f"{found.rows_read:,} rows checked, {len(found.bad_rows):,} bad ones named"
        }

    return run


def split_by_sklearn(options):
    from sklearn.model_selection import GroupShuffleSplit

    from workbench.data.pairs import read_pairs
    from workbench.data.texts import text_groups

    frame = read_pairs(options["file"]).frame
    groups = text_groups(frame)

    def run():
        splitter = GroupShuffleSplit(1, test_size=0.1, random_state=42)
        train, test = next(splitter.split(frame, groups=groups))
        frames = frame.iloc[train], frame.iloc[test]
        return {"found": f"train and test, {len(frames[1]) / len(frame):.1%} in test"}

    return run


def split_by_us(options):
    from workbench.data.pairs import read_pairs, split_pairs

    frame = read_pairs(options["file"]).frame

    def run():
        share = len(split_pairs(frame, 0.1, 0.1, 42)["test"]) / len(frame)
        return {"found": f"groups found, train, dev and test, {share:.1%} in test"}

    return run


def score_file(options):
    from tests.benchmarks.tiny import write_tiny_model

    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=Path(options["file"]).parent))
    model, turns = str(write_tiny_model(folder / "model")), iter(range(1000))
    code = "import sys; from workbench.__main__ import main; main(sys.argv[1:])"

    def run():
        given = ["score", model, options["file"], str(folder / f"out-{next(turns)}")]
        most = started(code, [*given, "--max-length", "64"])
        return {"most_bytes": most, "amount": options["file_rows"]}

    return run


def main(name, options):
    answers = os.fdopen(os.dup(1), "w")  # what a library prints goes elsewhere
    os.dup2(2, 1)

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        run = globals()[name](json.loads(options))
    except NotHereError as error:
        answer(not_here=str(error))
        return
    answer(ready=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - begun
        answer(**{"seconds": seconds, "most_bytes": highest()} | found)


if __name__ == "__main__":
    main(*sys.argv[1:])
