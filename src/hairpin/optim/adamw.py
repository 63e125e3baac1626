"""AdamW (Loshchilov and Hutter 2019), and the parameter groups that most optimizers take.

PyTorch's optimizers import its compiler, which takes over a second, only so that their functions
are excluded from compilation. hairpin never compiles an optimizer, so it calls those functions
directly.
"""

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hairpin.config.settings import Optimizer as OptimizerSettings


class Named(Protocol):
    """Owner of named parameters: a model, or the shard of one that a process keeps."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return names and parameters."""
        ...


class Uncompiled(torch.optim.Optimizer):
    """Optimizer whose construction and `zero_grad` do not import the compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        inspect.unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)


class AdamW(Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`, whose steps do not import the compiler either."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        inspect.unwrap(torch.optim.AdamW.step)(self)


def build(model: Named, settings: OptimizerSettings, **unused: Any) -> AdamW:
    """Build AdamW, as `OptimizerKind.build` says."""
    return AdamW(
        decay_groups(model, settings),
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def decay_groups(model: Named, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return parameter groups by learning rate multiple, matrices apart from the rest: biases,
    norms and single vectors do not decay.
    """
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (parameter.dim() < 2, lr_scale(name, settings))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": groups[is_vector, scale],
            "weight_decay": 0.0 if is_vector else settings.weight_decay,
            "lr_scale": scale,
        }
        for is_vector, scale in sorted(groups)
    ]


def lr_scale(name: str, settings: OptimizerSettings) -> float:
    """Return the multiple of the learning rate that a parameter outside of Muon's groups gets."""
    if "embedding" in name:
        return settings.embedding_lr_scale
    return settings.head_lr_scale if "head." in name else 1.0
