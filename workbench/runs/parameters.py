"""The parameters of a run: names, types, ranges, defaults and help, checked before anything starts.

A test compares the notebooks' `parameters` cells with them.
"""

import difflib
import glob
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, ValidationInfo, field_validator
from yaml.constructor import ConstructorError

from workbench import files
from workbench.data.readers import FORMATS, read_label_map, suffix_of
from workbench.files import RequestError, comma_separated, display_path
from workbench.models import BUNDLED_MODEL, REFERENCE_MODEL
from workbench.ranking.metrics import METRICS
from workbench.training.recipe import Recipe, read_stages, setting

MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 20  # lists and mappings inside one another
PATH_LISTS = {"compare_runs", "zero_shot"}  # separated by commas, or a list
PATHS = {"pairs", "test_pairs", "candidates", "base_model", "fallback_model", "dictionary"}
PATHS |= PATH_LISTS
READERS: Any = {"label_map": read_label_map, "stages": read_stages}  # of texts with a form


class Parameters(Recipe):
    """What can be asked of a run: its recipe, and the rest; paths start at the project's root."""

    run_dir: str = setting("runs/notebook", "the run's folder; relative to the project's root")
    pairs: str = setting(
        "data/sample_pairs.csv", "pairs or lists: path, or hub:name[:config][:split]", min_length=1
    )
    sentence_0_column: str = setting("sentence_0", "the column of the query", min_length=1)
    sentence_1_column: str = setting("sentence_1", "the column of the candidate", min_length=1)
    label_column: str = setting("label", "the column of the relevance in [0, 1]", min_length=1)
    label_map: str = setting("", "for labels on another scale: each with its value in [0, 1]")
    on_bad_rows: Literal["report", "fail"] = setting("report", "report: set them aside; fail: stop")
    test_pairs: str = setting("", "a file of pairs to test on; empty: a share of the pairs")
    max_pairs: int = setting(0, "size of a random sample of the pairs; 0: all", ge=0)
    dev_share: float = setting(0.1, "share of the pairs for dev", ge=0, lt=1)
    test_share: float = setting(0.1, "share of the pairs for test", ge=0, lt=1)
    base_model: str = setting(REFERENCE_MODEL, "Hub name, bundled:, folder, or run", min_length=1)
    base_revision: str = setting("", "commit or tag of a Hub model; empty for the newest")
    fallback_model: str = setting(BUNDLED_MODEL, "used without the Hub; empty: fail")
    snapshots: int = setting(0, "models kept along the way, for a learning curve", ge=0, le=100)
    stages: str = setting("", "pairs of each stage, such as 2000,0,0; 0: all")
    checkpoint_steps: int = setting(500, "steps between two checkpoints", ge=1)
    resume: bool = setting(False, "go on from the last checkpoint of this run")
    card_samples: int = setting(3, "training pairs printed on the model card", ge=0, le=100)
    language: str = setting("", "of the texts, for the card, such as zh")
    license: str = setting("", "of the model, for the card, such as apache-2.0")
    dataset: str = setting("", "name of the data on the Hub, for the card")
    compare_runs: str = setting("", "other run folders, separated by commas")
    zero_shot: list[str] = setting([], "untrained bases to rank too, such as [owner/name]")
    window: int = setting(5, "log lines in the moving average of the loss", ge=1)
    candidates: str = setting("", "JSONL, CSV, TSV, Parquet, or folder of TREC files; empty: built")
    list_size: int = setting(30, "candidates in a list built from the test split", ge=2)
    ties: Literal["expected", "worst"] = setting(
        "expected", "expected: average over tied orders; worst: irrelevant ones first"
    )
    backend: Literal["auto", "predict", "torch-float32", "torch-bfloat16", "onnx", "onnx-int8"] = (
        setting("auto", "how models are run; auto: the fastest that ranks as float32 does")
    )
    resamples: int = setting(10_000, "draws of an interval, flips of a test", ge=100, le=1_000_000)
    metric: Literal[METRICS] = setting(  # type: ignore[valid-type]
        "ndcg@10", "or mrr@10, map, ap, roc_auc, f1, ...: what chooses the best run"
    )
    query: str = setting("怎么开通会员", "a query of your own, ranked at the end", min_length=1)

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what cannot have been meant, though its type might take it."""
        name = str(info.field_name)
        if isinstance(value, bool) and cls.model_fields[name].annotation in (int, float):
            raise ValueError("must be a number")  # True would count as 1
        if isinstance(value, str) and name != "query" and any(ord(c) < 32 for c in value):
            raise ValueError("holds a line break or another control character")
        if isinstance(value, str) and name in READERS:
            READERS[name](value)
        return comma_separated(value) if isinstance(value, str) and name == "zero_shot" else value

    @property
    def columns(self) -> dict[str, str]:
        """The source's column names, as `read_pairs` takes them."""
        roles = ("sentence_0", "sentence_1", "label")
        return {role: getattr(self, f"{role}_column") for role in roles}


