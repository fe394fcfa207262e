"""The parameters of a run: names, types, ranges and defaults, checked before anything starts.

The notebooks' own `parameters` cells repeat names, types and defaults; a test keeps them equal.
"""

import difflib
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from workbench.files import display_path, project_path

LARGEST = 1_000_000  # bytes


DEEPEST = 20  # mappings and lists inside one another


PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp")
}


class SettingsError(ValueError):
    """A file of settings cannot be used; the message names file, line and column."""


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for a file without any value.

    Args:
        path: as given by a person: from the working directory, or else from the project's root.

    Raises:
        SettingsError: it cannot be read, or holds anything but plain settings.
    """
    file = Path(path) if Path(path).is_file() else project_path(path)
    text = _text(file, str(path))
    shown = display_path(file.resolve())
    try:
        value = _PlainLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context
        raise SettingsError(f"{shown}{where}: not readable YAML: {reason}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(
            f"{shown}, line {line}: not readable YAML: the character {chr(error.character)!a} is "
            "not allowed"
        ) from error
    except (ValueError, OverflowError) as error:  # a date or a number that Python cannot hold
        raise SettingsError(f"{shown}: not readable YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(
            f"{shown}: must hold lines of `name: value`, not a {type(value).__name__}"
        )
    return value


def _text(file: Path, given: str) -> str:
    if file.is_symlink() and not file.exists():
        raise SettingsError(f"{given}: is a link to {os.readlink(file)!r}, which is not there")
    if not file.exists():
        raise SettingsError(f"{given}: there is no such file")
    if not file.is_file():
        raise SettingsError(f"{given}: is a folder or a device, not a file")
    try:
        if file.stat().st_size > LARGEST:
            raise SettingsError(
                f"{given}: has more than {LARGEST:,} bytes; no file of settings has"
            )
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{given}: cannot be read ({error.strerror})") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SettingsError(f"{given}: not readable YAML: the file is UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{given}, line {line}: not readable YAML: not UTF-8; save the file as UTF-8"
        ) from error


class _PlainConstructor(SafeConstructor):
    """Refuses a name that stands twice in one mapping, which PyYAML silently overwrites."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, MappingNode):
            seen: dict[str, Any] = {}
            for key, _ in node.value:
                name = key.value
                if key.tag != "tag:yaml.org,2002:str":
                    raise ConstructorError(None, None, "every name must be a word", key.start_mark)
                if name in seen:
                    first = seen[name].line + 1
                    raise ConstructorError(
                        None, None, f"{name!r} stands on line {first} already", key.start_mark
                    )
                seen[name] = key.start_mark
        return super().construct_mapping(node, deep=deep)


class _PlainLoader(Reader, Scanner, Parser, Composer, _PlainConstructor, Resolver):
    """PyYAML's safe loader without aliases, tags, merge keys and deep nesting."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _PlainConstructor.__init__(self)
        Resolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            problem = f"the anchor or alias {event.anchor!r} is not allowed; write the value out"
            raise ConstructorError(None, None, problem, event.start_mark)
        self.depth += 1
        if self.depth > DEEPEST:
            problem = f"more than {DEEPEST} lists and mappings inside one another"
            raise ConstructorError(None, None, problem, event.start_mark)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag not in PLAIN_TAGS:
            problem = f"{node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed; only plain"
            raise ConstructorError(None, None, f"{problem} values are", node.start_mark)
        return node


_PlainLoader.add_constructor(None, None)  # no tag but the plain ones, checked above


class ParameterError(ValueError):
    """The request is wrong; the message names every parameter at fault and what would be right."""


def _metric(name: str) -> str:
    from workbench.ranking.metrics import METRICS  # numpy, which `--help` need not load

    if name not in METRICS:
        raise PydanticCustomError("metric", f"Input should be one of {', '.join(METRICS)}")
    return name


class Parameters(BaseModel):
    """What can be asked of a run; relative paths start at the project's root."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_dir: str = Field("runs/notebook", description="the run's folder")
    pairs: str = Field("data/sample_pairs.csv", min_length=1, description="labelled pairs")
    sentence_0_column: str = Field("sentence_0", min_length=1, description="column of the query")
    sentence_1_column: str = Field("sentence_1", min_length=1, description="of the candidate")
    label_column: str = Field("label", min_length=1, description="column of the label")
    on_bad_rows: Literal["report", "fail"] = "report"
    test_pairs: str = Field("", description="labelled pairs to test on; empty: a share of pairs")
    max_pairs: int = Field(0, ge=0, description="random sample of so many pairs; 0 for all")
    dev_share: float = Field(0.1, ge=0, lt=1, description="share of the pairs for dev")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of the pairs for test")
    base_model: str = Field("cross-encoder/ms-marco-MiniLM-L6-v2", min_length=1)
    base_revision: str = Field("", description="commit or tag of a Hub model; empty for newest")
    fallback_model: str = Field("bundled:all-MiniLM-L6-v2", description="where there is no Hub")
    max_length: int = Field(512, ge=8, description="tokens of a pair; longer ones are cut")
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the training pairs")
    batch_size: int = Field(8, ge=1, le=65536, description="pairs a step")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="the highest, falling to 0")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of steps in which it rises")
    embedding_learning_rate: float = Field(0.0, ge=0, le=1, description="0: as all else")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    speed: Literal["exact", "fast"] = "exact"
    vocabulary: Literal["keep", "unused", "extend"] = "keep"
    new_embeddings: Literal["spectral", "masked", "random", "mean"] = "spectral"
    lexical_pairs: int = Field(0, ge=0, description="pairs of a warm-up on soft lexical targets")
    lexical_learning_rate: float = Field(2e-4, gt=0, le=1, description="of that warm-up")
    hard_negatives: int = Field(0, ge=0, le=100, description="mined for each text of a positive")
    symmetric: bool = Field(False, description="add each positive pair in the other order too")
    seed: int = Field(42, ge=0, lt=2**32, description="of sample, split, head and order")
    snapshots: int = Field(0, ge=0, le=100, description="models kept along the training")
    stages: str = Field(
        "",
        pattern=r"^\s*(\d+\s*(,\s*\d+\s*)*)?$",
        description="training pairs of each stage, such as 2000,0,0 (0: all); empty: one stage",
    )
    checkpoint_steps: int = Field(500, ge=1, description="steps between two checkpoints")
    resume: bool = Field(False, description="go on from the last checkpoint")
    card_samples: int = Field(3, ge=0, le=100, description="training pairs printed on the card")
    language: str = Field("", description="of the texts, for the card, such as zh")
    license: str = Field("", description="of the model, for the card, such as apache-2.0")
    dataset: str = Field("", description="name of the data on the Hub, for the card")
    compare_runs: str = Field("", description="other run folders to overlay, comma-separated")
    window: int = Field(5, ge=1, description="log lines in the moving average of the loss")
    candidates: str = Field("", description="JSONL, table, or TREC folder; empty: test split")
    list_size: int = Field(30, ge=2, description="candidates in a list built from the test split")
    ties: Literal["expected", "worst"] = "expected"
    backend: Literal["auto", "predict", "torch-float32", "torch-bfloat16", "onnx", "onnx-int8"] = (
        "auto"
    )
    resamples: int = Field(10_000, ge=100, le=1_000_000, description="draws of an interval")
    metric: Annotated[str, AfterValidator(_metric)] = "ndcg@10"
    query: str = Field("怎么开通会员", min_length=1, description="one query to rank by hand")

    @property
    def columns(self) -> dict[str, str]:
        """The source's column names, as `read_pairs` takes them."""
        return {
            role: getattr(self, f"{role}_column") for role in ("sentence_0", "sentence_1", "label")
        }


