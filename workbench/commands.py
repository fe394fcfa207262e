"""The commands that need no run: score a file with a model, and export a model."""

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


def refuse(reason: str) -> int:
    """Print why nothing was started; the exit code for a wrong request."""
    lines = reason.splitlines()
    print("nothing was started:", *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)
    return 2
