"""A BERT cross-encoder's logits without what training and padding need; in float32 or bfloat16.

The same sums as the library's forward pass, but: batches hold pairs of like length, and where it is
one there is no mask; query, key and value are one product; and the last layer, of which only the
first position is ever used, computes no other. In bfloat16 only the products with weights are: sums
along the residual path, normalisation, softmax, pooler and head stay in float32, since the head's
logits rounded to bfloat16 would be ties.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from workbench.encoding import Batch, EncodedPairs

Linear = Callable[[Tensor], Tensor]
MakeLinear = Callable[[Tensor, Tensor], Linear]


def float32_linear(weight: Tensor, bias: Tensor) -> Linear:
    """`x @ weight.T + bias`."""
    return lambda x: functional.linear(x, weight, bias)


def bfloat16_linear(weight: Tensor, bias: Tensor) -> Linear:
    """The same with weights, input and output rounded to bfloat16."""
    weight, bias = weight.bfloat16(), bias.bfloat16()
    return lambda x: functional.linear(x.bfloat16(), weight, bias)


def is_supported(model: nn.Module) -> bool:
    """Whether the forward pass here is the model's: a plain BERT with one output."""
    config: Any = getattr(model, "config", None)
    return (
        type(model).__name__ == "BertForSequenceClassification"
        and config.num_labels == 1
        and not config.is_decoder
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and all(type(part) is nn.Linear for part in model.modules() if isinstance(part, nn.Linear))
    )


class FastBert:
    """The logits of a BERT cross-encoder for batches of like length.

    Args:
        model: for which `is_supported`. Some of its weights are copied and some shared: after a
            step of training, make this anew.
        linear: makes the products with weights from weight and bias.
    """

    def __init__(self, model: Any, linear: MakeLinear) -> None:
        bert = model.bert
        self.embeddings, self.pooler, self.head = bert.embeddings, bert.pooler, model.classifier
        self.heads = model.config.num_attention_heads
        self.device = model.device
        last = len(bert.encoder.layer) - 1
        with torch.no_grad():
            self.layers = [
                Layer(layer, linear, self.heads, is_last=number == last)
                for number, layer in enumerate(bert.encoder.layer)
            ]

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """The logits of a batch's rows, those repeated included; float32 of shape (m,)."""
        ids = torch.from_numpy(np.ascontiguousarray(batch.ids)).to(self.device)
        types = torch.from_numpy(np.ascontiguousarray(batch.types)).to(self.device)
        hidden = None
        if not batch.mask.all():  # added to the scores of keys, it leaves padding no weight
            mask = torch.from_numpy(batch.mask[:, None, None, :]).to(self.device)
            hidden = torch.zeros(mask.shape, device=self.device).masked_fill_(mask == 0, -torch.inf)
        own = self.embeddings
        x = own.word_embeddings(ids) + own.token_type_embeddings(types)
        x = own.LayerNorm(x + own.position_embeddings.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(self.pooler(x))[:, 0].float().cpu().numpy()

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,), on as many threads as torch may use."""

        def run(batch: Batch) -> NDArray[np.float32]:
            with torch.inference_mode():
                return self(batch)

        with torch_threads(1) as threads:
            return pairs.score(run, threads if self.device.type == "cpu" else 1)


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Within the block an operation uses so many threads; None for as many as before.

    Yields how many those were.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class Layer:
    """One layer of the encoder; its products with weights can be replaced one by one."""

    def __init__(self, layer: Any, linear: MakeLinear, heads: int, is_last: bool) -> None:
        attention = layer.attention.self
        self.heads, self.is_last = heads, is_last
        rest: MakeLinear = linear
        scale = attention.attention_head_size**-0.5
        query = attention.query.weight * scale, attention.query.bias * scale
        parts = [(part.weight, part.bias) for part in (attention.key, attention.value)]
        if is_last:  # hardly any rows are left: their products need not be quick, but exact
            self.query = float32_linear(*query)
            rest = float32_linear
        else:
            parts = [query, *parts]
        weights, biases = zip(*parts, strict=True)
        self.joint = linear(torch.cat(weights), torch.cat(biases))
        dense = layer.attention.output.dense, layer.intermediate.dense, layer.output.dense
        self.out, up, down = (rest(part.weight.detach(), part.bias) for part in dense)
        self.norm, self.last_norm = layer.attention.output.LayerNorm, layer.output.LayerNorm
        activation = layer.intermediate.intermediate_act_fn
        self.feed_forward: Linear = lambda x: down(activation(up(x)))

    def __call__(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """From (rows, length, width) to the same; the last layer gives (rows, 1, width)."""
        rows, length, width = x.shape
        joint = self.joint(x).view(rows, length, -1, self.heads, width // self.heads)
        *query, key, value = joint.permute(2, 0, 3, 1, 4).float()
        if self.is_last:
            x = x[:, :1]
            query = [self.query(x).view(rows, 1, self.heads, -1).transpose(1, 2)]
        scores = query[0] @ key.transpose(2, 3)
        weights = torch.softmax(scores if hidden is None else scores + hidden, dim=-1)
        context = (weights @ value).transpose(1, 2).reshape(rows, -1, width)
        x = self.norm(x + self.out(context))
        return self.last_norm(x + self.feed_forward(x))
