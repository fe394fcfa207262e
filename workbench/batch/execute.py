"""The notebooks executed one after another into a run folder that records everything."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.batch.preflight import preflight, refuse_problems
from workbench.files import display_path, project_root, read_json, write_json
from workbench.run_folder import (
    ACTS,
    SCHEMA,
    ActError,
    RequestError,
    RunFolder,
    Terminated,
    set_aside,
)
from workbench.runs.folder import (
    LOCK_SECONDS,
    folder_problems,
    holding,
    now,
    read_status,
    record_request,
    run_identity,
)
from workbench.runs.parameters import Parameters


def run_chain(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    checked: bool = False,
    patience: float = LOCK_SECONDS,
) -> Path:
    """Execute the notebooks into a run folder, one after another, and write the report.

    Args:
        parameters: checked parameters; `run_dir` and `resume` in them are set from here.
        run_dir: the run's folder, made if absent.
        only: notebooks to run ("01" ... "04"); empty for all.
        resume: skip the notebooks already done and continue an interrupted training.
        checked: the caller has called `preflight` and found no problem.
        patience: seconds to wait for another process that writes into the folder.

    Returns:
        The path of `report.html`.

    Raises:
        RequestError: the request is wrong or the run is being written by another process.
        ActError: a notebook failed. The report is written nevertheless.
    """
    run = RunFolder(run_dir)
    if not checked:
        refuse_problems(preflight(parameters, run.path, only, resume))
    with holding(run.path, patience):
        # another process may have changed the folder between the preflight and the lock
        if problems := folder_problems(parameters, run.path, only, resume):
            raise RequestError("\n".join(problems))
        given = {"run_dir": display_path(run.path), "resume": resume}
        values = parameters.model_copy(update=given)
        record_request(values, run.path, run_identity(values))
        return _run_notebooks(values, run, list(only) or list(ACTS), resume)


def still_valid(entries: Mapping[str, Any], acts: Sequence[str]) -> dict[str, Any]:
    """The entries of `status.json` for notebooks that do not depend on one that is run again.

    Each depends on those before it, but nothing depends on the figures of notebook 03.
    """
    first = min((act for act in acts if act != "03"), default="99")
    return {act: entry for act, entry in entries.items() if act < first}


def _run_notebooks(parameters: Parameters, run: RunFolder, acts: list[str], resume: bool) -> Path:
    entries = read_status(run.path).get("acts", {})
    if not resume:
        entries = still_valid(entries, acts)
        if "04" in acts:
            set_aside(run.path, [run.evaluation.name])
    status = {"schema": SCHEMA, "state": "running", "started": now(), "acts": entries}
    write_json(run.status, status)
    try:
        for act in acts:
            if resume and entries.get(act, {}).get("state") == "done":
                print(f"[{act}] done earlier, kept", flush=True)
                continue
            entries[act] = {"state": "running", "started": now()}
            write_json(run.status, status)
            start = time.monotonic()
            _run_notebook(act, parameters, run)
            entries[act] |= {"state": "done", "seconds": round(time.monotonic() - start, 1)}
            write_json(run.status, status)
            if act == "01" and "04" in acts and not parameters.candidates:
                _check_test_split(run)
        status |= {"state": "done", "finished": now()}
    except BaseException as error:  # Ctrl-C too is recorded, and raised again
        running = (act for act, entry in entries.items() if entry["state"] == "running")
        act, cell, reason = next(running, acts[0]), None, type(error).__name__
        if isinstance(error, ActError):
            act, cell, reason = error.act, error.cell, error.error
        state = "failed" if isinstance(error, ActError) else "interrupted"
        entries.setdefault(act, {})["state"] = state
        status |= {"state": "failed", "act": act, "cell": cell, "error": reason, "finished": now()}
        raise
    finally:
        _close(run, status)
    return run.report


def _close(run: RunFolder, status: dict[str, Any]) -> None:
    """Write the status and the report; on a full disk the error before stays the one reported."""
    from workbench.reports.page import write_report

    try:
        write_json(run.status, status)
        write_report(run.path)
    except OSError as error:
        if status["state"] == "done":
            raise
        print(f"the status could not be written either: {error}", file=sys.stderr)


def _check_test_split(run: RunFolder) -> None:
    """Stop before the training if notebook 04 would find nothing to rank."""
    if not read_json(run.manifest)["sides"]["test"]["positives"]:
        reason = (
            "the test split has no positive pair, so notebook 04 would have nothing to rank: "
            "raise test_share, or give candidates"
        )
        raise ActError("01", None, reason)


def _run_notebook(act: str, parameters: Parameters, run: RunFolder) -> None:
    """Execute one notebook; every failure is raised as an `ActError`."""
    from papermill.exceptions import PapermillExecutionError

    source = project_root() / "notebooks" / f"{ACTS[act]}.ipynb"
    print(f"[{act}] {ACTS[act]}", flush=True)
    start = time.monotonic()
    try:
        with _sigterm_for_the_kernel():
            execute(source, run.notebooks / source.name, parameters.model_dump())
    except PapermillExecutionError as error:
        raise ActError(act, error.cell_index, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # the kernel died or could not start, or the notebook is broken
        reason = f"{type(error).__name__}: {error}"
        if type(error).__name__ == "DeadKernelError":
            reason += (
                ". The notebook did not cause this: the system may have ended the kernel for want "
                "of memory; try a smaller batch_size, max_length or max_pairs, and continue with "
                "--resume"
            )
        raise ActError(act, None, reason) from error
    print(f"[{act}] done in {time.monotonic() - start:.0f} s", flush=True)


def execute(source: Path, target: Path, values: dict[str, Any]) -> None:
    """Execute a notebook with the values that its parameters cell declares; others are left out.

    Args:
        source: the notebook.
        target: where the executed copy goes; after a failure it holds the traceback.
        values: by name.

    Raises:
        ValueError: the notebook declares no `run_dir`.
        PapermillExecutionError: a cell failed.
    """
    import papermill
    from traitlets.config import Config

    declared = papermill.inspect_notebook(str(source))
    if "run_dir" not in declared:
        raise ValueError(f"{source.name} has no cell tagged 'parameters' that declares run_dir")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _kernel_folder() as place:
        # Files instead of TCP ports: two kernels that start at once can be given the same port.
        sockets = Config()
        sockets.KernelManager.transport = "ipc"
        sockets.KernelManager.ip = f"{place}/socket"
        papermill.execute_notebook(
            str(source),
            str(target),
            {name: value for name, value in values.items() if name in declared},
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=False,
            stdout_file=sys.stdout,
            extra_arguments=["--IPKernelApp.log_level=40"],  # only its errors
            config=sockets,
        )


@contextmanager
def _kernel_folder() -> Iterator[str]:
    """A private folder for a kernel's sockets, history and start-up files.

    Runs at the same time share nothing there, and a user's own start-up files change no run. It is
    in `/tmp` because the path of a socket may have only about 100 characters.
    """
    near = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="wb-", dir=near, ignore_cleanup_errors=True) as place:
        before = dict(os.environ)
        os.environ |= dict.fromkeys(("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"), place)
        try:
            yield place
        finally:
            os.environ.clear()
            os.environ |= before


@contextmanager
def _sigterm_for_the_kernel() -> Iterator[None]:
    """Hand SIGTERM on to the kernel, where a training writes a checkpoint; then raise `Terminated`.

    Outside of the main thread, which alone gets signals, this does nothing.
    """
    handed_on = []

    def hand_on(*_: Any) -> None:
        import psutil

        handed_on.extend(psutil.Process().children())
        for child in handed_on:
            child.terminate()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    except Exception:
        if not handed_on:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if handed_on:
        raise Terminated
