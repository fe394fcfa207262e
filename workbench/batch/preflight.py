"""Preflight: what would make a run fail, found before it starts, all of it at once.

No model is loaded and nothing is written. Of a large file only the first rows are read, and the
vocabulary is judged on a sample; where that is not the whole file, the finding says so.
"""

import itertools
import math
import random
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.data import POSITIVE
from workbench.data.readers import (
    COLUMNS,
    BadRow,
    GoodRow,
    PairsError,
    check_rows,
    file_records,
    other_scale,
    remedy,
)
from workbench.files import display_path, project_path
from workbench.machine import quick_in_bfloat16
from workbench.models import ModelError, ModelLocation, find_model, hub_state, is_hub_name
from workbench.run_folder import ACTS, RequestError, RunFolder
from workbench.runs.folder import DATA_PARAMETERS, folder_problems
from workbench.runs.parameters import Parameters
from workbench.training.recipe import read_stages

ROWS_READ = 200_000  # in less than a second
BAD_ROWS_SHOWN = 3
SAMPLE_PAIRS = 4000  # that the vocabulary is judged on
CHECKPOINTS_KEPT = 2  # each holds the weights and two numbers a weight for the optimizer
OTHER_BYTES = 20_000_000  # notebooks, figures, report, evaluation


class Finding(NamedTuple):
    """One line of a preflight: a `problem` (nothing may start), a `warning` or a `note`."""

    level: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """The finding with what to do about it."""
        return f"{self.text} -> {self.fix}" if self.fix else self.text


def refuse_problems(findings: Iterable[Finding]) -> None:
    """Print notes and warnings; raise the problems, if there are any, as a `RequestError`."""
    problems = []
    for finding in findings:
        if finding.level == "problem":
            problems.append(str(finding))
        else:
            print(f"{finding.level}: {finding}", flush=True)
    if problems:
        raise RequestError("\n".join(problems))


def any_problem(findings: Iterable[Finding]) -> bool:
    """Whether something would make the run fail."""
    return any(finding.level == "problem" for finding in findings)


class Rows(NamedTuple):
    """The good and bad rows that were read of a source."""

    good: list[GoodRow]
    bad: list[BadRow]
    whole: bool  # whether these are all rows
    estimated: int  # rows in the source, as far as can be told without reading it all

    @property
    def positive_share(self) -> float:
        """Of the good rows."""
        return sum(row[3] >= POSITIVE for row in self.good) / max(1, len(self.good))


class Inputs(NamedTuple):
    """What was found out about files and base model: the slow part of a preflight."""

    findings: list[Finding]
    rows: Rows | None  # of `pairs`, if they can be used
    location: ModelLocation | None  # of the base model, if it is on this machine


