"""The `workbench` command. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""

import json
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from workbench import __version__, files
from workbench.files import RequestError
from workbench.run_folder import NotebookError, RunFolder, Terminated

if TYPE_CHECKING:
    from workbench.batch.preflight import Finding
    from workbench.runs.catalog import RunRecord

FORMULA = ("=", "+", "-", "@", "\t", "\r")
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories: controls, formats, surrogates, line ends
METRICS_SHOWN = ("ndcg@10", "mrr@10", "ap")


def plain(text: str) -> str:
    """The text with everything that moves a cursor, hides or reverses writing as an escape.

    Line feeds and tabs stay. The escapes are those of JSON, so that JSON keeps its meaning.
    """
    if text.isascii() and text.isprintable():
        return text
    hidden = {c for c in set(text) - {*"\n\t"} if unicodedata.category(c) in HIDDEN}
    return "".join(json.dumps(c)[1:-1] if c in hidden else c for c in text)


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

    A `ValueError` of this package means that nothing was started, a `RuntimeError` or an `OSError`
    that the work failed. Notes of the error say how to go on.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are needed."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """The exit code of the command that was asked for."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            files.remove_leftovers()
            return super().invoke(ctx) or 0
        except KeyboardInterrupt as error:
            return _report("; ".join(["interrupted", *getattr(error, "__notes__", ())]), 1)
        except (ValueError, RuntimeError, OSError) as error:
            ours = type(error).__module__.startswith("workbench.")
            if not ours and not isinstance(error, OSError):
                raise
            if isinstance(error, ValueError):
                return _report(f"nothing was started:\n{error}".replace("\n", "\n  "), 2)
            reason = str(error)
            if isinstance(error, OSError) and error.strerror and error.filename:
                reason = f"{files.display_path(os.fsdecode(error.filename))}: {error.strerror}"
            return _report("\n".join([f"failed: {reason}", *getattr(error, "__notes__", ())]), 1)


def _terminate(*_: Any) -> None:
    """Make SIGTERM end the command as Ctrl-C does: what is under way is ended in good order."""
    raise Terminated


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
            code = wrong.exit_code
            if hint := _hint(wrong, sys.argv[1:] if arguments is None else arguments):
                print(hint, file=sys.stderr)
        out.flush()
        if out.error:
            text = f"failed: the output cannot be written ({out.error.strerror})"
            code = _report(text, code or 1)
        error.flush()
    return code


def _hint(wrong: click.ClickException, arguments: Iterable[str]) -> str:
    """What somebody may have meant who gave an option that there is not."""
    from workbench.runs.parameters import Parameters

    option = getattr(wrong, "option_name", "")
    name = option.lstrip("-").replace("-", "_")
    if option == "-p":
        return "A parameter is two words, its name and its value, such as: -p epochs 2"
    if name in Parameters.model_fields:
        return f"It is a parameter, so write: -p {name} VALUE"
    paths = [one for one in arguments if one.startswith("-") and os.path.exists(one)]
    return f"For the path of that name, write: ./{paths[0]}" if option and paths else ""


EXAMPLES = """\b
Examples:
  workbench run notebooks/parameters/quickstart.yaml --name first   try it on the sample
  workbench run notebooks/parameters/quickstart.yaml -p pairs my_pairs.csv
  workbench score runs/first my_pairs.csv scores                    use the model"""


@click.group(cls=Commands, epilog=EXAMPLES)
@click.version_option(__version__, help="Print the version.")
def cli() -> None:
    """Fine-tune a cross-encoder reranker and know whether it got better."""


def _two_words(
    _context: click.Context, _option: click.Parameter, given: Sequence[tuple[str, str]]
) -> Sequence[tuple[str, str]]:
    for name, _ in given:
        if "=" in name:
            raise click.BadParameter(f"write {name!r} as two words: {name.replace('=', ' ', 1)}")
    return given


overrides = click.option(
    "-p",
    "overrides",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    callback=_two_words,
    help="Set a parameter, over the file; can be repeated (`workbench parameters` lists them).",
)
runs_dir = click.option(
    "--runs-dir",
    default="runs",
    metavar="DIR",
    callback=lambda _context, _option, given: str(files.found_path(given)),
    help="The folder of all runs (default: runs).",
)
engine = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where the work is done: on this machine (default), or on a Ray cluster.",
)
address = click.option("--address", default="", help="HOST:PORT of Ray (default: start it here).")
max_length = click.option("--max-length", type=int, help="Tokens of a pair (default: the model's).")


