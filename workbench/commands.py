"""The commands that take a run or a model as it is: `export`, `card` and `score`."""

import argparse
import sys
from typing import Any


def add_export(commands: Any) -> None:
    """Add `workbench export` to the commands of a parser."""
    export = commands.add_parser(
        "export",
        help="write a model for ONNX Runtime",
        description="Write onnx/model.onnx, or onnx/model_qint8.onnx too, beside the weights of a model, and compare it with the "
        "original. It needs the extra 'onnx'.",
        allow_abbrev=False,
    )
    export.add_argument("model", metavar="RUN", help="a run folder, or a model folder")
    export.add_argument("--to", default="onnx", choices=("onnx", "onnx-int8"))
    export.add_argument("--max-length", type=int, default=512, metavar="N",
                        help="tokens of a pair (512)")  # fmt: skip
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from workbench.exported import ONNX, ExportedError
    from workbench.files import LinkError, display_path
    from workbench.models import ModelError, find_model
    from workbench.onnx_models import require

    try:
        if options.to in ONNX:
            require("writing")
        location = find_model(options.model)
    except (ModelError, ExportedError) as error:
        return refuse(str(error))

    from workbench.export import LogitsDifferError, export_model

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
    card.add_argument("--samples", dest="card_samples", type=int, metavar="N",
                      help="training pairs to print; 0 holds them back")  # fmt: skip
    for name in ("language", "license", "dataset"):
        card.add_argument(f"--{name}", help="for the head of the card")
    card.set_defaults(command=_card)


def _card(options: argparse.Namespace) -> int:
    from workbench.card import SETTINGS, write_card
    from workbench.files import LinkError, display_path

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
    score.add_argument("--sentence-0-column", default="sentence_0", metavar="NAME",
                       help="of the queries (sentence_0)")  # fmt: skip
    score.add_argument("--sentence-1-column", default="sentence_1", metavar="NAME",
                       help="of the candidates (sentence_1)")  # fmt: skip
    score.add_argument("--top-k", type=int, default=0, metavar="K",
                       help="keep the best K candidates of each query: of a list, or of rows with "
                       "equal first texts that follow one another")  # fmt: skip
    score.add_argument("--backend", default="auto", metavar="NAME",
                       help="auto, predict, torch-float32, torch-bfloat16, and what was exported: "
                       "onnx, onnx-int8")  # fmt: skip
    score.add_argument("--max-length", type=int, default=512, metavar="N",
                       help="tokens of a pair (512)")  # fmt: skip
    score.add_argument("--part-rows", type=int, default=10_000, metavar="N",
                       help="rows of a part (10000)")  # fmt: skip
    score.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    add_engine(score)
    score.set_defaults(command=_score)


def _score(options: argparse.Namespace) -> int:
    from workbench.backends import BackendError
    from workbench.bulk import BulkError, ChangedError, score_file
    from workbench.engines import EngineError
    from workbench.exported import ExportedError
    from workbench.files import LinkError, display_path
    from workbench.formats import PairsError, printable
    from workbench.models import ModelError
    from workbench.parts import Job
    from workbench.pool import CutShortError

    job = Job(
        options.model, options.source, options.sentence_0_column, options.sentence_1_column,
        options.backend, options.max_length, options.part_rows, options.top_k,
    )  # fmt: skip
    end_on_sigterm()
    try:
        done = score_file(job, options.out, options.workers, options.engine, options.address)
    except (BackendError, BulkError, EngineError, ExportedError, LinkError, ModelError,
            PairsError) as error:  # fmt: skip
        return refuse(str(error))
    except (CutShortError, KeyboardInterrupt) as error:
        print(f"cut short: {str(error) or 'interrupted'}; the same command goes on",
              file=sys.stderr)  # fmt: skip
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
    parser.add_argument("--address", default="", metavar="HOST:PORT",
                        help="of a running Ray cluster; without it, one is started")  # fmt: skip


def end_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does: what is under way is ended in good order."""
    import signal

    from workbench.runs import Terminated

    def end(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


def refuse(reason: str) -> int:
    """Print why nothing was started; the exit code for a wrong request."""
    from workbench.formats import printable

    lines = printable(reason).splitlines()
    print("nothing was started:", *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    return 2
