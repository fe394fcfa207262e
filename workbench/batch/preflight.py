"""Preflight: what would make a run fail, found before it starts, all of it at once.

No model is loaded and nothing is written. Rows are read for a second at most and the vocabulary is
judged on a sample of them; where that is not the whole file, the finding says so.
"""

import itertools
import math
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from workbench.data.pairs import POSITIVE
from workbench.data.readers import (
    COLUMNS,
    BadRow,
    GoodRow,
    PairsError,
    Record,
    check_rows,
    file_records,
)
from workbench.files import display_path, project_path
from workbench.machine import quick_in_bfloat16
from workbench.models import (
    HubUnreachableError,
    ModelError,
    ModelLocation,
    find_model,
    hub_state,
    is_hub_name,
)
from workbench.run_folder import ACTS
from workbench.runs.folder import folder_problems
from workbench.runs.parameters import Parameters
from workbench.training.recipe import Recipe, read_stages

READING_SECONDS = 1.0


BAD_SHOWN = 3


class Finding(NamedTuple):
    """One line of a preflight: a `problem` (nothing may start), a `warning` or a `note`."""

    level: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """The finding with what to do about it."""
        return f"{self.text} -> {self.fix}" if self.fix else self.text


class Rows(NamedTuple):
    """What was read of a source: good and bad rows, and whether that was all of it."""

    good: list[GoodRow]
    bad: list[BadRow]
    whole: bool
    estimated: int  # rows in the source, as far as can be told without reading it all

    @property
    def positive_share(self) -> float:
        """Of the good rows."""
        return sum(row[3] >= POSITIVE for row in self.good) / max(1, len(self.good))


def check_pairs(parameters: Parameters, name: str, look: bool) -> tuple[list[Finding], Rows | None]:
    """What is wrong with a file of pairs, and its rows as far as they were read.

    Args:
        parameters: of the run.
        name: the parameter that names the file: `pairs` or `test_pairs`.
        look: whether the run will read it; if not, it need only be there.
    """
    value = getattr(parameters, name)
    if not value or value.startswith("hub:"):
        text = f"{name}: {value} is read from the Hub when the run starts; nothing of it was seen"
        return ([Finding("warning", text)] if value else []), None
    path = project_path(value)
    if not path.is_file():
        return [_no_file(name, value)], None
    if not look:
        return [], None
    try:
        rows = read_rows(path, parameters.columns)
    except (PairsError, OSError) as error:
        return [Finding("problem", f"{name}: {error}")], None
    shown = display_path(path)
    seen = len(rows.good) + len(rows.bad)
    extent = (
        f"all {seen:,} rows" if rows.whole else f"the first {seen:,} of {rows.estimated:,} rows"
    )
    found = []
    if rows.bad:
        examples = "; ".join(str(row) for row in rows.bad[:BAD_SHOWN])
        failing = parameters.on_bad_rows == "fail" or not rows.good
        text = f"{name}: {len(rows.bad):,} of {extent} of {shown} cannot be used, first {examples}"
        fix = "mend them" + ("" if not rows.good else ", or set on_bad_rows: report") * failing
        found.append(Finding("problem" if failing else "warning", text, fix * failing))
    if not rows.good and not rows.bad:
        found.append(Finding("problem", f"{name}: {shown} has no row", "give a file with pairs"))
    if rows.good and not rows.bad:
        found.append(Finding("note", f"{name}: {extent} of {shown} can be used"))
    return found, rows if rows.good else None


def _no_file(name: str, value: str) -> Finding:
    near = Path(value).resolve()
    hint = f"; did you mean {near}?" if near.is_file() else ""
    return Finding(
        "problem",
        f"{name}: there is no file {value!r} (relative paths start at the project's root){hint}",
    )


def read_rows(path: Path, columns: dict[str, str], seconds: float = READING_SECONDS) -> Rows:
    """Read and check the rows of a file for at most so many seconds.

    Raises:
        PairsError: the file cannot be read or lacks a column.
    """
    names = dict(zip(COLUMNS, COLUMNS, strict=True)) | columns
    deadline = time.monotonic() + seconds
    cut = False

    def in_time() -> Iterator[Record | BadRow]:
        nonlocal cut
        records = file_records(path, names)
        for number, record in enumerate(records):
            if number % 500 == 499 and time.monotonic() > deadline:
                cut = True
                return
            yield record

    good, bad = check_rows(in_time())
    read = len(good) + len(bad)
    if not cut:
        return Rows(good, bad, True, read)
    mean = sum(len(f"{row[1]}{row[2]}".encode()) + 8 for row in good) / max(1, len(good))
    return Rows(good, bad, False, max(read, round(path.stat().st_size / max(1.0, mean))))


