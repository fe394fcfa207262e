"""Where the runs of a sweep are carried out: as processes here, or as tasks on a Ray cluster."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from workbench.files import project_root
from workbench.processes import core_count

Work = dict[str, Any]  # what `workbench.worker` takes
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
    """Start `python -m workbench.worker` with a job; its input stays open for as long as we live.

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the sweep, which then
    stops its workers in good order.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    limits = {name: str(cores) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
    environment = {**limits, "TOKENIZERS_PARALLELISM": "false", **os.environ}
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.worker"],
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, text=True,
            cwd=root or project_root(), env=environment, start_new_session=True,
        )  # fmt: skip
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
