"""The commands that take a run or a model as it is: `export`, `train` and `card`."""

import argparse
import sys
from typing import Any


def add_export(commands: Any) -> None:
    """Add `workbench export` to the commands of a parser."""
    export = commands.add_parser(
        "export",
        help="write a model for ONNX Runtime",
        description="Write onnx/model.onnx, or onnx/model_qint8.onnx too, beside the weights of a "
        "model, and compare it with the original. Needs the extra 'onnx'.",
        allow_abbrev=False,
    )
    export.add_argument("model", metavar="RUN", help="a run folder, or a model folder")
    export.add_argument("--to", default="onnx", choices=("onnx", "onnx-int8"))
    export.add_argument("--max-length", type=int, default=512, metavar="N",
                        help="tokens of a pair (512)")  # fmt: skip
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from workbench.files import display_path
    from workbench.models import ModelError, find_model
    from workbench.onnx_models import OnnxError, require

    try:
        require("writing")
        location = find_model(options.model)
    except (ModelError, OnnxError) as error:
        return refuse(str(error))

    from workbench.export import export_model

    try:
        file, check = export_model(location, options.to, options.max_length)
    except OnnxError as error:
        return refuse(str(error))
    print(f"{display_path(file)}: {check}")
    return 0


def add_train(commands: Any) -> None:
    """Add the command `train`."""
    train = commands.add_parser(
        "train",
        help="train a run whose data is prepared, without a notebook",
        description="Train RUN with its own parameters, as notebook 02 does. In several processes: "
        "torchrun --nproc-per-node 2 -m workbench train RUN. Then `workbench run --name NAME "
        "--resume` makes the rest.",
        allow_abbrev=False,
    )
    train.add_argument("run", metavar="RUN", help="a run folder, such as runs/NAME")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    from workbench.checkpoints import ResumeError, TrainingStoppedError
    from workbench.direct import train_run
    from workbench.models import ModelError
    from workbench.parameters import ParameterError
    from workbench.processes import is_main
    from workbench.runs import RequestError

    try:
        record = train_run(options.run, options.resume)
    except (RequestError, ParameterError, ModelError, ResumeError) as error:
        return refuse(str(error))
    except TrainingStoppedError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    if is_main():
        print(f"trained: {record['stage']}, {record['steps']:,} steps, {record['seconds']:,.0f} s")
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
    from workbench.files import display_path

    given = {name: getattr(options, name) for name in SETTINGS}
    try:
        path = write_card(options.run, **{k: v for k, v in given.items() if v is not None})
    except FileNotFoundError as error:
        return refuse(str(error))
    print(f"card: {display_path(path)}")
    return 0


def refuse(reason: str) -> int:
    """Print why nothing was started; the exit code for a wrong request."""
    lines = reason.splitlines()
    print("nothing was started:", *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    return 2
