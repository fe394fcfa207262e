"""Cross-encoders as scorers, and the backends that run them."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import Float32Array, TextPair
from workbench.engine.packing import PairEncoder
from workbench.models import (
    ModelError,
    ModelLocation,
    check_model,
    library_errors,
    position_limit,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Run = Callable[[Sequence[TextPair]], Float32Array]

ONNX = ("onnx", "onnx-int8")
BACKENDS = ("predict", "torch-float32", "torch-bfloat16", *ONNX)
CHECK_PAIRS = 256  # distinct pairs that a backend is checked on
MIN_PAIRS_TO_CHECK = 2000  # checking all backends takes as long as scoring about this many pairs
MIN_LENGTH = 8  # tokens of a pair; three or four are special
MAX_INVERTED = 0.002  # share of pairwise orders
MAX_SHIFT = 0.02  # of a probability


class BackendError(ValueError):
    """The backend does not exist or cannot run this model here; the message says why."""


@dataclass(frozen=True)
class Check:
    """How a backend compares with the library's own float32 on the same pairs."""

    backend: str
    passed: bool  # whether it may replace float32
    swapped: float  # share of pairwise orders inverted or lost in a tie
    shifted: float  # the largest change of a probability
    logits: float  # the largest change of a logit
    pairs_per_second: float  # of processor time, when those pairs are scored again

    def __str__(self) -> str:
        verdict = "passes" if self.passed else "fails"
        return (
            f"{self.backend} {verdict}: {self.swapped:.2%} of pairwise orders inverted, "
            f"probabilities within {self.shifted:.4f}, {self.pairs_per_second:.0f} pairs/s"
        )


def inverted_share(exact: Float32Array, other: Float32Array) -> float:
    """Share of the pairwise orders in `exact` that `other`, both of shape (n,), inverts or ties.

    Without ties it is half of one minus Kendall's tau.
    """
    first, second = (np.sign(np.subtract.outer(scores, scores)) for scores in (exact, other))
    ordered = first != 0
    return float(np.mean(first[ordered] != second[ordered])) if ordered.any() else 0.0


def check(name: str, exact: Float32Array, run: Run, pairs: Sequence[TextPair]) -> Check:
    """Compare a backend with the exact logits of the same pairs, and time it."""
    run(pairs)  # some kernels are compiled the first time a shape occurs
    start = time.process_time()
    found = run(pairs)
    seconds = max(time.process_time() - start, 1e-9)
    finite = bool(np.isfinite(found).all())
    found = np.nan_to_num(found, posinf=0.0, neginf=0.0)  # JSON has no NaN
    before, after = (1 / (1 + np.exp(-np.clip(logits, -80, 80))) for logits in (exact, found))
    shifted, inverted = float(np.abs(after - before).max()), inverted_share(exact, found)
    passed = finite and inverted <= MAX_INVERTED and shifted <= MAX_SHIFT
    furthest = float(np.abs(found - exact).max())
    return Check(name, passed, inverted, shifted, furthest, len(pairs) / seconds)


def pair_encoder(model: "CrossEncoder") -> PairEncoder:
    """The encoder of a model's pairs, by its tokenizer; cut at its length."""
    tokenizer = model.tokenizer
    if not tokenizer.is_fast:
        raise ModelError(f"it needs a fast tokenizer, not {type(tokenizer).__name__}")
    typed = "token_type_ids" in tokenizer.model_input_names
    longest, side = tokenizer.model_max_length, tokenizer.truncation_side
    return PairEncoder(tokenizer.backend_tokenizer, longest, typed, side)


