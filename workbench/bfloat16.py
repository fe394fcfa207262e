"""A BERT cross-encoder's logits with its products with weights in bfloat16."""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from workbench.compiled import CompiledKernels, Panels, compiled_kernels
from workbench.compiled_products import CompiledFeedForward, CompiledProduct, compiles
from workbench.inference import FastBert
from workbench.kernels import BFLOAT16
from workbench.layers import bfloat16_product


class Bfloat16Bert(FastBert):
    """The logits of a BERT cross-encoder for packed pairs; by kernels of our own where they are.

    Args:
        model: for which `inference.is_supported`.
    """

    def __init__(self, model: Any) -> None:
        kernels = compiled_kernels(model)
        weights = [layer.intermediate.dense.weight for layer in model.bert.encoder.layer]
        if model.config.hidden_act != "gelu" or not compiles(kernels, torch.bfloat16, *weights):
            super().__init__(model, bfloat16_product)
            return
        super().__init__(model, partial(_product, kernels))
        for layer in self.layers:
            layer.out.result = torch.float32  # it is added to what is float32
            own = layer.fed_forward
            up, down = cast("list[CompiledProduct]", [own.up, own.down])
            layer.fed_forward = CompiledFeedForward(up, down, kernels)


def _product(kernels: CompiledKernels, weight: Tensor, bias: Tensor) -> CompiledProduct:
    packed = Panels.of(weight.detach().bfloat16(), bias.detach())
    return CompiledProduct(packed, BFLOAT16, torch.bfloat16, kernels)
