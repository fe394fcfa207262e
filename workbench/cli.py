"""The `workbench` command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""

import csv
import json
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from workbench.files import display_path, found_path, project_path
from workbench.run_folder import NotebookError, RequestError, RunFolder, Terminated

if TYPE_CHECKING:
    from workbench.batch.preflight import Finding
    from workbench.runs.catalog import RunRecord

FORMULA = ("=", "+", "-", "@", "\t", "\r")
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories: controls, formats, surrogates, line ends
METRICS_SHOWN = ("ndcg@10", "mrr@10", "ap")


def plain(text: str) -> str:
    r"""The text with everything that moves a cursor, hides or reverses writing as an escape.

    Line feeds and tabs stay. The escapes are those of JSON, so that JSON keeps its meaning.

    Example:
        >>> print(plain("a\x1b[2J\u202eb"))
        a\u001b[2J\u202eb
    """
    if text.isascii() and text.isprintable():
        return text
    seen = (c in "\n\t" or unicodedata.category(c) not in HIDDEN for c in text)
    return "".join(c if kept else json.dumps(c)[1:-1] for c, kept in zip(text, seen, strict=True))


class Output:
    """A standard stream on which every text is `plain`, and whose failures end no work.

    What a narrow encoding lacks is escaped. If nobody reads any more (`| head`), the rest is
    dropped; any other failure is kept in `error`.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.error: OSError | None = None
        with suppress(AttributeError, ValueError):
            self.stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text as `plain` shows it."""
        self._try(self.stream.write, plain(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._try(self.stream.flush)

    def _try(self, do: Callable[..., Any], *given: Any) -> None:
        try:
            do(*given)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.error = self.error or error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


class Commands(click.Group):
    """The commands; whatever one of them raises becomes a message and an exit code here.

    A `ValueError` of this package means that the request was wrong and nothing was started, a
    `RuntimeError` or an `OSError` that the work failed. Notes of the error say how to go on.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """The exit code of the command that was asked for."""
        from workbench.batch.worker import remove_leftovers

        signal.signal(signal.SIGTERM, _terminate)
        try:
            remove_leftovers()
            return super().invoke(ctx) or 0
        except KeyboardInterrupt as error:
            return _report("; ".join(["interrupted", *_notes(error)]), 1)
        except (ValueError, RuntimeError, OSError) as error:
            ours = type(error).__module__.startswith("workbench.")
            if not ours and not isinstance(error, OSError):
                raise
            if isinstance(error, ValueError):
                return _report(f"nothing was started:\n{error}".replace("\n", "\n  "), 2)
            return _report("\n".join([f"failed: {_reason(error)}", *_notes(error)]), 1)


def _terminate(*_: Any) -> None:
    """Make SIGTERM end the command as Ctrl-C does: what is under way is ended in good order."""
    raise Terminated


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{display_path(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def _report(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    out, error = Output(sys.stdout), Output(sys.stderr)
    with redirect_stdout(out), redirect_stderr(error):
        try:
            code = int(cli.main(arguments, prog_name="workbench", standalone_mode=False) or 0)
        except click.ClickException as wrong:
            wrong.show(sys.stderr)
            print(_hint(wrong), end="", file=sys.stderr)
            code = wrong.exit_code
        out.flush()
        if out.error:
            code = _report(
                f"failed: the output cannot be written ({out.error.strerror})", code or 1
            )
        error.flush()
    return code


def _hint(wrong: click.ClickException) -> str:
    """How a parameter is given that somebody took for an option."""
    from workbench.runs.parameters import Parameters

    name = getattr(wrong, "option_name", "").lstrip("-").replace("-", "_")
    known = name in Parameters.model_fields
    return f"It is a parameter, so write: -p {name} VALUE\n" if known else ""


EXAMPLES = """\b
Examples:
  workbench run notebooks/parameters/quickstart.yaml --name first   try it on the sample
  workbench run notebooks/parameters/quickstart.yaml -p pairs my_pairs.csv
  workbench score runs/first my_pairs.csv scores                    use the model"""


@click.group(cls=Commands, epilog=EXAMPLES)
def cli() -> None:
    """Fine-tune a cross-encoder reranker and know whether it got better."""


def options(*added: Callable[..., Any]) -> Callable[..., Any]:
    """Several options and arguments as one decorator."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(added):
            function = one(function)
        return function

    return add


overrides = click.option(
    "-p", "overrides", nargs=2, multiple=True, metavar="KEY VALUE", help="Set a parameter."
)
runs_dir = click.option(
    "--runs-dir",
    default="runs",
    metavar="DIR",
    callback=lambda _context, _option, given: str(found_path(given)),
    help="Where runs are (runs).",
)
max_length = click.option(
    "--max-length", type=int, metavar="N", help="Tokens of a pair, at most the model's own."
)
engine = options(
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local"),
    click.option("--address", default="", metavar="HOST:PORT", help="Of Ray; else it is started."),
)
request = options(
    click.argument("file", metavar="[PARAMS.yaml]", required=False),
    click.option("--name", help="Of the run; default: the file's name and the time."),
    overrides,
    click.option("--only", default="", metavar="01,02", help="Run these notebooks alone."),
    click.option("--resume", is_flag=True, help="Continue the run called NAME."),
    runs_dir,
)


@cli.command(epilog="Example: workbench run notebooks/parameters/quickstart.yaml --name mine")
@request
@click.option("--supervised", is_flag=True, hidden=True)  # as a sweep starts it, see `Worker`
def run(supervised: bool, **asked: Any) -> None:
    """Execute the notebooks into a run folder.

    Notebooks 01 to 04 are executed with the parameters of a YAML file (without one, the defaults;
    with --resume or --only, those of the run called NAME), into runs/NAME. A relative path is
    looked for at the project's root, then in the working directory.
    """
    from workbench.batch.preflight import refuse_problems
    from workbench.batch.worker import RELEASE_SECONDS, stop_with_input
    from workbench.runs.folder import LOCK_SECONDS, fresh_folder

    if supervised:
        stop_with_input()
    found, parameters, folder, only = _look(**asked)
    refuse_problems(found)
    if not asked["name"]:
        folder = fresh_folder(_stem(asked["file"]), asked["runs_dir"])

    from workbench.batch.execute import run_chain, summary

    try:
        patience = RELEASE_SECONDS if supervised else LOCK_SECONDS
        run_chain(parameters, folder, only, asked["resume"], True, patience)
    except KeyboardInterrupt as error:
        error.add_note(f"go on with --name {folder.name} --resume")
        raise
    except (NotebookError, OSError) as error:
        error.add_note(f"see {display_path(folder)}/report.html")
        raise
    print(summary(folder))


@cli.command(epilog="Example: workbench preflight notebooks/parameters/quickstart.yaml --json")
@request
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def preflight(as_json: bool, **asked: Any) -> int:
    """Say what would make a run fail, without starting it.

    Parameters, files, rows, base model, vocabulary and disk are looked at; nothing is started or
    written. `workbench run` does the same before it starts.
    """
    from workbench.batch.preflight import any_problem, refuse_problems

    found, *_ = _look(**asked)
    if as_json:
        print(json.dumps([one._asdict() for one in found], ensure_ascii=False, indent=2))
        return 2 if any_problem(found) else 0
    refuse_problems(found)
    print("ready: nothing was found that would make the run fail")
    return 0


def _look(
    file: str | None,
    name: str | None,
    overrides: Sequence[tuple[str, str]],
    only: str,
    resume: bool,
    runs_dir: str,
) -> tuple[list["Finding"], Any, Path, list[str]]:
    """The findings about what is asked for, its parameters, its folder, and its notebooks."""
    from workbench.batch.preflight import preflight
    from workbench.runs.folder import fresh_name, name_problem
    from workbench.runs.parameters import given_parameters, sound_parameters

    if resume and not name:
        raise RequestError("--resume: say which run with --name")
    if name and (problem := name_problem(name)):
        raise RequestError(problem)
    recorded = RunFolder(Path(runs_dir) / (name or "")).parameters
    if file is None and name and (resume or only) and recorded.is_file():
        file = str(recorded)  # as the run was started
    parameters, problems = sound_parameters(given_parameters(file, dict(overrides).items()))
    folder = Path(runs_dir) / (name or fresh_name(_stem(file), runs_dir))
    numbers = [number.strip() for number in only.split(",") if number.strip()]
    return preflight(parameters, folder, numbers, resume, problems), parameters, folder, numbers


def _stem(file: str | None) -> str:
    """The beginning of the name of a run without a name."""
    return Path(file or "defaults").stem


@cli.command(epilog="Example: workbench sweep notebooks/sweeps/vocabularies.yaml --jobs 2")
@click.argument("file", metavar="[SWEEP.yaml]", required=False)
@click.option("--name", help="Of the sweep; default: the file's name and the time.")
@overrides
@engine
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="Runs at a time (1).")
@click.option("--resume", is_flag=True, help="Go on with the sweep called NAME.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--max-failures", type=click.IntRange(0), default=0, help="To stop at (0: never).")
@runs_dir
def sweep(**asked: Any) -> int:
    """Make many runs: grids, lists, seeds, or a search.

    Each run that SWEEP.yaml asks for is a run folder in runs/NAME. Runs that are done already are
    not made again.
    """
    from workbench.batch.sweep import sweep

    return 0 if sweep(**asked) else 1


@cli.command(epilog="Example: workbench score runs/mine pairs.csv scores --top-k 10")
@click.argument("model", metavar="RUN")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--sentence-0-column", "query_column", default="sentence_0", help="Of queries.")
@click.option(
    "--sentence-1-column", "candidate_column", default="sentence_1", help="Of candidates."
)
@click.option("--top-k", default=0, metavar="K", help="Keep the best K candidates of each query.")
@click.option("--backend", default="auto", metavar="NAME", help="How to score (auto).")
@max_length
@click.option("--part-rows", type=int, default=10_000, metavar="N", help="Rows of a part (10000).")
@click.option("--workers", type=int, default=1, metavar="N", help="Processes (1).")
@engine
def score(out: str, workers: int, engine: str, address: str, **asked: Any) -> None:
    """Score a file of any size with a model.

    RUN is a run folder or another model; IN holds pairs as CSV, TSV, JSONL or Parquet (or one in
    gzip), or candidate lists as JSONL; OUT becomes a folder of Parquet parts. After a kill, the
    same command goes on.

    For --top-k, a query is a list, or rows with equal first texts that follow one another.
    Backends: auto, predict, torch-float32, torch-bfloat16, and what was exported: onnx, onnx-int8.
    """
    from workbench.scoring.score_file import CutShortError, Job, score_file

    asked |= {name: str(found_path(asked[name])) for name in ("model", "source")}
    run = None
    if engine == "ray":
        from workbench.batch.ray import check_cluster, run_on_ray

        check_cluster(address)
        run = partial(run_on_ray, address=address)
    try:
        done = score_file(Job(**asked), out, workers, run)
    except (CutShortError, KeyboardInterrupt) as error:
        error.add_note("the same command goes on")
        raise
    source = display_path(asked["source"])
    for problem in done["bad_row_examples"]:
        print(f"{source}, {problem}", file=sys.stderr)
    more = done["bad_rows"] - len(done["bad_row_examples"])
    if more > 0:
        print(f"and {more:,} more rows without a score: see `problem`", file=sys.stderr)
    print(
        f"{display_path(out)}: {done['rows']:,} rows in {done['parts']} parts, "
        f"{done['bad_rows']:,} without a score, by {done['backend']['backend']}"
    )


@cli.command(epilog="Example: workbench export runs/mine --to onnx-int8")
@click.argument("model", metavar="RUN")
@click.option("--to", type=click.Choice(["onnx", "onnx-int8"]), default="onnx")
@max_length
def export(model: str, to: str, max_length: int | None) -> None:
    """Write a model for ONNX Runtime.

    onnx/model.onnx, or onnx/model_qint8.onnx too, is written beside the weights of a run or a model
    folder, and compared with the original. It needs the extra 'onnx'.
    """
    from workbench.models import find_model
    from workbench.scoring.export import export_model, require

    require("writing")
    file, check = export_model(find_model(model), to, max_length)
    print(f"{display_path(file)}: {check}")
    if not check.passed:
        print(f"so `backend: auto` does not use it; `{check.backend}` can be asked for by name")


@cli.command(epilog="Example: workbench card runs/mine --language zh --license apache-2.0")
@click.argument("run", metavar="RUN")
@click.option("--samples", "card_samples", type=int, help="Training pairs to print; 0: none.")
@click.option("--language", help="For the head of the card.")
@click.option("--license", help="For the head of the card.")
@click.option("--dataset", help="For the head of the card.")
def card(run: str, **given: Any) -> None:
    """Write the model card of a run again, from its records.

    RUN/model/README.md is made from the run's lineage, data, inspection and evaluation. What is not
    given stays as it was the last time.
    """
    from workbench.reports.model_card import write_card

    try:
        path = write_card(run, **{name: one for name, one in given.items() if one is not None})
    except FileNotFoundError as error:
        raise RequestError(str(error)) from error
    print(f"card: {display_path(path)}")


@cli.group(invoke_without_command=True, epilog="Example: workbench runs --csv > runs.csv")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print everything as CSV.")
@click.option("--export", type=click.Choice(["mlflow"]), help="Hand the runs to a tracker.")
@click.option("--uri", default="", help="Of the tracker; default: a store in runs/.")
@runs_dir
@click.pass_context
def runs(
    ctx: click.Context, as_json: bool, as_csv: bool, export: str | None, uri: str, runs_dir: str
) -> int:
    """List, export or remove runs: those in runs/ and in the sweeps there."""
    from workbench.runs.catalog import read_run, run_folders

    if ctx.invoked_subcommand:
        ctx.default_map = {"rm": {"runs_dir": runs_dir}}
        return 0
    records = [read_run(folder) for folder in run_folders(_existing(runs_dir))]
    if export:
        from workbench.runs.catalog import export_runs

        return export_runs(records, uri)
    rows = [_row(record) for record in records]
    show(rows, "json" if as_json else "csv" if as_csv else "")
    return 0


def _existing(runs_dir: str) -> Path:
    place = project_path(runs_dir)
    if not place.is_dir():
        raise RequestError(f"{display_path(place)}: there is no such folder")
    return place


def _row(record: "RunRecord") -> dict[str, Any]:
    """A run as one flat mapping."""
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


def show(rows: list[dict[str, Any]], form: str = "") -> None:
    """Print rows as a table for people, or everything in them as `json` or `csv`."""
    if form == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if form == "csv":
        columns = list(dict.fromkeys(name for one in rows for name in one))
        raw = sys.stdout if sys.stdout.isatty() else getattr(sys.stdout, "stream", sys.stdout)
        out = csv.writer(raw, lineterminator="\n")  # a file gets what the run folders hold
        out.writerow(columns)
        out.writerows([csv_cell(one.get(name, "")) for name in columns] for one in rows)
        return
    metrics = [name for name in METRICS_SHOWN if any(name in one for one in rows)]
    columns = ["name", "state", *metrics, "seconds"]
    lines = [columns, *([_cell(one.get(name)) for name in columns] for one in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    for one in rows:
        if one["problem"]:
            print(f"{terminal_text(one['name'])}: {terminal_text(one['problem'])[:200]}")


def csv_cell(value: Any) -> Any:
    """The value for a CSV cell, with a quote mark before a text that a spreadsheet would compute.

    `=cmd|...` in a text from the data would otherwise run when the file is opened (CWE-1236).
    Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def terminal_text(value: Any) -> str:
    """The value in one line, as `plain` shows it."""
    return plain(str(value).replace("\n", " ").replace("\t", " "))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else terminal_text(value)


@runs.command(name="rm", epilog="Example: workbench runs rm mine vocabularies/keep_1a2b3c4d")
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@runs_dir
def remove(names: Sequence[str], yes: bool, runs_dir: str) -> None:
    """Delete run folders, after asking."""
    from workbench.runs.catalog import in_use, read_run, run_folders

    place = _existing(runs_dir)
    folders = list(dict.fromkeys(_find(place, name) for name in names))
    for folder in folders:
        if not folder.resolve().is_relative_to(place.resolve()) or folder.is_symlink():
            raise RequestError(
                f"{display_path(folder)} is not in {display_path(place)}, so it is not removed: "
                "name the folder it is in with --runs-dir"
            )
        if in_use(folder):
            raise RequestError(f"{display_path(folder)} is in use by another process")
        if not os.access(folder.parent, os.W_OK):
            raise RequestError(
                f"{display_path(folder)}: cannot be removed; its disk or folder is read-only"
            )
    others = [read_run(folder) for folder in run_folders(place) if folder not in folders]
    for folder in folders:
        users = [other.name for other in others if _uses(other, folder)]
        needed = f"; {', '.join(users)} started from it or compares with it" if users else ""
        print(terminal_text(f"{display_path(folder)}{needed}"))
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError("rm: nobody is there to ask; add --yes")
        if input(f"delete {len(folders)} run folders for good? [y/N] ").strip().lower() != "y":
            print("nothing was deleted")
            return
    for folder in folders:
        shutil.rmtree(folder)  # does not follow links
    print(f"deleted {len(folders)}")


def _find(place: Path, name: str) -> Path:
    """The run of that name in a folder of runs or in a sweep there (`SWEEP/RUN` or `RUN`).

    Raises:
        RequestError: there is none, or there are several.
    """
    from workbench.runs.catalog import run_folders

    direct, top = place / name, place.resolve()
    inside = top in direct.resolve().parents
    if inside and not direct.is_symlink() and (direct / "parameters.yaml").is_file():
        return direct
    found = [folder for folder in run_folders(place) if folder.name == name]
    if len(found) == 1:
        return found[0]
    several = ", ".join(display_path(folder) for folder in found)
    reason = f"is several runs: {several}" if found else "is no run folder there"
    raise RequestError(f"{terminal_text(name)} {reason}")


def _uses(record: "RunRecord", folder: Path) -> bool:
    """Whether a run started from the run in a folder, or compares with it."""
    values = [str(record.parameters.get("base_model", ""))]
    values += str(record.parameters.get("compare_runs", "")).split(",")
    places = [project_path(value.strip()) for value in values if value.strip()]
    return folder in places or folder / "model" in places


@cli.group()
def lessons() -> None:
    """The course in notebooks/lessons: look at this machine, and make its files."""


@lessons.command()
def doctor() -> int:
    """Say whether this machine is ready, and how long a training would take here."""
    from workbench.lessons import doctor

    return 0 if doctor() else 1


@lessons.command()
def build() -> None:
    """Write exercises, solutions and glossary from their sources."""
    from workbench.lessons import build_lessons

    print(f"wrote {len(build_lessons())} files")


@lessons.command()
@click.argument("run")
def record(run: str) -> None:
    """Record a finished run of the sample as the one that the lessons start from."""
    from workbench.lessons import record

    print(f"recorded in {display_path(record(run))}")