def preflight(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    problems: Sequence[str] = (),
    known: dict[Any, Inputs] | None = None,
) -> list[Finding]:
    """Everything that can be found out about a request without carrying it out.

    Args:
        parameters: with sound values; of those that are not, the defaults (see `sound_parameters`).
        run_dir: where the run would go.
        only: notebooks that would run; empty for all.
        resume: whether an interrupted run would go on.
        problems: that are known already, one line each; reported first.
        known: inputs of other runs, which may be the same; it is added to.
    """
    folder, known = RunFolder(run_dir), {} if known is None else known
    lines = [*problems]
    lines += [f"--only {a}: the notebooks are {', '.join(ACTS)}" for a in only if a not in ACTS]
    lines += folder_problems(parameters, folder.path, only, resume)
    found = [Finding("problem", line) for line in lines]
    place = next(path for path in (folder.path, *folder.path.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place):  # has no name where the system can do without
            pass
    except OSError as error:
        text = f"{display_path(place)} cannot be written to ({error.strerror})"
        fix = "change its permissions, make room, or choose another --runs-dir"
        found.append(Finding("problem", text, fix))
    acts = [act for act in ACTS if not only or act in only]
    prepared = folder.split("test").is_file() and (resume or "01" not in acts)
    reads_pairs = not prepared and "01" in acts
    # notebook 1 takes the same, and the seed does not matter here
    names = [name for name in DATA_PARAMETERS if name != "seed"]
    key = (reads_pairs, *(getattr(parameters, name) for name in names))
    if key not in known:
        known[key] = _look_at_inputs(parameters, reads_pairs)
    findings, rows, location = known[key]
    found += findings
    if not prepared:
        found += _check_test_split(parameters, acts, rows)
    if rows and location and not any_problem(found):
        found += _check_disk(parameters, rows, location, place)
    if parameters.precision == "bfloat16" and "02" in acts and not quick_in_bfloat16():
        text = "precision: bfloat16 is not faster than float32 on this processor"
        found.append(Finding("warning", text, "use precision: auto"))
    return found


def _look_at_inputs(parameters: Parameters, reads_pairs: bool) -> Inputs:
    found, rows = _check_pairs(parameters, "pairs", reads_pairs)
    found += _check_pairs(parameters, "test_pairs", reads_pairs)[0]
    if parameters.candidates:
        found.append(_check_candidates(parameters))
    location = None
    try:
        location, more = _check_model(parameters)
        found += more
    except (ModelError, OSError) as error:
        where = "" if str(error).startswith(("base_model", "fallback_model")) else "base_model: "
        found.append(Finding("problem", f"{where}{error}"))
    if rows and location and not any_problem(found):
        found.append(_check_vocabulary(location, rows))
    return Inputs(found, rows, location)


def _check_pairs(
    parameters: Parameters, name: str, read: bool
) -> tuple[list[Finding], Rows | None]:
    """Findings about the file that a parameter names, and its rows if it is to be read."""
    value = getattr(parameters, name)
    if not value:
        return [], None
    if value.startswith("hub:"):
        text = f"{name}: {value} is read from the Hub when the run starts; it was not checked"
        return [Finding("warning", text)], None
    path = project_path(value)
    if not path.is_file():
        return [_no_file(name, value)], None
    if not read:
        return [], None
    try:
        rows = read_rows(path, parameters.columns, label_map=parameters.label_map)
    except (PairsError, OSError) as error:
        return [Finding("problem", f"{name}: {error}")], None
    shown, seen = display_path(path), len(rows.good) + len(rows.bad)
    extent = f"all {seen:,}" if rows.whole else f"the first {seen:,} of {rows.estimated:,}"
    if not seen:
        return [Finding("problem", f"{name}: {shown} has no row", "give a file with pairs")], None
    if scale := other_scale(rows.good, rows.bad):
        return [Finding("problem", f"{name}: {shown}: {scale}")], None
    if not rows.bad:
        return [Finding("note", f"{name}: {extent} rows of {shown} can be used")], rows
    examples = "; ".join(map(str, rows.bad[:BAD_ROWS_SHOWN]))
    text = f"{name}: {len(rows.bad):,} of {extent} rows of {shown} cannot be used, first {examples}"
    if not rows.good:
        return [Finding("problem", text, remedy(rows.bad) or "correct them")], None
    if parameters.on_bad_rows == "fail":
        return [Finding("problem", text, "correct them, or set on_bad_rows: report")], rows
    return [Finding("warning", text, remedy(rows.bad))], rows


def _no_file(name: str, value: str) -> Finding:
    near = Path(value).resolve()
    hint = f"; did you mean {near}?" if near.is_file() else ""
    text = f"{name}: there is no file {value!r} (relative paths start at the project's root){hint}"
    return Finding("problem", text)


def read_rows(
    path: Path, columns: dict[str, str], limit: int = ROWS_READ, *, label_map: str = ""
) -> Rows:
    """The rows of a file, read and checked; of a longer one than `limit`, the first.

    Raises:
        PairsError: the file cannot be read or lacks a column.
    """
    names = dict(zip(COLUMNS, COLUMNS, strict=True)) | columns
    good, bad = check_rows(itertools.islice(file_records(path, names), limit + 1), label_map)
    count = len(good) + len(bad)
    if count <= limit:
        return Rows(good, bad, True, count)
    mean = sum(len(f"{row[1]}{row[2]}".encode()) + 8 for row in good) / max(1, len(good))
    return Rows(good, bad, False, max(count, round(path.stat().st_size / max(1.0, mean))))


def _check_candidates(parameters: Parameters) -> Finding:
    value = parameters.candidates
    if not project_path(value).exists():
        return _no_file("candidates", value)
    from workbench.data.list_files import read_test

    try:
        counts = read_test(value, parameters.seed).recipe
    except (OSError, ValueError) as error:
        return Finding("problem", f"candidates: {error}")
    text = f"candidates: {counts['queries']:,} queries with {counts['candidates']:,} candidates"
    return Finding("note", text)


def _check_model(parameters: Parameters) -> tuple[ModelLocation | None, list[Finding]]:
    name, revision = parameters.base_model, parameters.base_revision
    fallback = parameters.fallback_model
    if not is_hub_name(name):
        parent, _, rest = name.partition("/")
        inside = parent and rest and parent != "." and project_path(parent).is_dir()
        if inside and not project_path(name).is_dir():
            raise ModelError(f"base_model: there is no folder {name!r}")
        return find_model(name), []
    if fallback and is_hub_name(fallback):
        raise ModelError(f"fallback_model {fallback!r} is on the Hub too, so it is none")
    if hub_state(name, revision) == "reachable":
        text = f"base_model: {name} will be fetched from the Hub when the run starts"
        return None, [Finding("note", text)]
    location = find_model(name, revision, fallback)
    stands_in = location.name != name
    return location, [Finding("warning", f"base_model: {location}")] * stands_in


def _check_vocabulary(location: ModelLocation, rows: Rows) -> Finding:
    import pandas as pd

    from workbench.models import load_tokenizer
    from workbench.vocabulary.coverage import repair_outlook, vocabulary_verdict

    chosen = random.Random(0).sample(rows.good, min(SAMPLE_PAIRS, len(rows.good)))
    pairs = pd.DataFrame(chosen, columns=["line", *COLUMNS])
    try:
        verdict = vocabulary_verdict(repair_outlook(pairs, pairs, load_tokenizer(location)))
    except ModelError as error:
        return Finding("problem", f"base_model: {error}")
    text = f"vocabulary: {verdict['colour']}. {verdict['why']}"
    if len(chosen) < len(rows.good) or not rows.whole:
        text += f" (on a sample of {len(chosen):,} pairs; notebook 1 judges all of them)"
    if verdict["colour"] == "green":
        return Finding("note", text)
    return Finding("warning", text, verdict["action"])


def _check_test_split(parameters: Parameters, acts: list[str], rows: Rows | None) -> list[Finding]:
    """Whether notebook 4 will have something to rank."""
    found = []
    if rows and (share := rows.positive_share) in (0, 1):
        which = "positive" if share else "negative"
        text = f"pairs: every label is {which}, so there is nothing to tell apart"
        found.append(Finding("warning", text))
    if "04" not in acts or parameters.candidates:
        return found
    if "01" not in acts:
        if RunFolder(parameters.base_model).split("test").is_file():
            return found
        text = "--only 04: there is nothing to rank, for this run has no data"
        fix = "give candidates, or have it prepare data as well (--only 01,04)"
        return [*found, Finding("problem", text, fix)]
    if rows is None or parameters.test_pairs:
        return found
    fix = "give candidates, more pairs or a larger test_share, or leave out notebook 4 (--only)"
    pairs = parameters.test_share * min(rows.estimated, parameters.max_pairs or rows.estimated)
    expected = pairs * rows.positive_share
    if int(pairs) < 1 or (not rows.positive_share and rows.whole):
        text = "the test split will hold no positive pair, so there is nothing to rank"
        found.append(Finding("problem", text, fix))
    elif expected < 10:
        text = f"the test split will hold about {expected:.0f} positive pairs: too few for a claim"
        found.append(Finding("warning", text, fix))
    return found


class Estimate(NamedTuple):
    """What a run will take at most."""

    pairs: int  # training pairs in one epoch, mined ones included
    steps: int  # optimizer steps, a lexical warm-up included
    disk: int  # bytes of the run folder at its largest
    kept: int  # bytes of the run folder when it is done


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
    warm_up = math.ceil(parameters.lexical_pairs / parameters.batch_size)
    kept = model_bytes * (len(stages) + parameters.snapshots) + data_bytes + OTHER_BYTES
    checkpoints = min(CHECKPOINTS_KEPT, max(*stages, warm_up) // parameters.checkpoint_steps)
    spare = model_bytes * (1 + 3 * checkpoints + bool(warm_up))
    return Estimate(pairs, sum(stages) + warm_up, kept + spare, kept)


def _check_disk(
    parameters: Parameters, rows: Rows, location: ModelLocation, place: Path
) -> list[Finding]:
    """How long the training is and how much room it needs, and whether the disk has that."""

    def size(count: int) -> str:
        return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{math.ceil(count / 1e6)} MB"

    count = round(rows.estimated * len(rows.good) / (len(rows.good) + len(rows.bad)))
    weights = sum(file.stat().st_size for file in location.path.glob("*.safetensors"))
    data = project_path(parameters.pairs).stat().st_size
    need = estimate(parameters, count, rows.positive_share, weights, data)
    text = (
        f"at most {need.pairs:,} training pairs an epoch, {need.steps:,} steps, "
        f"{size(need.kept)} on the disk ({size(need.disk)} while it trains)"
    )
    found = [Finding("note", text)]
    free = shutil.disk_usage(place).free
    if free < need.disk:
        text = (
            f"the disk of {display_path(place)} has {size(free)} left, and the run needs "
            f"{size(need.disk)} for model and checkpoints"
        )
        fix = "make room, choose another --runs-dir, or ask for fewer snapshots"
        found.append(Finding("problem", text, fix))
    return found
