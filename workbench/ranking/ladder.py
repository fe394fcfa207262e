"""The learning curve: how well each snapshot of a training ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.data.splits import SPLITS, read_split
from workbench.files import display_path, project_path, read_json
from workbench.models import ModelError, ModelLocation, find_model, read_lineage
from workbench.ranking.evaluation import MAIN_METRIC, Evaluation, rank_lists, score_lists
from workbench.ranking.uncertainty import bootstrap_mean
from workbench.run_folder import stage_folders
from workbench.scoring.baselines import (
    Bm25,
    CandidateOrder,
    CharacterJaccard,
    NgramRegression,
    RandomScorer,
    Scorer,
    TfidfCosine,
)
from workbench.scoring.cross_encoder import ModelScorer


def find_snapshots(run_dir: str | Path) -> list[Path]:
    """The folders of a run's snapshots, by step; empty where none were kept."""
    return sorted((project_path(run_dir) / "snapshots").glob("step-*"))


def snapshot_curve(
    run_dir: str | Path,
    lists: Sequence[CandidateList],
    evaluation: Evaluation,
    max_length: int = 512,
    seed: int = 42,
    backend: str = "predict",
) -> pd.DataFrame:
    """nDCG@10 of every snapshot of a run on the same lists, and of the base before them.

    Args:
        run_dir: the run, trained with `snapshots` above 0.
        lists: the candidate lists.
        evaluation: of the same lists; it tells ties and resamples, and the base's values.
        max_length: tokens of a pair.
        seed: of the intervals.
        backend: how to run the models; see `ModelScorer`.

    Returns:
        `step`, `pairs` (training pairs seen), `mean`, `low`, `high`, one row a snapshot; empty
        where there is none.
    """
    ties, resamples = evaluation.metrics["ties"], evaluation.metrics["resamples"]
    groups, rows = query_groups(lists), []
    found = find_snapshots(run_dir)
    if found and "base" in set(evaluation.per_query["scorer"]):
        interval = bootstrap_mean(evaluation.values("base"), resamples, seed, groups)
        rows.append({"step": 0, "pairs": 0, **interval._asdict()})
    for folder in found:
        found_model = find_model(str(folder))
        scorer = ModelScorer.load(found_model, max_length, seed=seed, backend=backend)
        values = rank_lists(score_lists(scorer, lists), lists, ties)[MAIN_METRIC]
        interval = bootstrap_mean(values, resamples, seed, groups)
        rows.append({**read_json(folder / "snapshot.json"), **interval._asdict()})
    return pd.DataFrame(rows, columns=["step", "pairs", "mean", "low", "high"])


LADDER = (
    "model",
    "base",
    "ngram_regression",
    "bm25",
    "tfidf_cosine",
    "char_jaccard",
    "candidate_order",
    "random",
)


@dataclass(frozen=True)
class Subject:
    """The model under test with its surroundings.

    Attributes:
        model: what is evaluated as `model`.
        base: what it was before its last training; None if that is not known or not here.
        own: whether it is the model that this run has trained.
        sides: `train`, `dev` and `test` pairs; empty frames where there are none.
        data_from: the run folder that the sides come from; empty if there is none.
        left_out: rungs of the ladder that cannot be had, with the reason.
    """

    model: ModelLocation
    base: ModelLocation | None
    own: bool
    sides: dict[str, pd.DataFrame]
    data_from: str
    left_out: dict[str, str]

    def __str__(self) -> str:
        """What is tested, in four lines."""
        own = (
            "trained in this very run"
            if self.own
            else ("NOT trained in this run, which has no model of its own; evaluated as it is")
        )
        counts = ", ".join(f"{name} {len(side):,}" for name, side in self.sides.items())
        return "\n".join(
            [
                f"Model: {self.model}",
                f"       {own}",
                f"Base: {self.base or 'left out, because ' + self.left_out['base']}",
                f"Pairs: {counts}" + (f" (from {self.data_from})" if self.data_from else ""),
            ]
        )

    def record(self) -> dict[str, Any]:
        """The same as plain values, for `metrics.json`."""
        return {
            "model": self.model.record(),
            "trained_in_this_run": self.own,
            "data_from": self.data_from,
            "left_out": self.left_out,
        }


