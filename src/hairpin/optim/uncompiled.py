"""PyTorch's optimizers without importing its compiler, as their wrappers do (over a second).

The wrappers exclude the wrapped functions from compilation. hairpin never compiles an optimizer, so
those functions are called directly.
"""

import inspect
from typing import Any

import torch


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
