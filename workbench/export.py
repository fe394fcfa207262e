"""Export: a model written for another engine, and the proof that it ranks as before."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.backends import (
    CHECK_PAIRS,
    Check,
    check,
    open_backend,
    pair_encoder,
)
from workbench.baselines import Float32Array, TextPair
from workbench.exported import EXPORTED, ONNX, ExportedError
from workbench.files import refuse_links
from workbench.models import ModelLocation, load_tokenizer
from workbench.onnx_models import write_onnx
from workbench.scoring import load_cross_encoder
from workbench.splits import SIDES, DataError, read_side

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

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
    pairs = _pairs(location, [*reversed(SIDES)])
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
            frame = read_side(location.path.parent, side)
        except DataError:
            continue
        both = zip(frame["sentence_0"], frame["sentence_1"], strict=True)
        if pairs := list(dict.fromkeys(both))[:CHECK_PAIRS]:
            return pairs
    words = sorted(load_tokenizer(location).get_vocab())
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(words, 8)) for _ in range(2 * CHECK_PAIRS)]
    return list(zip(texts[:CHECK_PAIRS], texts[CHECK_PAIRS:], strict=True))
