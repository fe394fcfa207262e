"""The model under test, and the ladder of scorers that it is measured against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.data.lists import CandidateList
from workbench.data.pairs import SPLITS, read_split
from workbench.data.readers import COLUMNS
from workbench.files import DamagedError, comma_separated, display_path, read_json
from workbench.models import ModelError, ModelLocation, find_model, load_tokenizer, read_lineage
from workbench.ranking.evaluation import Evaluation, rank_lists, score_lists
from workbench.ranking.metrics import MAIN_METRIC
from workbench.ranking.uncertainty import bootstrap_mean
from workbench.run_folder import RunFolder, stage_folders
from workbench.scoring.backends import BackendError
from workbench.scoring.baselines import BASELINES, Scorer
from workbench.scoring.cross_encoder import ModelScorer, ZeroShot


@dataclass(frozen=True)
class Subject:
    """The model under test, with the base and the pairs that belong to it."""

    model: ModelLocation  # what is evaluated as `model`
    base: ModelLocation | None  # before its last training; None if not known or not here
    own: bool  # whether this run has trained it
    splits: dict[str, pd.DataFrame]  # `train`, `dev` and `test` pairs, perhaps none
    data_from: str  # the run folder that the pairs come from; empty if there is none
    left_out: dict[str, str]  # scorers of the ladder that are not available, with the reason

    def __str__(self) -> str:
        """What is tested, in three lines."""
        model = f"{self.model}, NOT trained in this run, which has no model; evaluated as it is"
        if self.own:
            name, weights = self.model.name, self.model.sha256[:12]
            model = f"{name} (the model of this run; weights sha256 {weights}…)"
        counts = ", ".join(f"{name} {len(pairs):,}" for name, pairs in self.splits.items())
        return (
            f"Model: {model}\n"
            f"Base: {self.base or 'left out, because ' + self.left_out['base']}\n"
            f"Pairs: {counts}" + (f" (from {self.data_from})" if self.data_from else "")
        )

    def record(self) -> dict[str, Any]:
        """The same as plain values, for `metrics.json`."""
        return {
            "model": self.model.record(),
            "trained_in_this_run": self.own,
            "data_from": self.data_from,
            "left_out": self.left_out,
        }


def find_subject(run_dir: str | Path, base_model: str, base_revision: str = "") -> Subject:
    """The run's own model if it has one, else `base_model` as it is.

    The pairs are those of the run; without any, those of the run that `base_model` is.

    Raises:
        ModelError: there is no model to evaluate, or its files are not what they should be.
        DataError: a split of the prepared data is missing.
        DamagedError: the model's lineage does not say what it was trained from.
    """
    own = RunFolder(run_dir).model.is_dir()
    model = find_model(str(run_dir)) if own else find_model(base_model, base_revision)
    base, left_out, stages = None, {}, read_lineage(model)
    if not stages:
        left_out["base"] = f"{model.name} has no record of a training, so its base is not known"
    else:
        try:  # a run of several stages is one training: its base is that of its first stage
            before = stages[-stages[-1].get("number", 1)]["base"]
            base = find_model(before["name"], before["revision"])
        except LookupError as error:
            raise DamagedError(f"{model.name}: its lineage.json has no base ({error!r})") from error
        except ModelError as error:
            left_out["base"] = f"it is no longer available ({error})"
    nothing = pd.DataFrame(columns=[*COLUMNS], dtype=str).astype({"label": float})
    for source in [run_dir] if own else [run_dir, model.path.parent]:
        if RunFolder(source).manifest.is_file():
            splits = {name: read_split(source, name) for name in SPLITS}
            return Subject(model, base, own, splits, display_path(source), left_out)
    return Subject(model, base, own, dict.fromkeys(SPLITS, nothing), "", left_out)


def ladder_scorers(
    subject: Subject,
    lists: Sequence[CandidateList],
    max_length: int = 512,
    seed: int = 42,
    backend: str = "predict",
    compare_runs: str = "",
    zero_shot: Sequence[str] = (),
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The scorers by name, and those left out, with the reason.

    They are the model, its base if that has a head, every scorer of `BASELINES` (fitted on the
    training pairs of the subject, with the frequencies in the lists), earlier stages of the run's
    training, and further models, named after their folders: those of `compare_runs`, separated by
    commas, and untrained bases. How models are run is said by `max_length` (tokens of a pair) and
    `backend`, see `ModelScorer`; the seed is that of random scores and of the regression.

    Raises:
        ModelError: a model of `compare_runs` or `zero_shot` cannot be loaded.
        ValueError: two scorers would have the same name.
    """
    left_out = dict(subject.left_out)
    options: dict[str, Any] = {"max_length": max_length, "seed": seed, "backend": backend}
    base = subject.base or (None if subject.own else subject.model)
    record = (read_lineage(subject.model) or [{}])[-1]
    scorers: dict[str, Scorer] = {"model": ModelScorer.load(subject.model, **options)}
    if subject.base is not None and not subject.base.head:
        left_out["base"] = (
            "it has no ranking head yet: a new one ranks at random, and zero_shot: "
            f"{subject.base.name} ranks by the similarity of its vectors"
        )
    elif subject.base is not None:
        try:
            scorers["base"] = ModelScorer.load(subject.base, **options)
        except BackendError as error:  # it was not exported, or is of another kind
            left_out["base"] = str(error)
    given = {"train": subject.splits["train"], "lists": lists, "seed": seed, "base": base}
    given["tokenizer"] = load_tokenizer(subject.model)
    given["dictionary"] = str(record.get("request", {}).get("dictionary", ""))
    for name, build in BASELINES.items():
        try:
            if (scorer := build(**given)) is not None:
                scorers[name] = scorer
            else:
                left_out[name] = "it cannot be built from these pairs and lists"
        except ValueError as error:
            left_out[name] = str(error)
    for folder in stage_folders(subject.model.path.parent) if subject.own else ():
        stage = find_model(str(folder))
        scorers[read_lineage(stage)[-1]["stage"]] = ModelScorer.load(stage, **options)
    for name, (parameter, model) in further_models(compare_runs, zero_shot, scorers).items():
        kind = ModelScorer if parameter == "compare_runs" else ZeroShot
        try:
            scorers[name] = kind.load(find_model(model), **options)
        except ModelError as error:
            raise ModelError(f"{parameter}: {error}") from error
    return scorers, left_out


