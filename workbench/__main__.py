"""The `workbench` command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.commands import (
    add_card,
    add_engine,
    add_export,
    add_score,
    end_on_sigterm,
    refuse,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    return int(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench",
        description="Fine-tune a cross-encoder reranker and know whether it got better.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_run,
        _add_preflight,
        _add_sweep,
        _add_runs,
        add_score,
        add_export,
            add_card,
    ):
        add(commands)
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    """What `run` and `preflight` have in common: which run is asked for."""
    parser.add_argument("parameters", nargs="?", metavar="PARAMS.yaml", help="for example "
                        "notebooks/parameters/quickstart.yaml")  # fmt: skip
    parser.add_argument("--name", help="of the run; default: the file's name and the time")
    parser.add_argument("-p", dest="overrides", nargs=2, action="append", default=[],
                        metavar=("KEY", "VALUE"),
                        help="set a parameter; may be repeated")  # fmt: skip
    parser.add_argument(
        "--only",
        default="",
        metavar="01,02",
        help="run these notebooks alone, also anew in the run called NAME",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run called NAME; as with --only, with its own parameters unless "
        "PARAMS.yaml is given",
    )
    parser.add_argument("--runs-dir", default="runs", metavar="DIR", help="where runs are (runs)")


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="execute the notebooks into a run folder",
        description="Execute notebooks 01 to 04 with the parameters of a YAML file (without one, "
        "the defaults), into runs/NAME. Relative paths in parameters start at the project's root.",
        allow_abbrev=False,
    )
    _add_request(run)
    run.set_defaults(command=_run)


def _add_preflight(commands: Any) -> None:
    preflight = commands.add_parser(
        "preflight",
        help="say what would make a run fail, without starting it",
        description="Look at parameters, files, rows, base model, vocabulary and disk without "
        "starting or writing anything. `workbench run` does the same before it starts.",
        allow_abbrev=False,
    )
    _add_request(preflight)
    preflight.add_argument(
        "--trial", action="store_true", help="train for two seconds to tell how long it will take"
    )
    preflight.add_argument("--json", action="store_true", help="print the findings as JSON")
    preflight.set_defaults(command=_preflight)


def _add_sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="make many runs: grids, lists, seeds, or a search",
        description="Make the runs that SWEEP.yaml asks for, each a run folder in runs/NAME. Runs "
        "that are done already are not made again.",
        allow_abbrev=False,
    )
    sweep.add_argument("sweep", nargs="?", metavar="SWEEP.yaml", help="for example "
                       "notebooks/sweeps/vocabularies.yaml")  # fmt: skip
    sweep.add_argument("--name", help="of the sweep; default: the file's name and the time")
    sweep.add_argument("-p", dest="overrides", nargs=2, action="append", default=[],
                       metavar=("KEY", "VALUE"), help="set a parameter of all runs")  # fmt: skip
    add_engine(sweep)
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    sweep.add_argument("--resume", action="store_true", help="go on with the sweep called NAME")
    sweep.add_argument("--dry-run", action="store_true", help="say what would be done")
    sweep.add_argument("--max-failures", type=int, default=0, metavar="N",
                       help="start no further run after N have failed (0: no limit)")  # fmt: skip
    sweep.add_argument("--runs-dir", default="runs", metavar="DIR", help="where runs are (runs)")
    sweep.set_defaults(command=_sweep)


def _add_runs(commands: Any) -> None:
    runs = commands.add_parser(
        "runs",
        help="list, compare, export or remove runs",
        description="list (the default), diff A B, or rm RUN... of the run folders in runs/ and in "
        "the sweeps there.",
        allow_abbrev=False,
    )
    runs.add_argument("action", nargs="?", choices=("list", "diff", "rm"), default="list")
    runs.add_argument("names", nargs="*", metavar="RUN", help="of diff and rm")
    runs.add_argument("--filter", dest="filters", action="append", default=[], metavar="CONDITION",
                      help="such as state=done, ndcg@10>0.5, vocabulary!=keep")  # fmt: skip
    runs.add_argument("--sort", default="", metavar="COLUMN",
                      help="such as seconds; --sort=-ndcg@10 for falling order")  # fmt: skip
    runs.add_argument("--json", action="store_true", help="print everything as JSON")
    runs.add_argument("--csv", action="store_true", help="print everything as CSV")
    runs.add_argument("--export", choices=("mlflow", "trackio"), help="hand the runs to a tracker")
    runs.add_argument("--uri", default="", help="of the tracker; default: a store in runs/")
    runs.add_argument("--yes", action="store_true", help="rm: do not ask")
    runs.add_argument("--runs-dir", default="runs", metavar="DIR", help="where runs are (runs)")
    runs.set_defaults(command=_runs)


def _runs(options: argparse.Namespace) -> int:
    from workbench.listing import runs
    from workbench.runs import RequestError

    try:
        return runs(options)
    except RequestError as error:
        return refuse(str(error))


def _sweep(options: argparse.Namespace) -> int:
    from workbench.batch import sweep
    from workbench.parameters import ParameterError
    from workbench.runs import RequestError

    end_on_sigterm()
    try:
        return sweep(options)
    except (ParameterError, RequestError) as error:
        return refuse(str(error))


def _request(options: argparse.Namespace) -> Any:
    """The preflight of what is asked for, with the parameters and the folder it is about."""
    from workbench.files import project_path
    from workbench.parameters import given_parameters, sound_parameters
    from workbench.preflight import preflight
    from workbench.runs import RequestError, fresh_name, name_problem

    if options.resume and not options.name:
        raise RequestError("--resume: say which run with --name")
    if options.name and (problem := name_problem(options.name)):
        raise RequestError(problem)
    if options.parameters is None and options.name and (options.resume or options.only):
        # as the run was started, if there is such a run
        asked = project_path(options.runs_dir) / options.name / "parameters.yaml"
        options.parameters = str(asked) if asked.is_file() else None
    given = given_parameters(options.parameters, dict(options.overrides).items())
    parameters, problems = sound_parameters(given)
    name = options.name or fresh_name(_stem(options), options.runs_dir)
    folder = Path(options.runs_dir) / name
    only = [act.strip() for act in options.only.split(",") if act.strip()]
    trial = getattr(options, "trial", False)
    found = preflight(parameters, folder, only, options.resume, problems, trial)
    return found, parameters, folder, only


def _stem(options: argparse.Namespace) -> str:
    """What the name of a run without a name begins with."""
    return Path(options.parameters or "defaults").stem


def _run(options: argparse.Namespace) -> int:
    from workbench.files import display_path
    from workbench.parameters import ParameterError
    from workbench.runs import RequestError, fresh_folder

    try:
        found, parameters, folder, only = _request(options)
        if code := _tell(found):
            return code
        if not options.name:
            folder = fresh_folder(_stem(options), options.runs_dir)
    except (ParameterError, RequestError) as error:
        return refuse(str(error))

    from workbench.chain import run_chain
    from workbench.runs import ActError

    end_on_sigterm()
    name = folder.name
    try:
        report = run_chain(parameters, folder, only, options.resume, checked=True)
    except RequestError as error:
        return refuse(str(error))
    except (ActError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        print(f"see {display_path(folder)}/report.html", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; go on with --name {name} --resume", file=sys.stderr)
        return 1
    print(f"report: {display_path(report)}")
    return 0


def _preflight(options: argparse.Namespace) -> int:
    import json

    from workbench.parameters import ParameterError
    from workbench.runs import RequestError

    try:
        found, *_ = _request(options)
    except (ParameterError, RequestError) as error:
        return refuse(str(error))
    if options.json:
        print(json.dumps([one._asdict() for one in found.findings], ensure_ascii=False, indent=2))
        return 2 if found.problems else 0
    if code := _tell(found):
        return code
    print("ready: nothing was found that would make the run fail")
    return 0


def _tell(found: Any) -> int:
    """Print what a preflight found; the exit code for a wrong request, 0 if there is no problem."""
    for finding in found.findings:
        if finding.level != "problem":
            print(f"{finding.level}: {finding}", flush=True)
    return refuse("\n".join(map(str, found.problems))) if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
