"""What `workbench export` writes into a model's folder, and where it is found again."""

from pathlib import Path

from workbench.files import display_path

EXPORTED = {  # by backend; ONNX lies where sentence-transformers looks for it
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
}
ONNX = ("onnx", "onnx-int8")


class ExportedError(ValueError):
    """A model cannot be exported, or run from what was exported; the message says why."""


def exported_file(folder: Path | None, backend: str) -> Path:
    """The file of a backend in a model's folder.

    Raises:
        ExportedError: it is not there, or the model is in no folder.
    """
    if folder is None:
        raise ExportedError("this model is in no folder")
    file = folder / EXPORTED[backend]
    if not file.is_file():
        shown = display_path(folder)
        raise ExportedError(
            f"{shown} has no {EXPORTED[backend]}; write it: workbench export {shown} --to {backend}"
        )
    return file