def given_parameters(
    path: str | Path | None, overrides: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """What a YAML file (see `read_settings`) and the overrides ask for, unchecked.

    Paths of inputs that are found in the working directory alone become absolute.
    """
    given = (read_settings(path) if path is not None else {}) | dict(overrides)
    for name in PATHS & given.keys():
        with suppress(ValueError, TypeError, AttributeError):  # the check of values explains it
            if isinstance(given[name], list):
                given[name] = list(map(files.found_name, given[name]))
            else:
                parts = given[name].split(",") if name in PATH_LISTS else [given[name]]
                given[name] = ",".join(map(files.found_name, parts))
    return given


def check_parameters(given: Mapping[str, Any]) -> Parameters:
    """The parameters; a `RequestError` with a line for each wrong name, type or range."""
    parameters, problems = sound_parameters(given)
    files.refuse(problems)
    return parameters


def sound_parameters(given: Mapping[str, Any]) -> tuple[Parameters, list[str]]:
    """The parameters with defaults in place of wrong values, and a line for each wrong one."""
    problems, sound, parameters = list[str](), dict(given), None
    while parameters is None:
        try:
            parameters = Parameters(**sound)
        except ValidationError as error:  # later ones only follow from what was left out
            problems = problems or [_explain(problem) for problem in error.errors()]
            faulty = {problem["loc"][0] for problem in error.errors()}
            sound = {name: value for name, value in sound.items() if name not in faulty}
    if parameters.dev_share + parameters.test_share >= 1:
        problems.append("dev_share and test_share: together they must stay below 1")
    return parameters, problems


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Parameters.model_fields, 1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if name in ("grid", "runs", "seeds", "search", "base"):
            hint = "; a file with it is for `workbench sweep`"
        shown = name[:80] if name.isprintable() else ascii(name)[:80]
        return f"{shown}: there is no such parameter{hint}"
    return reason(problem)


def reason(problem: Any) -> str:
    """One of the problems that pydantic has found: where, what, and the value."""
    where, text = ".".join(map(str, problem["loc"])), problem["msg"]
    text = text[:1].lower() + text[1:]
    if problem["type"] == "value_error":  # ours
        text = str(problem["ctx"]["error"])
        if text.startswith(where):  # and names the value too; or it is about the whole
            return text
    return f"{where}: {text}; it is {shortened(problem['input'])}"


def shortened(value: Any) -> str:
    """The value as Python writes it, cut after 80 characters; lone surrogates escaped."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file (see `found_path`); empty for a file without any value.

    Raises:
        RequestError: the file cannot be read, or holds anything but plain settings.
    """
    file = files.found_path(path)
    text, shown = _text(file, str(path)), display_path(file.resolve())
    try:
        value = yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark
        where = f"{shown}, line {mark.line + 1}, column {mark.column + 1}"
        raise RequestError(f"{where}: not readable YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line, character = text.count("\n", 0, error.position) + 1, ascii(chr(error.character))
        reason = f"not readable YAML: the character {character} is not allowed"
        raise RequestError(f"{shown}, line {line}: {reason}") from error
    except (ValueError, OverflowError) as error:  # a date or a number that Python cannot hold
        raise RequestError(f"{shown}: not readable YAML: {error}") from error
    if not isinstance(value, dict | None):
        hint = "; give a file of pairs as -p pairs FILE" if suffix_of(file)[0] in FORMATS else ""
        raise RequestError(f"{shown}: must hold lines of `name: value`; it is {value!r:.80}{hint}")
    return value or {}


def _text(file: Path, given: str) -> str:
    """The text of a file of settings, or why it cannot be one."""
    if file.is_symlink() and not file.exists():
        raise RequestError(f"{given}: is a link to {os.readlink(file)!r}, which is not there")
    if not file.is_file():
        reason = "is a folder or a device, not a file" if file.exists() else "there is no such file"
        near = files.project_root().glob(f"notebooks/*/{glob.escape(file.name)}")
        hint = "".join(f"; did you mean {display_path(one)}?" for one in near)
        raise RequestError(f"{given}: {reason}{hint}")
    try:
        if file.stat().st_size > MAX_YAML_BYTES:
            raise RequestError(f"{given}: has more than {MAX_YAML_BYTES:,} bytes")
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"{given}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        message = f"{given}, line {line}: not readable YAML: the file is {kind}; save it as UTF-8"
        raise RequestError(message) from error


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without tags, aliases, merge keys, repeated names and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, problem = self.peek_event(), ""
        self.depth += 1
        if event.anchor is not None:
            problem = f"the anchor or alias {event.anchor!r} is not allowed; write the value out"
        elif event.tag is not None:
            problem = f"the tag {event.tag} is not allowed; only plain values are"
        elif self.depth > MAX_YAML_DEPTH:
            problem = f"more than {MAX_YAML_DEPTH} lists and mappings inside one another"
        if problem:
            raise ConstructorError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Called for each mapping, to merge `<<` into it: here its names are checked instead."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                problem = f"{key.value!r} is not allowed here: every name must be a word"
            elif key.value in lines:
                problem = f"{key.value!r} stands on line {lines[key.value]} already"
            else:
                lines[key.value] = key.start_mark.line + 1
                continue
            raise ConstructorError(None, None, problem, key.start_mark)
