"""Runs: the notebooks executed one after another into a run folder that records everything."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from workbench.files import (
    display_path,
    project_path,
    project_root,
    read_json,
    set_aside,
    write_json,
    write_text,
)
from workbench.models import ModelError, find_model
from workbench.parameters import Parameters

ACTS = {
    "01": "01_inspect_data",
    "02": "02_fine_tune",
    "03": "03_plot_loss",
    "04": "04_evaluate_ranking",
}
RECORDED = ("torch", "sentence-transformers", "transformers", "datasets", "accelerate",
            "scikit-learn", "numpy", "pandas", "papermill", "reranker-workbench")  # fmt: skip


class RequestError(ValueError):
    """The request cannot be carried out as it stands; nothing was started."""


class ActError(RuntimeError):
    """An act failed; its executed notebook, with the traceback, and all earlier files stay."""

    def __init__(self, act: str, cell: int | None, error: str) -> None:
        super().__init__(f"notebook {ACTS[act]}, cell {cell}: {error}")
        self.act, self.cell, self.error = act, cell, error


def fresh_name(stem: str, runs_dir: str | Path = "runs") -> str:
    """`stem-YYYYmmdd-HHMMSS`, with a number behind it where that name is taken."""
    base = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    name, number = base, 2
    while (project_path(runs_dir) / name).exists():
        name, number = f"{base}-{number}", number + 1
    return name


def request_problems(
    parameters: Parameters, run_dir: Path, only: Sequence[str], resume: bool
) -> list[str]:
    """What would make this request fail before any work is done; empty if nothing would."""
    problems = [f"--only {act}: the notebooks are {', '.join(ACTS)}" for act in only
                if act not in ACTS]  # fmt: skip
    for name in ("pairs", "test_pairs", "candidates"):
        value = getattr(parameters, name)
        there = (project_path(value).is_file() or
                 (name == "candidates" and project_path(value).is_dir()))  # fmt: skip
        if value and not value.startswith("hub:") and not there:
            found = Path(value).resolve()
            hint = f"; did you mean {found}?" if found.is_file() else ""
            problems.append(f"{name}: there is no file {value!r} (relative paths start at the "
                            f"project's root){hint}")  # fmt: skip
    try:
        base = parameters.base_model  # what can only be a name on the Hub is looked up later
        parent, _, rest = base.partition("/")
        local = bool(parent and rest) and parent != "." and project_path(parent).is_dir()
        if local and not project_path(base).is_dir():
            raise ModelError(f"base_model: there is no folder {base!r}")
        if base.count("/") != 1 or base.startswith(".") or project_path(base).is_dir():
            find_model(base)
    except ModelError as error:
        problems.append(str(error))
    tests = [project_path(place) / "data" / "test.parquet"
             for place in (run_dir, parameters.base_model)]  # fmt: skip
    listed = bool(parameters.candidates) or any(test.is_file() for test in tests)
    if "04" in only and "01" not in only and not listed:
        problems.append("--only 04: there is nothing to rank, for this run has no data: give "
                        "candidates, or have it prepare data as well (--only 01,04)")  # fmt: skip
    exists = (run_dir / "parameters.yaml").is_file()
    if run_dir.exists() and not exists and any(p.name != ".lock" for p in run_dir.iterdir()):
        problems.append(f"{display_path(run_dir)} is not a run folder and not empty")
    if exists and not resume and not only:
        problems.append(f"{display_path(run_dir)} exists: choose another --name, or --resume it, "
                        "or name the notebooks to run anew with --only")  # fmt: skip
    if resume and not exists:
        problems.append(f"{display_path(run_dir)} does not exist, so it cannot be resumed")
    if exists and resume:
        problems += changed_parameters(parameters, run_dir)
    return problems


def changed_parameters(parameters: Parameters, run_dir: Path) -> list[str]:
    """Which parameters differ from those the run was started with, one line each."""
    recorded = yaml.safe_load((run_dir / "parameters.yaml").read_text(encoding="utf-8"))
    asked = parameters.model_dump()
    skipped = {"run_dir", "resume"}
    return [
        f"{name}: the run was started with {recorded.get(name)!r}, not {value!r}; --resume "
        "continues with the same parameters"
        for name, value in asked.items()
        if name not in skipped and recorded.get(name) != value
    ]


def run_chain(
    parameters: Parameters, run_dir: str | Path, only: Sequence[str] = (), resume: bool = False
) -> Path:
    """Execute the notebooks into a run folder, one after another, and write the report.

    Args:
        parameters: checked parameters; `run_dir` and `resume` in them are set from here.
        run_dir: the run's folder, made if absent.
        only: acts to run ("01" ... "04"); empty for all.
        resume: skip the acts already done and continue an interrupted training.

    Returns:
        The path of `report.html`.

    Raises:
        RequestError: the request is wrong or the run is being written by another process.
        ActError: a notebook failed. The report is written nevertheless.
    """
    folder = project_path(run_dir)
    problems = request_problems(parameters, folder, only, resume)
    if problems:
        raise RequestError("\n".join(problems))
    folder.mkdir(parents=True, exist_ok=True)
    values = parameters.model_copy(update={"run_dir": display_path(folder), "resume": resume})
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _run_acts(values, folder, list(only) or list(ACTS), resume)
    except Timeout:
        raise RequestError(f"{display_path(folder)} is in use by another process") from None


def _run_acts(parameters: Parameters, folder: Path, acts: list[str], resume: bool) -> Path:
    from workbench.report import write_report

    status = read_status(folder) if resume else {}
    done = [act for act, entry in status.get("acts", {}).items() if entry["state"] == "done"]
    _record(parameters, folder)
    status = {"schema": 1, "state": "running", "started": _now(), "acts": status.get("acts", {})}
    write_json(folder / "status.json", status)
    try:
        for act in acts:
            if act in done:
                print(f"[{act}] done earlier, kept", flush=True)
                continue
            _run_act(act, parameters, folder, status)
        status |= {"state": "done", "finished": _now()}
    except ActError as error:
        status["acts"][error.act]["state"] = "failed"
        status |= {"state": "failed", "act": error.act, "cell": error.cell, "error": error.error,
                   "finished": _now()}  # fmt: skip
        raise
    except BaseException as error:  # Ctrl-C and the like: say so, then let it through
        act = next((a for a, e in status["acts"].items() if e["state"] == "running"), acts[0])
        status |= {"state": "failed", "act": act, "cell": None, "error": type(error).__name__,
                   "finished": _now()}  # fmt: skip
        raise
    finally:
        write_json(folder / "status.json", status)
        report = write_report(folder)
    return report


def _run_act(act: str, parameters: Parameters, folder: Path, status: dict[str, Any]) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = project_root() / "notebooks" / f"{ACTS[act]}.ipynb"
    declared = papermill.inspect_notebook(str(source))
    values = {k: v for k, v in parameters.model_dump().items() if k in declared}
    status["acts"][act] = {"state": "running", "started": _now()}
    write_json(folder / "status.json", status)
    print(f"[{act}] {ACTS[act]}", flush=True)
    (folder / "notebooks").mkdir(exist_ok=True)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            str(source),
            str(folder / "notebooks" / source.name),
            values,
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=False,
            stdout_file=sys.stdout,
            extra_arguments=["--IPKernelApp.log_level=40"],  # its errors, not its remarks
        )
    except PapermillExecutionError as error:
        raise ActError(act, error.cell_index, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # the kernel died, or could not be started
        raise ActError(act, None, f"{type(error).__name__}: {error}") from error
    seconds = round(time.monotonic() - start, 1)
    status["acts"][act] |= {"state": "done", "seconds": seconds}
    write_json(folder / "status.json", status)
    print(f"[{act}] done in {seconds:.0f} s", flush=True)


def read_status(run_dir: str | Path) -> dict[str, Any]:
    """`status.json` of a run; empty if it has none."""
    file = project_path(run_dir) / "status.json"
    return dict(read_json(file)) if file.is_file() else {}


def _record(parameters: Parameters, folder: Path) -> None:
    text = yaml.safe_dump(parameters.model_dump(), allow_unicode=True, sort_keys=False)
    target = folder / "parameters.yaml"
    if target.is_file() and target.read_text(encoding="utf-8") != text:
        set_aside(folder, ["parameters.yaml"])
    write_text(target, text)
    write_json(folder / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Versions, source commit and hardware, for `environment.json`."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project_root(), capture_output=True, text=True
    )
    installed = {name: _version(name) for name in RECORDED}
    return {
        "schema": 1,
        "python": platform.python_version(),
        "packages": {name: version for name, version in installed.items() if version},
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
