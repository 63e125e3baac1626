"""Compiled blocks: one compilation serves all blocks of a model, and parameters keep their names.

`torch.compile` of a module renames its parameters, and for a whole model takes time proportional to
its layers. Here a block's `forward` is compiled as a function of the block, and replaces each
block's own.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from hairpin.model.gpt import GPT
from hairpin.model.kernels.attention import LayerCache
from hairpin.model.kernels.rotary import Rotation


def compile_blocks(model: GPT, sequences: int) -> None:
    """Compile training passes over `sequences` whole contexts.

    Everything else stays eager: evaluation, samples, a last piece with fewer sequences. Their
    shapes vary from call to call, and each would be compiled again. Whether a pass is compiled
    depends on its shape alone, so that a resumed run does the same.

    The first pass compiles, for 10 to 60 seconds if nothing is cached, and raises errors of the
    compilation.

    Args:
        model: its blocks are changed in place; on a GPU its head too.
        sequences: of a micro-batch.
    """
    shape = (sequences, model.shape.context)
    for block in model.blocks:
        block.forward = _either(block, shape)
    if model.token_embedding.weight.device.type != "cpu":
        model.head_loss = _either_head(model, shape)  # type: ignore[method-assign, assignment]


def eager_blocks(model: GPT) -> None:
    """Undo `compile_blocks`."""
    for module in (*model.blocks, model):
        for name in ("forward", "head_loss"):
            vars(module).pop(name, None)


def _either(block: nn.Module, shape: tuple[int, int]) -> Callable[..., Tensor]:
    eager, compiled = block.forward, _compiled(type(block).forward)

    def forward(
        x_BTC: Tensor, cache: LayerCache | None = None, rotation: Rotation | None = None
    ) -> Tensor:
        if torch.is_grad_enabled() and cache is None and x_BTC.shape[:2] == shape:
            out: Tensor = compiled(block, x_BTC, None, rotation)
        else:
            out = eager(x_BTC, cache, rotation)
        return out

    return forward


def _either_head(model: GPT, shape: tuple[int, int]) -> Callable[[Tensor, Tensor], Tensor]:
    eager, compiled = model.head_loss, _compiled(GPT.head_loss)

    def head_loss(x_BTC: Tensor, targets_BT: Tensor) -> Tensor:
        if torch.is_grad_enabled() and targets_BT.shape == shape:
            out: Tensor = compiled(model, x_BTC, targets_BT)
        else:
            out = eager(x_BTC, targets_BT)
        return out

    return head_loss


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function completely or not at all: partly compiled code is not faster, and a
    function compiled for too many shapes raises an error instead of silently running slowly.
    """
    return torch.compile(function, dynamic=False, fullgraph=True)
