"""The `workbench` command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""

import argparse
import csv
import json
import operator
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workbench.files import display_path, project_path
from workbench.run_folder import RequestError
from workbench.runs.catalog import RunRecord, in_use, read_run, run_folders

FORMULA = ("=", "+", "-", "@", "\t", "\r")


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def csv_cell(value: Any) -> Any:
    """The value for a CSV cell; before a text that a spreadsheet would compute stands a quote mark.

    `=cmd|...` in a text from the data would otherwise run when the file is opened (CWE-1236).
    Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def terminal_text(value: Any) -> str:
    """The value in one line without signs that move the cursor or turn the direction of writing."""
    return (
        CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)).replace("\n", " ").replace("\t", " ")
    )


def add_export(commands: Any) -> None:
    """Add `workbench export` to the commands of a parser."""
    export = commands.add_parser(
        "export",
        help="write a model for ONNX Runtime",
        description="Write onnx/model.onnx, or onnx/model_qint8.onnx too, beside the weights of a "
        "model, and compare it with the original. It needs the extra 'onnx'.",
        allow_abbrev=False,
    )
    export.add_argument("model", metavar="RUN", help="a run folder, or a model folder")
    export.add_argument("--to", default="onnx", choices=("onnx", "onnx-int8"))
    export.add_argument(
        "--max-length", type=int, default=512, metavar="N", help="tokens of a pair (512)"
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from workbench.files import LinkError, display_path
    from workbench.models import ModelError, find_model
    from workbench.scoring.cross_encoder import ONNX
    from workbench.scoring.export import ExportedError, require

    try:
        if options.to in ONNX:
            require("writing")
        location = find_model(options.model)
    except (ModelError, ExportedError) as error:
        return refuse(str(error))

    from workbench.scoring.export import LogitsDifferError, export_model

    try:
        file, check = export_model(location, options.to, options.max_length)
    except (ExportedError, LinkError, ModelError) as error:
        return refuse(str(error))
    except LogitsDifferError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(f"{display_path(file)}: {check}")
    if not check.passed:
        print(f"`backend: auto` leaves it, therefore; `{check.backend}` can be asked for by name")
    return 0


def add_card(commands: Any) -> None:
    """Add the command `card`."""
    card = commands.add_parser(
        "card",
        help="write the model card of a run anew, from its records",
        description="Write RUN/model/README.md from the run's lineage, data, inspection and "
        "evaluation. What is not given stays as it was the last time.",
        allow_abbrev=False,
    )
    card.add_argument("run", metavar="RUN", help="a run folder, such as runs/NAME")
    card.add_argument(
        "--samples",
        dest="card_samples",
        type=int,
        metavar="N",
        help="training pairs to print; 0 holds them back",
    )
    for name in ("language", "license", "dataset"):
        card.add_argument(f"--{name}", help="for the head of the card")
    card.set_defaults(command=_card)


def _card(options: argparse.Namespace) -> int:
    from workbench.files import LinkError, display_path
    from workbench.reports.model_card import SETTINGS, write_card

    given = {name: getattr(options, name) for name in SETTINGS}
    try:
        path = write_card(options.run, **{k: v for k, v in given.items() if v is not None})
    except (FileNotFoundError, LinkError) as error:
        return refuse(str(error))
    print(f"card: {display_path(path)}")
    return 0


def add_score(commands: Any) -> None:
    """Add `workbench score` to the commands of a parser."""
    score = commands.add_parser(
        "score",
        help="score a file of any size with a model",
        description="Score the pairs of a CSV, TSV, JSONL or Parquet file (or one in gzip), or "
        "candidate lists in JSONL, into Parquet parts in the folder OUT. The same command goes on "
        "after a kill.",
        allow_abbrev=False,
    )
    score.add_argument("model", metavar="RUN", help="a run folder, or another model")
    score.add_argument("source", metavar="IN", help="the file")
    score.add_argument("out", metavar="OUT", help="the folder for the parts")
    score.add_argument(
        "--sentence-0-column",
        default="sentence_0",
        metavar="NAME",
        help="of the queries (sentence_0)",
    )
    score.add_argument(
        "--sentence-1-column",
        default="sentence_1",
        metavar="NAME",
        help="of the candidates (sentence_1)",
    )
    score.add_argument(
        "--top-k",
        type=int,
        default=0,
        metavar="K",
        help="keep the best K candidates of each query: of a list, or of rows with "
        "equal first texts that follow one another",
    )
    score.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto, predict, torch-float32, torch-bfloat16, and what was exported: onnx, onnx-int8",
    )
    score.add_argument(
        "--max-length", type=int, default=512, metavar="N", help="tokens of a pair (512)"
    )
    score.add_argument(
        "--part-rows", type=int, default=10_000, metavar="N", help="rows of a part (10000)"
    )
    score.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add_engine(score)
    score.set_defaults(command=_score)


