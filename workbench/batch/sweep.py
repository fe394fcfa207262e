"""Sweeps: many runs, a few at a time, each an ordinary run folder, none lost and none made twice.

runs/SWEEP/ holds `sweep.yaml` (the request), `sweep.json` (the state of every run), a run folder
for each run, `shared/` (notebook 1, done once for each data setting), `logs/` (what the runs
printed) and `study.log` (the trials of a search).
"""

import asyncio
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from workbench.batch.plan import Job, Plan, read_plan
from workbench.batch.preflight import Finding, preflight, refuse_problems
from workbench.batch.worker import Worker
from workbench.files import (
    display_path,
    project_path,
    project_root,
    write_json,
    write_text,
)
from workbench.machine import core_count
from workbench.run_folder import RequestError, read_record
from workbench.runs.catalog import done_runs, read_run
from workbench.runs.folder import (
    code_digest,
    fresh_folder,
    fresh_name,
    holding,
    name_problem,
    now,
    record_request,
)

SCHEMA = 1  # of sweep.json
ENDED = ("done", "kept", "failed", "pruned")
POLL_SECONDS = 0.2
STOP_SECONDS = 80  # a worker that does not stop in its time has ended itself by then


def sweep(
    file: str | None,
    name: str | None = None,
    overrides: Iterable[tuple[str, str]] = (),
    runs_dir: str = "runs",
    jobs: int = 1,
    engine: str = "local",
    address: str = "",
    max_failures: int = 0,
    resume: bool = False,
    dry_run: bool = False,
) -> bool:
    """Make the runs of a sweep, or with `dry_run` say which; whether all of them are done.

    The arguments are those of `workbench sweep`.

    Raises:
        RequestError, ParameterError, SettingsError: the request is wrong; nothing was started.
        KeyboardInterrupt: after all runs were stopped and recorded.
    """
    if name and (problem := name_problem(name)):
        raise RequestError(problem)
    if resume and not name:
        raise RequestError("--resume: say which sweep with --name")
    if file is None and not resume:
        raise RequestError("SWEEP.yaml is missing (only --resume can do without)")
    stem = Path(file or "sweep").stem
    folder = project_path(runs_dir) / (name or fresh_name(stem, runs_dir))
    _check_folder(folder, resume)
    plan = read_plan(file or folder / "sweep.yaml", overrides)
    _check_jobs(plan, folder, resume)
    if dry_run:
        _describe(plan, folder)
        return True
    try:
        with _opened(engine, jobs, address) as opened:
            import matplotlib.font_manager  # noqa: F401  # fills its cache, before many do at once

            folder = folder if name else fresh_folder(stem, runs_dir)
            with holding(folder):
                _check_folder(folder, resume)  # another process may have been here since
                values = plan.asked.model_dump(exclude_defaults=True)
                text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
                write_text(folder / "sweep.yaml", text)
                record = Sweep(folder, plan, opened, max_failures).run()
    except KeyboardInterrupt as error:
        again = f"workbench sweep --name {folder.name} --resume --runs-dir {runs_dir}"
        error.add_note(f"go on with: {again}")
        raise
    counts = Counter(entry["state"] for entry in record["jobs"].values())
    summary = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    print(f"{display_path(folder)}: {summary or 'no run'}")
    return bool(record["state"] == "done")


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


def _check_jobs(plan: Plan, folder: Path, resume: bool) -> None:
    """Look at every run of a plan; what is found is printed or raised once for all of them."""
    known: dict[Any, Any] = {}
    found: dict[Finding, None] = {}
    for job in plan.jobs:
        for finding in preflight(job.parameters, folder / job.name, known=known):
            if finding.level != "note" and not (resume and "exists:" in finding.text):
                found[finding] = None
    refuse_problems(found)


def _describe(plan: Plan, folder: Path) -> None:
    known = done_runs(folder.parent) if folder.parent.is_dir() else {}
    search = plan.asked.search
    trials = f", {search.trials} trials by {search.method}" if search else ""
    print(f"{display_path(folder)}: {len(plan.jobs)} runs{trials}")
    for job in plan.jobs:
        values = ", ".join(f"{name}={value}" for name, value in job.values.items())
        made = f"  done: {display_path(known[job.identity])}" if job.identity in known else ""
        print(f"  {job.name}  {values}{made}")
    count = len({job.data for job in plan.jobs})
    print(f"notebook 1 runs {count} times, once for each data setting; nothing was started")


