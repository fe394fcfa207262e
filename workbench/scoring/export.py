"""Export: a model written for another engine, and the proof that it ranks as before."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.data.pairs import Float32Array, TextPair
from workbench.data.splits import SPLITS, DataError, read_split
from workbench.engine.packing import Batch, EncodedPairs
from workbench.files import display_path, refuse_links, replacing
from workbench.machine import core_count
from workbench.models import ModelLocation, load_tokenizer
from workbench.scoring.cross_encoder import (
    CHECK_PAIRS,
    ONNX,
    Check,
    check,
    load_cross_encoder,
    open_backend,
    pair_encoder,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

EXPORTED = {  # by backend; ONNX lies where sentence-transformers looks for it
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
}


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


SAME = 1e-3  # the furthest that a logit in float32 may move by another engine's order of sums


class LogitsDifferError(RuntimeError):
    """What was written computes something else than the original; it has been removed."""


def export_model(
    location: ModelLocation, to: str = "onnx", max_length: int = 512
) -> tuple[Path, Check]:
    """Write a model in ONNX beside its weights and compare it with the original.

    Args:
        location: from `find_model`; a model that an installed package or the Hub's cache holds is
            not written to: save it in a folder first.
        to: `onnx`; or `onnx-int8` for weights of 8
            bits in ONNX (the other ONNX file is written too).
        max_length: tokens of a pair that the exported model states.

    Returns:
        The file, and its check on pairs of the run that made the model, test side first, or else
        on made-up ones. What 8 bits need to know of a model's inputs is learned from such pairs,
        too, of the training side first.

    Raises:
        ExportedError: `to` is something else, the folder is not the user's own, the extra `onnx`
            is missing, or the model or this torch cannot do it.
        LinkError: a link in the folder leads elsewhere.
        LogitsDifferError: the written model computes something else than the original.
    """
    if to not in EXPORTED:
        raise ExportedError(f"--to {to!r} is none of {', '.join(EXPORTED)}")
    if location.kind not in ("run", "folder"):
        raise ExportedError(
            f"{location.name} is not in a folder of yours; copy {location.path} and export that"
        )
    refuse_links(location.path)
    model = load_cross_encoder(location, max_length)
    try:
        pair_encoder(model)
    except ValueError as error:
        raise ExportedError(str(error)) from error
    pairs = _pairs(location, [*reversed(SPLITS)])
    exact = open_backend("predict", model)(pairs)
    file = _checked_onnx(location, model, pairs, exact, to)
    return file, check(to, exact, open_backend(to, model, folder=location.path), pairs)


def _checked_onnx(
    location: ModelLocation,
    model: "CrossEncoder",
    pairs: Sequence[TextPair],
    exact: Float32Array,
    to: str,
) -> Path:
    file = write_onnx(model, location.path, int8=to == "onnx-int8")
    plain = open_backend("onnx", model, folder=location.path)(pairs)
    away = float(np.abs(plain - exact).max())
    if not away <= SAME * max(1.0, float(np.abs(exact).max())):
        for name in ONNX:
            (location.path / EXPORTED[name]).unlink(missing_ok=True)
        raise LogitsDifferError(
            f"{location.name}: the exported model's logits are off by up to {away:.4f}"
        )
    return file


def _pairs(location: ModelLocation, sides: Sequence[str]) -> list[TextPair]:
    """Distinct pairs of the first of these sides that the run behind the model has."""
    for side in sides:
        try:
            frame = read_split(location.path.parent, side)
        except DataError:
            continue
        both = zip(frame["sentence_0"], frame["sentence_1"], strict=True)
        if pairs := list(dict.fromkeys(both))[:CHECK_PAIRS]:
            return pairs
    words = sorted(load_tokenizer(location).get_vocab())
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(words, 8)) for _ in range(2 * CHECK_PAIRS)]
    return list(zip(texts[:CHECK_PAIRS], texts[CHECK_PAIRS:], strict=True))