def further_models(
    compare_runs: str, zero_shot: Sequence[str], taken: Iterable[str] = ()
) -> dict[str, tuple[str, str]]:
    """The parameter and the path of each further model, by the name of its folder.

    Raises:
        ValueError: two scorers would have the same name, those of `taken` among them.
    """
    found: dict[str, tuple[str, str]] = {}
    names = {"model", "base", *BASELINES, *taken}
    given = {"compare_runs": comma_separated(compare_runs), "zero_shot": zero_shot}
    for parameter, model in ((name, one) for name, models in given.items() for one in models):
        if (name := Path(model).name) in names | found.keys():
            raise ValueError(f"{parameter}: {model!r}: two scorers would be called {name!r}")
        found[name] = parameter, model
    return found


def snapshot_curve(
    run_dir: str | Path,
    evaluation: Evaluation,
    max_length: int = 512,
    seed: int = 42,
    backend: str = "predict",
) -> pd.DataFrame:
    """The learning curve: nDCG@10 of a run's snapshots and, at step 0, its base on the same lists.

    The last three arguments are as in `ladder_scorers`. `pairs` are the training pairs seen. Empty
    where the training kept no snapshot.
    """
    ties, resamples = evaluation.metrics["ties"], evaluation.metrics["resamples"]
    lists, groups, curve = evaluation.lists, evaluation.groups, []
    found = sorted(RunFolder(run_dir).snapshots.glob("step-*"))
    if found and "base" in set(evaluation.per_query["scorer"]):
        curve.append(({"step": 0, "pairs": 0}, evaluation.values("base")))
    for folder in found:
        model = ModelScorer.load(find_model(str(folder)), max_length, seed=seed, backend=backend)
        values = rank_lists(score_lists(model, lists), lists, ties)[MAIN_METRIC]
        curve.append((read_json(folder / "snapshot.json", dict[str, int]), values))
    rows = [step | bootstrap_mean(of, resamples, seed, groups)._asdict() for step, of in curve]
    return pd.DataFrame(rows, columns=["step", "pairs", "mean", "low", "high"])
