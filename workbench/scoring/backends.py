"""Ways to run a cross-encoder, and the choice among them: each gives the logits of text pairs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from workbench.data.texts import Float32Array, TextPair
from workbench.engine.packing import IntArray, Pack, PairEncoder, packs
from workbench.files import display_path, percent, sha256
from workbench.machine import core_count, in_threads
from workbench.models import MIN_LENGTH, ModelError, is_language_model
from workbench.run_folder import read_record

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Run = Callable[[Sequence[TextPair]], Float32Array]

EXPORTED = {  # by backend, in a model's folder: where sentence-transformers looks for ONNX
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
}
BACKENDS = ("predict", "torch-float32", "torch-bfloat16", *EXPORTED)
TOKENIZER = "tokenizer.json"  # beside the ONNX files as the library reads it, options included
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MAX_PADDING = 0.1  # of a block's tokens
PACK_TOKENS = 2048  # so few that a layer's activations stay in the processor's cache
BATCH_SIZE = 64  # pairs that the library scores at once
CHECK_PAIRS = 256  # distinct pairs that a backend is checked on
MAX_INVERTED = 0.002  # share of pairwise orders
MAX_SHIFT = 0.02  # of a probability


class BackendError(ValueError):
    """There is no such backend, or it cannot run this model here, or the model not be exported."""


class Check(NamedTuple):
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
            f"{self.backend} {verdict}: {percent(self.swapped, 2)} of pairwise orders inverted, "
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
    rate = len(pairs) / max(time.process_time() - start, 1e-9)
    finite = bool(np.isfinite(found).all())
    found = np.nan_to_num(found, posinf=0.0, neginf=0.0)  # JSON has no NaN
    shifted = float(np.abs(expit(found) - expit(exact)).max())
    inverted, furthest = inverted_share(exact, found), float(np.abs(found - exact).max())
    passed = finite and inverted <= MAX_INVERTED and shifted <= MAX_SHIFT
    return Check(name, passed, inverted, shifted, furthest, rate)


def pair_encoder(model: "CrossEncoder") -> PairEncoder:
    """The encoder of a model's pairs, by its tokenizer; cut at its length."""
    tokenizer = model.tokenizer
    if not tokenizer.is_fast:
        raise ModelError(f"it needs a fast tokenizer, not {type(tokenizer).__name__}")
    typed = "token_type_ids" in tokenizer.model_input_names
    longest, side = tokenizer.model_max_length, tokenizer.truncation_side
    return PairEncoder(tokenizer.backend_tokenizer, longest, typed, side)


def batches(keys: ArrayLike) -> Iterator[IntArray]:
    """Places by rising key, shape (`BATCH_SIZE`,) or fewer; such as lengths, for little padding."""
    order = np.argsort(keys, kind="stable")
    for start in range(0, len(order), BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]


def check_backend(name: str) -> None:
    """Refuse (`BackendError`) what is neither `auto` nor one of `BACKENDS`."""
    if name not in ("auto", *BACKENDS):
        raise BackendError(f"backend {name!r} is none of auto, {', '.join(BACKENDS)}")


def open_backend(name: str, model: "CrossEncoder", folder: Path | None = None) -> Run:
    """A function from pairs to their logits, float32 of shape (n,), by one of `BACKENDS`.

    `predict` is the library's own way and runs every model; `torch-` runs a plain BERT with the
    weights that `model` has now; `onnx` runs what was exported into the model's `folder`.

    Raises:
        BackendError: there is no such backend, or it cannot run this model.
    """
    check_backend(name)
    if name == "predict":
        encoder = None
        with suppress(ValueError):  # of a tokenizer that joins pairs in its own way
            encoder = pair_encoder(model)
        return partial(_predict, model, encoder)
    try:
        if name in EXPORTED:
            return OnnxModel(folder, name, model.tokenizer.model_max_length).score
        import torch

        from workbench.engine.bert import FastBert

        dtype = torch.bfloat16 if name == "torch-bfloat16" else torch.float32
        engine, encoder = FastBert(model.model, dtype), pair_encoder(model)
    except ValueError as error:
        raise BackendError(f"backend {name!r}: {error}") from error
    return lambda pairs: engine.score(encoder.encode(pairs))


