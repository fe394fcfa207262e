"""The recorded runs that every lesson starts from, and a look at a learner's machine.

No lesson waits for a training: log and scores of a run of the sample, and scores of another with a
repaired vocabulary, are shipped in `notebooks/lessons/recorded/`, with what they were made from.
`workbench lessons record` writes them again, `make lessons` everything that depends on them.
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
from workbench.files import project_root, read_json, sha256, write_json
from workbench.models import BUNDLED_MODEL
from workbench.ranking.evaluation import score_lists
from workbench.run_folder import RunFolder
from workbench.runs.parameters import read_settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = "data/sample_pairs.csv"
MADE_FROM = ("sha256", "dev_share", "test_share", "seed")  # as the manifest of a run has them
RECIPES = ("quickstart", "quickstart_characters")  # of the two runs, in notebooks/parameters
MODEL = BUNDLED_MODEL  # what was fine-tuned, and whose tokenizer the lessons read
PACKAGES = ("torch", "transformers", "sentence_transformers", "jupyterlab", "matplotlib")
TIMED_STEPS = 5


class LessonError(ValueError):
    """An exercise, a cell of a lesson or a run to record is not what it should be."""


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
    return wb.load_tokenizer(wb.find_model(MODEL))


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


def record(run_dir: str | Path, characters_dir: str | Path) -> Path:
    """The folder of a recording, made from runs of the two recipes.

    Raises:
        LessonError: a run was not made from sample and recipe as they are now.
    """
    manifest, pairs = wb.read_manifest(run_dir), pd.read_csv(project_root() / SAMPLE)
    runs, recipes = (run_dir, characters_dir), _recipes()
    made_from = {name: manifest[name] for name in MADE_FROM} | {"recipes": recipes}
    rows = _held_out(made_from)
    dev, test = (text_pairs(pairs.iloc[of]) for of in rows.values())
    for run, (name, recipe) in zip(runs, recipes.items(), strict=True):
        same = wb.read_manifest(run)["sha256"] == sha256(project_root() / SAMPLE)
        same = same and text_pairs(wb.read_split(run, "test")) == test
        if not (same and recipe.items() <= read_settings(RunFolder(run).parameters).items()):
            reason = f"was not made from {SAMPLE} and {name}.yaml as they are now"
            raise LessonError(f"{run} {reason}: make it again")
    lists = wb.read_test(RunFolder(run_dir).candidates).lists
    scores: dict[str, Any] = {"made_from": made_from, "rows": rows}
    scorers = [wb.scoring.ModelScorer.load(wb.find_model(str(run))) for run in runs]
    found = {name: scorers[0].score(of) for name, of in (("dev", dev), ("test", test))}
    scores |= {name: of.astype(float).round(5).tolist() for name, of in found.items()}
    for name, scorer in zip(("lists", "repaired"), scorers, strict=True):
        scores[name] = [of.astype(float).round(5).tolist() for of in score_lists(scorer, lists)]
    shutil.copy(RunFolder(run_dir).candidates, recording() / "lists.jsonl")
    shutil.copy(RunFolder(run_dir).training_log, recording() / "training_log.jsonl")
    write_json(recording() / "scores.json", scores)
    return recording()


def stale() -> str:
    """Why the recording no longer fits sample and recipes, and what to do; empty if it does."""
    scores = read_json(recording() / "scores.json")
    made_from, reason = scores["made_from"], ""
    if made_from["sha256"] != sha256(project_root() / SAMPLE):
        reason = f"{SAMPLE} is not the one that the recorded run was made from"
    elif made_from["recipes"] != _recipes():
        reason = "the recipe of a recorded run has changed"
    elif scores["rows"] != _held_out(made_from):
        reason = "the sample is split in another way now than when the run was recorded"
    again = f"make runs of {' and '.join(f'{name}.yaml' for name in RECIPES)} again, then"
    record = "`workbench lessons record RUN CHARACTERS` and `make lessons`"
    return reason and f"{reason}: {again} {record}"


def _recipes() -> dict[str, dict[str, Any]]:
    return {n: read_settings(project_root() / f"notebooks/parameters/{n}.yaml") for n in RECIPES}


def _held_out(made_from: dict[str, Any]) -> dict[str, list[int]]:
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
        lines.append((True, f"bundled model: weights {wb.find_model(MODEL).sha256[:12]}"))
        lines.append((True, f"a full training here: {_minutes():.0f} min (no lesson needs it)"))
    for good, text in lines:
        print(f"[{'OK' if good else 'FAIL'}] {text}")
    return all(good for good, _ in lines)


def _minutes() -> float:
    """Minutes of the recorded training on this machine, from a few timed steps."""
    import torch

    from workbench.scoring.cross_encoder import load_cross_encoder

    model: Any = load_cross_encoder(wb.find_model(MODEL), 128)
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
