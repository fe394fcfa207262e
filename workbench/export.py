"""Export: a model written for another engine, and the proof that it ranks as before."""

from pathlib import Path

import numpy as np

from workbench.backends import CHECK_PAIRS, Check, check, open_backend
from workbench.baselines import TextPair
from workbench.models import ModelLocation, load_tokenizer
from workbench.onnx_models import FILES, OnnxError, write_onnx
from workbench.scoring import load_cross_encoder
from workbench.splits import SIDES, DataError, read_side

SAME = 1e-3  # the furthest that a logit in float32 may move by another engine's order of sums


class ExportError(RuntimeError):
    """What was written computes something else than the original; it has been removed."""


def export_model(
    location: ModelLocation, to: str = "onnx", max_length: int = 512
) -> tuple[Path, Check]:
    """Write a model in ONNX beside its weights and compare it with the original.

    Args:
        location: from `find_model`; a model that an installed package or the Hub's cache holds is
            not written to: save it in a folder first.
        to: `onnx`, or `onnx-int8` for weights of 8 bits (the other file is written too).
        max_length: tokens of a pair that the exported model states.

    Returns:
        The file, and its check on pairs of the run that made the model, or else on made-up ones.

    Raises:
        OnnxError: the extra `onnx` is missing, `to` is something else, or the folder is not the
            user's own.
        ExportError: the written model computes something else than the original.
    """
    if to not in FILES:
        raise OnnxError(f"--to {to!r} is none of {', '.join(FILES)}")
    if location.kind not in ("run", "folder"):
        raise OnnxError(
            f"{location.name} is not in a folder of yours; copy {location.path} and export that"
        )
    model = load_cross_encoder(location, max_length)
    pairs = _pairs(location)
    exact = open_backend("predict", model)(pairs)
    file = write_onnx(model, location.path, int8=to == "onnx-int8")
    plain = open_backend("onnx", model, folder=location.path)(pairs)
    away = float(np.abs(plain - exact).max())
    if not away <= SAME * max(1.0, float(np.abs(exact).max())):
        for name in FILES.values():
            (location.path / name).unlink(missing_ok=True)
        raise ExportError(
            f"{location.name}: the exported model's logits are off by up to {away:.4f}"
        )
    return file, check(to, exact, open_backend(to, model, folder=location.path), pairs)


def _pairs(location: ModelLocation) -> list[TextPair]:
    """Distinct pairs to compare on: of the run behind the model, test side first."""
    for side in reversed(SIDES):
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
