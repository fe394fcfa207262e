"""The recorded runs that every lesson starts from, and a look at a learner's machine.

No lesson waits for a training: log and scores of a run of the sample, and scores of another with a
repaired vocabulary, are shipped in `notebooks/lessons/recorded/`, with what they were made from.
`notebooks/lessons/make.py record` writes them again, `make lessons` what depends on them.
"""

import shutil
import sys
import timeit
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import workbench as wb
from workbench.data import texts as data_texts
from workbench.data.lists import CandidateList
from workbench.data.texts import text_pairs
from workbench.files import project_root, read_json, sha256
from workbench.models import BUNDLED_MODEL
from workbench.runs.parameters import read_settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = "data/sample_pairs.csv"
MADE_FROM = ("sha256", "dev_share", "test_share", "seed")  # as the manifest of a run has them
RECIPES = ("quickstart", "quickstart_characters")  # of the two runs, in notebooks/parameters
PACKAGES = ("torch", "transformers", "sentence_transformers", "jupyterlab", "matplotlib")
TIMED_STEPS = 5


class Recorded(NamedTuple):
    """The sample, its splits, and what the fine-tuned models made of them."""

    pairs: pd.DataFrame  # the whole sample
    train: pd.DataFrame
    dev: pd.DataFrame  # held back to choose by
    test: pd.DataFrame  # held back to judge by; shares no text with `train`
    lists: list[CandidateList]  # built from `test`
    log: pd.DataFrame  # of the training, see `wb.read_training_log`
    dev_logits: np.ndarray  # the model's score of each dev pair
    test_logits: np.ndarray
    list_logits: list[np.ndarray]  # for each list the scores of its candidates
    repaired_logits: list[np.ndarray]  # the same of the model with a repaired vocabulary

    @property
    def batch(self) -> int:
        """Pairs in a training step."""
        return round(len(self.train) * self.log["epoch"].max() / self.log["step"].max())


def lessons_folder() -> Path:
    """The folder of sources, checks, quizzes, and of what is made from them."""
    return project_root() / "notebooks/lessons"


def recording() -> Path:
    """The folder of the shipped recording."""
    return lessons_folder() / "recorded"


@cache
def tokenizer() -> "Tokenizer":
    """The tokenizer of the bundled model: `encode(text, add_special_tokens=False).tokens`."""
    return wb.load_tokenizer(wb.find_model(BUNDLED_MODEL))


@cache
def distinct_texts() -> list[str]:
    """The texts of the sample, each once."""
    return data_texts.distinct_texts(recorded().pairs)


def texts(rng: np.random.Generator, count: int) -> list[str]:
    """Different texts of the sample, drawn at random."""
    return [str(text) for text in rng.choice(distinct_texts(), count, replace=False)]


@cache
def recorded() -> Recorded:
    """The recorded runs; read once, so do not change what this holds."""
    scores = read_json(recording() / "scores.json")
    pairs = pd.read_csv(project_root() / SAMPLE)
    held = [scores["rows"][name] for name in ("dev", "test")]
    dev, test = (pairs.iloc[rows].reset_index(drop=True) for rows in held)
    train = pairs.drop(index=[*held[0], *held[1]]).reset_index(drop=True)
    lists = wb.read_test(recording() / "lists.jsonl").lists
    logits: list[Any] = [np.array(scores[name]) for name in ("dev", "test")]
    logits += [[*map(np.array, scores[name])] for name in ("lists", "repaired")]
    return Recorded(pairs, train, dev, test, lists, wb.read_training_log(recording()), *logits)


def stale() -> str:
    """Why the recording no longer fits sample and recipes, and what to do; empty if it does."""
    scores = read_json(recording() / "scores.json")
    made_from, reason = scores["made_from"], ""
    if made_from["sha256"] != sha256(project_root() / SAMPLE):
        reason = f"{SAMPLE} is not the one that the recorded run was made from"
    elif made_from["recipes"] != recipes():
        reason = "the recipe of a recorded run has changed"
    elif scores["rows"] != held_out(made_from):
        reason = "the sample is split in another way now than when the run was recorded"
    again = f"make runs of {' and '.join(f'{name}.yaml' for name in RECIPES)} again, then"
    record = "`python notebooks/lessons/make.py record RUN CHARACTERS` and `make lessons`"
    return reason and f"{reason}: {again} {record}"


def recipes() -> dict[str, dict[str, Any]]:
    """The two recipes as they are now, by name."""
    return {n: read_settings(project_root() / f"notebooks/parameters/{n}.yaml") for n in RECIPES}


def held_out(made_from: dict[str, Any]) -> dict[str, list[int]]:
    """The rows of the sample, from 0, that are in dev and in test as it is split now."""
    pairs = pd.read_csv(project_root() / SAMPLE).reset_index(names="row")
    shares = {name: made_from[name] for name in ("dev_share", "test_share", "seed")}
    splits = wb.data.split_pairs(pairs, **shares)
    return {name: splits[name]["row"].tolist() for name in ("dev", "test")}


def doctor() -> bool:
    """Print whether this machine is ready for the lessons; whether nothing is missing."""
    from workbench.reports.figures.style import use_style

    absent = [name for name in PACKAGES if find_spec(name) is None]
    free, unfit = shutil.disk_usage(project_root()).free / 1e9, stale()
    lines = [
        (sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 or newer)"),
        (not absent, f"packages: {', '.join(absent) or 'all there'}"),
        (not unfit, f"recorded run: {unfit or 'fits the sample'}"),
        (True, f"a font with Chinese characters: {use_style()}"),
        (free > 1, f"{free:.0f} GB free on the disk (1 is enough)"),
    ]
    if not absent:
        lines.append((True, f"bundled model: weights {wb.find_model(BUNDLED_MODEL).sha256[:12]}"))
        lines.append((True, f"a full training here: {_minutes():.0f} min (no lesson needs it)"))
    for good, text in lines:
        print(f"[{'OK' if good else 'FAIL'}] {text}")
    return all(good for good, _ in lines)


def _minutes() -> float:
    """Minutes of the recorded training on this machine, from a few timed steps."""
    import torch

    from workbench.scoring.cross_encoder import load_cross_encoder

    model: Any = load_cross_encoder(wb.find_model(BUNDLED_MODEL), 128)
    run = recorded()
    batch = text_pairs(run.train.head(run.batch))
    encoded = model.tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

    def step() -> None:
        model[0].model(**encoded.to(model.device)).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = timeit.repeat(step, number=1, repeat=TIMED_STEPS)
    return float(np.median(seconds) * run.log["step"].max() / 60)
