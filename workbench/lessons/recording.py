"""The recorded run that every lesson starts from, and a look at a learner's machine.

No lesson waits for a training: the log and the scores of one run on the sample are shipped in
`notebooks/lessons/recorded/`. What the run was made from is recorded with it, so that a changed
sample is noticed (`stale`); `workbench lessons record RUN` writes it again.
"""

import shutil
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import workbench as wb
from workbench.data.lists import CandidateList
from workbench.files import project_root, read_json, sha256, write_json
from workbench.run_folder import RunFolder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = "data/sample_pairs.csv"
SPLIT = {"dev_share": 0.02, "test_share": 0.2, "seed": 42}
LIST_SIZE = 20
MODEL = "bundled:all-MiniLM-L6-v2"  # what was fine-tuned, and whose tokenizer the lessons read
TRAINING_STEPS = 195  # of the quickstart, in batches of `BATCH` pairs
BATCH = 8
TIMED_STEPS = 5


class RecordingError(ValueError):
    """A run cannot be recorded for the lessons; the message says why."""


class Recorded(NamedTuple):
    """The sample, its splits, and what one fine-tuned model made of them.

    Attributes:
        pairs: the 2,000 pairs of the sample.
        train: the pairs trained on.
        dev: the pairs held back to choose by.
        test: the pairs held back to judge by; no text of `train` occurs in them.
        lists: candidate lists built from `test`.
        log: the training log, see `wb.read_training_log`.
        dev_logits: the model's score of each dev pair, shape (dev pairs,).
        test_logits: the same of the test pairs.
        list_logits: for each list the scores of its candidates.
    """

    pairs: pd.DataFrame
    train: pd.DataFrame
    dev: pd.DataFrame
    test: pd.DataFrame
    lists: list[CandidateList]
    log: pd.DataFrame
    dev_logits: np.ndarray
    test_logits: np.ndarray
    list_logits: list[np.ndarray]


def lessons_folder() -> Path:
    """The folder of sources, checks, quizzes, and of what is made from them."""
    return project_root() / "notebooks/lessons"


def recording() -> Path:
    """The folder of the shipped recording."""
    return lessons_folder() / "recorded"


@cache
def tokenizer() -> "Tokenizer":
    """The tokenizer of the bundled model: `encode(text, add_special_tokens=False).tokens`."""
    return wb.load_tokenizer(wb.find_model(MODEL))


@cache
def distinct_texts() -> list[str]:
    """The texts of the sample, each once, in the order of the file."""
    pairs = recorded().pairs
    return list(dict.fromkeys([*pairs["sentence_0"], *pairs["sentence_1"]]))


def texts(rng: np.random.Generator, count: int) -> list[str]:
    """Different texts of the sample, drawn at random."""
    return [str(text) for text in rng.choice(distinct_texts(), count, replace=False)]


@cache
def recorded() -> Recorded:
    """The recorded run; read once, so do not change what it holds."""
    scores = read_json(recording() / "scores.json")
    pairs = pd.read_csv(project_root() / SAMPLE)
    held = {name: scores["rows"][name] for name in ("dev", "test")}
    dev, test = (pairs.iloc[rows].reset_index(drop=True) for rows in held.values())
    train = pairs.drop(index=[*held["dev"], *held["test"]]).reset_index(drop=True)
    lists = wb.read_test(recording() / "lists.jsonl").lists
    log = wb.read_training_log(recording())
    of_lists = [np.array(row) for row in scores["lists"]]
    of_dev, of_test = np.array(scores["dev"]), np.array(scores["test"])
    return Recorded(pairs, train, dev, test, lists, log, of_dev, of_test, of_lists)


