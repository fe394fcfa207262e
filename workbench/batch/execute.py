"""The notebooks executed one after another into a run folder that records everything."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.batch.kernels import Kernel, Kernels, notebook, sigterm_for_kernels
from workbench.batch.preflight import preflight, refuse_problems
from workbench.files import display_path, project_root, refuse, write_json
from workbench.run_folder import NOTEBOOKS, SCHEMA, NotebookError, RunFolder, read_record, set_aside
from workbench.runs import folder as folders
from workbench.runs.parameters import Parameters

START_SECONDS = 600  # for a kernel to load its libraries, on a busy machine
NOTHING_TO_RANK = (
    "the test split has no positive pair, so notebook 04 would have nothing to rank: raise "
    "test_share, or give candidates"
)
KERNEL_ENDED = (
    ". The notebook did not cause this: the system may have ended the kernel for want of memory; "
    "try a smaller batch_size, max_length or max_pairs, and continue with --resume"
)


def run_chain(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    checked: bool = False,
    patience: float = folders.LOCK_SECONDS,
) -> Path:
    """Execute the notebooks into a run folder, one after another; the path of its `report.html`.

    Args:
        parameters: `run_dir` and `resume` in them are set from here.
        run_dir: the run's folder, made if absent.
        only: notebooks to run ("01" ... "04"); empty for all.
        resume: skip the notebooks already done and continue an interrupted training.
        checked: the caller has called `preflight` and found no problem.
        patience: seconds to wait for another process that writes into the folder.

    Raises:
        RequestError: the request is wrong or the run is being written by another process.
        NotebookError: a notebook failed. The report is written nevertheless.

    Example:
        >>> import workbench as wb
        >>> from workbench.runs.parameters import check_parameters, read_settings
        >>> asked = check_parameters(read_settings("notebooks/parameters/quickstart.yaml"))
        >>> wb.run_chain(asked, "runs/mine")  # doctest: +SKIP
    """
    run = RunFolder(run_dir)
    if not checked:
        refuse_problems(preflight(parameters, run.path, only, resume))
    with folders.holding(run.path, patience):
        # another process may have changed the folder between the preflight and the lock
        refuse(folders.folder_problems(parameters, run.path, only, resume))
        given = {"run_dir": display_path(run.path), "resume": resume}
        values = parameters.model_copy(update=given)
        folders.record_request(values, run.path, folders.run_identity(values))
        numbers = [number for number in NOTEBOOKS if not only or number in only]
        return _run_notebooks(values, run, numbers, resume)


def summary(run_dir: str | Path) -> str:
    """What a run has shown, where its model and its report are, and what to do next."""
    run, lines = RunFolder(run_dir), []
    if metrics := read_record(run.metrics):
        from workbench.ranking.uncertainty import format_estimate
        from workbench.reports.findings.ranking import verdict

        rows = sorted(metrics["rows"], key=lambda row: -row["ndcg@10"]["mean"])
        rows.sort(key=lambda row: row["scorer"] != "model")
        values = [f"{row['scorer']} {format_estimate(row['ndcg@10'])}" for row in rows[:2]]
        lines = [re.sub(r"[*`]", "", verdict(metrics)), "nDCG@10: " + ", best other: ".join(values)]
    lines.append(f"report: {display_path(run.report)}")
    if run.model.is_dir():
        lines.insert(-1, f"model:  {display_path(run.model)}")
        lines.append(f"next:   workbench score {display_path(run.path)} YOUR_PAIRS.csv scores")
    return "\n".join(lines)


def compare(run_dir: str | Path, others: Sequence[str]) -> str:
    """Have notebook 5 compare a run with others, in its report; the summary of each."""
    from workbench.reports.page import write_report

    run, name = RunFolder(run_dir), "05_compare_runs.ipynb"
    values = {"run_dir": display_path(run.path), "compare_runs": ",".join([*others, str(run_dir)])}
    with folders.holding(run.path):
        source = project_root() / "notebooks" / name
        with Kernel(source) as kernel:
            execute(source, run.notebooks / name, values, kernel)
        write_report(run.path)
    return "\n\n".join(f"{one}\n{summary(one)}" for one in (*others, str(run_dir)))


def still_valid(entries: Mapping[str, Any], numbers: Sequence[str]) -> dict[str, Any]:
    """The entries of `status.json` for notebooks that depend on none of those that run again.

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
    status = {"schema": SCHEMA, "state": "running", "started": folders.now(), "notebooks": entries}
    write_json(run.status, status)
    number = numbers[0]
    try:
        done = {n for n in numbers if resume and entries.get(n, {}).get("state") == "done"}
        with Kernels([n for n in numbers if n not in done]) as kernels:
            for number in numbers:
                if number in done:
                    print(f"[{number}] done earlier, kept", flush=True)
                    continue
                entries[number] = {"state": "running", "started": folders.now()}
                write_json(run.status, status)
                start = time.monotonic()
                print(f"[{number}] {NOTEBOOKS[number]}", flush=True)
                _run_notebook(number, parameters, run, kernels)
                built = number == "01" and "04" in numbers and not parameters.candidates
                if built and not read_record(run.manifest)["sides"]["test"]["positives"]:
                    raise NotebookError("01", None, NOTHING_TO_RANK)
                seconds = round(time.monotonic() - start, 1)
                entries[number] |= {"state": "done", "seconds": seconds}
                write_json(run.status, status)
                print(f"[{number}] done in {seconds:.0f} s", flush=True)
        print("writing the report", flush=True)
        write_report(run.path)
        write_json(run.status, status | {"state": "done", "finished": folders.now()})
    except BaseException as error:  # Ctrl-C too is recorded, and raised again
        state, cell, reason = "interrupted", None, type(error).__name__
        if isinstance(error, NotebookError):
            state, cell, reason = "failed", error.cell, error.error
        entry = entries.setdefault(number, {})
        if entry.get("state") != "done":  # it is, where the report could not be written
            entry["state"] = state
        ended = {"state": "failed", "notebook": number, "cell": cell, "error": reason}
        try:
            write_json(run.status, status | ended | {"finished": folders.now()})
            write_report(run.path)
        except OSError as second:  # on a full disk the error before stays the one reported
            print(f"the status could not be written either: {second}", file=sys.stderr)
        raise
    return run.report