def find_subject(
    run_dir: str | Path, base_model: str, base_revision: str = "", fallback: str = ""
) -> Subject:
    """The run's own model if it has one, else `base_model` as it is.

    The pairs are those of the run; without any, those of the run that `base_model` is. The base is
    the model that the last stage of training started from, as the lineage tells.

    Raises:
        ModelError: there is no model to evaluate, or its files are not what they should be.
        DataError: a side of the prepared data is no longer there.
    """
    own = (project_path(run_dir) / "model").is_dir()
    asked = (str(run_dir),) if own else (base_model, base_revision, fallback)
    model = find_model(*asked)
    left_out: dict[str, str] = {}
    base, stages = None, read_lineage(model)
    if not stages:
        left_out["base"] = f"{model.name} tells of no training, so nothing is known to be before it"
    else:
        # A run of several stages is one training: the base is what stood before its first stage.
        before = stages[-stages[-1].get("number", 1)]["base"]
        try:
            base = find_model(before["name"], before["revision"])
        except ModelError as error:
            left_out["base"] = f"it cannot be had any more ({error})"
    sources = [str(run_dir)] if own else [str(run_dir), str(model.path.parent)]
    sides, data_from = {}, ""
    for source in sources:
        sides = _sides(source)
        if any(len(side) for side in sides.values()):
            data_from = display_path(source)
            break
    return Subject(model, base, own, sides, data_from, left_out)


def ladder_scorers(
    subject: Subject,
    lists: list[CandidateList],
    max_length: int = 512,
    seed: int = 42,
    backend: str = "predict",
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """Every rung: the model, its base, and the scorers that need no neural network.

    `tfidf_cosine` takes document frequencies from the training texts, or from the candidates where
    there are none; `bm25` from the candidates. `ngram_regression` is trained on the training pairs.

    Args:
        subject: from `find_subject`.
        lists: the candidate lists, for the collection of `bm25`.
        max_length: tokens of a pair for the models.
        seed: of random scores, of a new head, and of the regression.
        backend: how to run the models; see `ModelScorer`.

    Returns:
        The scorers by name, and what is left out with the reason.
    """
    train, left_out = subject.sides["train"], dict(subject.left_out)
    collection = dict.fromkeys(text for one in lists for text in one.candidates)
    how: dict[str, Any] = {"max_length": max_length, "seed": seed, "backend": backend}
    scorers: dict[str, Scorer] = {"model": ModelScorer.load(subject.model, **how)}
    if subject.base is not None:
        scorers["base"] = ModelScorer.load(subject.base, **how)
    try:
        scorers["ngram_regression"] = NgramRegression(seed).fit(train)
    except ValueError as error:
        left_out["ngram_regression"] = str(error)
    scorers["bm25"] = Bm25(collection)
    scorers["tfidf_cosine"] = TfidfCosine(
        [*train["sentence_0"], *train["sentence_1"]] if len(train) else collection
    )
    scorers["char_jaccard"] = CharacterJaccard()
    scorers["candidate_order"] = CandidateOrder()
    scorers["random"] = RandomScorer(seed)
    return scorers, left_out


def stage_scorers(
    run_dir: str | Path, max_length: int = 512, seed: int = 42, backend: str = "predict"
) -> dict[str, Scorer]:
    """The models of a run's earlier stages by name; empty for a run of one stage.

    They are further rungs of the ladder, so that ranking can be followed stage by stage; the result
    of the last stage is `model`.
    """
    scorers: dict[str, Scorer] = {}
    for folder in stage_folders(project_path(run_dir)):
        location = find_model(str(folder))
        name = str(read_lineage(location)[-1]["stage"])
        scorers[name] = ModelScorer.load(location, max_length, seed=seed, backend=backend)
    return scorers


def other_runs(
    compare_runs: str, max_length: int = 512, seed: int = 42, backend: str = "predict"
) -> dict[str, Scorer]:
    """The models of other runs, as further rungs of the ladder; each goes by its folder's name.

    Args:
        compare_runs: run folders, separated by commas; empty for none.
        max_length: tokens of a pair.
        seed: of a new head, should a model lack one.
        backend: how to run the models; see `ModelScorer`.

    Raises:
        ModelError: a folder has no model.
        ValueError: two folders go by the same name, or one by that of a scorer of the ladder.
    """
    scorers: dict[str, Scorer] = {}
    for folder in filter(None, map(str.strip, compare_runs.split(","))):
        name = Path(folder).name
        if name in scorers or name in LADDER:
            raise ValueError(f"compare_runs: {folder!r}: the name {name!r} is taken")
        scorers[name] = ModelScorer.load(find_model(folder), max_length, seed=seed, backend=backend)
    return scorers


def _sides(run_dir: str) -> dict[str, pd.DataFrame]:
    """The pairs of a run's sides; none where no data was prepared. A side that got lost is told."""
    if (project_path(run_dir) / "data" / "manifest.json").is_file():
        return {name: read_split(run_dir, name) for name in SPLITS}
    columns = {"sentence_0": str, "sentence_1": str, "label": float}
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    return dict.fromkeys(SPLITS, empty)