named = click.option("--name", help="Its name (default: that of the file, and the time).")
resumed = click.option("--resume", is_flag=True, help="Continue what is called NAME.")


def request(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a run is asked for with, as a decorator."""
    file = click.argument("file", metavar="[PARAMS.yaml]", required=False)
    only = click.option("--only", default="", metavar="01,02", help="Run only these notebooks.")
    return file(named(overrides(only(resumed(runs_dir(function))))))


@cli.command(epilog="Example: workbench run notebooks/parameters/quickstart.yaml --name mine")
@request
@click.option("--supervised", is_flag=True, hidden=True)  # as a sweep starts it, see `Worker`
def run(supervised: bool, **asked: Any) -> None:
    """Prepare data, train, plot and evaluate: execute the notebooks into runs/NAME.

    The parameters come from a YAML file; without one, all have their defaults, and with --resume
    or --only they are those of the run called NAME. A relative path is looked for at the project's
    root, then in the working directory.
    """
    from workbench.batch.engines import RELEASE_SECONDS, stop_with_input
    from workbench.batch.preflight import refuse_problems
    from workbench.runs.folder import LOCK_SECONDS, fresh_folder

    if supervised:
        stop_with_input()
    found, parameters, folder, only = _look(**asked)
    refuse_problems(found)
    if not asked["name"]:
        folder = fresh_folder(Path(asked["file"] or "defaults").stem, asked["runs_dir"])

    from workbench.batch.execute import run_chain, summary

    try:
        patience = RELEASE_SECONDS if supervised else LOCK_SECONDS
        run_chain(parameters, folder, only, asked["resume"], True, patience)
    except KeyboardInterrupt as error:
        error.add_note(f"go on with --name {folder.name} --resume")
        raise
    except (NotebookError, OSError) as error:
        error.add_note(f"see {files.display_path(folder)}/report.html")
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
    file: str | None, name: str | None, overrides: Any, only: str, resume: bool, runs_dir: str
) -> tuple[list["Finding"], Any, Path, list[str]]:
    """The findings about what is asked for, its parameters, its folder, and its notebooks."""
    from workbench.batch.preflight import preflight
    from workbench.runs.folder import check_name, fresh_name
    from workbench.runs.parameters import given_parameters, sound_parameters

    if resume and not name:
        raise RequestError("--resume: say which run with --name")
    check_name(name)
    recorded = RunFolder(Path(runs_dir) / (name or "")).parameters
    if file is None and name and (resume or only) and recorded.is_file():
        file = str(recorded)  # as the run was started
    parameters, problems = sound_parameters(given_parameters(file, overrides))
    folder = Path(runs_dir) / (name or fresh_name(Path(file or "defaults").stem, runs_dir))
    numbers = files.comma_separated(only)
    return preflight(parameters, folder, numbers, resume, problems), parameters, folder, numbers


@cli.command(epilog="Example: workbench parameters learning_rate")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def parameters(names: Sequence[str]) -> None:
    """List the parameters of a run with their defaults.

    All, or those with NAME in their name. They are set in PARAMS.yaml, by -p, or in the first code
    cell of a notebook.
    """
    from workbench.runs.parameters import Parameters

    fields = Parameters.model_fields.items()
    rows = [(name, repr(field.default), field.description or "") for name, field in fields]
    found = [row for row in rows if not names or any(name in row[0] for name in names)]
    if not found:
        raise RequestError(f"no parameter has {names[0]!r} in its name; without it all are listed")
    show_table(found)


@cli.command(epilog="Example: workbench sweep notebooks/sweeps/vocabularies.yaml --jobs 2")
@click.argument("file", metavar="[SWEEP.yaml]", required=False)
@named
@overrides
@engine
@address
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="Runs at a time (1).")
@resumed
@click.option("--dry-run", is_flag=True, help="List the runs and start nothing.")
@runs_dir
def sweep(**asked: Any) -> int:
    """Make many runs: from grids, lists, seeds, or a search.

    Each run that SWEEP.yaml asks for is a run folder in runs/NAME. Runs that are done already are
    not made again.
    """
    from workbench.batch.sweep import sweep

    return 0 if sweep(**asked) else 1


@cli.group(invoke_without_command=True, epilog="Example: workbench runs --csv > runs.csv")
@click.option("--json", "form", flag_value="json", help="Print everything as JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print everything as CSV.")
@click.option("--export", type=click.Choice(["mlflow"]), help="Copy the runs to a tracker.")
@click.option("--uri", default="", help="Server or store of the tracker (default: in runs/).")
@runs_dir
@click.pass_context
def runs(ctx: click.Context, form: str | None, export: str | None, uri: str, runs_dir: str) -> None:
    """List, export or remove runs: those in runs/ and in the sweeps there."""
    from workbench.runs.catalog import export_runs, read_run, run_folders

    if ctx.invoked_subcommand:
        ctx.default_map = {"rm": {"runs_dir": runs_dir}}
        return
    place = _existing(runs_dir)
    records = [read_run(folder) for folder in run_folders(place)]
    if export:
        export_runs(records, uri)
    else:
        show([_row(record, place) for record in records], form)


def _existing(runs_dir: str) -> Path:
    place = files.project_path(runs_dir)
    if not place.is_dir():
        raise RequestError(f"{files.display_path(place)}: there is no such folder")
    return place


def _row(record: "RunRecord", place: Path) -> dict[str, Any]:
    """A run as one flat mapping; of a sweep, the name is SWEEP/RUN."""
    inside = record.folder.parent.is_relative_to(place)
    return {
        "name": str(record.folder.relative_to(place)) if inside else record.name,
        "state": record.state,
        "started": record.status.get("started", ""),
        "seconds": record.seconds,
        "folder": files.display_path(record.folder),
        "problem": record.problem,
        **{name: value.get("mean") for name, value in record.metrics.items()},
        **{f"p.{name}": value for name, value in record.parameters.items()},
    }


def show(rows: list[dict[str, Any]], form: str | None = None) -> None:
    """Print runs as a table for people, or everything in them as `json` or `csv`."""
    if form == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif form == "csv":
        import pandas as pd

        raw = sys.stdout if sys.stdout.isatty() else getattr(sys.stdout, "stream", sys.stdout)
        table = pd.DataFrame(rows, dtype=object).map(csv_cell)
        table.to_csv(raw, index=False)  # a file gets what the run folders hold
    else:
        metrics = [name for name in METRICS_SHOWN if any(name in one for one in rows)]
        columns = ["name", "state", *metrics, "seconds"]
        show_table([columns, *([one.get(name) for name in columns] for one in rows)])
        for one in rows:
            if one["problem"]:
                print(f"{terminal_text(one['name'])}: {terminal_text(one['problem'])[:200]}")


def show_table(lines: Sequence[Sequence[Any]]) -> None:
    """Print rows of cells in columns."""
    cells = [[terminal_text(value) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def csv_cell(value: Any) -> Any:
    """The value, with a quote mark before a text that a spreadsheet would compute (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def terminal_text(value: Any) -> str:
    """The value in one line, as `plain` shows it; numbers have four digits, None is empty."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return plain(text.replace("\n", " ").replace("\t", " "))


@runs.command(name="rm", epilog="Example: workbench runs rm mine vocabularies/keep_1a2b3c4d")
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@runs_dir
def remove(names: Sequence[str], yes: bool, runs_dir: str) -> None:
    """Delete run folders, named as `workbench runs` lists them or by their path, after asking."""
    from workbench.runs.catalog import in_use, read_run, run_folders, runs_elsewhere

    place = _existing(runs_dir)
    folders = dict.fromkeys(
        place / name if os.path.lexists(place / name) else files.found_path(name) for name in names
    )
    for folder in folders:
        shown = files.display_path(folder)
        elsewhere = place.resolve() not in folder.resolve().parents or folder.is_symlink()
        if elsewhere or not RunFolder(folder).parameters.is_file():
            raise RequestError(f"{shown} is no run folder in {files.display_path(place)}")
        if in_use(folder):
            raise RequestError(f"{shown} is in use by another process")
        if not os.access(folder.parent, os.W_OK):
            raise RequestError(f"{shown}: cannot be removed; its disk or folder is read-only")
    others = [read_run(folder) for folder in run_folders(place) if folder not in folders]
    kept = {sweep.name: runs_elsewhere(sweep) for sweep in sorted(place.glob("*/"))}
    for folder in folders:
        users = [other.name for other in others if _uses(other, folder)]
        users += [name for name, runs in kept.items() if folder in runs]
        needed = f"; used by {', '.join(users)}" if users else ""
        print(terminal_text(f"{files.display_path(folder)}{needed}"))
    if not yes:
        if not (sys.stdin and sys.stdin.isatty()):
            raise RequestError("rm: nobody is there to ask; add --yes")
        answer = ""
        with suppress(EOFError):
            answer = input(f"delete {len(folders)} run folders for good? [y/N] ")
        if answer.strip().lower() != "y":
            print("nothing was deleted")
            return
    for folder in folders:
        shutil.rmtree(folder)  # does not follow links
    print(f"deleted {len(folders)}")


def _uses(record: "RunRecord", folder: Path) -> bool:
    """Whether a parameter of a run names the folder of another run, or something in it."""
    from workbench.runs.parameters import PATHS

    given = ",".join(str(record.parameters.get(name) or "") for name in (*PATHS, "teacher"))
    for value in files.comma_separated(given):
        with suppress(ValueError):  # no path at all
            if files.project_path(value).resolve().is_relative_to(folder.resolve()):
                return True
    return False


@cli.command(epilog="Example: workbench score runs/mine pairs.csv scores --top-k 10")
@click.argument("model", metavar="RUN")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option(
    "--sentence-0-column", "query_column", default="sentence_0", help="The column of the query."
)
@click.option(
    "--sentence-1-column", "candidate_column", default="sentence_1", help="That of the candidate."
)
@click.option("--top-k", default=0, metavar="K", help="Keep the best K candidates of each query.")
@click.option("--backend", default="auto", metavar="NAME", help="How to run the model (auto).")
@max_length
@click.option("--part-rows", type=int, default=10_000, metavar="N", help="Rows a part (10000).")
@engine
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Actors of Ray (1).")
@address
def score(out: str, workers: int | None, engine: str, address: str, **asked: Any) -> None:
    """Score a file of any size with a model.

    RUN is a run folder or another model; IN holds pairs as CSV, TSV, JSONL or Parquet (or one in
    gzip), or candidate lists as JSONL; OUT becomes a folder of Parquet parts. After a kill, the
    same command goes on.

    For --top-k, a query is a list, or rows with equal first texts that follow one another.
    Backends: auto, predict, torch-float32, torch-bfloat16, and what was exported: onnx, onnx-int8.
    """
    from workbench.scoring.score_file import ScoringRequest, score_file

    asked |= {name: files.found_name(asked[name]) for name in ("model", "source")}
    on_ray = None
    if engine == "ray":
        from workbench.batch.engines import check_cluster, run_on_ray

        check_cluster(address)
        on_ray = partial(run_on_ray, workers=workers or 1, address=address)
    elif workers:
        raise RequestError("--workers is for --engine ray: here one process uses all cores")
    try:
        done = score_file(ScoringRequest(**asked), out, on_ray)
    except KeyboardInterrupt as error:
        error.add_note("the same command goes on")
        raise
    for problem in done["bad_row_examples"]:
        print(f"{files.display_path(asked['source'])}, {problem}", file=sys.stderr)
    if (more := done["bad_rows"] - len(done["bad_row_examples"])) > 0:
        print(f"and {more:,} more rows without a score: see `problem`", file=sys.stderr)
    print(
        f"{files.display_path(out)}: {done['rows']:,} rows in {done['parts']} parts, "
        f"{done['bad_rows']:,} without a score, by {done['backend']['backend']}"
    )


@cli.command(epilog="Example: workbench export runs/mine --to onnx-int8")
@click.argument("model", metavar="RUN")
@click.option("--to", type=click.Choice(["onnx", "onnx-int8"]), default="onnx", help="The form.")
@max_length
def export(model: str, to: str, max_length: int | None) -> None:
    """Write a model for ONNX Runtime.

    onnx/model.onnx, and for onnx-int8 also onnx/model_qint8.onnx with 8-bit weights, is written
    beside the weights of a run or a model folder, and compared with the original. It needs the
    extra 'onnx'.
    """
    from workbench.models import find_model
    from workbench.scoring.export import export_model

    file, check = export_model(find_model(files.found_name(model)), to, max_length)
    print(f"{files.display_path(file)}: {check}")
    if not check.passed:
        print(f"so `backend: auto` does not use it; `{check.backend}` can be asked for by name")


@cli.command(epilog="Example: workbench card runs/mine --language zh --license apache-2.0")
@click.argument("run", metavar="RUN")
@click.option("--samples", "card_samples", type=click.IntRange(0), help="Training pairs to print.")
@click.option("--language", metavar="CODE", help="Language of the texts, such as zh.")
@click.option("--license", metavar="NAME", help="Licence of the model, such as apache-2.0.")
@click.option("--dataset", metavar="NAME", help="Name of the data on the Hub.")
def card(run: str, **given: Any) -> None:
    """Write the model card of a run again, from its records.

    RUN/model/README.md is made from the run's lineage, data, inspection and evaluation. What is not
    given stays as it was the last time.
    """
    from workbench.reports.model_card import write_card

    settings = {name: one for name, one in given.items() if one is not None}
    print(f"card: {files.display_path(write_card(files.found_name(run), **settings))}")


@cli.command(epilog="Example: workbench publish runs/mine owner/my-reranker --dry-run")
@click.argument("run", metavar="RUN")
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Let only the owner see it.")
@click.option("--dry-run", is_flag=True, help="List the files, check the card, upload nothing.")
@click.option("--anyway", is_flag=True, help="Publish in spite of what the check finds.")
def publish(run: str, name: str, private: bool, dry_run: bool, anyway: bool) -> None:
    """Upload a run's model, card and report to the Hugging Face Hub.

    It is refused where the report says "do not publish", and where the card lacks a licence, cannot
    be read by the Hub or names paths of this machine. The report shows texts of the data.
    """
    from workbench.reports import publish as hub

    run = files.found_name(run)
    hub.check_name(name)
    published = hub.published_files(run)
    show_table([(f"{one.upload_info.size:,} bytes", one.path_in_repo) for one in published])
    problems = hub.publish_problems(run, published)
    if problems and not anyway:
        raise RequestError("\n".join([*problems, "correct this, or add --anyway"]))
    print("\n".join(problems) or "the card was checked: nothing was found")
    print("nothing was uploaded" if dry_run else hub.publish(published, name, private))


@cli.command(epilog="Example: workbench bases --pairs my_pairs.csv --base runs/mine")
@click.option("--pairs", metavar="FILE", help="Show what each tokenizer makes of these pairs.")
@overrides
@click.option("--base", "added", multiple=True, metavar="PATH", help="Another model; repeatable.")
@click.option("--download", is_flag=True, help="Fetch tokenizers that are not on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, with sources, as JSON.")
def bases(
    pairs: str | None, overrides: Any, added: Sequence[str], download: bool, as_json: bool
) -> None:
    """List well-known base models, and what their tokenizers make of a file of pairs.

    With --pairs, the last columns are tokens for each character, the share of tokens that are
    unknown, and the share of texts that become equal to another text. Nothing is fetched without
    --download, and never weights. Other names of columns: -p sentence_0_column question.

    Weights `pytorch` are pickled: torch reads them in a mode that builds tensors only. Where the
    note names a base_revision, the Hub has the same weights there as .safetensors.
    """
    from workbench.data.pairs import read_pairs
    from workbench.runs.parameters import check_parameters, given_parameters
    from workbench.vocabulary.inspection import known_bases, read_by_bases

    table = known_bases()
    if pairs:
        asked = check_parameters(given_parameters(None, [*overrides, ("pairs", pairs)]))
        found = read_pairs(asked.pairs, asked.columns, label_map=asked.label_map)
        names = [*table.index, *map(files.found_name, added)]
        read = read_by_bases(found.frame, names, download)
        table = table.reindex(read.index).join(read)
    if as_json:
        print(table.reset_index(names="name").to_json(orient="records", indent=2))
        return
    hidden = ["source", "unverified"]
    hidden += ["licence", "tokenizer", "positions", "note"] if pairs else []
    shown = table.drop(columns=hidden).reset_index(names="base").astype(object)
    show_table([list(shown), *shown.where(shown.notna(), None).to_numpy().tolist()])


@cli.group()
def lessons() -> None:
    """The course in notebooks/lessons."""


@lessons.command()
def doctor() -> int:
    """Say whether this machine is ready, and how long a training takes here."""
    from workbench.lessons import doctor

    return 0 if doctor() else 1
