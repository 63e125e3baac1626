"""PyTorch's optimizers without its compiler, which their wrappers import: more than a second.

The wrappers keep the compiler out of what they wrap. hairpin never compiles an optimizer, so what
is wrapped is called directly.
"""

import inspect
from typing import Any

import torch


class Uncompiled(torch.optim.Optimizer):
    """An optimizer whose making and clearing do not import the compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        inspect.unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)


class AdamW(Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`, whose steps do not import the compiler either."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        inspect.unwrap(torch.optim.AdamW.step)(self)
