"""Export of a model to ONNX, and its logits by ONNX Runtime, without torch."""

import logging
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import Float32Array, TextPair
from workbench.data.splits import SPLITS, DataError, read_split
from workbench.engine.packing import EncodedPairs, Pack, packs
from workbench.files import display_path, refuse_links, replacing
from workbench.machine import core_count, in_threads
from workbench.models import ModelLocation, load_tokenizer
from workbench.scoring.cross_encoder import (
    CHECK_PAIRS,
    Check,
    check,
    load_cross_encoder,
    open_backend,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

EXPORTED = {  # by backend, in a model's folder: where sentence-transformers looks for ONNX
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PACKAGES = {"writing": ("onnx", "onnxscript", "onnxruntime"), "running": ("onnxruntime",)}
MAX_PADDING = 0.1  # of a block's tokens
PACK_TOKENS = 2048  # so few that a layer's activations stay in the processor's cache
MAX_LOGIT_CHANGE = 1e-3  # of a float32 logit, by another order of sums


class ExportedError(ValueError):
    """A model cannot be exported, or run from what was exported; the message says why."""


class LogitsDifferError(RuntimeError):
    """The exported model computes something else than the original; it has been removed."""


def require(purpose: str) -> None:
    """Make sure that what `writing` or `running` ONNX needs is installed, without importing it.

    Raises:
        ExportedError: it is not.
    """
    if missing := [name for name in PACKAGES[purpose] if find_spec(name) is None]:
        raise ExportedError(
            f"{purpose} ONNX needs {', '.join(missing)}: "
            "pip install '.[onnx]' in the project's folder"
        )


def write_onnx(model: "CrossEncoder", folder: Path, int8: bool = False) -> Path:
    """Write a cross-encoder in float32 to `folder/onnx/model.onnx`, for rows of any shape.

    Args:
        model: a cross-encoder with one output.
        folder: the model's folder, whose tokenizer goes with the file.
        int8: write `model_qint8.onnx` too: the weights of products in 8 bits, one scale a column;
            the activations are rounded as they come.

    Returns:
        The file last written.

    Raises:
        ExportedError: the extra `onnx` is missing.
    """
    require("writing")
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain: Any = model.model
    names = [name for name in INPUTS if name in model.tokenizer.model_input_names]

    class Logits(torch.nn.Module):
        """The model with its inputs in order and its logits alone as output."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = plain.eval().cpu()

        def forward(self, *values: torch.Tensor) -> Any:
            return self.inner(**dict(zip(names, values, strict=True))).logits

    longest = int(getattr(plain.config, "max_position_embeddings", 512))
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=longest)
    file, rounded = folder / EXPORTED["onnx"], folder / EXPORTED["onnx-int8"]
    with _quiet(), replacing(file) as temporary:
        program: Any = torch.onnx.export(
            Logits(),
            tuple(torch.ones(2, 8, dtype=torch.long) for _ in names),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes={"values": tuple({0: rows, 1: length} for _ in names)},
            dynamo=True,
            verbose=False,
        )
        note = {"max_length": str(model.tokenizer.model_max_length)}
        onnx.helper.set_model_props(program.model_proto, note)
        onnx.save(program.model_proto, str(temporary))
    if not int8:
        return file
    with _quiet(), replacing(rounded) as temporary:
        quantize_dynamic(
            file,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: sums of 8-bit products saturate without VNNI
        )
    return rounded


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter and the quantizer say about their internals."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


class OnnxModel:
    """A cross-encoder's logits by ONNX Runtime, without torch.

    Args:
        folder: the model's folder; None if it has none.
        name: `onnx` or `onnx-int8`.
        threads: how many packs are scored at a time; 0 for one a core.

    Raises:
        ExportedError: the model has not been exported, or ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path | None, name: str = "onnx", threads: int = 0) -> None:
        if folder is None:
            raise ExportedError("this model is in no folder")
        if not (folder / EXPORTED[name]).is_file():
            shown = display_path(folder)
            raise ExportedError(
                f"{shown} has no {EXPORTED[name]}; write it: workbench export {shown} --to {name}"
            )
        require("running")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.threads = threads or core_count()
        self.session = onnxruntime.InferenceSession(
            str(folder / EXPORTED[name]), options, providers=["CPUExecutionProvider"]
        )
        self.names = [put.name for put in self.session.get_inputs()]
        note: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.max_length = int(note.get("max_length", 512))
        self.typed = "token_type_ids" in self.names

    def score(self, pairs: EncodedPairs) -> Float32Array:
        """The logits of all pairs, float32 of shape (n,)."""
        scores = np.empty(len(pairs.lengths), dtype=np.float32)

        def score_pack(pack: Pack, _: Sized) -> None:
            for block in pack.blocks:
                mask = np.ones(block.shape) if block.mask is None else block.mask
                every = {
                    "input_ids": pack.ids[block.tokens].reshape(block.shape),
                    "token_type_ids": pack.types[block.tokens].reshape(block.shape),
                    "attention_mask": mask.astype(np.int64),
                }
                logits = self.session.run(None, {name: every[name] for name in self.names})[0]
                scores[pack.rows[block.pairs]] = np.asarray(logits)[:, 0]

        padded = "attention_mask" in self.names and pairs.pad is not None
        padding = MAX_PADDING if padded else 0.0
        in_threads(self.threads, score_pack, packs(pairs, PACK_TOKENS, max_padding=padding))
        return scores


def export_model(
    location: ModelLocation, to: str = "onnx", max_length: int = 512
) -> tuple[Path, Check]:
    """Write a model in ONNX beside its weights and compare it with the original.

    Args:
        location: from `find_model`; a model that an installed package or the Hub's cache holds is
            not written to: save it in a folder first.
        to: `onnx`, or `onnx-int8` for 8-bit weights (the other file is written too).
        max_length: tokens of a pair that the exported model states.

    Returns:
        The file, and its check on pairs of the run that made the model, of the test split if it
        has one, or else on made-up pairs.

    Raises:
        ExportedError: `to` is something else, the folder is not the user's own, the extra `onnx`
            is missing, or the model or this torch cannot do it.
        LinkError: a link in the folder leads elsewhere.
        LogitsDifferError: the exported model computes something else than the original.
    """
    if to not in EXPORTED:
        raise ExportedError(f"--to {to!r} is none of {', '.join(EXPORTED)}")
    if location.kind not in ("run", "folder"):
        raise ExportedError(
            f"{location.name} is not in a folder of yours; copy {location.path} and export that"
        )
    refuse_links(location.path)
    model, pairs = load_cross_encoder(location, max_length), _pairs(location)
    exact = open_backend("predict", model)(pairs)
    file = write_onnx(model, location.path, int8=to == "onnx-int8")
    plain = open_backend("onnx", model, folder=location.path)(pairs)
    change = float(np.abs(plain - exact).max())
    if not change <= MAX_LOGIT_CHANGE * max(1.0, float(np.abs(exact).max())):
        for name in EXPORTED.values():
            (location.path / name).unlink(missing_ok=True)
        raise LogitsDifferError(
            f"{location.name}: the exported model's logits are off by up to {change:.4f}"
        )
    return file, check(to, exact, open_backend(to, model, folder=location.path), pairs)


def _pairs(location: ModelLocation) -> list[TextPair]:
    """Distinct pairs of the last split that the run behind the model has, or made-up ones."""
    for side in reversed(SPLITS):
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
