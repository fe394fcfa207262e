"""Preflight: what would make a run fail, found before it starts, all of it at once.

No model is loaded and nothing is left behind. A file of up to `ROWS_READ` rows is read and split
as notebook 1 will do it; of a larger one only the first rows are read, and the findings say so.
"""

import inspect
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.batch.worker import scratch_folder
from workbench.data import POSITIVE
from workbench.data.readers import (
    COLUMNS,
    BadRow,
    GoodRow,
    check_rows,
    file_records,
    other_scale,
    remedy,
)
from workbench.files import display_path, project_path, read_json
from workbench.machine import quick_in_bfloat16
from workbench.models import ModelError, ModelLocation, find_model, hub_state, is_hub_name
from workbench.run_folder import NOTEBOOKS, RequestError, RunFolder
from workbench.runs.folder import DATA_PARAMETERS, folder_problems
from workbench.runs.parameters import Parameters
from workbench.training.recipe import read_stages

if TYPE_CHECKING:
    import pandas as pd

ROWS_READ = 200_000  # in less than a second
BAD_ROWS_SHOWN = 3
SAMPLE_PAIRS = 4000  # that the vocabulary is judged on
FEW_POSITIVES = 10  # in the test split: too few for a claim
CHECKPOINTS_KEPT = 2  # each holds the weights and two numbers a weight for the optimizer
OTHER_BYTES = 20_000_000  # notebooks, figures, report, evaluation
PADDED = ("camembert", "roberta", "xlm-roberta")  # their positions begin after that of padding


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

    def frame(self) -> "pd.DataFrame":
        """The good rows, as notebook 1 sees them."""
        import pandas as pd

        return pd.DataFrame(self.good, columns=["line", *COLUMNS])


class Splits(NamedTuple):
    """What notebook 1 will make of the pairs, or about that, where only a part was read."""

    exact: bool
    train: int  # pairs
    train_positives: int
    test_positives: int


class Inputs(NamedTuple):
    """What was found out about files and base model: the slow part of a preflight."""

    findings: list[Finding]
    splits: Splits | None  # if the pairs can be used
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
    wrong = [number for number in only if number not in NOTEBOOKS]
    lines = [*problems]
    lines += [f"--only {number}: the notebooks are {', '.join(NOTEBOOKS)}" for number in wrong]
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
    numbers = [number for number in NOTEBOOKS if not only or number in only]
    prepared = folder.split("test").is_file() and (resume or "01" not in numbers)
    reads_pairs = not prepared and "01" in numbers
    names = (*DATA_PARAMETERS, "vocabulary")
    key = (reads_pairs, *numbers, *(getattr(parameters, name) for name in names))
    if key not in known:
        known[key] = _look_at_inputs(parameters, numbers, reads_pairs)
    findings, splits, location = known[key]
    found += findings
    nothing = not (prepared or "01" in numbers or parameters.candidates)
    if "04" in numbers and nothing and not RunFolder(parameters.base_model).split("test").is_file():
        text = "--only 04: there is nothing to rank, for this run has no data"
        fix = "give candidates, or have it prepare data as well (--only 01,04)"
        found.append(Finding("problem", text, fix))
    if splits and location and not any_problem(found):
        found += _check_disk(parameters, splits, location, place)
    if parameters.precision == "bfloat16" and "02" in numbers and not quick_in_bfloat16():
        text = "precision: bfloat16 is not faster than float32 on this processor"
        found.append(Finding("warning", text, "use precision: auto"))
    return found


def _look_at_inputs(parameters: Parameters, numbers: Sequence[str], reads_pairs: bool) -> Inputs:
    found: list[Finding] = []

    def tried(name: str, check: Callable[[], Any]) -> Any:
        """What a check returns; what it raises becomes a problem of the parameter."""
        try:
            return check()
        except (ValueError, OSError) as error:
            text = str(error)
            prefixed = text.startswith(("base_model", "fallback_model", f"{name}:"))
            found.append(Finding("problem", text if prefixed else f"{name}: {text}"))
            return None

    rows = tried("pairs", lambda: _check_pairs(parameters, "pairs", reads_pairs, found))
    tried("test_pairs", lambda: _check_pairs(parameters, "test_pairs", reads_pairs, found))
    tried("candidates", lambda: _check_candidates(parameters, found))
    location = tried("base_model", lambda: _check_model(parameters, found))
    splits = None
    if rows and not any_problem(found):
        checked = tried("pairs", lambda: _check_splits(parameters, numbers, rows, found))
        splits, train = checked or (None, rows.frame())
        if location:
            tried("base_model", lambda: _check_vocabulary(parameters, location, rows, train, found))
    return Inputs(found, splits, location)