def _run_notebook(number: str, parameters: Parameters, run: RunFolder, kernels: Kernels) -> None:
    """Execute one notebook; every failure is raised as a `NotebookError`."""
    source = notebook(number)
    try:
        with sigterm_for_kernels(), kernels.take(number) as kernel:
            execute(source, run.notebooks / source.name, parameters.model_dump(), kernel)
    except Exception as error:
        kind, cell, reason = type(error).__name__, None, str(error)
        if kind == "PapermillExecutionError":  # of a cell
            kind, cell, reason = error.ename, error.cell_index, error.evalue  # type: ignore[attr-defined]
        elif kind == "DeadKernelError":
            reason += KERNEL_ENDED
        raise NotebookError(number, cell, f"{kind}: {reason}") from error


def execute(source: Path, target: Path, values: dict[str, Any], kernel: Kernel) -> None:
    """Execute a notebook into `target` with those of the values that its parameters cell declares.

    Raises:
        ValueError: the notebook declares no `run_dir`.
        PapermillExecutionError: a cell failed; `target` holds the traceback.
    """
    import papermill

    declared = papermill.inspect_notebook(str(source))
    if "run_dir" not in declared:
        raise ValueError(f"{source.name} has no cell tagged 'parameters' that declares run_dir")
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(source),
        str(target),
        {name: value for name, value in values.items() if name in declared},
        kernel_name="python3",
        km=kernel.manager,
        start_timeout=START_SECONDS,
        cwd=str(source.parent),
        progress_bar=False,
        stdout_file=sys.stdout,
    )


if __name__ == "__main__":  # as `make run` does it
    print(compare(sys.argv[1], sys.argv[2:]))
