"""Preflight: what would make a run fail, found before it starts, all of it at once.

No model is loaded and nothing is left behind. A file of up to `ROWS_READ` rows is read and split
as notebook 1 will do it; of a larger one only the first rows are read, and the findings say so.
"""

import inspect
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from workbench import files, models
from workbench.data import POSITIVE
from workbench.data.build_lists import build_test
from workbench.data.lists import read_test
from workbench.data.pairs import SPLITS, LabelledPairs, prepare_data, read_pairs, read_split
from workbench.data.readers import PairsError, remedy
from workbench.data.texts import distinct_texts
from workbench.files import RequestError
from workbench.machine import quick_in_bfloat16
from workbench.ranking.ladder import further_models
from workbench.run_folder import NOTEBOOKS, RunFolder
from workbench.runs.folder import DATA_PARAMETERS, folder_problems
from workbench.runs.parameters import Parameters
from workbench.scoring.backends import EXPORTED
from workbench.training.examples import check_training
from workbench.training.recipe import KEPT_CHECKPOINTS, read_stages
from workbench.vocabulary.coverage import repair_outlook, vocabulary_verdict
from workbench.vocabulary.repair import check_repair
from workbench.vocabulary.tokens import count_tokens

ROWS_READ = 200_000  # in less than a second
SAMPLE_PAIRS = 4000  # that the vocabulary is judged on
FEW_POSITIVES = 10  # in the test split: too few for a claim
# what a message may begin with, if not with the name of what was looked at
OWN_NAMES = ("base_model", "fallback_model", "dictionary", "teacher", "backend", "zero_shot")
NO_FILE = "there is no file {!r} in the project's root or here"
OTHER_BYTES = 20_000_000  # notebooks, figures, report, evaluation


class Finding(NamedTuple):
    """One line of a preflight: a `problem` (nothing may start), a `warning` or a `note`."""

    level: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """The finding with what to do about it."""
        return f"{self.text} -> {self.fix}" if self.fix else self.text


Findings = list[Finding]


def any_problem(findings: Iterable[Finding]) -> bool:
    """Whether something would make the run fail."""
    return any(finding.level == "problem" for finding in findings)


def refuse_problems(findings: Findings) -> None:
    """Print notes and warnings; raise the problems, if there are any, as a `RequestError`."""
    for finding in findings:
        if finding.level != "problem":
            print(f"{finding.level}: {finding}", flush=True)
    files.refuse(str(finding) for finding in findings if finding.level == "problem")


class Data(NamedTuple):
    """The splits that notebook 1 will make; of a large file, of its first rows."""

    splits: dict[str, pd.DataFrame]
    scale: float = 1.0  # rows of the file for each that was read; 1 for all of them


