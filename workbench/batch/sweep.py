"""Sweeps: many runs, a few at a time, each an ordinary run folder, none lost and none made twice.

runs/<sweep>/
sweep.yaml   what was asked        sweep.json   the state of every run
<run>/       a run folder each     shared/      notebook 1 done once for each data setting
logs/        what runs printed     study.log    the trials of a search
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.batch.preflight import preflight
from workbench.files import (
    display_path,
    project_path,
    project_root,
    read_json,
    write_json,
    write_text,
)
from workbench.machine import core_count
from workbench.run_folder import ACTS, RequestError
from workbench.runs.catalog import done_runs, run_seconds
from workbench.runs.folder import (
    code_digest,
    data_identity,
    fresh_folder,
    fresh_name,
    holding,
    name_problem,
    now,
    read_status,
    recorded_identity,
    run_identity,
)
from workbench.runs.parameters import (
    ParameterError,
    Parameters,
    SettingsError,
    given_parameters,
    read_settings,
    shortened,
    sound_parameters,
)

if TYPE_CHECKING:
    from rich.table import Table

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


def sweep(options: argparse.Namespace) -> int:
    """Carry out, or with `--dry-run` describe, a sweep; the exit code."""
    from workbench.batch.search import OptunaSource, SearchError, check_optuna

    folder, file = _place(options)
    plan = read_plan(file, options.overrides)
    check_jobs(plan, folder, options.resume)
    if options.dry_run:
        describe(plan, folder)
        return 0
    try:
        if plan.search:
            check_optuna()
        engine = make_engine(options.engine, options.jobs, options.address)
    except (EngineError, SearchError) as error:
        raise RequestError(str(error)) from error
    import matplotlib.font_manager  # noqa: F401  # fills its cache, before many do at once

    try:
        with closing(engine):
            if not options.name:
                folder = fresh_folder(file.stem, options.runs_dir)
            with holding(folder):
                _check_folder(folder, options.resume)  # another process may have been here since
                keep_request(file, plan, folder)
                source: Source = ListSource(plan.jobs)
                earlier = None
                if plan.search:
                    if options.resume and (folder / "sweep.json").is_file():
                        earlier = read_sweep(folder)
                    source = OptunaSource(plan.search, plan.base, folder, options.jobs)
                with SweepTable(folder) as table:
                    record = Sweep(
                        folder, source, engine, options.max_failures, table.show, earlier
                    ).run()
    except KeyboardInterrupt:
        print(
            f"stopped; go on with: workbench sweep --name {folder.name} --resume "
            f"--runs-dir {options.runs_dir}",
            file=sys.stderr,
        )
        return 1
    print(f"{display_path(folder)}: {summary(record)}")
    return 0 if record["state"] == "done" else 1


def _place(options: argparse.Namespace) -> tuple[Path, Path]:
    """The sweep's folder and the file that describes it."""
    if options.name and (problem := name_problem(options.name)):
        raise RequestError(problem)
    if options.jobs < 1 or options.max_failures < 0:
        raise RequestError("--jobs must be 1 or more, --max-failures 0 or more")
    if options.resume and not options.name:
        raise RequestError("--resume: say which sweep with --name")
    if options.sweep is None and not options.resume:
        raise RequestError("SWEEP.yaml is missing (only --resume can do without)")
    stem = Path(options.sweep or "sweep").stem
    folder = project_path(options.runs_dir) / (options.name or fresh_name(stem, options.runs_dir))
    _check_folder(folder, options.resume)
    return folder, Path(options.sweep) if options.sweep else folder / "sweep.yaml"


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that this sweep must not be written into."""
    shown, is_sweep = display_path(folder), (folder / "sweep.yaml").is_file()
    if is_sweep and not resume:
        raise RequestError(f"{shown} exists: choose another --name, or --resume it")
    if resume and not is_sweep:
        raise RequestError(f"{shown} does not exist, so it cannot be resumed")
    inside = folder.iterdir() if folder.is_dir() and not is_sweep else ()
    if folder.is_symlink() or any(path.name != ".lock" for path in inside):
        raise RequestError(f"{shown} is not a sweep's folder and not empty")


def check_jobs(plan: Plan, folder: Path, resume: bool) -> None:
    """Look at each distinct request of a plan; what is found is told once for all runs.

    Raises:
        ParameterError: with every problem of any run.
    """
    seen: dict[Any, Job] = {}
    looked_at = (
        "pairs",
        "test_pairs",
        "candidates",
        "base_model",
        "base_revision",
        "max_pairs",
        "dev_share",
        "test_share",
        "snapshots",
        "label_column",
        "sentence_0_column",
        "sentence_1_column",
        "on_bad_rows",
        "fallback_model",
    )
    for job in plan.jobs:
        seen.setdefault(tuple(getattr(job.parameters, name) for name in looked_at), job)
    told: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for job in seen.values():
        for one in preflight(job.parameters, folder / job.name, resume=False).findings:
            if one.level == "problem" and not (resume and "exists:" in one.text):
                wrong[str(one)] = None
            elif one.level == "warning":
                told[f"{one.level}: {one}"] = None
    print(*told, sep="\n" if told else "", end="\n" if told else "", flush=True)
    if wrong:
        raise ParameterError("\n".join(wrong))


def describe(plan: Plan, folder: Path) -> None:
    """Print what a sweep would do."""
    from workbench.runs.catalog import done_runs

    known = done_runs(folder.parent) if folder.parent.is_dir() else {}
    trials = f", {plan.search.trials} trials by {plan.search.method}" if plan.search else ""
    print(f"{display_path(folder)}: {len(plan.jobs)} runs{trials}")
    for job in plan.jobs:
        values = ", ".join(f"{name}={value}" for name, value in job.values.items())
        found = known.get(job.identity)
        print(f"  {job.name}  {values}" + (f"  done: {display_path(found)}" if found else ""))
    print(
        f"notebook 1 runs {len({job.data for job in plan.jobs})} times, once for each data "
        "setting; nothing was started"
    )


def keep_request(file: Path, plan: Plan, folder: Path) -> None:
    """Write `sweep.yaml`: the sweep file with everything that the runs share spelled out in it."""
    import yaml

    asked = SweepFile(**read_settings(file)).model_copy(
        update={"parameters": "", "base": plan.base}
    )
    values = asked.model_dump(exclude_defaults=True)
    write_text(folder / "sweep.yaml", yaml.safe_dump(values, allow_unicode=True, sort_keys=False))


def make_engine(name: str, slots: int, address: str = "") -> "Engine":
    """The engine of that name, `local` or `ray`.

    Raises:
        EngineError: it is not installed, or the cluster cannot be reached.
    """
    if name == "local":
        return LocalEngine(slots)
    from workbench.batch.ray import RayEngine

    return RayEngine(slots, address)


Work = dict[str, Any]  # what `workbench.batch.worker` takes


POLL = 0.2  # seconds between two looks


class EngineError(RuntimeError):
    """The engine cannot be had; nothing was started."""


class Engine(Protocol):
    """Starts jobs and says which have ended; it decides nothing."""

    slots: int

    def start(self, name: str, work: Work, log: Path) -> None:
        """Start a job; what it prints goes to `log`."""
        ...

    def ended(self) -> dict[str, int]:
        """Jobs that have ended since the last call, with their exit codes; waits a moment."""
        ...

    def stop(self, name: str) -> None:
        """End one job as by Ctrl-C; it is then told by `ended`."""
        ...

    def close(self) -> None:
        """End all jobs and wait for them."""
        ...


class LocalEngine:
    """Runs jobs as processes of this machine, `slots` at a time."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, work: Work, log: Path) -> None:
        """Start a worker process."""
        self.processes[name] = start_worker(work, log, threads(self.slots))

    def ended(self) -> dict[str, int]:
        """See `Engine`."""
        time.sleep(POLL)
        codes = {name: process.poll() for name, process in self.processes.items()}
        done = {name: code for name, code in codes.items() if code is not None}
        for name in done:
            close_input(self.processes.pop(name))
        return done

    def stop(self, name: str) -> None:
        """Let go of its input, at which a worker stops."""
        if name in self.processes:
            close_input(self.processes[name])

    def close(self) -> None:
        """Stop all; a worker that does not end in its time has ended itself by then."""
        for process in self.processes.values():
            close_input(process)
        for process in self.processes.values():
            try:
                process.wait(timeout=80)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def threads(slots: int) -> int:
    """Threads for each of so many jobs at once, so that together they take the cores there are."""
    return max(1, core_count() // slots)


def start_worker(
    work: Work, log: Path, cores: int, root: Path | None = None
) -> "subprocess.Popen[str]":
    """Start a worker process with a job; its input stays open for as long as we live.

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the sweep, which then
    stops its workers in good order.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    limits = {name: str(cores) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
    environment = {**limits, "TOKENIZERS_PARALLELISM": "false", **os.environ}
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.batch.worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=root or project_root(),
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(work) + "\n")
    process.stdin.flush()
    return process


def close_input(process: "subprocess.Popen[str]") -> None:
    """Close a worker's input; one that has ended already minds nothing."""
    try:
        if process.stdin is not None:
            process.stdin.close()
    except OSError:
        pass


SCHEMA = 1


ENDED = ("done", "kept", "failed", "pruned")


Show = Callable[[dict[str, Any]], None]


class Source(Protocol):
    """Where the jobs of a sweep come from: a list, or a search that learns from each result."""

    def next(self) -> Job | None:
        """The next job; None if there is none (now, or at all)."""
        ...

    def tell(self, job: Job, state: str, folder: Path) -> None:
        """How a job has ended."""
        ...

    def hopeless(self, job: Job, folder: Path) -> bool:
        """Whether a running job may as well be ended."""
        ...


class ListSource:
    """Jobs that were known from the start."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = iter(jobs)

    def next(self) -> Job | None:
        """The jobs in their order."""
        return next(self.jobs, None)

    def tell(self, job: Job, state: str, folder: Path) -> None:
        """Nothing to learn from it."""

    def hopeless(self, job: Job, folder: Path) -> bool:
        """Every job is run to its end."""
        return False


class Sweep:
    """One sweep in its folder.

    Args:
        folder: whose lock the caller holds (see `holding`).
        source: of its jobs.
        engine: that carries them out.
        most_failures: when so many runs have failed, no further one is started; 0 for no limit.
        show: called with the record whenever something may have changed.
        earlier: the record of the same search before it was interrupted.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        engine: Engine,
        most_failures: int = 0,
        show: Show = lambda record: None,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.source, self.engine = folder, source, engine
        self.most_failures, self.show = most_failures, show
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "state": "running",
            "started": now(),
            "engine": type(engine).__name__,
            "jobs": {
                name: entry
                for name, entry in (earlier or {}).get("jobs", {}).items()
                if entry["state"] in ENDED
            },
        }
        self.waiting: list[Job] = []
        self.running: dict[str, Job] = {}
        self.shared: dict[str, str] = {}  # data identity -> running, done, or why it failed
        self.known: dict[str, Path] = {}

    def run(self) -> dict[str, Any]:
        """Run all jobs and return the record, as kept in `sweep.json`.

        Raises:
            KeyboardInterrupt: after all runs were stopped and the record was written.
        """
        self.known = done_runs(self.folder.parent)
        self._loop()
        return self.record

    def _loop(self) -> None:
        try:
            while self._start_some() or self.running:
                for name, code in self.engine.ended().items():
                    self._settle(name, code)
                for name, job in self.running.items():
                    entry = self.record["jobs"].get(name)
                    if (
                        entry
                        and not entry.get("pruned")
                        and self.source.hopeless(job, self._at(job))
                    ):
                        entry["pruned"] = True
                        self.engine.stop(name)
                self.show(self.record)
            left = [entry for entry in self.record["jobs"].values() if entry["state"] not in ENDED]
            failed = [e for e in self.record["jobs"].values() if e["state"] == "failed"]
            self.record["state"] = "failed" if failed or left else "done"
        except BaseException:
            self.record["state"] = "stopped"
            raise
        finally:
            self.engine.close()
            for name in self.running:
                if name in self.record["jobs"]:
                    self.record["jobs"][name]["state"] = "stopped"
            self.record["finished"] = now()
            self._save()
            self.show(self.record)

    def _start_some(self) -> bool:
        """Fill the free slots; whether anything was started or settled."""
        moved = False
        while len(self.running) < self.engine.slots and not self._given_up():
            job = self._ready()
            if job is None:
                break
            moved = True
            if self._kept(job):
                continue
            self.running[job.name] = job
            self._note(job, state="running")
            self.engine.start(job.name, self._work(job), self.folder / "logs" / f"{job.name}.log")
        return moved

    def _given_up(self) -> bool:
        failed = sum(entry["state"] == "failed" for entry in self.record["jobs"].values())
        return bool(self.most_failures) and failed >= self.most_failures

    def _ready(self) -> Job | None:
        """A job whose data is prepared; where there is none, a preparation is started instead."""
        while (job := self.source.next()) is not None:
            if job.name in self.running or any(job.name == one.name for one in self.waiting):
                continue  # a search may propose the same twice; one run answers both
            self.waiting.append(job)
            self._note(job, state="waiting")
        for place, job in enumerate(self.waiting):
            state = self._prepared(job)
            if state == "done":
                return self.waiting.pop(place)
            if state not in ("running", ""):
                self.waiting.pop(place)
                self._note(job, state="failed", error=f"preparing its data failed: {state}")
                self.source.tell(job, "failed", self._at(job))
                return self._ready()
        for job in self.waiting:
            if not self._prepared(job):
                self._prepare(job)
                return None
        return None

    def _prepared(self, job: Job) -> str:
        """`done`, `running`, an empty text, or why it failed."""
        if job.identity in self.known:  # it will be kept, so it needs nothing
            return "done"
        if job.data not in self.shared:
            try:
                acts = read_status(self._shared(job)).get("acts", {})
            except RequestError:
                acts = {}
            if acts.get("01", {}).get("state") == "done":
                self.shared[job.data] = "done"
        return self.shared.get(job.data, "")

    def _prepare(self, job: Job) -> None:
        name = f"shared-{job.data[:12]}"
        work = {
            "parameters": job.parameters.model_dump(),
            "run_dir": str(self._shared(job)),
            "only": ["01"],
            "prepared": "",
        }
        self.shared[job.data] = "running"
        self.running[name] = job
        self.engine.start(name, work, self.folder / "logs" / f"{name}.log")

    def _work(self, job: Job) -> Work:
        return {
            "parameters": job.parameters.model_dump(),
            "run_dir": str(self._at(job)),
            "only": [],
            "prepared": str(self._shared(job)),
        }

    def _kept(self, job: Job) -> bool:
        """Whether the very same run is done already, here or in another folder of runs."""
        found = self.known.get(job.identity)
        if found is None:
            return False
        code = recorded_identity(found)[1]
        other = {"note": "made by other code"} if code != code_digest() else {}
        same = {} if found == self._at(job) else {"same_as": display_path(found)}
        self._note(job, state="kept", seconds=run_seconds(found), **same, **other)
        self.source.tell(job, "done", found)
        return True

    def _settle(self, name: str, code: int) -> None:
        job = self.running.pop(name)
        if name != job.name:  # a preparation
            self.shared[job.data] = "done" if code == 0 else self._why(self._shared(job), name)
            return
        folder = self._at(job)
        pruned = self.record["jobs"][name].get("pruned")
        state = "done" if code == 0 else "pruned" if pruned else "failed"
        error = {"error": self._why(folder, name)} if state == "failed" else {}
        self._note(job, state=state, seconds=run_seconds(folder), **error)
        self.source.tell(job, state, folder)

    def _why(self, folder: Path, name: str) -> str:
        """What the run says itself; of one that was killed, the last it printed."""
        try:
            status = read_status(folder)
        except RequestError:
            status = {}
        if status.get("state") == "failed":
            return f"notebook {status['act']}: {status['error']}"
        log = self.folder / "logs" / f"{name}.log"
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        )
        return "its process was killed" + (f"; the last it said: {lines[-1]}" if lines else "")

    def _note(self, job: Job, **news: Any) -> None:
        entry = self.record["jobs"].setdefault(
            job.name, {"values": job.values, "identity": job.identity}
        )
        entry |= news
        if news["state"] != "waiting":
            self._save()
            self.show(self.record)

    def _save(self) -> None:
        write_json(self.folder / "sweep.json", self.record)

    def _at(self, job: Job) -> Path:
        return self.folder / job.name

    def _shared(self, job: Job) -> Path:
        return self.folder / "shared" / job.data[:16]