def _check_pairs(
    parameters: Parameters, name: str, read: bool, found: list[Finding]
) -> Rows | None:
    """The rows of the file that a parameter names, if it is to be read and can be used."""
    value = getattr(parameters, name)
    if not value:
        return None
    if value.startswith("hub:"):
        text = f"{name}: {value} is read from the Hub when the run starts; it was not checked"
        found.append(Finding("warning", text))
        return None
    path = project_path(value)
    if not path.is_file():
        found.append(_no_file(name, value))
        return None
    if not read:
        return None
    rows = read_rows(path, parameters.columns, label_map=parameters.label_map)
    shown, seen = display_path(path), len(rows.good) + len(rows.bad)
    extent = f"all {seen:,}" if rows.whole else f"the first {seen:,} of about {rows.estimated:,}"
    if not seen:
        found.append(Finding("problem", f"{name}: {shown} has no row", "give a file with pairs"))
        return None
    if scale := other_scale(rows.good, rows.bad):
        found.append(Finding("problem", f"{name}: {shown}: {scale}"))
        return None
    if not rows.bad:
        rest = "" if rows.whole else "; the rest was not read"
        found.append(Finding("note", f"{name}: {extent} rows of {shown} can be used{rest}"))
        return rows
    examples = "; ".join(map(str, rows.bad[:BAD_ROWS_SHOWN]))
    text = f"{name}: {len(rows.bad):,} of {extent} rows of {shown} cannot be used, first {examples}"
    if not rows.good:
        found.append(Finding("problem", text, remedy(rows.bad) or "correct them"))
        return None
    if parameters.on_bad_rows == "fail":
        found.append(Finding("problem", text, "correct them, or set on_bad_rows: report"))
    else:
        found.append(Finding("warning", text, remedy(rows.bad)))
    return rows


def _no_file(name: str, value: str) -> Finding:
    text = f"{name}: there is no file {value[:200]!r} in the project's root or here"
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


def _check_candidates(parameters: Parameters, found: list[Finding]) -> None:
    value = parameters.candidates
    if not value:
        return
    if not project_path(value).exists():
        found.append(_no_file("candidates", value))
        return
    from workbench.data.list_files import read_test

    counts = read_test(value, parameters.seed).recipe
    text = f"candidates: {counts['queries']:,} queries with {counts['candidates']:,} candidates"
    found.append(Finding("note", text))


def _check_model(parameters: Parameters, found: list[Finding]) -> ModelLocation | None:
    name, revision = parameters.base_model, parameters.base_revision
    fallback = parameters.fallback_model
    if not is_hub_name(name):
        parent, _, rest = name.partition("/")
        inside = parent and rest and parent != "." and project_path(parent).is_dir()
        if inside and not project_path(name).is_dir():
            raise ModelError(f"base_model: there is no folder {name!r}")
        revision = fallback = ""
    elif fallback and is_hub_name(fallback):
        raise ModelError(f"fallback_model {fallback!r} is on the Hub too, so it is none")
    elif hub_state(name, revision) == "reachable":
        text = f"base_model: {name} will be fetched from the Hub when the run starts"
        found.append(Finding("note", text))
        return None
    location = find_model(name, revision, fallback)
    if location.asked != location.name and is_hub_name(name):
        found.append(Finding("warning", f"base_model: {location}"))
    config = read_json(location.path / "config.json", dict[str, Any])
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and longest > 0:
        padding = config.get("pad_token_id") or 0
        longest -= (padding + 1) * (config.get("model_type") in PADDED)
        if parameters.max_length > longest:
            text = f"max_length: the base model has positions for {longest:,} tokens, so pairs are "
            text += f"cut there and not at {parameters.max_length:,}"
            found.append(Finding("warning", text, f"set max_length: {longest}"))
    return location


