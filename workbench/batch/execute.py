"""The notebooks executed one after another into a run folder that records everything."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.batch.preflight import preflight, refuse_problems
from workbench.batch.worker import scratch_folder
from workbench.files import display_path, project_root, write_json
from workbench.run_folder import (
    NOTEBOOKS,
    SCHEMA,
    NotebookError,
    RequestError,
    RunFolder,
    Terminated,
    read_record,
    set_aside,
)
from workbench.runs.folder import (
    LOCK_SECONDS,
    folder_problems,
    holding,
    now,
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
        NotebookError: a notebook failed. The report is written nevertheless.
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
        return _run_notebooks(values, run, list(only) or list(NOTEBOOKS), resume)


def summary(run_dir: str | Path) -> str:
    """What a run has shown, where its model and its report are, and what to do next."""
    from workbench.ranking.uncertainty import format_estimate
    from workbench.reports.findings.ranking import verdict

    run, lines = RunFolder(run_dir), []
    shown, metrics = display_path(run.path), read_record(run.metrics)
    rows = sorted(metrics.get("rows", ()), key=lambda row: -row["ndcg@10"]["mean"])
    if rows:
        ranked = sorted(rows, key=lambda row: row["scorer"] != "model")[:2]
        values = [f"{row['scorer']} {format_estimate(row['ndcg@10'])}" for row in ranked]
        lines = [
            re.sub(r"[*`]", "", verdict(metrics)),
            f"nDCG@10: {', best other: '.join(values)}",
        ]
    if run.model.is_dir():
        lines.append(f"model:  {display_path(run.model)}")
    lines.append(f"report: {display_path(run.report)}")
    if run.model.is_dir():
        lines.append(f"next:   workbench score {shown} YOUR_PAIRS.csv scores")
    return "\n".join(lines)


def compare(run_dir: str | Path, others: Sequence[str]) -> str:
    """Have notebook 5 compare a run with others, in its report; the summary of each."""
    from workbench.reports.page import write_report

    run, name = RunFolder(run_dir), "05_compare_runs.ipynb"
    values = {"run_dir": display_path(run.path), "compare_runs": ",".join([*others, str(run_dir)])}
    with holding(run.path):
        execute(project_root() / "notebooks" / name, run.notebooks / name, values)
        write_report(run.path)
    return "\n\n".join(f"{one}\n{summary(one)}" for one in (*others, str(run_dir)))


def still_valid(entries: Mapping[str, Any], numbers: Sequence[str]) -> dict[str, Any]:
    """The entries of `status.json` for notebooks that do not depend on one that is run again.

    Each depends on those before it, but nothing depends on the figures of notebook 03.
    """
    first = min((number for number in numbers if number != "03"), default="99")
    return {number: entry for number, entry in entries.items() if number < first}


def _run_notebooks(
    parameters: Parameters, run: RunFolder, numbers: list[str], resume: bool
) -> Path:
    from workbench.reports.page import write_report

    entries = read_record(run.status).get("notebooks", {})
    if not resume:
        entries = still_valid(entries, numbers)
        if "04" in numbers:
            set_aside(run.path, [run.evaluation.name])
    status = {"schema": SCHEMA, "state": "running", "started": now(), "notebooks": entries}
    write_json(run.status, status)
    number = numbers[0]
    try:
        for number in numbers:
            if resume and entries.get(number, {}).get("state") == "done":
                print(f"[{number}] done earlier, kept", flush=True)
                continue
            entries[number] = {"state": "running", "started": now()}
            write_json(run.status, status)
            start = time.monotonic()
            print(f"[{number}] {NOTEBOOKS[number]}", flush=True)
            _run_notebook(number, parameters, run)
            if number == "01" and "04" in numbers and not parameters.candidates:
                _check_test_split(run)
            entries[number] |= {"state": "done", "seconds": round(time.monotonic() - start, 1)}
            write_json(run.status, status)
            print(f"[{number}] done in {time.monotonic() - start:.0f} s", flush=True)
        print("writing the report", flush=True)
        write_report(run.path)
        status |= {"state": "done", "finished": now()}
        write_json(run.status, status)
    except BaseException as error:  # Ctrl-C too is recorded, and raised again
        state, cell, reason = "interrupted", None, type(error).__name__
        if isinstance(error, NotebookError):
            state, cell, reason = "failed", error.cell, error.error
        entry = entries.setdefault(number, {})
        if entry.get("state") != "done":  # it is, where the report could not be written
            entry["state"] = state
        ended = {"state": "failed", "notebook": number, "cell": cell, "error": reason}
        try:
            write_json(run.status, status | ended | {"finished": now()})
            write_report(run.path)
        except OSError as second:  # on a full disk the error before stays the one reported
            print(f"the status could not be written either: {second}", file=sys.stderr)
        raise
    return run.report


def _check_test_split(run: RunFolder) -> None:
    """Stop before the training if notebook 04 would find nothing to rank."""
    if not read_record(run.manifest)["sides"]["test"]["positives"]:
        reason = (
            "the test split has no positive pair, so notebook 04 would have nothing to rank: "
            "raise test_share, or give candidates"
        )
        raise NotebookError("01", None, reason)


def _run_notebook(number: str, parameters: Parameters, run: RunFolder) -> None:
    """Execute one notebook; every failure is raised as a `NotebookError`."""
    from papermill.exceptions import PapermillExecutionError

    source = project_root() / "notebooks" / f"{NOTEBOOKS[number]}.ipynb"
    try:
        with _sigterm_for_the_kernel():
            execute(source, run.notebooks / source.name, parameters.model_dump())
    except PapermillExecutionError as error:
        raise NotebookError(number, error.cell_index, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # the kernel died or could not start, or the notebook is broken
        reason = f"{type(error).__name__}: {error}"
        if type(error).__name__ == "DeadKernelError":
            reason += (
                ". The notebook did not cause this: the system may have ended the kernel for want "
                "of memory; try a smaller batch_size, max_length or max_pairs, and continue with "
                "--resume"
            )
        raise NotebookError(number, None, reason) from error


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
            # it logs an interrupt as an error when it is told to end; what is wrong is raised here
            extra_arguments=["--IPKernelApp.log_level=50"],
            config=sockets,
        )


@contextmanager
def _kernel_folder() -> Iterator[str]:
    """A private folder for a kernel's sockets, history, start-up files and description.

    Runs at the same time share nothing there, a user's own start-up files change no run, and
    `python3` is this very Python, whatever Jupyter's paths say.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with scratch_folder() as place:
        write_kernel_spec(f"{place}/kernels/python3")
        before = dict(os.environ)
        os.environ |= dict.fromkeys(("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_PATH"), place)
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


if __name__ == "__main__":  # as `make run` does it
    print(compare(sys.argv[1], sys.argv[2:]))
