"""A BERT cross-encoder's logits without what training and padding need; in float32 or bfloat16.

The same sums as the library's forward pass, but: pairs are packed into rows of tokens, hardly any
of them padding (see `packing`); query, key and value are one product; and the last layer, of which
only the first position is ever used, computes no other, nor any key or value (see `LastLayer`). In
bfloat16 only the products with weights are: sums along the residual path, normalisation, softmax,
the last layer, pooler and head stay in float32, since the head's logits rounded to bfloat16 would
be ties.
"""

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.encoding import EncodedPairs
from workbench.interrupts import in_threads
from workbench.kernels import FLOAT32, Kernels, TorchKernels
from workbench.layers import LastLayer, Layer, MakeProduct
from workbench.packing import Packed, Tokens, distinct_tokens, filled_up, packs

PACK_TOKENS = 1920  # worked on together: so many that calls cost little, and in the cache still
FEWEST_TOKENS = 128  # for a thread; with less, its products are no quicker
MOST_KEPT = 2**25 - 2**13  # bytes: the largest block that glibc learns from, less its own notes
TOGETHER_BYTES = 2**28  # of what is computed once for some packs' tokens, if no two are alike
GPU_TOKENS = 2**16  # worked on together by a GPU: so many that it is busy


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
    """The logits of a BERT cross-encoder for packed pairs.

    Args:
        model: for which `is_supported`. Some of its weights are copied and some shared: after a
            step of training, make this anew.
        product: makes the products with weights from weight and bias.
        small: the dtype of products with weights in the last layer, and of attention's where
            torch computes it: `torch.float32` or `torch.bfloat16`.
    """

    def __init__(
        self, model: Any, product: MakeProduct, small: torch.dtype = torch.float32
    ) -> None:
        bert = model.bert
        self.embeddings, self.pooler, self.head = bert.embeddings, bert.pooler, model.classifier
        self.device, self.width = model.device, model.config.hidden_size
        self.kernels: Kernels = TorchKernels(small)
        *others, last = bert.encoder.layer
        heads = model.config.num_attention_heads
        self.layers = [Layer(layer, product, heads, self.kernels) for layer in others]
        self.last = LastLayer(last, heads, self.kernels, small)

    def __call__(self, pack: Packed) -> NDArray[np.float32]:
        """The logits of a pack's pairs, float32 of shape (m,)."""
        pack = pack.to(self.device)
        return self._logits(*self._attended(*self._begun(pack.tokens), pack))

    def score(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """The logits of all pairs, float32 of shape (n,), on as many threads as torch may use."""
        scores = np.empty(len(pairs.lengths), dtype=np.float32)
        if self.device.type != "cpu":
            for pack in packs(pairs, GPU_TOKENS):
                with torch.inference_mode():
                    scores[pack.rows] = self(pack)
            return scores

        def score_share(rows: NDArray[np.int64], interrupts: Sized) -> None:
            most = min(PACK_TOKENS, filled_up(int(pairs.lengths[rows].sum())))
            with torch.inference_mode():
                group = list(packs(pairs, most, self.kernels.padded, rows))
                found = self._together(group, interrupts)
            if not interrupts:
                scores[np.concatenate([pack.rows for pack in group])] = found

        keep_freed_memory()
        with torch_threads(1) as threads:
            for some in self._worked_on_together(pairs):
                enough = int(pairs.lengths[some].sum()) // FEWEST_TOKENS
                shares = max(1, min(threads, len(some), enough))
                in_threads(threads, score_share, [some[first::shares] for first in range(shares)])
        return scores

    def _worked_on_together(self, pairs: EncodedPairs) -> list[NDArray[np.int64]]:
        """Which pairs, the longest first: about as many tokens each time as memory is meant for."""
        order = np.argsort(-pairs.lengths, kind="stable")
        tokens = np.cumsum(pairs.lengths[order])
        if not len(order):
            return []
        times = min(len(order), -(-int(tokens[-1]) * 16 * self.width // TOGETHER_BYTES))
        ends = np.searchsorted(tokens, tokens[-1] * np.arange(1, times) / times)
        return [some for some in np.split(order, ends) if len(some)]

    def _together(self, group: list[Packed], interrupts: Sized = ()) -> NDArray[np.float32]:
        """The logits of the pairs of some packs, in their order; none once there are interrupts.

        What comes before the first attention depends on a token, its type and its position alone:
        it is computed once for each that occurs. What comes after the last is computed for all
        pairs at once, which are too few in a pack.
        """
        tokens, places = distinct_tokens(group)
        size = min(PACK_TOKENS, filled_up(len(tokens.ids)))
        tokens = tokens.filled(-(-len(tokens.ids) // size) * size)
        x = torch.empty(len(tokens.ids), self.width)
        joint = x  # where no layer is before the last one, it is of no use
        if self.layers:
            joint = torch.empty(len(x), 3 * self.width, dtype=self.layers[0].joint.result)
        for part in _parts(len(tokens.ids), size):
            x[part], joint[part] = self._begun(tokens.part(part))
        ends = []
        for pack, place in zip(group, places, strict=True):
            if interrupts:
                return np.empty(0, dtype=np.float32)
            ends.append(self._attended(x.index_select(0, place), joint, pack, place))
        first, context = map(torch.cat, zip(*ends, strict=True))
        parts = _parts(len(first), PACK_TOKENS)
        return np.concatenate([self._logits(first[part], context[part]) for part in parts])

    def _begun(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The first layer's input, (tokens, width), and its queries, keys and values of that."""
        own = self.embeddings
        x = own.word_embeddings(tokens.ids) + own.token_type_embeddings(tokens.types)
        x += own.position_embeddings(tokens.positions)
        form = self.layers[0].joint.form if self.layers else FLOAT32
        x, given = self.kernels.normalise(x, None, own.LayerNorm, form)
        return x, self.layers[0].joint(given) if self.layers else given

    def _attended(
        self, x: Tensor, joint: Tensor, pack: Packed, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the last layer takes from the tokens of a pack, see `LastLayer.attend`.

        Args:
            x: of `_begun`; it is overwritten.
            joint: of `_begun`.
            pack: of the tokens.
            place: where each token's row in `joint` is; None where they stand in order.
        """
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=False):
            form = following.joint.form if following else FLOAT32
            x, given = layer(x, joint, pack, form, place)
            if following:
                joint, place = following.joint(given), None
        return self.last.attend(x, pack)

    def _logits(self, first: Tensor, context: Tensor) -> NDArray[np.float32]:
        pooled = self.pooler(self.last(first, context)[:, None])
        return self.head(pooled)[:, 0].float().cpu().numpy()


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def keep_freed_memory() -> None:
    """Let the C library keep freed memory of up to some ten megabytes at hand.

    It gives a large tensor's memory back to the system at once, and asks for it anew for the next
    one, page by page. glibc's malloc sees from the largest block freed so far that a program does
    so again and again, up to 32 MiB; other libraries are not impressed.
    """
    torch.empty(MOST_KEPT, dtype=torch.uint8)


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