def check_test_side(
    parameters: Parameters, acts: list[str], rows: Rows | None, prepared: bool, folder: Path
) -> list[Finding]:
    """Whether notebook 4 will have something to rank."""
    found = []
    if rows and rows.positive_share in (0, 1):
        which = "positive" if rows.positive_share else "negative"
        text = f"pairs: every label is {which}, so there is nothing to tell apart"
        found.append(Finding("warning", text))
    if "04" not in acts or parameters.candidates or prepared:
        return found
    if "01" not in acts:
        base = project_path(parameters.base_model) / "data" / "test.parquet"
        if base.is_file():
            return found
        text = "--only 04: there is nothing to rank, for this run has no data"
        fix = "give candidates, or have it prepare data as well (--only 01,04)"
        return [*found, Finding("problem", text, fix)]
    if rows is None or parameters.test_pairs:
        return found
    fix = "give candidates, more pairs or a larger test_share, or leave out notebook 4 (--only)"
    count = min(rows.estimated, parameters.max_pairs or rows.estimated)
    if int(parameters.test_share * count) < 1 or (not rows.positive_share and rows.whole):
        text = "the test side will hold no positive pair, so there is nothing to rank"
        found.append(Finding("problem", text, fix))
    elif (expected := parameters.test_share * count * rows.positive_share) < 10:
        text = f"the test side will hold about {expected:.0f} positive pairs: too few to claim from"
        found.append(Finding("warning", text, fix))
    return found


def check_candidates(parameters: Parameters) -> list[Finding]:
    """Every bad row of the candidate lists, or how many lists there are."""
    value = parameters.candidates
    if not value:
        return []
    if not project_path(value).exists():
        return [_no_file("candidates", value)]
    from workbench.data.list_files import read_test
    from workbench.data.lists import CandidateError

    try:
        test = read_test(value, parameters.seed)
    except (CandidateError, OSError, ValueError) as error:
        return [Finding("problem", f"candidates: {error}")]
    counts = test.recipe
    text = f"candidates: {counts['queries']:,} queries with {counts['candidates']:,} candidates"
    return [Finding("note", text)]


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

    from workbench.scoring.cross_encoder import load_cross_encoder
    from workbench.training.log import TrainingLog
    from workbench.training.trainer import LogCallback, Stopwatch, make_trainer

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


SAMPLE = 4000  # pairs that the vocabulary is judged on


class Preflight(NamedTuple):
    """Everything that was found, in the order of looking."""

    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """What would make the run fail."""
        return [finding for finding in self.findings if finding.level == "problem"]


def preflight(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    problems: Sequence[str] = (),
    trial: bool = False,
) -> Preflight:
    """Look at a request without carrying it out.

    Args:
        parameters: with sound values; of those that are not, the defaults (see `sound_parameters`).
        run_dir: where the run would go.
        only: acts that would run; empty for all.
        resume: whether an interrupted run would go on.
        problems: what is known already, one line each; told first.
        trial: train for two seconds to say how long it will take (loads torch and the model).
    """
    folder = project_path(run_dir)
    found = [Finding("problem", line) for line in problems]
    found += [
        Finding("problem", f"--only {act}: the notebooks are {', '.join(ACTS)}")
        for act in only
        if act not in ACTS
    ]
    acts = [act for act in ACTS if not only or act in only]
    found += [
        Finding("problem", line) for line in folder_problems(parameters, folder, only, resume)
    ]
    prepared = (folder / "data" / "test.parquet").is_file() and (resume or "01" not in acts)
    found += _writable(folder)
    rows = None
    for name in ("pairs", "test_pairs"):
        more, read = check_pairs(parameters, name, look=not prepared and "01" in acts)
        found += more
        rows = read if name == "pairs" else rows
    found += check_test_side(parameters, acts, rows, prepared, folder)
    found += check_candidates(parameters)
    more, location = _model(parameters)
    found += more
    if not any(finding.level == "problem" for finding in found) and rows and location:
        found += _vocabulary(location, rows)
        found += _size(parameters, rows, location, folder, trial)
    if parameters.precision == "bfloat16" and "02" in acts and not quick_in_bfloat16():
        text = "precision: bfloat16 is not quicker than float32 on this processor"
        found.append(Finding("warning", text, "use precision: auto"))
    return Preflight(found)


