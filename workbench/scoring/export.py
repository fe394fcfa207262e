"""Export of a model to ONNX, compared with the original."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import SPLITS, DataError, read_split
from workbench.data.texts import TextPair, text_pairs
from workbench.files import FailedError, first_line, refuse_links, replacing, sha256, write_text
from workbench.machine import quiet
from workbench.models import ModelLocation, load_tokenizer, position_limit
from workbench.scoring import backends
from workbench.scoring.backends import CHECK_PAIRS, EXPORTED, TOKENIZER, BackendError, open_backend
from workbench.scoring.cross_encoder import load_cross_encoder

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

MAX_LOGIT_CHANGE = 1e-3  # of a float32 logit, by another order of sums


def write_onnx(model: "CrossEncoder", folder: Path, int8: bool = False) -> None:
    """Write a cross-encoder in float32 to `folder/onnx/model.onnx`, for batches of any shape.

    With `int8` also `model_qint8.onnx`: the weights of products in 8 bits, one scale a column; the
    activations are rounded as they come. The tokenizer as the library reads it is written beside.

    Raises:
        BackendError: the extra `onnx` is missing, or the exporter cannot trace the model.
    """
    with backends.onnx_installed():
        import onnxscript  # noqa: F401
        from onnxruntime.quantization import QuantType, quantize_dynamic
    import torch

    plain: Any = model.model
    names = [name for name in backends.INPUTS if name in model.tokenizer.model_input_names]
    backends.refuse_language_model(config := plain.config.to_dict())
    encoder = backends.pair_encoder(model)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=position_limit(config))
    file = folder / EXPORTED["onnx"]
    known = sha256(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else ""
    with quiet(), replacing(file) as temporary:
        try:
            program: Any = torch.onnx.export(
                plain.eval().cpu(),
                kwargs={name: torch.ones(2, 8, dtype=torch.long) for name in names},
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={name: {0: rows, 1: length} for name in names},
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter has many kinds
            what = f"{type(plain).__name__} cannot be written as ONNX"
            raise BackendError(f"{what}: {first_line(error)}") from error
        note = {"max_length": str(model.tokenizer.model_max_length), "tokenizer": known}
        program.model.metadata_props.update(note | {"side": encoder.side})
        program.save(temporary, external_data=False)
    write_text(file.with_name(TOKENIZER), encoder.tokenizer.to_str())
    if not int8:
        return
    with quiet(), replacing(folder / EXPORTED["onnx-int8"]) as temporary:
        quantize_dynamic(
            file,
            temporary,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: sums of 8-bit products saturate without VNNI
        )


def export_model(
    location: ModelLocation, to: str = "onnx", max_length: int | None = None
) -> tuple[Path, backends.Check]:
    """Write a model in ONNX beside its weights: the file, and its comparison with the original.

    `to` is `onnx`, or `onnx-int8` for 8-bit weights (the other file is written too); `max_length`,
    tokens of a pair, is what the exported model states, None for the model's own. They are compared
    on pairs of the run that made the model, or else on made-up pairs.

    Raises:
        BackendError: `to` is something else, the folder is not the user's, the extra `onnx` is
            missing, or the model, its `tokenizer.json` or this torch cannot do it.
        RequestError: a link in the folder leads elsewhere.
        FailedError: the exported model computes something else than the original; it is removed.
    """
    if to not in EXPORTED:
        raise BackendError(f"--to {to!r} is none of {', '.join(EXPORTED)}")
    if location.kind not in ("run", "folder"):
        raise BackendError(
            f"{location.name} is not in a folder of yours; copy {location.path} and export that"
        )
    refuse_links(location.path)
    model, pairs = load_cross_encoder(location, max_length), _pairs(location)
    exact = open_backend("predict", model)(pairs)
    write_onnx(model, location.path, int8=to == "onnx-int8")
    plain = open_backend("onnx", model, folder=location.path)(pairs)
    change = float(np.abs(plain - exact).max())
    if not change <= MAX_LOGIT_CHANGE * max(1.0, float(np.abs(exact).max())):
        for name in EXPORTED.values():
            (location.path / name).unlink(missing_ok=True)
        raise FailedError(
            f"{location.name}: the exported model's logits are off by up to {change:.4f}"
        )
    run = open_backend(to, model, folder=location.path)
    return location.path / EXPORTED[to], backends.check(to, exact, run, pairs)


def _pairs(location: ModelLocation) -> list[TextPair]:
    """Distinct pairs of the last split that the run behind the model has, or made-up ones."""
    for split in reversed(SPLITS):
        with suppress(DataError):
            frame = read_split(location.path.parent, split)
            if pairs := list(dict.fromkeys(text_pairs(frame))):
                return pairs[:CHECK_PAIRS]
    words, rng = sorted(load_tokenizer(location).get_vocab()), np.random.default_rng(0)
    texts = ["".join(rng.choice(words, 8)) for _ in range(2 * CHECK_PAIRS)]
    return list(zip(texts[:CHECK_PAIRS], texts[CHECK_PAIRS:], strict=True))