class Engine(NamedTuple):
    """What makes prepared runs, `slots` at a time.

    `start` takes the arguments of `workbench run` and the file for what it prints; it returns a
    `Worker`, or something with the same methods `poll` and `stop`.
    """

    name: str
    slots: int
    start: Callable[[list[str], Path], Any]


@contextmanager
def _opened(name: str, slots: int, address: str) -> Iterator[Engine]:
    """The engine of that name: `local`, or `ray` on a running cluster or one started here."""
    if name == "local":
        cores = max(1, core_count() // slots)
        yield Engine("LocalEngine", slots, partial(Worker, cores=cores, root=project_root()))
        return
    from workbench.batch.ray import Task, connected

    with connected(address, slots) as ray:
        yield Engine("RayEngine", slots, partial(Task, ray))


class Sweep:
    """One sweep in its folder, whose lock the caller holds (see `holding`)."""

    def __init__(self, folder: Path, plan: Plan, engine: Engine, max_failures: int = 0) -> None:
        self.folder, self.engine, self.max_failures = folder, engine, max_failures
        self.left, self.search = iter(plan.jobs), None
        self.entries: dict[str, dict[str, Any]] = {
            job.name: {"values": job.values, "identity": job.identity, "state": "waiting"}
            for job in plan.jobs
        }
        if plan.asked.search:
            from workbench.batch.plan import OptunaSearch

            self.search = OptunaSearch(plan.asked.search, plan.asked.base, folder, engine.slots)
            self.entries = _ended_before(folder)
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "state": "running",
            "started": now(),
            "engine": engine.name,
            "jobs": self.entries,
        }
        self.begin = time.monotonic()
        self.known: dict[str, Path] = {}  # runs that were done before, by identity
        self.running: dict[str, Any] = {}  # by the name of the log
        self.results: dict[str, str] = {}  # by the name of the run
        self.prepared: dict[str, str] = {}  # by data setting: empty, or why it failed
        self.locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def run(self) -> dict[str, Any]:
        """Make all runs and return the record, which is also in `sweep.json`.

        Raises:
            KeyboardInterrupt: after all runs were stopped and the record was written.
        """
        self.known = done_runs(self.folder.parent)
        try:
            asyncio.run(self._fill_slots())
            done = all(e["state"] in ("done", "kept", "pruned") for e in self.entries.values())
            self.record["state"] = "done" if done else "failed"
        except BaseException:
            self.record["state"] = "stopped"
            raise
        finally:
            self._stop()
            self.record["finished"] = now()
            self._save()
        return self.record

    def _stop(self) -> None:
        """Stop what is running and wait for it."""
        running, end = self.running.values(), time.monotonic() + STOP_SECONDS
        for one in running:
            one.stop()
        while time.monotonic() < end and any(one.poll() is None for one in running):
            time.sleep(POLL_SECONDS)
        for entry in self.entries.values():
            if entry["state"] == "running":
                entry["state"] = "stopped"

    async def _fill_slots(self) -> None:
        await asyncio.gather(*(self._slot() for _ in range(self.engine.slots)))

    async def _slot(self) -> None:
        """Make one run after another."""
        while (job := self._next()) is not None:
            async with self.locks[job.name]:  # a search may propose the same setting twice
                if job.name not in self.results:
                    self.results[job.name] = await self._make(job)
            if self.search:
                folder = self.known.get(job.identity, self.folder / job.name)
                self.search.tell(job, self.results[job.name], folder)

    def _next(self) -> Job | None:
        failed = sum(entry["state"] == "failed" for entry in self.entries.values())
        if 0 < self.max_failures <= failed:
            return None
        return self.search.next() if self.search else next(self.left, None)

    async def _make(self, job: Job) -> str:
        """Make a run, unless the very same is done already: `done`, `failed` or `pruned`."""
        folder, found = self.folder / job.name, self.known.get(job.identity)
        if found is not None:
            made = read_run(found)
            same = made.environment.get("code") == code_digest()
            other = {} if same else {"note": "made by other code"}
            place = {} if found == folder else {"same_as": display_path(found)}
            self._note(job, state="kept", seconds=made.seconds, **place, **other)
            return "done"
        shared = self.folder / "shared" / job.data[:16]
        if reason := await self._prepare_data(job, shared):
            self._note(job, state="failed", error=f"preparing its data failed: {reason}")
            return "failed"
        _prepare_run(job, folder, shared)
        self._note(job, state="running")
        code, pruned = await self._work(job.name, job, folder)
        state = "done" if code == 0 else "pruned" if pruned else "failed"
        error = {"error": self._why(folder, job.name, code)} if state == "failed" else {}
        self._note(job, state=state, seconds=read_run(folder).seconds, **error)
        return state

    async def _prepare_data(self, job: Job, shared: Path) -> str:
        """Run notebook 1 once for each data setting; empty, or why it failed."""
        async with self.locks[job.data]:
            if job.data not in self.prepared:
                _prepare_run(job, shared)
                name, code = f"shared-{job.data[:12]}", 0
                entries = read_run(shared).status.get("notebooks", {})
                if entries.get("01", {}).get("state") != "done":
                    code, _ = await self._work(name, job, shared, "--only", "01")
                self.prepared[job.data] = "" if code == 0 else self._why(shared, name, code)
        return self.prepared[job.data]

    async def _work(self, name: str, job: Job, folder: Path, *options: str) -> tuple[int, bool]:
        """Resume a prepared run; its exit code, and whether a search ended it."""
        place = ["--runs-dir", str(folder.parent), "--name", folder.name, "--resume"]
        running = self.engine.start([*place, *options], self.folder / "logs" / f"{name}.log")
        self.running[name], pruned = running, False
        while (code := running.poll()) is None:
            if self.search and not pruned and self.search.hopeless(job, folder):
                pruned = True
                running.stop()
            await asyncio.sleep(POLL_SECONDS)
        del self.running[name]
        return code, pruned

    def _why(self, folder: Path, name: str, code: int) -> str:
        """Why a run failed, by its own record; of one that left none, the last it printed."""
        status = read_run(folder).status
        if status.get("state") == "failed":
            return f"notebook {status.get('notebook', '?')}: {status.get('error', '')}"
        log = self.folder / "logs" / f"{name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        what = "its process was killed" if code < 0 else f"it ended with exit code {code}"
        return what + (f"; the last it said: {lines[-1]}" if lines else "")

    def _note(self, job: Job, **news: Any) -> None:
        """Record and print the new state of a run."""
        first = {"values": job.values, "identity": job.identity}
        entry = self.entries.setdefault(job.name, first)
        entry.update(news)
        self._save()
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        more = entry.get("error") or entry.get("same_as") or entry.get("note") or ""
        if entry["state"] == "done":
            value = read_run(self.folder / job.name).value("ndcg@10")
            more = "" if value is None else f"nDCG@10 {value:.3f}"
        line = f"{minutes:>3}:{seconds:02d}  {entry['state']:8} {job.name}"
        print(line + (f"  ({more})" if more else ""), flush=True)

    def _save(self) -> None:
        write_json(self.folder / "sweep.json", self.record)


def _prepare_run(job: Job, folder: Path, shared: Path | None = None) -> None:
    """Make a run folder that can be resumed, with the results of notebook 1 from another one."""
    if (folder / "parameters.yaml").is_file():
        return
    if shared:
        own = shutil.ignore_patterns(".lock", "*.yaml", "environment.json", "report.html")
        shutil.copytree(shared, folder, ignore=own, dirs_exist_ok=True)
        status = read_record(folder / "status.json")
        status["notebooks"]["01"]["shared"] = display_path(shared)
        write_json(folder / "status.json", status)
    values = job.parameters.model_copy(update={"run_dir": display_path(folder)})
    record_request(values, folder, job.identity)


def _ended_before(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs of a search that had ended before it was interrupted, from `sweep.json`."""
    record = read_record(folder / "sweep.json")
    if record.get("schema", 0) > SCHEMA:
        raise RequestError(f"{display_path(folder)} was written by a newer workbench")
    entries = record.get("jobs", {}).items()
    return {name: entry for name, entry in entries if entry.get("state") in ENDED}