def _writable(folder: Path) -> list[Finding]:
    parent = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=parent):  # has no name where the system can do without
            return []
    except OSError as error:
        text = f"{display_path(parent)} cannot be written to ({error.strerror})"
        fix = "change its permissions, make room, or choose another --runs-dir"
        return [Finding("problem", text, fix)]


def _existing(folder: Path) -> Path:
    """The nearest folder at or above this one that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _model(parameters: Parameters) -> tuple[list[Finding], ModelLocation | None]:
    name, revision, fallback = (
        parameters.base_model,
        parameters.base_revision,
        parameters.fallback_model,
    )
    try:
        if not is_hub_name(name):
            parent, _, rest = name.partition("/")
            inside = parent and rest and parent != "." and project_path(parent).is_dir()
            if inside and not project_path(name).is_dir():
                raise ModelError(f"base_model: there is no folder {name!r}")
            return [], find_model(name)
        if fallback and is_hub_name(fallback):
            raise ModelError(f"fallback_model {fallback!r} is on the Hub too, so it is none")
        state = hub_state(name, revision)
        if state == "reachable":
            text = f"base_model: {name} will be fetched from the Hub when the run starts"
            return [Finding("note", text)], None
        location = find_model(name, revision, fallback)
    except HubUnreachableError as error:
        return [Finding("problem", f"base_model: {error}")], None
    except (ModelError, OSError) as error:
        return [Finding("problem", str(error))], None
    if location.name != name:
        return [Finding("warning", f"base_model: {location}")], location
    return [], location


def _vocabulary(location: ModelLocation, rows: Rows) -> list[Finding]:
    import pandas as pd

    from workbench.models import load_tokenizer
    from workbench.vocabulary.coverage import repair_outlook, vocabulary_verdict

    chosen = rows.good
    if len(chosen) > SAMPLE:
        chosen = random.Random(0).sample(chosen, SAMPLE)
    pairs = pd.DataFrame(chosen, columns=["line", *COLUMNS])
    try:
        verdict = vocabulary_verdict(repair_outlook(pairs, pairs, load_tokenizer(location)))
    except ModelError as error:
        return [Finding("problem", f"base_model: {error}")]
    basis = (
        ""
        if len(chosen) == len(rows.good) and rows.whole
        else (f" (on a sample of {len(chosen):,} pairs; notebook 1 says it of all)")
    )
    level = "note" if verdict["colour"] == "green" else "warning"
    text = f"vocabulary: {verdict['colour']}. {verdict['why']}{basis}"
    return [Finding(level, text, verdict["action"] if level == "warning" else "")]


def _size(
    parameters: Parameters, rows: Rows, location: ModelLocation, folder: Path, trial: bool
) -> list[Finding]:
    data_bytes = project_path(parameters.pairs).stat().st_size
    count = round(rows.estimated * len(rows.good) / (len(rows.good) + len(rows.bad)))
    model_bytes = weight_bytes(location.path)
    need = estimate(parameters, count, rows.positive_share, model_bytes, data_bytes)
    found = [
        Finding(
            "note",
            f"at most {need.pairs:,} training pairs an epoch, {need.steps:,} steps, "
            f"{in_words(need.kept)} on the disk ({in_words(need.disk)} while it trains)",
        )
    ]
    free = shutil.disk_usage(_existing(folder)).free
    if free < need.disk:
        text = (
            f"the disk of {display_path(_existing(folder))} has {in_words(free)} left, and "
            f"the run needs {in_words(need.disk)} for model and checkpoints"
        )
        fix = "make room, choose another --runs-dir, or ask for fewer snapshots"
        found.append(Finding("problem", text, fix))
    if trial:
        recipe = Recipe.of(parameters.model_dump())
        sample = list(itertools.islice(rows.good, SAMPLE))
        rate = trial_rate(location, recipe, sample)
        seconds = need.steps * parameters.batch_size / rate
        text = f"training: about {duration(seconds)} here ({rate:.0f} pairs/s in a short trial)"
        found.append(Finding("note", text))
    return found
