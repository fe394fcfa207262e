"""Scorers: anything with `score(pairs)`, higher is better. Here the ones that run a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from workbench.backends import CHECK_PAIRS, WORTH_CHECKING, Run, choose_backend, open_backend
from workbench.baselines import Float32Array, TextPair
from workbench.encoding import IntArray
from workbench.models import ModelError, ModelLocation

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Scorer(Protocol):
    """What baselines and models have in common."""

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """The score of each (query, candidate) pair, float32 of shape (n,), higher is better."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A scorer that wants to know beforehand how much it is to do."""

    def expect(self, pairs: int) -> None:
        """So many pairs are to come in all."""
        ...


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