def _check_splits(
    parameters: Parameters, numbers: Sequence[str], rows: Rows, found: list[Finding]
) -> tuple[Splits, "pd.DataFrame"]:
    """The splits and the training pairs, made as notebook 1 makes them if all rows are known."""
    from workbench.data.build_lists import build_test
    from workbench.data.splits import prepare_data, read_split

    share = sum(row[3] >= POSITIVE for row in rows.good) / len(rows.good)
    if share in (0, 1):
        which = "positive" if share else "negative"
        text = f"pairs: every label is {which}, so there is nothing to tell apart"
        found.append(Finding("warning", text))
    ranks = "04" in numbers and not parameters.candidates
    fix = "give candidates, more pairs or a larger test_share, or leave out notebook 4 (--only)"
    if rows.whole and not parameters.test_pairs.startswith("hub:"):
        names = inspect.signature(prepare_data).parameters.keys() & Parameters.model_fields.keys()
        given = {name: getattr(parameters, name) for name in names if name != "run_dir"}
        with scratch_folder() as place:
            prepare_data(place, columns=parameters.columns, **given)
            train, test = (read_split(place, name) for name in ("train", "test"))
        positives = int((test["label"] >= POSITIVE).sum())
        splits = Splits(True, len(train), int((train["label"] >= POSITIVE).sum()), positives)
        if "02" in numbers and train.empty:
            text = "pairs: no pair is left to train on, for all of them go to dev and test"
            found.append(Finding("problem", text, "give more pairs, or smaller shares"))
        if ranks and not positives:
            text = "the test split will hold no positive pair, so there is nothing to rank"
            found.append(Finding("problem", text, fix))
        elif ranks:
            build_test(test, parameters.list_size, parameters.seed)
    else:
        train = rows.frame()
        usable = rows.estimated * len(rows.good) / (len(rows.good) + len(rows.bad))
        used = min(usable, parameters.max_pairs or usable)
        tested = 0.0 if parameters.test_pairs else parameters.test_share
        pairs = round(used * (1 - parameters.dev_share - tested))
        splits = Splits(False, pairs, round(pairs * share), round(used * tested * share))
    if ranks and 0 < splits.test_positives < FEW_POSITIVES and not parameters.test_pairs:
        about = "" if splits.exact else "about "
        text = f"the test split will hold {about}{splits.test_positives} positive pairs: too few "
        found.append(Finding("warning", f"{text}for a claim", fix))
    return splits, train


def _check_vocabulary(
    parameters: Parameters,
    location: ModelLocation,
    rows: Rows,
    train: "pd.DataFrame",
    found: list[Finding],
) -> None:
    from workbench.models import load_tokenizer
    from workbench.vocabulary.coverage import repair_outlook, vocabulary_verdict

    pairs, how = rows.frame(), parameters.vocabulary
    sampled = not rows.whole or len(pairs) > SAMPLE_PAIRS
    if sampled:
        pairs = train = pairs.sample(min(SAMPLE_PAIRS, len(pairs)), random_state=0)
    outlook = repair_outlook(pairs, train, load_tokenizer(location))
    part = f" (on a sample of {len(pairs):,} pairs; notebook 1 judges all of them)" * sampled
    if how == "keep":
        verdict = vocabulary_verdict(outlook)
        text = f"vocabulary: {verdict['colour']}. {verdict['why']}{part}"
        level = "note" if verdict["colour"] == "green" else "warning"
        found.append(Finding(level, text, verdict["action"] * (level == "warning")))
    elif "refused" in outlook[how]:
        raise ModelError(outlook[how]["refused"])
    else:
        before, after = (f"{outlook[name]['unk_share']:.2%}" for name in ("keep", how))
        text = f"vocabulary: {how} adds {outlook[how]['added']:,} tokens; {after} of all "
        text += f"tokens stay unknown (without it {before}){part}"
        found.append(Finding("note", text))


class Estimate(NamedTuple):
    """What a run will take."""

    pairs: int  # training pairs in one epoch, mined ones included
    steps: int  # optimizer steps, a lexical warm-up included
    disk: int  # bytes of the run folder at its largest
    kept: int  # bytes of the run folder when it is done


def estimate(parameters: Parameters, splits: Splits, model_bytes: int, data_bytes: int) -> Estimate:
    """What a run will take, from what is known before it.

    Args:
        parameters: of the run.
        splits: how many pairs it trains on, and how many of them are positive.
        model_bytes: the base model's weights.
        data_bytes: the file of pairs.
    """
    train, positives = splits.train, splits.train_positives
    pairs = train + positives * parameters.symmetric + 2 * positives * parameters.hard_negatives
    sizes = [min(size, train) or train for size in read_stages(parameters.stages)]
    stages = [
        math.ceil(
            math.ceil(pairs * size / max(1, train) / parameters.batch_size) * parameters.epochs
        )
        for size in sizes
    ]
    warm_up = math.ceil(parameters.lexical_pairs / parameters.batch_size)
    kept = model_bytes * (len(stages) + parameters.snapshots) + data_bytes + OTHER_BYTES
    checkpoints = min(CHECKPOINTS_KEPT, max(*stages, warm_up) // parameters.checkpoint_steps)
    spare = model_bytes * (1 + 3 * checkpoints + bool(warm_up))
    return Estimate(pairs, sum(stages) + warm_up, kept + spare, kept)


def _check_disk(
    parameters: Parameters, splits: Splits, location: ModelLocation, place: Path
) -> list[Finding]:
    """How long the training is and how much room it needs, and whether the disk has that."""

    def size(count: int) -> str:
        return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{math.ceil(count / 1e6)} MB"

    weights = sum(file.stat().st_size for file in location.path.glob("*.safetensors"))
    need = estimate(parameters, splits, weights, project_path(parameters.pairs).stat().st_size)
    text = (
        f"about {need.pairs:,} training pairs an epoch, {need.steps:,} steps, "
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