def open_backend(
    name: str, model: "CrossEncoder", batch_size: int = 64, folder: Path | None = None
) -> Run:
    """A function from pairs to their logits, float32 of shape (n,), by one of `BACKENDS`.

    `predict` is the library's own way and runs every model; `torch-` runs a plain BERT with the
    weights that `model` has now; `onnx` runs what was exported into the model's `folder`.

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

            return OnnxModel(folder, name, model.tokenizer.model_max_length).score
        import torch

        from workbench.engine.forward import FastBert

        inner: Any = model.model
        dtype = torch.bfloat16 if name == "torch-bfloat16" else torch.float32
        engine, encoder = FastBert(inner, dtype), pair_encoder(model)
    except ValueError as error:
        raise BackendError(f"backend {name!r}: {error}") from error
    return lambda pairs: engine.score(encoder.encode(pairs))


def _predict(model: "CrossEncoder", pairs: Sequence[TextPair], batch_size: int) -> Float32Array:
    from torch.nn import Identity

    logits = model.predict(
        [*pairs], batch_size=batch_size, activation_fn=Identity(), show_progress_bar=False
    )
    return np.asarray(logits, dtype=np.float32).ravel()


def choose_backend(
    model: "CrossEncoder",
    pairs: Sequence[TextPair],
    batch_size: int = 64,
    folder: Path | None = None,
) -> tuple[Run, dict[str, Any]]:
    """The fastest backend that ranks `pairs` as float32 does, and the record of the choice.

    The record has `backend`, `asked`, `pairs`, one of `checks` for each backend that can run the
    model, and in `left_out` why the others cannot.
    """
    runs = {"predict": open_backend("predict", model, batch_size)}
    record: dict[str, Any] = {"backend": "predict", "asked": "auto", "pairs": len(pairs)}
    exact = runs["predict"](pairs)
    if not np.isfinite(exact).all():  # no reference; the caller reports such scores
        return runs["predict"], record | {"checks": []}
    checks, left_out = [check("predict", exact, runs["predict"], pairs)], dict[str, str]()
    for name in BACKENDS[1:]:
        try:
            runs[name] = open_backend(name, model, batch_size, folder)
        except BackendError as error:
            left_out[name] = str(error)
            continue
        checks.append(check(name, exact, runs[name], pairs))
    best = max((one for one in checks if one.passed), key=lambda one: one.pairs_per_second)
    record |= {"checks": [asdict(one) for one in checks], "left_out": left_out}
    return runs[best.backend], record | {"backend": best.backend}


def load_cross_encoder(
    location: ModelLocation, max_length: int | None = None, seed: int = 42
) -> "CrossEncoder":
    """A model with one output; a base without a classification head gets a seeded random one.

    Args:
        location: from `find_model`; only its safetensors weights are read, none of its code.
        max_length: tokens of a pair, special tokens included, at which longer pairs are cut, as far
            as the model's positions reach; None for the model's own.
        seed: of the random head, so that the same base is the same model every time.

    Raises:
        ModelError: the library cannot load it, or its files do not fit together.
    """
    from sentence_transformers import CrossEncoder
    from transformers import set_seed

    check_model(location)
    set_seed(seed)
    with library_errors(location):
        model = CrossEncoder(
            str(location.path),
            num_labels=1,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
        tokenizer, config = model.tokenizer, model[0].model.config.to_dict()
        own = tokenizer.model_max_length
        tokenizer.model_max_length = int(min(max_length or own, position_limit(config)))
        if tokenizer.model_max_length < MIN_LENGTH:
            raise ValueError(
                f"max_length is {tokenizer.model_max_length}; it must be {MIN_LENGTH} or more"
            )
        _check_next_token(model)
    return model


def _check_next_token(model: "CrossEncoder") -> None:
    """Refuse a language model that cannot say yes or no, or is not given both texts of a pair."""
    score: Any = model[-1]
    if hasattr(score, "true_token_id"):
        if score.true_token_id == score.false_token_id:
            raise ValueError(
                "it is a language model whose tokenizer has no tokens 'yes' and 'no'; save it as a "
                "CrossEncoder with a LogitScore that names its two tokens"
            )
        pairs = [("query", "one"), ("query", "two")]
        first, second = model.preprocess(pairs)["input_ids"].tolist()
        if first == second:
            raise ValueError(
                "its chat template leaves the candidate out, or with max_length "
                f"{model.tokenizer.model_max_length} no room for it"
            )


class ModelScorer:
    """A cross-encoder as a scorer; the score is the logit, before any sigmoid.

    Args:
        model: the cross-encoder; once it is trained further, make a new scorer.
        batch_size: of the backend `predict`.
        backend: one of `BACKENDS`, or `auto`: `predict` for up to `MIN_PAIRS_TO_CHECK` distinct
            pairs at once or announced by `expect`, else the fastest that ranks as float32 does.
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
        self.undecided, self._expected = backend == "auto", 0
        first = "predict" if self.undecided else backend
        self.backend_record: dict[str, Any] = {"backend": first, "asked": backend}
        self._run = open_backend(first, model, batch_size, folder)

    @classmethod
    def load(
        cls,
        location: ModelLocation,
        max_length: int | None = None,
        batch_size: int = 64,
        seed: int = 42,
        backend: str = "predict",
    ) -> "ModelScorer":
        """Load the model at `location`; see `load_cross_encoder`.

        Pairs are cut at the model's own length, as it was trained to do, or at a smaller
        `max_length`.

        Raises:
            BackendError: the backend does not exist or cannot run this model.
        """
        model = load_cross_encoder(location, None, seed)
        tokenizer = model.tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, max_length or sys.maxsize)
        with library_errors(location):
            _check_next_token(model)
        return cls(model, batch_size, backend, location.path)

    def expect(self, pairs: int) -> None:
        """Announce how many pairs are to come in all, so that one backend scores them all."""
        self._expected = pairs

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits, float32 of shape (n,); equal pairs are scored once."""
        if not len(pairs):
            return np.empty(0, dtype=np.float32)
        pairs = [(first, second) for first, second in pairs]
        place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        once = list(place)
        if self.undecided and max(len(once), self._expected) > MIN_PAIRS_TO_CHECK:
            self._run, self.backend_record = choose_backend(
                self.model, once[:CHECK_PAIRS], self.batch_size, self.folder
            )
            self.undecided = False
        return self._run(once)[[place[pair] for pair in pairs]]


def backends_used(scorers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The backend record of each model among the scorers."""
    found = {name: getattr(scorer, "backend_record", None) for name, scorer in scorers.items()}
    return {name: dict(record) for name, record in found.items() if record}
