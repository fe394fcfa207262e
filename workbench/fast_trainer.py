"""The trainer of `speed: fast` on a processor: the library's, with gradients made another way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workbench.backends import pair_encoder
from workbench.bert_training import BertGradients
from workbench.inference import is_supported
from workbench.processes import process_count
from workbench.resumable import ResumableTrainer


def can_train_fast(model: Any) -> bool:
    """Whether `FastTrainer` trains this model here: a plain BERT, on the CPU, in one process."""
    inner = model.model
    if inner is None or not is_supported(inner) or model.device.type != "cpu":
        return False
    try:
        pair_encoder(model)
    except ValueError:  # its tokenizer joins pairs in a way of its own
        return False
    return process_count() == 1


class FastTrainer(ResumableTrainer):
    """The library's trainer; the gradients of a step are those of `BertGradients`.

    Data, order, optimizer, schedule, clipping, logs and checkpoints stay the library's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cross_encoder: Any = self.model
        self.encoder = pair_encoder(cross_encoder)
        dataset: Any = self.train_dataset
        self.ids = self.encoder.tokenize(_pairs(dataset[:]))
        tokens = {token for ids in self.ids.values() for token in ids}
        special = {*self.encoder.before, *self.encoder.between, *self.encoder.after}
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        occurring = np.array(sorted(tokens | special), dtype=np.int64)
        self.gradients = BertGradients(cross_encoder.model, occurring, dtype)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As the library's; of the token embeddings it has those that are learned.

        After each update the model's own matrix has them too.
        """
        optimizer = super().create_optimizer(model)
        for group in optimizer.param_groups:
            group["params"] = [
                self.gradients.tokens if one is self.gradients.matrix else one
                for one in group["params"]
            ]
        optimizer.register_step_post_hook(lambda *_: self.gradients.write_back())
        return optimizer

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of a batch; the gradients are set."""
        model.train()
        pairs = self.encoder.join(_pairs(inputs), self.ids)
        seed = self.args.seed, self.state.global_step
        loss = self.gradients.step(pairs, inputs["label"], seed)
        self.remember(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.gradients.learned, self.args.max_grad_norm)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(*args, **kwargs)
        self.gradients.read()


def _pairs(columns: dict[str, Sequence[Any]]) -> list[tuple[str, str]]:
    return list(zip(columns["sentence_0"], columns["sentence_1"], strict=True))
