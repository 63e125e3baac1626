"""Lion (Chen et al. 2023): the sign of a momentum, one moment instead of AdamW's two.

It is not fused, and knows nothing of hairpin's guard: where an update is to be skipped, `step` is
not called. It wants a smaller learning rate than AdamW and more weight decay.

    hairpin train book.txt --recipe gpt2 --lr 1e-3 --set optimizer.kind=lion \\
        --set optimizer.weight_decay=1 --plugin examples/plugins/lion.py
"""

from typing import Any

import torch

from hairpin.config.settings import Optimizer as Settings
from hairpin.plugins import register_optimizer


class Lion(torch.optim.Optimizer):
    """Lion, with decoupled weight decay."""

    def __init__(self, groups: list[dict[str, Any]], beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": (beta1, beta2), "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                    state["steps"] = 0
                momentum = state["momentum"]
                way = torch.lerp(parameter.grad, momentum, beta1).sign()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(way, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - beta2)
                state["steps"] += 1


def lion(groups: list[dict[str, Any]], settings: Settings) -> Lion:
    """Lion over the groups, with the config's constants."""
    return Lion(groups, settings.beta1, settings.beta2)


register_optimizer("lion", lion)
