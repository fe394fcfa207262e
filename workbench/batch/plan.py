"""What a sweep file asks for: the runs of a grid, a list, seeds or a search, checked beforehand."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from workbench.files import RequestError, refuse
from workbench.run_folder import RunFolder
from workbench.runs.folder import run_identity
from workbench.runs.parameters import (
    Parameters,
    given_parameters,
    read_settings,
    reason,
    sound_parameters,
)
from workbench.training.log import log_rows

MAX_RUNS = 10_000
AGAIN = "instead of trial"  # attribute of a trial: the number of the interrupted one it repeats


class Range(BaseModel, extra="forbid", frozen=True):
    """Where a search may look for one parameter: an interval or a list of choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = Field(None, gt=0)
    choices: list[Any] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Search(BaseModel, extra="forbid", frozen=True):
    """A search by Optuna: every trial is a run, judged on dev and never on the test."""

    method: Literal["tpe", "random"] = "tpe"
    trials: int = Field(20, ge=1, le=MAX_RUNS)
    metric: Literal["dev_ap", "dev_ndcg", "dev_loss"] = "dev_ap"
    space: dict[str, Range] = Field(min_length=1)


class SweepFile(BaseModel, extra="forbid", frozen=True):
    """The content of a sweep file."""

    parameters: str = Field("", description="a file of parameters that all runs share")
    base: dict[str, Any] = Field({}, description="parameters that all runs share, over that file")
    grid: dict[str, list[Any]] = Field({}, description="values to cross")
    runs: list[dict[str, Any]] = Field([], description="settings one by one, each crossed too")
    seeds: list[int] = Field([], description="each run once for every seed")
    search: Search | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        listed = bool(self.grid or self.runs or self.seeds)
        if listed and self.search:
            raise ValueError("search: cannot be combined with grid, runs or seeds")
        if not listed and not self.search:
            raise ValueError("neither grid, runs, seeds nor search: nothing to sweep over")
        if empty := [name for name, values in self.grid.items() if not values]:
            raise ValueError(f"grid.{empty[0]}: the list is empty")
        return self


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    name: str  # of its folder
    parameters: Parameters
    values: dict[str, Any]  # the parameters that differ between the runs of this sweep
    identity: str  # see `run_identity`


class Plan(NamedTuple):
    """A sweep file with all shared parameters in `base`, and its runs (none for a search)."""

    asked: SweepFile
    runs: list[PlannedRun]


def read_plan(path: str | Path, overrides: Iterable[tuple[str, str]] = ()) -> Plan:
    """Read a sweep file, lay overrides over the shared parameters, and list the runs, each once.

    Raises:
        RequestError: the file cannot be read, or names or values are wrong; all are listed.
    """
    try:
        asked = SweepFile(**read_settings(path))
    except ValidationError as error:
        lines = [f"{path}: {_explain(one)}" for one in error.errors()]
        raise RequestError("\n".join(lines)) from None
    shared = given_parameters(asked.parameters or None) | asked.base | dict(overrides)
    asked = asked.model_copy(update={"parameters": "", "base": shared})
    if asked.search:  # its runs are not known yet, but both ends of each range can be checked
        if find_spec("optuna") is None:
            raise RequestError("search: install it with pip install 'optuna>=4'")
        space = asked.search.space.items()
        ends = [{name: end} for name, one in space for end in one.choices or (one.low, one.high)]
        planned_runs(shared, [{}, *ends])
        return Plan(asked, [])
    names = [*asked.grid, *["seed"] * bool(asked.seeds)]
    lists = [asked.runs or [{}], *asked.grid.values(), *[asked.seeds] * bool(asked.seeds)]
    if (count := math.prod(map(len, lists))) > MAX_RUNS:
        raise RequestError(f"{path}: {count:,} runs are asked for; at most {MAX_RUNS:,} may be")
    crossed = itertools.product(*lists)
    settings = (one | dict(zip(names, values, strict=True)) for one, *values in crossed)
    return Plan(asked, planned_runs(shared, settings))