def preflight(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    problems: Sequence[str] = (),
    known: dict[Any, Any] | None = None,
) -> Findings:
    """Everything that can be found out about a request without carrying it out.

    It is about what `run_chain` would be asked. The `problems` of its values, see
    `sound_parameters`, come first; `known` is what was found out about inputs that other runs
    share, and is added to.
    """
    folder, known = RunFolder(run_dir), {} if known is None else known
    wrong = [number for number in only if number not in NOTEBOOKS]
    lines = [*problems]
    lines += [f"--only {number}: the notebooks are {', '.join(NOTEBOOKS)}" for number in wrong]
    lines += folder_problems(parameters, folder.path, only, resume)
    found = [Finding("problem", line) for line in lines]
    place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()  # has no name where the system can do without
    except OSError as error:
        text = f"{files.display_path(place)} cannot be written to ({error.strerror})"
        fix = "change its permissions, make room, or choose another --runs-dir"
        found.append(Finding("problem", text, fix))

    def tried(name: str, check: Callable[[Findings], Any], *key: Any) -> Any:
        """What a check returns; what it raises is a problem. Checks with a key are made once."""
        if (name, *key) not in known:
            value, said = None, Findings()
            try:
                value = check(said)
            except (ValueError, OSError) as error:
                own = str(error).startswith((*OWN_NAMES, f"{name}:"))
                said.append(Finding("problem", str(error) if own else f"{name}: {error}"))
            known[name, *key] = value, said
        value, said = known[name, *key] if key else known.pop((name,))
        found.extend(said)
        return value

    numbers = [number for number in NOTEBOOKS if not only or number in only]
    key = (*numbers, *(getattr(parameters, name) for name in DATA_PARAMETERS))
    whole = folder.split("test").is_file() and folder.manifest.is_file()
    prepared = whole and (resume or "01" not in numbers)
    if prepared:
        data = tried("data", lambda _: Data({n: read_split(folder.path, n) for n in SPLITS}))
    else:
        data = tried("pairs", partial(_look_at_pairs, parameters, "01" in numbers), "01", *key)
    tried("candidates", partial(_look_at_candidates, parameters), *key)
    location = tried("base_model", partial(_look_at_model, parameters), *key)
    for base in parameters.zero_shot if "04" in numbers else []:
        tried("zero_shot", partial(_look_at_base, base), base)
    tried("compare_runs", partial(_look_at_others, parameters, numbers))
    other = RunFolder(parameters.base_model).split("test").is_file()
    for number, before, there, purpose in (
        ("02", "01", prepared, "train on, for this run has no data"),
        ("03", "02", folder.training_log.is_file(), "plot, for this run has not been trained"),
        ("04", "01", prepared or parameters.candidates or other, "rank, for this run has no data"),
    ):
        if number in numbers and before not in numbers and not there:
            text = f"--only {number}: there is nothing to {purpose}"
            fix = f"run notebook {before} as well (--only {before},{number})"
            found.append(Finding("problem", text, fix + ", or give candidates" * (number == "04")))
    if data and "02" in numbers:
        on_hub = parameters.pairs.startswith("hub:")
        origin = None if on_hub else (parameters.pairs, parameters.columns)
        train, sizes = data.splits["train"], read_stages(parameters.stages)
        tried("pairs", lambda _: check_training(train, parameters, sizes, origin))
    if data and "04" in numbers and not parameters.candidates:
        tried("pairs", partial(_look_at_test, parameters, data))
    if location and "02" in numbers and parameters.vocabulary != "keep":
        asked = parameters.vocabulary, parameters.new_embeddings, parameters.dictionary
        tried("base_model", lambda _: check_repair(models.load_tokenizer(location), *asked))
    if location and not any_problem(found):  # with torch it takes seconds, so it comes last
        look = partial(_look_at_weights, parameters, location)
        tried("base_model", look, "weights", parameters.backend, *key)
    if "04" in numbers and "02" not in numbers and folder.model.is_dir():
        tried("model", lambda _: models.check_model(models.find_model(str(folder.path))))
    if data and location and not prepared and not any_problem(found):
        look = partial(_look_at_vocabulary, parameters, location, data)
        tried("base_model", look, parameters.vocabulary, *key)
        tried("disk", partial(_look_at_disk, parameters, location, place, data))
    if parameters.precision == "bfloat16" and "02" in numbers and not quick_in_bfloat16():
        text = "precision: bfloat16 is not faster than float32 on this processor"
        found.append(Finding("warning", text, "use precision: auto"))
    # of a request that is wrong in itself, notes and warnings would be about the defaults
    return [one for one in found if one.level == "problem"] if problems else found


def _look_at_pairs(parameters: Parameters, read: bool, said: Findings) -> Data | None:
    """The splits of the pairs, if they are to be read and can be used."""
    pairs, count = _read(parameters, "pairs", read, said)
    test, _ = _read(parameters, "test_pairs", read, said)
    if pairs is None or any_problem(said):
        return None
    names = set(inspect.signature(prepare_data).parameters) - {"run_dir"}
    given = parameters.model_dump(include=names)
    given |= {"pairs": pairs, "columns": parameters.columns, "test_pairs": test or ""}
    given["test_share"] *= not parameters.test_pairs  # they may be on the Hub, and not read
    with files.scratch_folder() as place:
        prepare_data(place, **given)
        splits = {name: read_split(place, name) for name in SPLITS}
    used = min(count, parameters.max_pairs or count)
    return Data(splits, max(1.0, used / pairs.rows_read))