def read_sweep(folder: Path) -> dict[str, Any]:
    """`sweep.json` of a sweep.

    Raises:
        RequestError: there is none, it is damaged, or a newer workbench wrote it.
    """
    file = folder / "sweep.json"
    try:
        record = dict(read_json(file))
    except (OSError, ValueError) as error:
        raise RequestError(f"{display_path(file)} cannot be read ({error})") from error
    if record.get("schema", 0) > SCHEMA:
        raise RequestError(
            f"{display_path(file)} was written by a newer workbench: update this one"
        )
    return record


def elapsed(start: float) -> str:
    """Minutes and seconds since `start`, of the monotonic clock."""
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes}:{seconds:02d}"


SHOWN = 30  # rows; of a larger sweep those that are running or have failed, then the newest


class SweepTable:
    """Shows the record of a sweep; a context manager.

    Args:
        folder: the sweep's.
        live: whether to draw a table in place; by default if standard output is a terminal.
    """

    def __init__(self, folder: Path, live: bool | None = None) -> None:
        self.folder = folder
        self.is_live = sys.stdout.isatty() if live is None else live
        self.told: dict[str, str] = {}
        self.start = time.monotonic()
        self.drawn = 0.0
        self.screen: Any = None

    def __enter__(self) -> Self:
        """Take the screen, if there is one."""
        if self.is_live:
            from rich.live import Live

            self.screen = Live(auto_refresh=False)
            self.screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table on the screen."""
        if self.screen is not None:
            self.screen.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Draw the table, at most once a second, or print what has changed."""
        if self.screen is None:
            self._print(record)
        elif record["state"] != "running" or time.monotonic() - self.drawn >= 1:
            self.drawn = time.monotonic()
            self.screen.update(self.table(record), refresh=True)

    def table(self, record: dict[str, Any]) -> "Table":
        """The sweep as a table: a row a run."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title_justify="left")
        table.title = f"{self.folder.name}: {summary(record)}, {elapsed(self.start)}"
        for name in ("run", "state", "where", "dev AP", "nDCG@10", "s"):
            table.add_column(
                name, justify="right" if name in ("dev AP", "nDCG@10", "s") else "left"
            )
        colours = {"running": "cyan", "failed": "red", "done": "green", "kept": "green"}
        for name, entry in _chosen(record["jobs"]):
            where, loss, ranked = progress(self.folder / name, entry)
            state = Text(entry["state"], style=colours.get(entry["state"], ""))
            table.add_row(
                Text(name),
                state,
                Text(where),
                loss,
                ranked,
                f"{entry['seconds']:.0f}" if "seconds" in entry else "",
            )
        return table

    def _print(self, record: dict[str, Any]) -> None:
        for name, entry in record["jobs"].items():
            if entry["state"] != "waiting" and self.told.get(name) != entry["state"]:
                self.told[name] = entry["state"]
                more = entry.get("error") or entry.get("same_as") or entry.get("note") or ""
                line = f"{elapsed(self.start):>6}  {entry['state']:8} {name}"
                print(line + (f"  ({more})" if more else ""), flush=True)


def summary(record: dict[str, Any]) -> str:
    """How many runs are in which state."""
    counts = Counter(entry["state"] for entry in record["jobs"].values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no run yet"


def progress(folder: Path, entry: dict[str, Any]) -> tuple[str, str, str]:
    """The act a run is in (or why it failed), the last average precision on dev, and nDCG@10."""
    where, precision, ranked = str(entry.get("error", ""))[:60], "", ""
    try:
        acts = read_json(folder / "status.json").get("acts", {})
        act = next((a for a, one in acts.items() if one.get("state") == "running"), "")
        if entry["state"] == "running" and act:
            where = ACTS[act]
        last = last_row(folder)
        precision = f"{last['dev_ap']:.3f}" if last.get("dev_ap") is not None else ""
        rows = read_json(folder / "evaluation" / "metrics.json")["rows"]
        ranked = next(
            (f"{row['ndcg@10']['mean']:.3f}" for row in rows if row["scorer"] == "model"), ""
        )
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not written yet
    return where, precision, ranked


def last_row(folder: Path) -> dict[str, Any]:
    """The last complete row of a training log that has a value of dev; empty if there is none."""
    try:
        lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # half written
            continue
        if row.get("dev_ap") is not None:
            return dict(row)
    return {}


def _chosen(jobs: dict[str, Any]) -> list[tuple[str, Any]]:
    if len(jobs) <= SHOWN:
        return list(jobs.items())
    first = ("running", "failed")
    urgent = [item for item in jobs.items() if item[1]["state"] in first][:SHOWN]
    rest = [item for item in jobs.items() if item[1]["state"] not in (*first, "waiting")]
    return urgent + rest[-(SHOWN - len(urgent)) :] if len(urgent) < SHOWN else urgent