def _explain(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden" and where in Parameters.model_fields:
        return f"{where}: parameters belong under `base`, or in a file named by `parameters`"
    return reason(problem)


def planned_runs(
    shared: Mapping[str, Any], settings: Iterable[Mapping[str, Any]]
) -> list[PlannedRun]:
    """A run for each setting over the shared parameters; equal ones once.

    Raises:
        RequestError: with one line for everything that is wrong in any of them.
    """
    runs: dict[str, PlannedRun] = {}
    problems: dict[str, None] = {}
    for setting in settings:
        parameters, wrong = sound_parameters({**shared, **setting})
        problems.update(dict.fromkeys(wrong))
        if not wrong:
            identity = run_identity(parameters)
            values = {name: getattr(parameters, name) for name in setting}
            name = _folder_name(values, identity)
            runs[identity] = PlannedRun(name, parameters, values, identity)
    refuse(problems)
    return list(runs.values())


def _folder_name(values: Mapping[str, Any], identity: str) -> str:
    """A name made of the values that are special about a run, and its identity."""
    texts = (
        ("s" * (name == "seed")) + (f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in values.items()
    )
    parts = [re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:24] for text in texts]
    return "_".join([*filter(None, parts[:6]), identity[:8]])


class OptunaSearch:
    """Runs that Optuna proposes, at most `slots` ahead of the results it has seen.

    Trials are kept in `study.log` in the sweep's folder; those that an interrupted sweep has left
    are proposed again, so that their runs go on.
    """

    def __init__(
        self, search: Search, shared: Mapping[str, Any], folder: Path, slots: int = 1
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search, self.shared, self.slots = search, shared, slots
        self.states, random = optuna.trial.TrialState, search.method == "random"
        sampler = optuna.samplers.RandomSampler if random else optuna.samplers.TPESampler
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
            study_name="sweep",
            load_if_exists=True,
            sampler=sampler(seed=int(shared.get("seed", 42))),
            direction="minimize" if search.metric == "dev_loss" else "maximize",
        )
        for lost in self.study.get_trials(states=(self.states.RUNNING,)):
            self.study.tell(lost.number, state=self.states.FAIL)
            self.study.enqueue_trial(lost.params, user_attrs={AGAIN: lost.number})
        self.trials: dict[str, list[Any]] = {}  # under way, by the name of their run

    def next(self) -> PlannedRun | None:
        """A new proposal; None while enough are under way, or when all trials are made.

        A failed trial is not made up for; an interrupted one, proposed again, counts once.
        """
        trials = self.study.get_trials(deepcopy=False)
        made = sum(trial.state.is_finished() for trial in trials)
        made -= sum(AGAIN in trial.user_attrs for trial in trials)
        under_way = sum(map(len, self.trials.values()))
        if under_way >= self.slots or made + under_way >= self.search.trials:
            return None
        trial = self.study.ask()
        values = {name: _suggest(trial, name, one) for name, one in self.search.space.items()}
        (run,) = planned_runs(self.shared, [values])
        self.trials.setdefault(run.name, []).append(trial)
        return run

    def tell(self, run: PlannedRun, done: bool, folder: Path) -> None:
        """Tell Optuna a run's last figure on dev, or that there is none."""
        trials, metric = self.trials.pop(run.name, []), self.search.metric
        value = last_value(folder, metric) if done else None
        if done and trials and value is None:
            print(f"{run.name}: its log has no {metric}, so it guides no trial")
        for trial in trials:
            self.study.tell(trial, value, state=self.states.FAIL if value is None else None)


def _suggest(trial: Any, name: str, one: Range) -> Any:
    """A trial's value of the parameter `name`."""
    if one.choices is not None:
        return trial.suggest_categorical(name, one.choices)
    low, high = one.low or 0.0, one.high or 0.0
    if Parameters.model_fields[name].annotation is int:
        step = int(one.step or 1)
        return trial.suggest_int(name, int(low), int(high), step=step, log=one.log)
    return trial.suggest_float(name, low, high, step=one.step, log=one.log)


def last_value(folder: Path, metric: str) -> float | None:
    """The last value of a metric in a run's training log, if there is one."""
    rows = log_rows(RunFolder(folder).training_log)
    values = (row.get(metric) for row in reversed(rows))
    return next((value for value in values if value is not None), None)