def _read(
    parameters: Parameters, name: str, read: bool, said: Findings
) -> tuple[LabelledPairs | None, int]:
    """The first pairs that a parameter names, if they can be used, and about how many there are."""
    value = getattr(parameters, name)
    if value.startswith("hub:"):
        text = f"{name}: {value} is read from the Hub when the run starts; it was not checked"
        said.append(Finding("warning", text))
        if not value.removeprefix("hub:").strip(" :"):
            said.append(Finding("problem", f"{name}: {value!r} names no data set"))
    elif value and not ((path := files.project_path(value)).is_file() or path.is_dir()):
        said.append(Finding("problem", f"{name}: {NO_FILE.format(value[:200])}"))
    elif value and read:
        options = parameters.columns, parameters.on_bad_rows, parameters.label_map
        try:
            pairs = read_pairs(path, *options, limit=ROWS_READ)
        except PairsError as error:
            text, arrow, fix = f"{name}: {error}".rpartition(" -> ")
            said.append(Finding("problem", text, fix) if arrow else Finding("problem", fix))
            return None, 0
        count = seen = pairs.rows_read
        if seen == ROWS_READ:
            texts = pairs.frame["sentence_0"] + pairs.frame["sentence_1"]
            mean = 8 + texts.str.encode("utf-8").str.len().mean()
            count = max(seen, round(path.stat().st_size / mean))
        extent = f"all {seen:,}" if seen == count else f"the first {seen:,} of about {count:,}"
        if bad := pairs.bad_rows:
            said.append(Finding("warning", f"{name}: {pairs.unusable(extent)}", remedy(bad)))
        else:
            text = f"{name}: {extent} rows of {pairs.source} can be used"
            said.append(Finding("note", text + "; the rest was not read" * (seen < count)))
        return pairs, count
    return None, 0


def _look_at_candidates(parameters: Parameters, said: Findings) -> None:
    if (value := parameters.candidates) and not files.project_path(value).exists():
        raise RequestError(NO_FILE.format(value[:200]))
    elif value:
        counts = read_test(value, parameters.seed).recipe
        text = f"candidates: {counts['queries']:,} queries with {counts['candidates']:,} candidates"
        said.append(Finding("note", text))


def _look_at_base(base: str, _: Findings) -> None:
    if not models.must_be_fetched(base):
        models.find_model(base)


def _look_at_others(parameters: Parameters, numbers: Sequence[str], _: Findings) -> None:
    """Whether the logs of other runs can be drawn, and their models ranked under their names."""
    for run in files.comma_separated(parameters.compare_runs):
        if "03" in numbers and not RunFolder(run).training_log.is_file():
            raise RequestError(f"{run!r} is no run with a training log")
        if "04" in numbers:
            models.find_model(run)
    if "04" in numbers:
        further_models(parameters.compare_runs, parameters.zero_shot)
    if "04" in numbers and "02" in numbers and parameters.backend in EXPORTED:
        raise RequestError(
            f"backend: {parameters.backend} runs what was exported, and the model is yet to be "
            "trained -> take auto"
        )


def _look_at_model(parameters: Parameters, said: Findings) -> models.ModelLocation | None:
    """Where the base model is, if it is on this machine."""
    name, revision = parameters.base_model, parameters.base_revision
    fallback = parameters.fallback_model
    if fallback and models.is_hub_name(name) and models.is_hub_name(fallback):
        raise models.ModelError(f"fallback_model {fallback!r} is on the Hub too, so it is none")
    if models.must_be_fetched(name, revision):
        text = f"base_model: {name} will be fetched from the Hub when the run starts"
        said.append(Finding("note", text))
        return None
    location = models.find_model(name, revision, fallback)
    if location.asked != location.name:
        said.append(Finding("warning", f"base_model: {location}"))
    return location


def _look_at_weights(
    parameters: Parameters, location: models.ModelLocation, said: Findings
) -> None:
    """Whether the library can load the model; that of the bundled one is known by its bytes."""
    if location.kind != "bundled":
        models.check_model(location)
    config = files.read_json(location.path / "config.json", dict[str, Any])
    if parameters.backend.startswith("torch-") and config.get("model_type") != "bert":
        raise models.ModelError(f"backend: {parameters.backend} runs BERT alone -> take auto")
    length = models.position_limit(config)
    if length < parameters.max_length:
        text = f"max_length: the base model has positions for {length:,} tokens, so pairs are cut "
        text += f"there and not at {parameters.max_length:,}"
        said.append(Finding("warning", text, f"set max_length: {length}"))


