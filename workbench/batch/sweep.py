"""Sweeps: many runs, a few at a time, each an ordinary run folder, none lost and none made twice.

runs/SWEEP/ holds `sweep.yaml` (the request), `sweep.json` (the state of every run), a run folder
for each run, `logs/` (what the runs printed) and `study.log` (the trials of a search).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from workbench import files
from workbench.batch.engines import Task, Worker, connected
from workbench.batch.plan import OptunaSearch, Plan, PlannedRun, read_plan
from workbench.batch.preflight import Finding, preflight, refuse_problems
from workbench.files import RequestError, display_path, project_path, refuse
from workbench.machine import core_count
from workbench.run_folder import SCHEMA, read_record
from workbench.runs import folder as folders
from workbench.runs.catalog import done_runs, read_run

ENDED = ("done", "kept", "failed")
POLL_SECONDS = 0.2
STOP_SECONDS = 80  # a worker that does not stop in its time has ended itself by then

Start = Callable[[list[str], Path], Any]  # with arguments and a log; gives a `Worker` or a `Task`


def sweep(
    file: str | None,
    name: str | None = None,
    overrides: Iterable[tuple[str, str]] = (),
    runs_dir: str = "runs",
    jobs: int = 1,
    engine: str = "local",
    address: str = "",
    resume: bool = False,
    dry_run: bool = False,
) -> bool:
    """Make the runs of a sweep, as `workbench sweep` asks for it; whether all of them are done.

    Raises:
        RequestError: the request is wrong, or a link in the sweep's folder leads elsewhere;
            nothing was started.
        KeyboardInterrupt: after all runs were stopped and recorded.
    """
    folders.check_name(name)
    if resume and not name:
        raise RequestError("--resume: say which sweep with --name")
    if file is None and not resume:
        raise RequestError("SWEEP.yaml is missing (only --resume can do without)")
    stem = Path(file or "sweep").stem
    folder = project_path(runs_dir) / (name or folders.fresh_name(stem, runs_dir))
    refuse(folders.place_problems(folder / "sweep.yaml", resume))
    plan = read_plan(file or folder / "sweep.yaml", overrides)
    _check_runs(plan, folder, may_exist=resume or not name)  # a fresh name may be taken by now
    if dry_run:
        _describe(plan, folder)
        return True
    try:
        with nullcontext() if engine == "local" else connected(address, jobs) as ray:
            import matplotlib.font_manager  # noqa: F401  # fills its cache, before many do at once

            here = partial(Worker, cores=max(1, core_count() // jobs), root=files.project_root())
            start: Start = partial(Task, ray) if ray else here
            folder = folder if name else folders.fresh_folder(stem, runs_dir)
            with folders.holding(folder):
                # another process may have been here since
                refuse(folders.place_problems(folder / "sweep.yaml", resume))
                values = plan.asked.model_dump(exclude_defaults=True)
                text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
                files.write_text(folder / "sweep.yaml", text)
                record = Sweep(folder, plan, start, jobs).run()
    except KeyboardInterrupt as error:
        again = f"workbench sweep --name {folder.name} --resume --runs-dir {runs_dir}"
        error.add_note(f"go on with: {again}")
        raise
    counts = Counter(entry["state"] for entry in record["jobs"].values())
    summary = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    print(f"{display_path(folder)}: {summary or 'no run'}")
    return bool(record["state"] == "done")


def _check_runs(plan: Plan, folder: Path, may_exist: bool) -> None:
    """Look at every run of a plan; what is found is printed or raised once for all of them."""
    known: dict[Any, Any] = {}
    found: dict[Finding, None] = {}
    for run in plan.runs:
        for finding in preflight(run.parameters, folder / run.name, known=known):
            if finding.level != "note" and not (may_exist and "exists:" in finding.text):
                found[finding] = None
    refuse_problems([*found])


def _describe(plan: Plan, folder: Path) -> None:
    known, search = done_runs(folder.parent), plan.asked.search
    trials = f", {search.trials} trials by {search.method}" if search else ""
    print(f"{display_path(folder)}: {len(plan.runs)} runs{trials}")
    for run in plan.runs:
        values = ", ".join(f"{name}={value}" for name, value in run.values.items())
        made = f"  done: {display_path(known[run.identity])}" if run.identity in known else ""
        print(f"  {run.name}  {values}{made}")
    print("nothing was started")


class Sweep:
    """A sweep in its folder, whose lock the caller holds; `slots` runs are under way at a time."""

    def __init__(self, folder: Path, plan: Plan, start: Start, slots: int) -> None:
        self.folder, self.start, self.slots = folder, start, slots
        self.left, self.search = iter(plan.runs), None
        self.entries: dict[str, dict[str, Any]] = {run.name: _entry(run) for run in plan.runs}
        if plan.asked.search:
            self.search = OptunaSearch(plan.asked.search, plan.asked.base, folder, slots)
            before = read_record(folder / "sweep.json").get("jobs", {}).items()
            self.entries = {name: entry for name, entry in before if entry.get("state") in ENDED}
        begun = {"schema": SCHEMA, "state": "running", "started": folders.now()}
        self.record: dict[str, Any] = {**begun, "jobs": self.entries}
        self.begin = time.monotonic()
        self.known = done_runs(folder.parent)  # runs that were done before, by identity
        self.running: dict[str, Any] = {}  # workers, by the name of their run
        self.made: dict[str, asyncio.Task[bool]] = {}  # by the name of the run

    def run(self) -> dict[str, Any]:
        """Make all runs and return the record, which is also in `sweep.json`."""
        try:
            asyncio.run(self._fill_slots())
            done = all(e["state"] in ("done", "kept") for e in self.entries.values())
            self.record["state"] = "done" if done else "failed"
        finally:
            self._stop()
            self.record["finished"] = folders.now()
            self._save()
        return self.record

    def _stop(self) -> None:
        """Stop what is running and wait for it."""
        running, end = self.running.values(), time.monotonic() + STOP_SECONDS
        for one in running:
            one.stop()
        while time.monotonic() < end and any(one.poll() is None for one in running):
            time.sleep(POLL_SECONDS)
        for entry in (self.record, *self.entries.values()):
            if entry["state"] == "running":
                entry["state"] = "stopped"

    async def _fill_slots(self) -> None:
        await asyncio.gather(*(self._slot() for _ in range(self.slots)))

    async def _slot(self) -> None:
        """Make one run after another."""
        while run := self.search.next() if self.search else next(self.left, None):
            if run.name not in self.made:  # a search may propose the same setting twice
                self.made[run.name] = asyncio.create_task(self._make(run))
            done = await self.made[run.name]
            if self.search:
                folder = self.known.get(run.identity, self.folder / run.name)
                self.search.tell(run, done, folder)

    async def _make(self, run: PlannedRun) -> bool:
        """Make a run, unless the very same is done already; whether it is done."""
        folder, found = self.folder / run.name, self.known.get(run.identity)
        if found is not None:
            made = read_run(found)
            news = {} if found == folder else {"same_as": display_path(found)}
            if made.environment.get("code") != folders.code_digest():
                news["note"] = "made by other code"
            shown = news.get("same_as") or news.get("note", "")
            self._note(run, "kept", shown, seconds=made.seconds, **news)
            return True
        if not (folder / "parameters.yaml").is_file():  # as if it had been interrupted at once
            values = run.parameters.model_copy(update={"run_dir": display_path(folder)})
            folders.record_request(values, folder, run.identity)
        self._note(run, "running")
        arguments = ["--runs-dir", str(folder.parent), "--name", run.name, "--resume"]
        log = self.folder / "logs" / f"{run.name}.log"
        self.running[run.name] = worker = self.start(arguments, log)
        while (code := worker.poll()) is None:
            await asyncio.sleep(POLL_SECONDS)
        del self.running[run.name]
        made = read_run(folder)
        if code:
            why = _why(made.status, log, code)
            self._note(run, "failed", why, seconds=made.seconds, error=why)
        else:
            value = made.value("ndcg@10")
            shown = "" if value is None else f"nDCG@10 {value:.3f}"
            self._note(run, "done", shown, seconds=made.seconds)
        return not code

    def _note(self, run: PlannedRun, state: str, shown: str = "", **news: Any) -> None:
        """Record and print the new state of a run."""
        self.entries.setdefault(run.name, _entry(run)).update(state=state, **news)
        self._save()
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        line = f"{minutes:>3}:{seconds:02d}  {state:8} {run.name}"
        print(f"{line}  ({shown})" if shown else line, flush=True)

    def _save(self) -> None:
        files.write_json(self.folder / "sweep.json", self.record)


def _why(status: Mapping[str, Any], log: Path, code: int) -> str:
    """Why a run failed, by its own record; of one that left none, the last it printed."""
    if status.get("state") == "failed":
        return f"notebook {status.get('notebook', '?')}: {status.get('error', '')}"
    text = log.read_text(encoding="utf-8", errors="replace")
    what = "its process was killed" if code < 0 else f"it ended with exit code {code}"
    return what + "".join(f"; the last it said: {line}" for line in text.splitlines()[-1:])


def _entry(run: PlannedRun) -> dict[str, Any]:
    return {"values": run.values, "identity": run.identity, "state": "waiting"}
