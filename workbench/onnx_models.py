"""Models in ONNX: written by torch, run by ONNX Runtime alone; with weights of 8 bits if asked.

Both need the extra `onnx`. With sentence-transformers' own extra for ONNX installed,
`CrossEncoder(path, backend="onnx")` loads the files too.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.encoding import Batch, EncodedPairs
from workbench.exported import EXPORTED, ExportedError, exported_file
from workbench.files import replacing
from workbench.processes import core_count

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PACKAGES = {"writing": ("onnx", "onnxscript", "onnxruntime"), "running": ("onnxruntime",)}


class OnnxError(ExportedError):
    """A model cannot be written to ONNX or run from it; the message says what is missing."""


def require(purpose: str) -> None:
    """Make sure that what `writing` or `running` needs is installed, without importing it.

    Raises:
        OnnxError: it is not.
    """
    missing = [name for name in PACKAGES[purpose] if find_spec(name) is None]
    if missing:
        raise OnnxError(
            f"{purpose} ONNX needs {', '.join(missing)}: "
            "pip install '.[onnx]' in the project's folder"
        )


def write_onnx(model: "CrossEncoder", folder: Path, int8: bool = False) -> Path:
    """Write a cross-encoder in float32 to `folder/onnx/model.onnx`; number and length of rows vary.

    Args:
        model: a cross-encoder with one output.
        folder: the model's folder, whose tokenizer goes with the file.
        int8: write `model_qint8.onnx` too, with the weights of products in 8 bits, one scale a
            column; the other side of each product is rounded as it comes.

    Returns:
        The file last written.

    Raises:
        OnnxError: the extra `onnx` is missing.
    """
    require("writing")
    import onnx
    import torch

    plain = model.model.eval().cpu()  # type: ignore[union-attr]
    names = [name for name in INPUTS if name in model.tokenizer.model_input_names]
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=_longest(plain))
    given = {name: torch.ones(2, 8, dtype=torch.long) for name in names}
    with _quiet(), replacing(folder / EXPORTED["onnx"]) as temporary:
        program = torch.onnx.export(
            _logits(plain, names),
            tuple(given.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes={"values": tuple({0: rows, 1: length} for _ in names)},
            dynamo=True,
            verbose=False,
        )
        proto = program.model_proto  # type: ignore[union-attr]
        note = {"max_length": str(model.tokenizer.model_max_length)}
        onnx.helper.set_model_props(proto, note)
        onnx.save(proto, str(temporary))
    return _write_int8(folder) if int8 else folder / EXPORTED["onnx"]


def _write_int8(folder: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = folder / EXPORTED["onnx-int8"]
    with _quiet(), replacing(target) as temporary:
        quantize_dynamic(
            folder / EXPORTED["onnx"],
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: sums of 8-bit products saturate without VNNI
        )
    return target


class OnnxModel:
    """A cross-encoder's logits by ONNX Runtime, without torch.

    Args:
        folder: the model's folder; None if it has none.
        name: `onnx` or `onnx-int8`.
        threads: how many batches are worked on at a time; 0 for one a core.

    Raises:
        OnnxError: ONNX Runtime is not installed.
        ExportedError: the model has not been exported.
    """

    def __init__(self, folder: Path | None, name: str = "onnx", threads: int = 0) -> None:
        file = exported_file(folder, name)
        require("running")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.threads = threads or core_count()
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.names = [put.name for put in self.session.get_inputs()]
        note: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.max_length = int(note.get("max_length", 512))
        self.typed = "token_type_ids" in self.names

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """The logits of a batch's rows, float32 of shape (m,)."""
        every: dict[str, Any] = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "token_type_ids": batch.types,
        }
        given = {name: np.ascontiguousarray(every[name]) for name in self.names}
        return np.asarray(self.session.run(None, given)[0], dtype=np.float32)[:, 0]

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,)."""
        batches = pairs.batches(padded="attention_mask" in self.names)
        return pairs.score(self, batches, self.threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantizer say about their own insides."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _longest(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 512))


def _logits(model: Any, names: list[str]) -> Any:
    """The model with its inputs in order and its logits alone as output."""
    from torch import Tensor, nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *values: Tensor) -> Tensor:
            return self.inner(**dict(zip(names, values, strict=True))).logits

    return Logits()