def _score(options: argparse.Namespace) -> int:
    from workbench.batch.sweep import EngineError
    from workbench.data.readers import PairsError, printable
    from workbench.files import LinkError, display_path
    from workbench.models import ModelError
    from workbench.scoring.cross_encoder import BackendError
    from workbench.scoring.export import ExportedError
    from workbench.scoring.score_file import BulkError, ChangedError, CutShortError, Job, score_file

    job = Job(
        options.model,
        options.source,
        options.sentence_0_column,
        options.sentence_1_column,
        options.backend,
        options.max_length,
        options.part_rows,
        options.top_k,
    )
    end_on_sigterm()
    try:
        run = None
        if options.engine == "ray":
            from workbench.batch.ray import check_cluster, run_on_ray

            check_cluster(options.address)
            run = partial(run_on_ray, address=options.address)
        done = score_file(job, options.out, options.workers, run)
    except (
        BackendError,
        BulkError,
        EngineError,
        ExportedError,
        LinkError,
        ModelError,
        PairsError,
    ) as error:
        return refuse(str(error))
    except (CutShortError, KeyboardInterrupt) as error:
        print(
            f"cut short: {str(error) or 'interrupted'}; the same command goes on", file=sys.stderr
        )
        return 1
    except (ChangedError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    source = printable(display_path(options.source))
    for problem in done["bad_row_examples"]:
        print(f"{source}, {problem}", file=sys.stderr)
    more = done["bad_rows"] - len(done["bad_row_examples"])
    if more > 0:
        print(f"and {more:,} rows more without a score: see `problem`", file=sys.stderr)
    print(
        f"{printable(display_path(options.out))}: {done['rows']:,} rows in {done['parts']} parts, "
        f"{done['bad_rows']:,} without a score, by {done['backend']['backend']}"
    )
    return 0


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add where the work is done: here, or on a Ray cluster."""
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="of a running Ray cluster; without it, one is started",
    )


def end_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does: what is under way is ended in good order."""
    import signal

    from workbench.run_folder import Terminated

    def end(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


def refuse(reason: str) -> int:
    """Print why nothing was started; the exit code for a wrong request."""
    from workbench.data.readers import printable

    lines = printable(reason).splitlines()
    print("nothing was started:", *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    return 2


SHOWN = ("ndcg@10", "mrr@10", "ap")


CONDITION = re.compile(r"([\w@.]+)(<=|>=|!=|=|<|>)(.*)", re.DOTALL)


TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
    "!=": operator.ne,
}


def runs(options: argparse.Namespace) -> int:
    """Carry out `workbench runs`; the exit code."""
    place = project_path(options.runs_dir)
    if not place.is_dir():
        raise RequestError(f"{display_path(place)}: there is no such folder")
    if options.action == "diff":
        return diff(place, options.names, options.json)
    if options.action == "rm":
        return remove(place, options.names, options.yes)
    if options.names:
        raise RequestError(f"list takes no names; did you mean --filter name={options.names[0]}?")
    records = [read_run(folder) for folder in run_folders(place)]
    rows = choose([row(record) for record in records], options.filters, options.sort)
    if options.export:
        from workbench.runs.export import export_runs

        chosen = {one["folder"] for one in rows}
        return export_runs([r for r in records if display_path(r.folder) in chosen], options.uri)
    show(rows, "json" if options.json else "csv" if options.csv else "")
    return 0


def row(record: RunRecord) -> dict[str, Any]:
    """A run as one flat mapping: what can be listed, filtered and sorted by."""
    return {
        "name": record.name,
        "state": record.state,
        "started": record.status.get("started", ""),
        "seconds": record.seconds,
        "folder": display_path(record.folder),
        "problem": record.problem,
        **{name: value.get("mean") for name, value in record.metrics.items()},
        **{f"p.{name}": value for name, value in record.parameters.items()},
    }


def choose(
    rows: list[dict[str, Any]], filters: Sequence[str], sort: str = ""
) -> list[dict[str, Any]]:
    """The rows that fulfil every condition, sorted; metrics have their best first.

    Args:
        rows: from `row`.
        filters: such as `state=done`, `ndcg@10>0.5`, `vocabulary!=keep`; a parameter may be named
            with or without `p.`.
        sort: a column; with `-` before it, in falling order.

    Raises:
        RequestError: a condition cannot be read, or no run has such a column.
    """
    known = set().union(*rows) if rows else set()
    for condition in filters:
        found = CONDITION.fullmatch(condition)
        if not found:
            raise RequestError(f"--filter {condition!r}: must be like state=done or ndcg@10>0.5")
        name, test, wanted = found.groups()
        name = _column(name, known, bool(rows))
        rows = [one for one in rows if _holds(one.get(name), test, wanted)]
    if sort and rows:
        falling = sort.startswith("-")
        name = _column(sort.removeprefix("-"), known, True)
        there = [one for one in rows if one.get(name) is not None]
        texts = any(isinstance(one[name], str) for one in there)
        there.sort(key=lambda one: str(one[name]) if texts else one[name], reverse=falling)
        rows = there + [one for one in rows if one.get(name) is None]
    return rows


def _column(name: str, known: set[str], any_rows: bool) -> str:
    for column in (name, f"p.{name}"):
        if column in known or not any_rows:
            return column
    raise RequestError(f"no run has {name!r}; there are {', '.join(sorted(known))}")


def _holds(value: Any, test: str, wanted: str) -> bool:
    if value is None:
        return test == "!="
    if isinstance(value, bool):
        return bool(TESTS[test](str(value).lower(), wanted.lower()))
    if isinstance(value, int | float):
        try:
            return bool(TESTS[test](float(value), float(wanted)))
        except ValueError:
            return test == "!="
    return bool(TESTS[test](str(value), wanted))


def show(rows: list[dict[str, Any]], form: str = "") -> None:
    """Print rows as a table for people, or with everything in them as JSON or CSV."""
    if form == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if form == "csv":
        columns = list(dict.fromkeys(name for one in rows for name in one))
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(columns)
        out.writerows([csv_cell(one.get(name, "")) for name in columns] for one in rows)
        return
    columns = ["name", "state", *(m for m in SHOWN if any(m in one for one in rows)), "seconds"]
    lines = [columns, *([_cell(one.get(name)) for name in columns] for one in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )
    for one in rows:
        if one["problem"]:
            print(f"{terminal_text(one['name'])}: {terminal_text(one['problem'])[:200]}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else terminal_text(value)


def find(place: Path, name: str) -> Path:
    """The run of that name in a folder of runs or in a sweep there (`SWEEP/RUN` or `RUN`).

    Raises:
        RequestError: there is none, or there are several.
    """
    direct = place / name
    inside = (
        direct.resolve().is_relative_to(place.resolve()) and direct.resolve() != place.resolve()
    )
    if inside and not direct.is_symlink() and (direct / "parameters.yaml").is_file():
        return direct
    found = [folder for folder in run_folders(place) if folder.name == name]
    if len(found) == 1:
        return found[0]
    several = ", ".join(display_path(folder) for folder in found)
    reason = f"is several runs: {several}" if found else "is no run folder there"
    raise RequestError(f"{terminal_text(name)} {reason}")


def diff(place: Path, names: Sequence[str], as_json: bool) -> int:
    """Print in what two runs differ and how their figures do; the exit code."""
    from workbench.ranking.metrics import RANKING_METRICS as PER_QUERY
    from workbench.runs.comparison import differences, paired_table

    if len(names) != 2:
        raise RequestError("diff takes two runs: workbench runs diff A B")
    both = [read_run(find(place, name)) for name in names]
    if both[0].name == both[1].name:  # of two sweeps
        raise RequestError("diff: the two runs go by the same name; give SWEEP/RUN from above both")
    table = differences(both)
    metrics = [m for m in PER_QUERY if all(one.value(m) is not None for one in both)]
    figures = {}
    for metric in metrics:
        paired = paired_table(both, metric).iloc[0].to_dict()
        better = next(one.name for one in both if one.name != paired["run"])
        figures[metric] = {one.name: one.value(metric) for one in both} | {
            "better": better if paired["queries"] else None,
            **{
                k: None if paired[k] != paired[k] else paired[k]
                for k in ("queries", "difference", "low", "high", "p", "note")
            },
        }
    if as_json:
        different = {str(k): v for k, v in table.to_dict("index").items()}
        print(
            json.dumps({"differences": different, "metrics": figures}, ensure_ascii=False, indent=2)
        )
        return 0
    for fact, values in table.iterrows():
        first, second = (terminal_text(values[one.name])[:60] for one in both)
        print(f"{terminal_text(fact)}: {first or '(none)'} | {second or '(none)'}")
    if table.empty:
        print("no difference in anything that is recorded")
    for metric, gap in figures.items():
        values = " | ".join(f"{gap[one.name]:.4f}" for one in both)
        text = f"{metric}: {values}; {gap['note']}"
        if gap["queries"]:
            text = (
                f"{metric}: {values}; {terminal_text(gap['better'])} ahead by "
                f"{gap['difference']:.4f} [{gap['low']:.4f}, {gap['high']:.4f}], "
                f"p = {gap['p']:.3g}, {gap['queries']} queries in common"
            )
        print(text)
    return 0


def remove(place: Path, names: Sequence[str], sure: bool) -> int:
    """Delete run folders after asking; the exit code."""
    if not names:
        raise RequestError("rm: say which runs")
    folders = list(dict.fromkeys(find(place, name) for name in names))
    for folder in folders:
        if not folder.resolve().is_relative_to(place.resolve()) or folder.is_symlink():
            raise RequestError(
                f"{display_path(folder)} is not in {display_path(place)}, so it is "
                "not removed: give its own place with --runs-dir"
            )
        if in_use(folder):
            raise RequestError(f"{display_path(folder)} is in use by another process")
    others = [read_run(folder) for folder in run_folders(place) if folder not in folders]
    for folder in folders:
        users = [other.name for other in others if _uses(other, folder)]
        needed = f"; {', '.join(users)} started from it or compares with it" if users else ""
        print(f"{display_path(folder)}{needed}")
    if not sure:
        if not sys.stdin.isatty():
            raise RequestError("rm: nobody is there to ask; add --yes")
        if input(f"delete {len(folders)} run folders for good? [y/N] ").strip().lower() != "y":
            print("nothing was deleted")
            return 0
    for folder in folders:
        shutil.rmtree(folder)  # does not follow links
    print(f"deleted {len(folders)}")
    return 0


def _uses(record: RunRecord, folder: Path) -> bool:
    values = [str(record.parameters.get("base_model", ""))]
    values += str(record.parameters.get("compare_runs", "")).split(",")
    return any(
        value.strip() and project_path(value.strip()) in (folder, folder / "model")
        for value in values
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
    parser.add_argument(
        "parameters",
        nargs="?",
        metavar="PARAMS.yaml",
        help="for example notebooks/parameters/quickstart.yaml",
    )
    parser.add_argument("--name", help="of the run; default: the file's name and the time")
    parser.add_argument(
        "-p",
        dest="overrides",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="set a parameter; may be repeated",
    )
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
    sweep.add_argument(
        "sweep",
        nargs="?",
        metavar="SWEEP.yaml",
        help="for example notebooks/sweeps/vocabularies.yaml",
    )
    sweep.add_argument("--name", help="of the sweep; default: the file's name and the time")
    sweep.add_argument(
        "-p",
        dest="overrides",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="set a parameter of all runs",
    )
    add_engine(sweep)
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    sweep.add_argument("--resume", action="store_true", help="go on with the sweep called NAME")
    sweep.add_argument("--dry-run", action="store_true", help="say what would be done")
    sweep.add_argument(
        "--max-failures",
        type=int,
        default=0,
        metavar="N",
        help="start no further run after N have failed (0: no limit)",
    )
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
    runs.add_argument(
        "--filter",
        dest="filters",
        action="append",
        default=[],
        metavar="CONDITION",
        help="such as state=done, ndcg@10>0.5, vocabulary!=keep",
    )
    runs.add_argument(
        "--sort",
        default="",
        metavar="COLUMN",
        help="such as seconds; --sort=-ndcg@10 for falling order",
    )
    runs.add_argument("--json", action="store_true", help="print everything as JSON")
    runs.add_argument("--csv", action="store_true", help="print everything as CSV")
    runs.add_argument("--export", choices=("mlflow", "trackio"), help="hand the runs to a tracker")
    runs.add_argument("--uri", default="", help="of the tracker; default: a store in runs/")
    runs.add_argument("--yes", action="store_true", help="rm: do not ask")
    runs.add_argument("--runs-dir", default="runs", metavar="DIR", help="where runs are (runs)")
    runs.set_defaults(command=_runs)


def _runs(options: argparse.Namespace) -> int:
    from workbench.run_folder import RequestError

    try:
        return runs(options)
    except RequestError as error:
        return refuse(str(error))


def _sweep(options: argparse.Namespace) -> int:
    from workbench.batch.sweep import sweep
    from workbench.run_folder import RequestError
    from workbench.runs.parameters import ParameterError

    end_on_sigterm()
    try:
        return sweep(options)
    except (ParameterError, RequestError) as error:
        return refuse(str(error))


def _request(options: argparse.Namespace) -> Any:
    """The preflight of what is asked for, with the parameters and the folder it is about."""
    from workbench.batch.preflight import preflight
    from workbench.files import project_path
    from workbench.run_folder import RequestError
    from workbench.runs.folder import fresh_name, name_problem
    from workbench.runs.parameters import given_parameters, sound_parameters

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
    from workbench.run_folder import RequestError
    from workbench.runs.folder import fresh_folder
    from workbench.runs.parameters import ParameterError

    try:
        found, parameters, folder, only = _request(options)
        if code := _tell(found):
            return code
        if not options.name:
            folder = fresh_folder(_stem(options), options.runs_dir)
    except (ParameterError, RequestError) as error:
        return refuse(str(error))

    from workbench.batch.execute import run_chain
    from workbench.run_folder import ActError

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

    from workbench.run_folder import RequestError
    from workbench.runs.parameters import ParameterError

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
