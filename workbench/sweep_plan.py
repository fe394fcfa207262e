"""The plan of a sweep: a YAML file of grids, lists and seeds, spelled out into runs."""

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.identity import data_identity, run_identity
from workbench.parameters import (
    ParameterError,
    Parameters,
    given_parameters,
    shortened,
    sound_parameters,
)
from workbench.yaml_files import SettingsError, read_settings

MOST_RUNS = 10_000


class Range(BaseModel):
    """Where a search may look for one parameter: an interval or a list of choices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = Field(None, gt=0)
    choices: list[Any] | None = Field(None, min_length=1)


class Search(BaseModel):
    """A search by Optuna: every trial is a run; the figure comes from dev, never from the test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["tpe", "random", "halving"] = "tpe"
    trials: int = Field(20, ge=1, le=MOST_RUNS)
    metric: Literal["dev_ap", "dev_loss"] = "dev_ap"
    space: dict[str, Range] = Field(min_length=1)


class SweepFile(BaseModel):
    """What may stand in a sweep file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: str = Field("", description="a file of parameters that all runs share")
    base: dict[str, Any] = Field({}, description="parameters that all runs share, over that file")
    grid: dict[str, list[Any]] = Field({}, description="values to cross")
    runs: list[dict[str, Any]] = Field([], description="settings one by one, each crossed too")
    seeds: list[int] = Field([], description="each run once for every seed")
    search: Search | None = None


class Job(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: of its folder.
        parameters: checked.
        values: what differs between the runs of this sweep, by parameter.
        identity: see `run_identity`.
        data: see `data_identity`.
    """

    name: str
    parameters: Parameters
    values: dict[str, Any]
    identity: str
    data: str


class Plan(NamedTuple):
    """A sweep file, read and checked; `jobs` is empty where a search makes them."""

    base: dict[str, Any]
    jobs: list[Job]
    search: Search | None


def read_plan(path: str | Path, overrides: Iterable[tuple[str, str]] = ()) -> Plan:
    """Read a sweep file, lay overrides over what all runs share, and spell out the runs.

    Equal runs are listed once.

    Raises:
        ParameterError: file, names or values are wrong; all are told.
    """
    try:
        given = read_settings(path)
        asked = SweepFile(**given)
    except SettingsError as error:
        raise ParameterError(str(error)) from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg'][:1].lower()}{one['msg'][1:]}; "
            f"it is {shortened(one['input'])}"
            for one in error.errors()
        ]
        raise ParameterError("\n".join(lines)) from None
    shared = given_parameters(asked.parameters or None) | asked.base | dict(overrides)
    if asked.search:
        return Plan(shared, _searched(shared, asked), asked.search)
    if not (asked.grid or asked.runs or asked.seeds):
        raise ParameterError(f"{path}: neither grid, runs, seeds nor search: nothing to sweep over")
    for name, values in asked.grid.items():
        if not values:
            raise ParameterError(f"{path}: grid.{name}: the list is empty")
    lists = [*asked.grid.values(), asked.seeds or [None]]
    count = len(asked.runs or [{}])
    for values in lists:
        count *= len(values)
    if count > MOST_RUNS:
        raise ParameterError(f"{path}: {count:,} runs are asked for; at most {MOST_RUNS:,} may be")
    settings = []
    for setting in asked.runs or [{}]:
        for *values, seed in itertools.product(*lists):
            chosen = setting | dict(zip(asked.grid, values, strict=True))
            settings.append(chosen if seed is None else chosen | {"seed": seed})
    return Plan(shared, make_jobs(shared, settings), None)


def make_jobs(shared: Mapping[str, Any], settings: Iterable[Mapping[str, Any]]) -> list[Job]:
    """A job for each setting over what is shared; equal ones once.

    Raises:
        ParameterError: with one line for everything that is wrong in any of them.
    """
    jobs: dict[str, Job] = {}
    problems: dict[str, None] = {}
    for setting in settings:
        parameters, wrong = sound_parameters({**shared, **setting})
        problems.update(dict.fromkeys(wrong))
        if not wrong:
            identity = run_identity(parameters)
            values = {name: getattr(parameters, name) for name in setting}
            name = job_name(values, identity)
            jobs[identity] = Job(name, parameters, values, identity, data_identity(parameters))
    if problems:
        raise ParameterError("\n".join(problems))
    return list(jobs.values())


def job_name(values: Mapping[str, Any], identity: str) -> str:
    """A folder name that tells what is special about a run: its values, and its identity."""
    parts = []
    for name, value in values.items():
        text = f"s{value}" if name == "seed" else f"{value:g}" if _is_float(value) else str(value)
        parts.append(re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:24])
    return "_".join([*filter(None, parts[:6]), identity[:8]])


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _searched(shared: Mapping[str, Any], asked: SweepFile) -> list[Job]:
    """Nothing to run yet; but what the search may ask for is checked at both ends of its ranges."""
    if asked.grid or asked.runs or asked.seeds:
        raise ParameterError("search: stands alone, without grid, runs or seeds")
    ends: list[dict[str, Any]] = [{}]
    space = asked.search.space if asked.search else {}
    for name, one in space.items():
        if (one.choices is None) == (one.low is None or one.high is None):
            raise ParameterError(f"search.space.{name}: give either choices, or low and high")
        field = Parameters.model_fields.get(name)
        whole = field is not None and field.annotation is int
        found = one.choices or [int(end or 0) if whole else end for end in (one.low, one.high)]
        if one.choices is None and found[0] > found[1]:
            raise ParameterError(f"search.space.{name}: low {found[0]} is above high {found[1]}")
        ends += [{name: value} for value in found]
    make_jobs(shared, ends)
    return []