def _predict(
    model: "CrossEncoder", encoder: PairEncoder | None, pairs: Sequence[TextPair]
) -> Float32Array:
    """The library's own scores, of batches with like numbers of tokens.

    By itself it sorts by characters, and a batch of words is padded by a quarter.
    """
    from torch.nn import Identity

    if encoder:
        lengths = encoder.encode(pairs).lengths
    else:
        lengths = np.array([len(first) + len(second) for first, second in pairs])
    options: Any = {"batch_size": BATCH_SIZE, "show_progress_bar": False}
    scores = np.empty(len(pairs), dtype=np.float32)
    for rows in batches(-lengths):
        batch = [pairs[row] for row in rows]
        scores[rows] = model.predict(batch, activation_fn=Identity(), **options).ravel()
    return scores


def choose_backend(
    model: "CrossEncoder", pairs: Sequence[TextPair], folder: Path | None = None
) -> tuple[Run, dict[str, Any]]:
    """The fastest backend that ranks `pairs` as float32 does, and the record of the choice.

    It has `backend`, `asked`, `pairs`, `checks`, and in `left_out` why other backends cannot.
    """
    record: dict[str, Any] = {"backend": "predict", "asked": "auto", "pairs": len(pairs)}
    predict = open_backend("predict", model)
    exact = predict(pairs)
    if not np.isfinite(exact).all():  # no reference; the caller reports such scores
        return predict, record | {"checks": []}
    runs, checks, left_out = dict[str, Run](), list[Check](), dict[str, str]()
    for name in BACKENDS:
        try:
            runs[name] = open_backend(name, model, folder)
            checks.append(check(name, exact, runs[name], pairs))
        except BackendError as error:
            left_out[name] = str(error)
    best = max((one for one in checks if one.passed), key=lambda one: one.pairs_per_second).backend
    record |= {"checks": [one._asdict() for one in checks], "left_out": left_out, "backend": best}
    return runs[best], record


@contextmanager
def onnx_installed() -> Iterator[None]:
    """Within the block, say how to install what cannot be imported (`BackendError`)."""
    try:
        yield
    except ImportError as error:
        install = "pip install '.[onnx]' in the project's folder"
        raise BackendError(f"ONNX needs {error.name}: {install}") from error


def refuse_language_model(config: Mapping[str, Any]) -> None:
    """Refuse (`BackendError`) what needs more than an ONNX file."""
    if is_language_model(config):
        raise BackendError(
            "a language model reads pairs through its chat template, which an ONNX file has not; "
            "use 'predict'"
        )


class OnnxModel:
    """A cross-encoder run by ONNX Runtime, without torch, from what its folder (if any) has.

    Pairs are cut at `max_length` tokens, at most the model's own number (None); `threads` packs are
    scored at a time, 0 for one a core.

    Raises:
        BackendError: the model has not been exported as it is now, or there is no ONNX Runtime.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str = "onnx",
        max_length: int | None = None,
        threads: int = 0,
    ) -> None:
        if folder is None:
            raise BackendError("this model is in no folder")
        file, shown = folder / EXPORTED[name], display_path(folder)
        again = f"write it: workbench export {shown} --to {name}"
        if not file.is_file():
            refuse_language_model(read_record(folder / "config.json"))
            raise BackendError(f"{shown} has no {EXPORTED[name]}; {again}")
        with onnx_installed():
            import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        own, exported = folder / TOKENIZER, file.with_name(TOKENIZER)
        try:
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(str(file), options, providers=providers)
            note: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            if (longest := int(note.get("max_length", 512))) < MIN_LENGTH:
                raise ValueError(f"max_length {longest}")
            tokens = Tokenizer.from_file(str(exported if exported.is_file() else own))
        except Exception as error:  # the libraries have many kinds
            reason = f"{EXPORTED[name]} or {TOKENIZER} is damaged ({str(error)[:200]})"
            raise BackendError(f"{shown}: {reason}; {again}") from error
        self.names = [put.name for put in self.session.get_inputs()]
        if unknown := [name for name in self.names if name not in INPUTS]:
            raise BackendError(f"{shown}: {EXPORTED[name]} takes {unknown[0]!r}; {again}")
        if note.get("tokenizer", "") not in ("", own.is_file() and sha256(own)):
            raise BackendError(f"{shown}: {TOKENIZER} has changed since the export; {again}")
        self.threads, self.max_length = threads or core_count(), min(longest, max_length or longest)
        typed, side = "token_type_ids" in self.names, note.get("side", "right")
        self.encoder = PairEncoder(tokens, self.max_length, typed, side)

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """The logits, float32 of shape (n,)."""
        encoded, scores = self.encoder.encode(pairs), np.empty(len(pairs), dtype=np.float32)

        def score_pack(pack: Pack) -> None:
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
