"""Export of a model to ONNX, and its logits by ONNX Runtime, without torch."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import Float32Array, TextPair
from workbench.data.splits import SPLITS, DataError, read_split
from workbench.engine.packing import Pack, PairEncoder, packs
from workbench.files import display_path, read_json, refuse_links, replacing, sha256, write_text
from workbench.machine import core_count, in_threads, quiet
from workbench.models import (
    ModelLocation,
    is_language_model,
    load_tokenizer,
    position_limit,
)
from workbench.scoring.cross_encoder import (
    CHECK_PAIRS,
    Check,
    check,
    load_cross_encoder,
    open_backend,
    pair_encoder,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

EXPORTED = {  # by backend, in a model's folder: where sentence-transformers looks for ONNX
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
}
TOKENIZER = "tokenizer.json"  # beside the ONNX files as the library reads it, options included
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MAX_PADDING = 0.1  # of a block's tokens
PACK_TOKENS = 2048  # so few that a layer's activations stay in the processor's cache
MAX_LOGIT_CHANGE = 1e-3  # of a float32 logit, by another order of sums


class ExportedError(ValueError):
    """A model cannot be exported, or run from what was exported; the message says why."""


class LogitsDifferError(RuntimeError):
    """The exported model computes something else than the original; it has been removed."""


@contextmanager
def onnx_installed() -> Iterator[None]:
    """Within the block, say how to install what cannot be imported (`ExportedError`)."""
    try:
        yield
    except ImportError as error:
        install = "pip install '.[onnx]' in the project's folder"
        raise ExportedError(f"ONNX needs {error.name}: {install}") from error


def write_onnx(model: "CrossEncoder", folder: Path, int8: bool = False) -> Path:
    """Write a cross-encoder in float32 to `folder/onnx/model.onnx`, for batches of any shape.

    Args:
        model: a cross-encoder with one output.
        folder: the model's folder.
        int8: write `model_qint8.onnx` too: the weights of products in 8 bits, one scale a column;
            the activations are rounded as they come.

    Returns:
        The file last written; the tokenizer as the library reads it is beside it.

    Raises:
        ExportedError: the extra `onnx` is missing, or the exporter cannot trace the model.
    """
    with onnx_installed():
        import onnx
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    import torch

    plain: Any = model.model
    names = [name for name in INPUTS if name in model.tokenizer.model_input_names]
    _refuse_language_model(config := plain.config.to_dict())

    class Logits(torch.nn.Module):
        """The model with its inputs in order and its logits alone as output."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = plain.eval().cpu()

        def forward(self, *values: torch.Tensor) -> Any:
            return self.inner(**dict(zip(names, values, strict=True))).logits

    encoder = pair_encoder(model)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=position_limit(config))
    file, rounded = folder / EXPORTED["onnx"], folder / EXPORTED["onnx-int8"]
    note = {"max_length": str(model.tokenizer.model_max_length)}
    known = sha256(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else ""
    note |= {"tokenizer": known, "side": encoder.side}
    with quiet(), replacing(file) as temporary:
        try:
            program: Any = torch.onnx.export(
                Logits(),
                tuple(torch.ones(2, 8, dtype=torch.long) for _ in names),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={"values": tuple({0: rows, 1: length} for _ in names)},
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter has many kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            kind = type(plain).__name__
            raise ExportedError(f"{kind} cannot be written as ONNX: {reason[:300]}") from error
        proto = program.model_proto  # another copy each time
        onnx.helper.set_model_props(proto, note)
        onnx.save(proto, str(temporary))
    write_text(file.with_name(TOKENIZER), encoder.tokenizer.to_str())
    if not int8:
        return file
    with quiet(), replacing(rounded) as temporary:
        quantize_dynamic(
            file,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: sums of 8-bit products saturate without VNNI
        )
    return rounded


def _refuse_language_model(config: Mapping[str, Any]) -> None:
    if is_language_model(config):
        raise ExportedError(
            "a language model reads pairs through its chat template, which an ONNX file has not; "
            "use 'predict'"
        )


class OnnxModel:
    """A cross-encoder run by ONNX Runtime, without torch.

    Args:
        folder: the model's folder; None if it has none.
        name: `onnx` or `onnx-int8`.
        max_length: tokens of a pair, at most the model's own, which None stands for.
        threads: how many packs are scored at a time; 0 for one a core.

    Raises:
        ExportedError: the model has not been exported as it is now, or there is no ONNX Runtime.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str = "onnx",
        max_length: int | None = None,
        threads: int = 0,
    ) -> None:
        if folder is None:
            raise ExportedError("this model is in no folder")
        file, shown = folder / EXPORTED[name], display_path(folder)
        again = f"write it: workbench export {shown} --to {name}"
        if not file.is_file():
            config = folder / "config.json"
            _refuse_language_model(read_json(config) if config.is_file() else {})
            raise ExportedError(f"{shown} has no {EXPORTED[name]}; {again}")
        with onnx_installed():
            import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(str(file), options, providers=providers)
            note: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            own = int(note.get("max_length", 512))
        except Exception as error:  # the runtime has many kinds
            reason = f"{shown}: {EXPORTED[name]} is damaged ({str(error)[:200]}); {again}"
            raise ExportedError(reason) from error
        self.names = [put.name for put in self.session.get_inputs()]
        if unknown := [name for name in self.names if name not in INPUTS]:
            raise ExportedError(f"{shown}: {EXPORTED[name]} takes {unknown[0]!r}; {again}")
        tokenizer = folder / TOKENIZER
        if note.get("tokenizer", "") not in ("", tokenizer.is_file() and sha256(tokenizer)):
            raise ExportedError(f"{shown}: {TOKENIZER} has changed since the export; {again}")
        self.threads, self.max_length = threads or core_count(), min(own, max_length or own)
        typed, read = "token_type_ids" in self.names, file.with_name(TOKENIZER)
        try:
            tokens = Tokenizer.from_file(str(read if read.is_file() else tokenizer))
        except Exception as error:  # of no kind that the library names
            raise ExportedError(f"{shown}: {TOKENIZER} cannot be read: {error}") from error
        self.encoder = PairEncoder(tokens, self.max_length, typed, note.get("side", "right"))

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """The logits, float32 of shape (n,)."""
        encoded, scores = self.encoder.encode(pairs), np.empty(len(pairs), dtype=np.float32)

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

        padded = "attention_mask" in self.names and encoded.pad is not None
        padding = MAX_PADDING if padded else 0.0
        in_threads(self.threads, score_pack, packs(encoded, PACK_TOKENS, max_padding=padding))
        return scores


def export_model(
    location: ModelLocation, to: str = "onnx", max_length: int | None = None
) -> tuple[Path, Check]:
    """Write a model in ONNX beside its weights and compare it with the original.

    Args:
        location: from `find_model`, a folder or a run; what an installed package or the Hub's cache
            holds is not written to.
        to: `onnx`, or `onnx-int8` for 8-bit weights (the other file is written too).
        max_length: tokens of a pair that the exported model states; None for the model's own.

    Returns:
        The file, and its check on pairs of the run that made the model, or else on made-up pairs.

    Raises:
        ExportedError: `to` is something else, the folder is not the user's, the extra `onnx` is
            missing, or the model, its `tokenizer.json` or this torch cannot do it.
        PathError: a link in the folder leads elsewhere.
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
    for split in reversed(SPLITS):
        with suppress(DataError):
            frame = read_split(location.path.parent, split)
            if pairs := list(
                dict.fromkeys(zip(frame["sentence_0"], frame["sentence_1"], strict=True))
            ):
                return pairs[:CHECK_PAIRS]
    words, rng = sorted(load_tokenizer(location).get_vocab()), np.random.default_rng(0)
    texts = ["".join(rng.choice(words, 8)) for _ in range(2 * CHECK_PAIRS)]
    return list(zip(texts[:CHECK_PAIRS], texts[CHECK_PAIRS:], strict=True))