def record(run_dir: str | Path) -> Path:
    """Write the recording from a finished run of `quickstart.yaml`; returns its folder.

    Raises:
        RecordingError: the run was made from other data, or split them differently.
    """
    manifest = wb.read_manifest(run_dir)
    mine = {"sha256": sha256(project_root() / SAMPLE), **SPLIT}
    if differing := [name for name, value in mine.items() if manifest.get(name) != value]:
        raise RecordingError(
            f"{run_dir} cannot be recorded: its {differing[0]} is {manifest.get(differing[0])!r}, "
            f"the lessons need {mine[differing[0]]!r} (make a run of the sample with "
            f"-p dev_share {SPLIT['dev_share']} -p test_share {SPLIT['test_share']})"
        )
    held = _held_out()
    pairs = pd.read_csv(project_root() / SAMPLE)
    dev, test = (pairs.iloc[rows] for rows in held.values())
    if wb.read_split(run_dir, "test")["sentence_1"].tolist() != test["sentence_1"].tolist():
        raise RecordingError(f"{run_dir} was split in another way than now: make a new run")
    lists = wb.build_test(test.reset_index(drop=True), LIST_SIZE, SPLIT["seed"]).lists
    model = wb.scoring.ModelScorer.load(wb.find_model(str(run_dir)))
    asked = [[pair for one in lists for pair in one.pairs()]]
    asked += [list(zip(f["sentence_0"], f["sentence_1"], strict=True)) for f in (dev, test)]
    of_lists, of_dev, of_test = (_rounded(model.score(both)) for both in asked)
    folder, values = recording(), iter(of_lists)
    wb.data.lists.write_candidates(folder / "lists.jsonl", lists)
    shutil.copy(RunFolder(run_dir).training_log, folder / "training_log.jsonl")
    rows = [[next(values) for _ in one.candidates] for one in lists]
    scores = {"rows": held, "dev": of_dev, "test": of_test, "lists": rows}
    write_json(folder / "scores.json", scores)
    weights = sha256(RunFolder(run_dir).model / "model.safetensors")
    write_json(folder / "made_from.json", {**mine, "list_size": LIST_SIZE, "model": weights})
    return folder


def stale() -> str:
    """Why the recording no longer fits the sample; empty if it does."""
    made_from = read_json(recording() / "made_from.json")
    now = {"sha256": sha256(project_root() / SAMPLE), **SPLIT, "list_size": LIST_SIZE}
    for name, value in now.items():
        if made_from[name] != value:
            return f"{name} was {made_from[name]!r} when the run was recorded, and is {value!r}"
    if read_json(recording() / "scores.json")["rows"] != _held_out():
        return "the sample is split in another way now than when the run was recorded"
    return ""


def _held_out() -> dict[str, list[int]]:
    """The rows of the sample, from 0, that are in dev and in test as it is split now."""
    pairs = pd.read_csv(project_root() / SAMPLE)
    pairs["row"] = range(len(pairs))
    splits = wb.data.split_pairs(pairs, **SPLIT)
    return {name: splits[name]["row"].tolist() for name in ("dev", "test")}


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), 5) for score in scores]


def doctor() -> bool:
    """Print whether this machine is ready for the lessons; whether nothing is missing."""
    import matplotlib.font_manager

    from workbench.reports.figures.style import use_style

    packages = ("torch", "transformers", "sentence-transformers", "jupyterlab", "matplotlib")
    absent = [name for name in packages if not _version(name)]
    free = shutil.disk_usage(project_root()).free / 1e9
    font = use_style()
    lines = [
        (sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 or newer)"),
        (not absent, f"packages: {', '.join(absent) or 'all there'}"),
        (not stale(), f"recorded run: {stale() or 'fits the sample'}"),
        (bool(matplotlib.font_manager.findfont(font)), f"a font with Chinese characters: {font}"),
        (free > 1, f"{free:.0f} GB free on the disk (1 is enough)"),
    ]
    if not absent:
        location = wb.find_model(MODEL)  # checks that its files belong together
        lines.append((True, f"bundled model: weights {location.sha256[:12]}"))
        lines.append(
            (True, f"a full training here: about {_minutes():.0f} min (no lesson needs it)")
        )
    for good, text in lines:
        print(f"[{'OK' if good else 'FAIL'}] {text}")
    return all(good for good, _ in lines)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _minutes() -> float:
    """Minutes of a training of the quickstart here, from a few timed steps."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = CrossEncoder(str(wb.find_model(MODEL).path), num_labels=1, max_length=128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    batch = recorded().train[["sentence_0", "sentence_1"]].head(BATCH).to_numpy().tolist()
    encoded = model.tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        model[0].model(**encoded.to(model.device)).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * TRAINING_STEPS / 60