def load_parameters(path: str | Path, overrides: Iterable[tuple[str, str]] = ()) -> Parameters:
    """Read a YAML file of parameters, lay `name value` overrides over it, and check everything.

    Raises:
        ParameterError: the file cannot be read, or names or values are wrong; all are named.
    """
    return check_parameters(given_parameters(path, overrides))


def given_parameters(
    path: str | Path | None, overrides: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """What a YAML file and the overrides over it ask for, names and values unchecked.

    Raises:
        ParameterError: the file cannot be read.
    """
    try:
        given = read_settings(path) if path is not None else {}
    except SettingsError as error:
        raise ParameterError(str(error)) from error
    return given | dict(overrides)


def check_parameters(given: Mapping[str, Any]) -> Parameters:
    """Check names, types and ranges.

    Raises:
        ParameterError: with one line for each parameter at fault.
    """
    parameters, problems = sound_parameters(given)
    if problems:
        raise ParameterError("\n".join(problems))
    return parameters


def sound_parameters(given: Mapping[str, Any]) -> tuple[Parameters, list[str]]:
    """The parameters that can be taken as given, and a line for each that cannot.

    What is wrong has its default in the result, so that the rest can be looked at all the same.
    """
    problems: list[str] = []
    wrong: set[str] = set()
    for name, value in given.items():
        if reason := _never_meant(name, value):
            problems.append(reason)
            wrong.add(name)
    rest = {name: value for name, value in given.items() if name not in wrong}
    try:
        parameters = Parameters(**rest)
    except ValidationError as error:
        problems += [_explain(problem) for problem in error.errors()]
        faulty = {problem["loc"][0] for problem in error.errors()}
        parameters = Parameters(**{n: value for n, value in rest.items() if n not in faulty})
    if parameters.dev_share + parameters.test_share >= 1:
        problems.append("dev_share and test_share: together they must stay below 1")
    return parameters, problems


def _never_meant(name: str, value: Any) -> str:
    """Why a value cannot have been meant, though a type might take it; empty if it can."""
    field = Parameters.model_fields.get(name)
    if field is None:
        return ""
    if isinstance(value, bool) and field.annotation in (int, float):  # True would count as 1
        return f"{name}: must be a number; it is {str(value).lower()}"
    if isinstance(value, str) and name != "query" and any(ord(sign) < 32 for sign in value):
        return f"{name}: holds a line break or another control character; it is {value!r}"
    return ""


def _explain(problem: Any) -> str:
    name, value = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Parameters.model_fields, 1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = name[:80] if name.isprintable() else ascii(name)[:80]
        return f"{shown}: there is no such parameter{hint}"
    text = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{name}: {text}; it is {shortened(value)}"


def shortened(value: Any) -> str:
    """The value as Python writes it, cut after 80 signs; lone surrogates escaped."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
