"""The `workbench` command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


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
    run = commands.add_parser(
        "run",
        help="execute the notebooks into a run folder",
        description="Execute notebooks 01 to 04 with the parameters of a YAML file (without one, "
        "the defaults), into runs/NAME. Relative paths in parameters start at the project's root.",
        allow_abbrev=False,
    )
    run.add_argument("parameters", nargs="?", metavar="PARAMS.yaml", help="for example "
                     "notebooks/parameters/quickstart.yaml")  # fmt: skip
    run.add_argument("--name", help="of the run; default: the file's name and the time")
    run.add_argument("-p", dest="overrides", nargs=2, action="append", default=[],
                     metavar=("KEY", "VALUE"), help="set a parameter; may be repeated")  # fmt: skip
    run.add_argument("--only", default="", metavar="01,02", help="run these notebooks alone")
    run.add_argument(
        "--resume",
        action="store_true",
        help="continue the run called NAME, with its own parameters unless PARAMS.yaml is given",
    )
    run.add_argument("--runs-dir", default="runs", metavar="DIR", help="where runs are (runs)")
    run.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from workbench.files import display_path, project_path
    from workbench.parameters import ParameterError, check_parameters, load_parameters

    if options.resume and not options.name:
        return _refuse("--resume: say which run with --name")
    if options.name and (Path(options.name).name != options.name or options.name.startswith(".")):
        return _refuse(f"--name {options.name!r}: must be a plain folder name")
    if options.resume and options.parameters is None:  # as the run was started
        asked = project_path(options.runs_dir) / options.name / "parameters.yaml"
        options.parameters = str(asked) if asked.is_file() else None
    try:
        overrides = {name: value for name, value in options.overrides}
        if options.parameters is None:
            parameters = check_parameters(overrides)
        else:
            parameters = load_parameters(options.parameters, overrides.items())
    except ParameterError as error:
        return _refuse(str(error))

    from workbench.runs import ActError, RequestError, fresh_name, run_chain

    stem = Path(options.parameters or "defaults").stem
    name = options.name or fresh_name(stem, options.runs_dir)
    run_dir = Path(options.runs_dir) / name
    only = [act.strip() for act in options.only.split(",") if act.strip()]
    try:
        report = run_chain(parameters, run_dir, only, options.resume)
    except RequestError as error:
        return _refuse(str(error))
    except ActError as error:
        print(f"failed: {error}", file=sys.stderr)
        print(f"see {display_path(run_dir)}/report.html", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; go on with --name {name} --resume", file=sys.stderr)
        return 1
    print(f"report: {display_path(report)}")
    return 0


def _refuse(reason: str) -> int:
    lines = reason.splitlines()
    print("nothing was started:", *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
