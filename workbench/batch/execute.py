"""The chain: the notebooks executed one after another into a run folder that records everything."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.batch.preflight import preflight
from workbench.files import (
    display_path,
    project_path,
    project_root,
    read_json,
    write_json,
)
from workbench.machine import handing_on_sigterm
from workbench.run_folder import ACTS, SCHEMA, ActError, RequestError, Terminated, set_aside
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
    prepared: str | Path = "",
    patience: float = LOCK_SECONDS,
) -> Path:
    """Execute the notebooks into a run folder, one after another, and write the report.

    Args:
        parameters: checked parameters; `run_dir` and `resume` in them are set from here.
        run_dir: the run's folder, made if absent.
        only: acts to run ("01" ... "04"); empty for all.
        resume: skip the acts already done and continue an interrupted training.
        checked: the caller has looked at the request (see `preflight`) and found no problem.
        prepared: a run folder with the same data settings in which act 01 is done: what it left is
            copied in place of running that act.
        patience: seconds to wait for another process that writes into the folder.

    Returns:
        The path of `report.html`.

    Raises:
        RequestError: the request is wrong or the run is being written by another process.
        ActError: a notebook failed. The report is written nevertheless.
    """
    folder = project_path(run_dir)
    if not checked:
        found = preflight(parameters, folder, only, resume)
        if found.problems:
            raise RequestError("\n".join(map(str, found.problems)))
    with holding(folder, patience):
        # another process may have been here between the look at the folder and the lock
        if problems := folder_problems(parameters, folder, only, resume):
            raise RequestError("\n".join(problems))
        values = parameters.model_copy(update={"run_dir": display_path(folder), "resume": resume})
        record_request(values, folder, run_identity(values))
        if prepared:
            adopt(project_path(prepared), folder)
        return _run_acts(values, folder, list(only) or list(ACTS), resume or bool(prepared))


def adopt(prepared: Path, folder: Path) -> None:
    """Take over what act 01 left in another run folder, unless it is done here already."""
    status = read_status(folder)
    acts = status.setdefault("acts", {})
    if acts.get("01", {}).get("state") == "done":
        return
    source = read_status(prepared).get("acts", {}).get("01", {})
    if source.get("state") != "done":
        raise RequestError(f"{display_path(prepared)}: notebook 01 is not done there")
    for part in ("data", "figures"):
        shutil.rmtree(folder / part, ignore_errors=True)  # half a copy of an earlier attempt
        shutil.copytree(prepared / part, folder / part)
    (folder / "notebooks").mkdir(exist_ok=True)
    for file in ("inspection.json", f"notebooks/{ACTS['01']}.ipynb"):
        shutil.copy2(prepared / file, folder / file)
    acts["01"] = source | {"shared": display_path(prepared)}
    write_json(folder / "status.json", {"schema": SCHEMA, "state": "running", **status})


def _run_acts(parameters: Parameters, folder: Path, acts: list[str], resume: bool) -> Path:
    entries = read_status(folder).get("acts", {})
    done = [act for act, entry in entries.items() if entry.get("state") == "done"]
    if not resume:
        done, entries = [], still_valid(entries, acts)
        if "04" in acts:
            set_aside(folder, ["evaluation"])
    status = {"schema": SCHEMA, "state": "running", "started": now(), "acts": entries}
    write_json(folder / "status.json", status)
    try:
        for act in acts:
            if act in done:
                print(f"[{act}] done earlier, kept", flush=True)
                continue
            _run_act(act, parameters, folder, status)
            if act == "01" and "04" in acts and not parameters.candidates:
                _check_test_side(folder)
        status |= {"state": "done", "finished": now()}
    except ActError as error:
        status["acts"][error.act]["state"] = "failed"
        status |= {
            "state": "failed",
            "act": error.act,
            "cell": error.cell,
            "error": error.error,
            "finished": now(),
        }
        raise
    except BaseException as error:  # Ctrl-C and the like: say so, then let it through
        act = next((a for a, e in status["acts"].items() if e["state"] == "running"), acts[0])
        status["acts"].setdefault(act, {})["state"] = "interrupted"
        status |= {
            "state": "failed",
            "act": act,
            "cell": None,
            "error": type(error).__name__,
            "finished": now(),
        }
        raise
    finally:
        report = _close(folder, status)
    return report


def still_valid(entries: Mapping[str, Any], acts: Sequence[str]) -> dict[str, Any]:
    """What `status.json` says of the acts that do not rest on one which is run anew.

    Each rests on those before it, but for the curves of act 03: nothing rests on them.
    """
    first = min((act for act in acts if act != "03"), default="99")
    return {act: entry for act, entry in entries.items() if act < first}


def _close(folder: Path, status: dict[str, Any]) -> Path:
    """Write the status and the report; on a full disk what failed before is still what is told."""
    from workbench.reports.page import write_report

    try:
        write_json(folder / "status.json", status)
        return write_report(folder)
    except OSError as error:
        if status["state"] == "done":
            raise
        print(f"neither could the status be written: {error}", file=sys.stderr)
        return folder / "report.html"


def import_papermill() -> ModuleType:
    """papermill, without a grammar of international addresses that no notebook has use for.

    jsonschema takes the grammar where it is installed, and building it takes over a second of every
    run's start; where its import fails, it does without.
    """
    grammar = "rfc3987_syntax"
    if grammar in sys.modules:
        return import_module("papermill")
    sys.modules[grammar] = None  # type: ignore[assignment]  # an import of it fails
    try:
        return import_module("papermill")
    finally:
        del sys.modules[grammar]


def _run_act(act: str, parameters: Parameters, folder: Path, status: dict[str, Any]) -> None:
    import_papermill()
    from papermill.exceptions import PapermillExecutionError

    source = project_root() / "notebooks" / f"{ACTS[act]}.ipynb"
    status["acts"][act] = {"state": "running", "started": now()}
    write_json(folder / "status.json", status)
    print(f"[{act}] {ACTS[act]}", flush=True)
    start = time.monotonic()
    try:
        with handing_on_sigterm(Terminated):
            execute(source, folder / "notebooks" / source.name, parameters.model_dump())
    except PapermillExecutionError as error:
        raise ActError(act, error.cell_index, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # the kernel died or could not start; the notebook is broken
        raise ActError(act, None, _reason(error)) from error
    seconds = round(time.monotonic() - start, 1)
    status["acts"][act] |= {"state": "done", "seconds": seconds}
    write_json(folder / "status.json", status)
    print(f"[{act}] done in {seconds:.0f} s", flush=True)


def _check_test_side(folder: Path) -> None:
    """Stop before the training if notebook 4 would find nothing to rank."""
    if not read_json(folder / "data" / "manifest.json")["sides"]["test"]["positives"]:
        raise ActError(
            "01",
            None,
            "the test side got no positive pair, so notebook 04 would have "
            "nothing to rank: raise test_share, or give candidates",
        )


def execute(source: Path, target: Path, values: dict[str, Any]) -> None:
    """Execute a notebook with those of the values that its parameters cell declares."""
    from traitlets.config import Config

    papermill = import_papermill()
    declared = papermill.inspect_notebook(str(source))
    if "run_dir" not in declared:
        raise ValueError(f"{source.name} has no cell tagged 'parameters' that declares run_dir")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _kernel_place() as place:
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
            extra_arguments=["--IPKernelApp.log_level=40"],  # its errors, not its remarks
            config=sockets,
        )


@contextmanager
def _kernel_place() -> Iterator[str]:
    """A folder of its own for what a kernel leaves: sockets, history, start-up files.

    Runs at the same time share nothing there, and nobody's own start-up files change a run. The
    folder is as near the root as may be, since a socket's path is at most about 100 characters.
    """
    near = Path("/tmp")
    place = tempfile.mkdtemp(prefix="wb-", dir=near if near.is_dir() else None)
    names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, place))
    try:
        yield place
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(place, ignore_errors=True)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "DeadKernelError":
        text += (
            ". Nothing in the notebook did this: the system may have ended it for want of memory; "
            "try a smaller batch_size, max_length or max_pairs, and go on with --resume"
        )
    return text
