"""The ways to run a cross-encoder, and the check that a quicker one ranks as float32 does."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.baselines import Float32Array, TextPair
from workbench.encoding import PairEncoder
from workbench.exported import ONNX
from workbench.onnx_models import OnnxModel

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from workbench.inference import FastBert

Run = Callable[[Sequence[TextPair]], Float32Array]

BACKENDS = ("predict", "torch-float32", "torch-bfloat16", "onnx", "onnx-int8")
CHECK_PAIRS = 256  # the first so many distinct pairs are what a backend is checked on
WORTH_CHECKING = 2000  # pairs; to check all backends takes as long as to score about so many
MOST_SWAPPED = 0.002  # the largest share of couples of those pairs that may change their order
MOST_SHIFTED = 0.02  # and the largest change of a probability


class BackendError(ValueError):
    """The backend does not exist or cannot run this model here; the message says why."""


@dataclass(frozen=True)
class Check:
    """How a backend compares with the library's own float32 on the same pairs.

    Attributes:
        backend: its name.
        passed: whether it may stand in for float32.
        swapped: share of couples of pairs that change their order or become a tie.
        shifted: the largest change of a probability.
        logits: the largest change of a logit.
        pairs_per_second: of processor time on those pairs, a second time round.
    """

    backend: str
    passed: bool
    swapped: float
    shifted: float
    logits: float
    pairs_per_second: float

    def __str__(self) -> str:
        """One line for people."""
        verdict = "passes" if self.passed else "fails"
        return (
            f"{self.backend} {verdict}: {self.swapped:.2%} of couples swapped, probabilities "
            f"within {self.shifted:.4f}, {self.pairs_per_second:.0f} pairs/s"
        )


def swapped_share(exact: Float32Array, other: Float32Array) -> float:
    """Share of the couples that `exact` tells apart and `other` orders otherwise, or not at all.

    Both of shape (n,). It is half of one minus Kendall's tau where neither has ties.
    """
    first, second = (np.sign(np.subtract.outer(s, s)) for s in (exact, other))
    told_apart = first != 0
    return float(np.mean(first[told_apart] != second[told_apart])) if told_apart.any() else 0.0


def check(name: str, exact: Float32Array, run: Run, pairs: Sequence[TextPair]) -> Check:
    """Compare a backend with the exact logits of the same pairs, and time it."""
    run(pairs)  # kernels are made for shapes when these are first met
    start = time.process_time()
    found = run(pairs)
    seconds = time.process_time() - start
    finite = bool(np.isfinite(found).all())
    found = np.nan_to_num(found, posinf=0.0, neginf=0.0)  # records hold numbers
    shifted = float(np.abs(_probability(found) - _probability(exact)).max())
    swapped = swapped_share(exact, found)
    passed = finite and swapped <= MOST_SWAPPED and shifted <= MOST_SHIFTED
    furthest = float(np.abs(found - exact).max())
    return Check(name, passed, swapped, shifted, furthest, len(pairs) / max(seconds, 1e-9))


def open_backend(
    name: str, model: "CrossEncoder", batch_size: int = 64, folder: Path | None = None
) -> Run:
    """What gives the logits of pairs, float32 of shape (n,), by one of `BACKENDS`.

    `predict` is the library's own way and runs every model. `torch-` runs a plain BERT with one
    output (see `inference.py`) with the weights that `model` has now. `onnx` runs what
    `workbench export` has written into the model's `folder`.

    Raises:
        BackendError: there is no such backend, or it cannot run this model.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is none of auto, {', '.join(BACKENDS)}")
    if name == "predict":
        return lambda pairs: _predict(model, pairs, batch_size)
    try:
        if name in ONNX:
            exported = OnnxModel(folder, name)
            score, encoder = exported.score, pair_encoder(model, exported.max_length)
        else:
            score, encoder = _fast_bert(name, model).score, pair_encoder(model)
    except ValueError as error:
        raise BackendError(f"backend {name!r}: {error}") from error
    return lambda pairs: score(encoder.encode(pairs))


def pair_encoder(model: "CrossEncoder", most: int | None = None) -> PairEncoder:
    """The encoder of a model's pairs, by its own tokenizer; cut at its length, and at `most`."""
    tokenizer = model.tokenizer
    typed = "token_type_ids" in tokenizer.model_input_names
    longest = min(tokenizer.model_max_length, most or tokenizer.model_max_length)
    return PairEncoder(tokenizer.backend_tokenizer, longest, typed)


def _fast_bert(name: str, model: "CrossEncoder") -> "FastBert":
    from workbench.inference import FastBert, is_supported
    from workbench.layers import bfloat16_product, float32_product

    inner = model.model
    if inner is None or not is_supported(inner):
        kind = type(inner).__name__
        raise BackendError(f"it runs BERT with one output, not {kind}; use 'predict'")
    return FastBert(inner, bfloat16_product if name == "torch-bfloat16" else float32_product)


def choose_backend(
    model: "CrossEncoder",
    pairs: Sequence[TextPair],
    batch_size: int = 64,
    folder: Path | None = None,
) -> tuple[Run, dict[str, Any]]:
    """The quickest backend that ranks `pairs` as float32 does, and the record of the choice.

    Those that fail the check, or cannot run this model, are left out; `predict` is always right.

    Returns:
        The backend, and its record: `backend`, `asked`, `pairs` and one entry for each in `checks`.
    """
    exact = open_backend("predict", model, batch_size)
    run: dict[str, Run] = {"predict": exact}
    logits = exact(pairs)
    if not np.isfinite(logits).all():  # nothing to compare with; who uses the scores says so
        return exact, {"backend": "predict", "asked": "auto", "pairs": len(pairs), "checks": []}
    checks = [check("predict", logits, exact, pairs)]
    for name in BACKENDS[1:]:
        try:
            run[name] = open_backend(name, model, batch_size, folder)
        except BackendError:
            continue
        checks.append(check(name, logits, run[name], pairs))
    best = max((one for one in checks if one.passed), key=lambda one: one.pairs_per_second)
    record = {
        "backend": best.backend,
        "asked": "auto",
        "pairs": len(pairs),
        "checks": [asdict(one) for one in checks],
    }
    return run[best.backend], record


def backends_finding(metrics: Mapping[str, Any]) -> str:
    """A sentence on how the models were run, from `metrics.json`."""
    used: Mapping[str, Any] = metrics.get("backends", {})
    if not used:
        return "No model was run."
    parts = []
    for name, record in used.items():
        text = f"`{name}` was run by **{record['backend']}**"
        found = {one["backend"]: one for one in record.get("checks", [])}
        if record["backend"] in found and record["backend"] != "predict":
            own, plain = found[record["backend"]], found["predict"]
            gain = own["pairs_per_second"] / plain["pairs_per_second"]
            text += (
                f" ({gain:.1f} times as quick as the library's float32; on the first "
                f"{record['pairs']} pairs it swaps {own['swapped']:.2%} of couples)"
            )
        parts.append(text)
    return "; ".join(parts) + "."


def _predict(model: "CrossEncoder", pairs: Sequence[TextPair], batch_size: int) -> Float32Array:
    from torch.nn import Identity

    logits = model.predict(
        [*pairs], batch_size=batch_size, activation_fn=Identity(), show_progress_bar=False
    )
    return np.asarray(logits, dtype=np.float32).ravel()


def _probability(logits: Float32Array) -> Float32Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), dtype=np.float32)