def _look_at_test(parameters: Parameters, data: Data, said: Findings) -> None:
    test, whole = data.splits["test"], data.scale == 1
    positives = round((test["label"] >= POSITIVE).sum() * data.scale)
    if parameters.test_pairs.startswith("hub:"):
        return
    if whole:
        build_test(test, parameters.list_size, parameters.seed)
    if positives < FEW_POSITIVES and not parameters.test_pairs:
        text = f"the test split will hold {'about ' * (not whole)}{positives} positive pairs: too "
        fix = "give candidates, more pairs or a larger test_share, or leave out notebook 4 (--only)"
        said.append(Finding("warning", f"{text}few for a claim", fix))


def _look_at_vocabulary(
    parameters: Parameters, location: models.ModelLocation, data: Data, said: Findings
) -> None:
    pairs, train = pd.concat(data.splits.values(), ignore_index=True), data.splits["train"]
    how, sampled = parameters.vocabulary, data.scale > 1 or len(pairs) > SAMPLE_PAIRS
    if sampled:
        pairs = train = pairs.sample(min(SAMPLE_PAIRS, len(pairs)), random_state=0)
    tokenizer = models.load_tokenizer(location)
    counts = count_tokens(tokenizer, distinct_texts(pairs))
    texts = distinct_texts(train)
    outlook, _ = repair_outlook(tokenizer, counts, pairs, texts, parameters.dictionary)
    part = f" (on a sample of {len(pairs):,} pairs; notebook 1 judges all of them)" * sampled
    if how == "keep":
        verdict = vocabulary_verdict(outlook)
        text = f"vocabulary: {verdict['colour']}. {verdict['why']}{part}"
        level = "note" if verdict["colour"] == "green" else "warning"
        said.append(Finding(level, text, verdict["action"] * (level == "warning")))
    else:
        before, after = (files.percent(outlook[name]["unk_share"], 2) for name in ("keep", how))
        text = f"vocabulary: {how} adds {outlook[how]['added']:,} tokens; {after} of all "
        text += f"tokens stay unknown (without it {before}){part}"
        said.append(Finding("note", text))


def estimate(
    parameters: Parameters, train: int, positives: int, model_bytes: int, data_bytes: int
) -> tuple[int, int, int, int]:
    """Training pairs and steps of a run; bytes of its folder when it is done, and at its largest.

    `train` pairs are in its train split; the bytes are of the base's weights and the file of pairs.
    """
    pairs = train + positives * parameters.symmetric + 2 * positives * parameters.hard_negatives
    sizes = [min(size, train) or train for size in read_stages(parameters.stages)]
    stages = [parameters.steps(math.ceil(pairs * size / max(1, train))) for size in sizes]
    warm_up = math.ceil(parameters.lexical_pairs / parameters.batch_size)
    kept = model_bytes * (len(stages) + parameters.snapshots) + data_bytes + OTHER_BYTES
    checkpoints = min(KEPT_CHECKPOINTS, max(*stages, warm_up) // parameters.checkpoint_steps)
    spare = model_bytes * (1 + 3 * checkpoints + bool(warm_up))
    return pairs, sum(stages) + warm_up, kept, kept + spare


def _look_at_disk(
    parameters: Parameters, location: models.ModelLocation, place: Path, data: Data, said: Findings
) -> None:
    def size(count: int) -> str:
        return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{math.ceil(count / 1e6)} MB"

    weights = sum(file.stat().st_size for file in models.weight_files(location.path))
    labels = data.splits["train"]["label"]
    train, positives = (round(data.scale * n) for n in (len(labels), (labels >= POSITIVE).sum()))
    file = files.project_path(parameters.pairs).stat().st_size
    pairs, steps, kept, need = estimate(parameters, train, positives, weights, file)
    text = f"about {pairs:,} training pairs an epoch, {steps:,} steps, {size(kept)} on the disk "
    said.append(Finding("note", f"{text}({size(need)} while it trains)"))
    if (free := shutil.disk_usage(place).free) < need:
        text = f"the disk of {files.display_path(place)} has {size(free)} left, and the run needs "
        fix = "make room, choose another --runs-dir, or ask for fewer snapshots"
        said.append(Finding("problem", f"{text}{size(need)} for model and checkpoints", fix))
