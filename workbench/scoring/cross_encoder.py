"""Cross-encoders as scorers: a model, and a base as it is before any training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.texts import Float32Array, TextPair
from workbench.models import MIN_LENGTH, ModelLocation, check_model, library_errors, position_limit
from workbench.scoring import backends
from workbench.scoring.baselines import text_places

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

MIN_PAIRS_TO_CHECK = 2000  # checking all backends takes as long as scoring about this many pairs
RARITY = 0.01  # the share of texts at which a token weighs half


def load_cross_encoder(
    location: ModelLocation, max_length: int | None = None, seed: int = 42, trained: bool = False
) -> "CrossEncoder":
    """A model with one output, of whose code none is run; a new classification head is seeded.

    Pairs are cut at `max_length` tokens, special ones included, at most at the model's number of
    positions or, if `trained`, where it was cut in training; None is its own length.

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
            model_kwargs={"use_safetensors": location.use_safetensors, "dtype": "float32"},
        )
        tokenizer, config = model.tokenizer, model[0].model.config.to_dict()
        own, positions = tokenizer.model_max_length, position_limit(config)
        longest = min(own, positions) if trained else positions
        length = tokenizer.model_max_length = int(min(max_length or own, longest))
        if length < MIN_LENGTH:
            raise ValueError(f"max_length is {length}; it must be {MIN_LENGTH} or more")
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

    The backend is one of `BACKENDS`, or `auto`: `predict` for up to `MIN_PAIRS_TO_CHECK` distinct
    pairs at once or announced by `expect`, else the fastest that ranks as float32 does, of those
    exported into the model's `folder` too. Once the model is trained further, make a new scorer.
    """

    log_odds = True  # the score has a probability, so calibration can be measured

    def __init__(
        self, model: "CrossEncoder", backend: str = "predict", folder: Path | None = None
    ) -> None:
        self.model, self.folder = model, folder
        self.undecided, self._expected = backend == "auto", 0
        first = "predict" if self.undecided else backend
        self.backend_record: dict[str, Any] = {"backend": first, "asked": backend}
        self._run = backends.open_backend(first, model, folder)

    @classmethod
    def load(
        cls,
        location: ModelLocation,
        max_length: int | None = None,
        seed: int = 42,
        backend: str = "predict",
    ) -> "ModelScorer":
        """The scorer of the model at `location`, see `load_cross_encoder` and `open_backend`.

        Pairs are cut at the length at which the model was trained, or at a smaller `max_length`.
        """
        backends.check_backend(backend)  # to load takes seconds
        model = load_cross_encoder(location, max_length, seed, trained=True)
        return cls(model, backend, location.path)

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
            self._run, self.backend_record = backends.choose_backend(
                self.model, once[: backends.CHECK_PAIRS], self.folder
            )
            self.undecided = False
        return self._run(once)[[place[pair] for pair in pairs]]


class ZeroShot:
    """A base model as it is: its own score, or for a base without a head the cosine of two texts.

    A text's vector is the weighted mean of its tokens' last hidden states. A token in a share p of
    the texts has weight `RARITY / (RARITY + p)`: smooth inverse frequency (Arora et al.,
    ICLR 2017), so that the words of every question do not decide. Without texts all weigh the same.
    `head` says whether the base came with a trained one; see `ModelLocation`.
    """

    def __init__(self, model: "CrossEncoder", head: bool, texts: Sequence[str] = ()) -> None:
        self.model, self.head = model, head
        tokenizer: Any = model.tokenizer
        self.weights = np.ones(len(tokenizer), dtype=np.float32)
        if texts and not head:
            counts = np.zeros(len(tokenizer))
            for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
                counts[np.unique(np.array(ids, dtype=np.int64))] += 1
            weights = RARITY / (RARITY + np.maximum(counts, 0.5) / len(texts))
            weights[tokenizer.all_special_ids] = 0
            self.weights = weights.astype(np.float32)

    @classmethod
    def load(
        cls, location: ModelLocation, max_length: int = 512, seed: int = 42, backend: str = "auto"
    ) -> "ZeroShot | ModelScorer":
        """The scorer of a base; one with a head is run by `backend`, see `ModelScorer`."""
        if location.head:
            return ModelScorer.load(location, max_length, seed=seed, backend=backend)
        return cls(load_cross_encoder(location, max_length, seed), head=False)

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits or cosines, float32 of shape (n,)."""
        if self.head:
            return ModelScorer(self.model).score(pairs)
        if not pairs:
            return np.empty(0, dtype=np.float32)
        import torch

        texts, first, second = text_places(pairs)
        model: Any = self.model
        body, tokenizer = model[0].model.base_model.eval(), model.tokenizer
        weights = torch.from_numpy(self.weights).to(body.device)
        encoded = tokenizer(texts, truncation=True)
        vectors = np.empty((len(texts), body.config.hidden_size), dtype=np.float32)  # of length one
        with torch.inference_mode():
            for rows in backends.batches([len(ids) for ids in encoded["input_ids"]]):
                some = {name: [of[row] for row in rows] for name, of in encoded.items()}
                batch = tokenizer.pad(some, return_tensors="pt").to(body.device)
                states = body(**batch).last_hidden_state.float()
                weight = weights[batch["input_ids"]] * batch["attention_mask"]
                mean = (states * weight.unsqueeze(-1)).sum(1)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy(force=True)
        return np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float32)
