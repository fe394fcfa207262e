"""Sweeps: many runs, a few at a time, each an ordinary run folder, none lost and none made twice.

runs/<sweep>/
sweep.yaml   what was asked        sweep.json   the state of every run
<run>/       a run folder each     shared/      notebook 1 done once for each data setting
logs/        what runs printed     study.log    the trials of a search
"""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from workbench.catalog import done_runs, run_seconds
from workbench.engines import Engine, Work
from workbench.files import display_path, read_json, write_json
from workbench.identity import recorded_identity
from workbench.runs import RequestError, code_digest, now, read_status
from workbench.sweep_plan import Job

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
            "schema": SCHEMA, "state": "running", "started": now(), "engine": type(engine).__name__,
            "jobs": {name: entry for name, entry in (earlier or {}).get("jobs", {}).items()
                     if entry["state"] in ENDED},
        }  # fmt: skip
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
        work = {"parameters": job.parameters.model_dump(), "run_dir": str(self._shared(job)),
                "only": ["01"], "prepared": ""}  # fmt: skip
        self.shared[job.data] = "running"
        self.running[name] = job
        self.engine.start(name, work, self.folder / "logs" / f"{name}.log")

    def _work(self, job: Job) -> Work:
        return {"parameters": job.parameters.model_dump(), "run_dir": str(self._at(job)),
                "only": [], "prepared": str(self._shared(job))}  # fmt: skip

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
