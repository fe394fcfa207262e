"""A base model before any training, as a scorer: what it ranks by what it knows already."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.pairs import Float32Array, TextPair
from workbench.models import ModelLocation, load_tokenizer
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.vocabulary.repair import repair_model

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

RARITY = 0.01  # the share of texts at which a token weighs half


def _token_weights(tokenizer: Any, texts: Sequence[str]) -> Float32Array:
    """The weight of each token number; special tokens weigh nothing."""
    counts = np.zeros(len(tokenizer))
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        counts[np.unique(np.array(ids, dtype=np.int64))] += 1
    weights = RARITY / (RARITY + np.maximum(counts, 0.5) / len(texts))
    weights[tokenizer.all_special_ids] = 0
    return weights.astype(np.float32)


class ZeroShot:
    """A base model as it is: its own score, or for a base without a head the cosine of two texts.

    A text's vector is the weighted mean of its tokens' last hidden states. A token in a share p of
    the texts has weight `RARITY / (RARITY + p)`: smooth inverse frequency (Arora et al.,
    ICLR 2017), so that the words of every question do not decide. Without texts all weigh the same.

    Args:
        model: the base as loaded, with a repaired vocabulary perhaps.
        head: whether it came with a trained head; see `ModelLocation`.
        texts: to count tokens in, such as those of the training pairs.
        batch_size: texts, or pairs, at once.
    """

    def __init__(
        self, model: "CrossEncoder", head: bool, texts: Sequence[str] = (), batch_size: int = 64
    ) -> None:
        self.model, self.head, self.batch_size = model, head, batch_size
        self.weights = np.ones(len(model.tokenizer), dtype=np.float32)
        if texts and not head:
            self.weights = _token_weights(model.tokenizer, texts)

    @classmethod
    def load(
        cls, location: ModelLocation, max_length: int = 512, seed: int = 42, backend: str = "auto"
    ) -> "ZeroShot | ModelScorer":
        """The scorer of a base; one with a head is run by `backend`, see `ModelScorer`."""
        if location.head:
            return ModelScorer.load(location, max_length, seed=seed, backend=backend)
        return cls(load_cross_encoder(location, max_length, seed), head=False)

    @classmethod
    def with_dictionary(
        cls,
        location: ModelLocation,
        texts: Sequence[str],
        dictionary: str = "",
        max_length: int = 512,
        seed: int = 42,
    ) -> "ZeroShot":
        """The base that reads the words of `texts` through a dictionary; see `repair_model`.

        Raises:
            ModelError: its vocabulary cannot be repaired, or there is no dictionary.
        """
        model = load_cross_encoder(location, max_length, seed)
        tokenizer = load_tokenizer(location)
        repair_model(model, tokenizer, texts, "words", "dictionary", dictionary, seed)
        return cls(model, location.head, texts)

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits or cosines, float32 of shape (n,)."""
        if self.head:
            return ModelScorer(self.model, self.batch_size).score(pairs)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        place = {text: number for number, text in enumerate(texts)}
        vectors = self._vectors(texts)
        left, right = ([place[pair[column]] for pair in pairs] for column in (0, 1))
        return np.einsum("ij,ij->i", vectors[left], vectors[right]).astype(np.float32)

    def _vectors(self, texts: Sequence[str]) -> Float32Array:
        """Vectors of length one, shape (texts, width)."""
        import torch

        body: Any = self.model[0].model
        body = body.base_model
        found = np.empty((len(texts), body.config.hidden_size), dtype=np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")
        weights, was_training = torch.from_numpy(self.weights).to(body.device), body.training
        body.eval()
        with torch.inference_mode():
            for start in range(0, len(texts), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = self.model.tokenizer(
                    [texts[row] for row in rows],
                    padding=True,
                    truncation=True,
                    return_tensors="pt",
                ).to(body.device)
                states = body(**batch).last_hidden_state.float()
                weight = weights[batch["input_ids"]] * batch["attention_mask"]
                mean = (states * weight.unsqueeze(-1)).sum(1)
                found[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy(force=True)
        body.train(was_training)
        return found
