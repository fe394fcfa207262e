"""Scorers: anything with `score(pairs)`, higher is better. Here the ones that run a model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import Float32Array, TextPair
from workbench.engine.packing import IntArray, PairEncoder
from workbench.models import ModelError, ModelLocation

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from workbench.engine.forward import FastBert

Run = Callable[[Sequence[TextPair]], Float32Array]


ONNX = ("onnx", "onnx-int8")
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
            from workbench.scoring.export import OnnxModel

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
    from workbench.engine.forward import FastBert, bfloat16_product, float32_product, is_supported

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


def _predict(model: "CrossEncoder", pairs: Sequence[TextPair], batch_size: int) -> Float32Array:
    from torch.nn import Identity

    logits = model.predict(
        [*pairs], batch_size=batch_size, activation_fn=Identity(), show_progress_bar=False
    )
    return np.asarray(logits, dtype=np.float32).ravel()


def _probability(logits: Float32Array) -> Float32Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), dtype=np.float32)


def load_cross_encoder(
    location: ModelLocation, max_length: int = 512, seed: int = 42
) -> "CrossEncoder":
    """Load a model with one output; a base without a classification head gets a seeded random one.

    Args:
        location: from `find_model`; only its safetensors weights are read, none of its code.
        max_length: tokens of a pair, special tokens included; longer pairs are truncated.
        seed: of the random head, so that the same base is the same model every time.

    Raises:
        ModelError: the library cannot load the model, or weights other than the head's are missing,
            which it would fill with random numbers.
    """
    from sentence_transformers import CrossEncoder
    from transformers import set_seed
    from transformers.utils import logging

    set_seed(seed)
    # The library's report of a missing head tells what the docstring says, at length.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # loading and saving take a moment; training has its own bar
    try:
        if missing := _missing_weights(location):
            raise ModelError(
                f"{location.name}: {len(missing)} weights are missing, which would be random "
                f"numbers ({', '.join(missing[:3])})"
            )
        return CrossEncoder(
            str(location.path),
            num_labels=1,
            max_length=max_length,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
    except ModelError:
        raise
    except Exception as error:  # the library refuses a model by errors of many kinds
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{location.name} cannot be loaded: {first}") from error
    finally:
        logging.set_verbosity(verbosity)


def _missing_weights(location: ModelLocation) -> list[str]:
    """Names of the weights that a model's files lack, those of its head and pooler left out."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    where = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(str(location.path), **where)
    causal = str((config.architectures or [""])[0]).endswith("ForCausalLM")
    kind: Any = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    model, found = kind.from_pretrained(
        str(location.path),
        output_loading_info=True,
        device_map="meta",
        use_safetensors=True,
        **where,
    )
    body = f"{model.base_model_prefix}."
    lacking = found["missing_keys"] | found["mismatched_keys"]
    return sorted(
        name for name in map(str, lacking) if name.startswith(body) and ".pooler." not in name
    )


def distinct(pairs: Sequence[TextPair]) -> tuple[list[TextPair], IntArray]:
    """The pairs without repetition, and where each of the n stands among them, shape (n,)."""
    place: dict[TextPair, int] = {}
    found = (place.setdefault((first, second), len(place)) for first, second in pairs)
    places = np.fromiter(found, np.int64, count=len(pairs))
    return list(place), places


class ModelScorer:
    """A cross-encoder as a scorer; the score is the logit, before any sigmoid.

    Args:
        model: the cross-encoder. Once it is trained further, a scorer must be made anew: a backend
            other than `predict` keeps weights of its own.
        batch_size: of the backend `predict`.
        backend: one of `BACKENDS`, or `auto`: the quickest that ranks as float32 does, chosen at
            the first call with more than `WORTH_CHECKING` distinct pairs, or the first after
            `expect` said that so many will come. Until then, `predict`.
        folder: of the model, for what has been exported there.
    """

    log_odds = True  # the score has a probability, so calibration can be measured

    def __init__(
        self,
        model: "CrossEncoder",
        batch_size: int = 64,
        backend: str = "predict",
        folder: Path | None = None,
    ) -> None:
        self.model, self.batch_size, self.folder = model, batch_size, folder
        self.backend_record: dict[str, Any] = {"backend": backend, "asked": backend}
        self._run: Run | None = None
        self._expected = 0
        if backend == "auto":
            self.backend_record["backend"] = "predict"
        else:
            self._run = open_backend(backend, model, batch_size, folder)

    @classmethod
    def load(
        cls,
        location: ModelLocation,
        max_length: int = 512,
        batch_size: int = 64,
        seed: int = 42,
        backend: str = "predict",
    ) -> "ModelScorer":
        """Load the model at `location`; see `load_cross_encoder`.

        Raises:
            BackendError: the backend does not exist or cannot run this model.
        """
        model = load_cross_encoder(location, max_length, seed)
        return cls(model, batch_size, backend, location.path)

    def expect(self, pairs: int) -> None:
        """Say how many pairs are to come in all, so that one backend scores them all."""
        self._expected = pairs

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits, float32 of shape (n,); equal pairs are scored once."""
        if not len(pairs):
            return np.empty(0, dtype=np.float32)
        once, places = distinct(pairs)
        if self._run is None and max(len(once), self._expected) > WORTH_CHECKING:
            first = once[:CHECK_PAIRS]
            self._run, self.backend_record = choose_backend(
                self.model, first, self.batch_size, self.folder
            )
        run = self._run or open_backend("predict", self.model, self.batch_size)
        return run(once)[places]


def backends_used(scorers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By which backend each model among the scorers has scored, as far as it has."""
    found = {name: getattr(scorer, "backend_record", None) for name, scorer in scorers.items()}
    return {name: dict(record) for name, record in found.items() if record}
