"""AdamW with its parameter groups, and an update that can be called off on the device."""

import torch
from torch import Tensor, nn

from hairpin.config.settings import Optimizer as OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the model: matrices decay; biases, norms and single vectors do not.

    The learning rate is set before every update, so none is given here. A group's `lr_scale` is
    the constant multiple of it that the group gets.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trained if parameter.dim() >= 2],
            "weight_decay": settings.weight_decay,
            "lr_scale": 1.0,
        },
        {
            "params": [parameter for parameter in trained if parameter.dim() < 2],
            "weight_decay": 0.0,
            "lr_scale": 1.0,
        },
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def step_unless(halted: Tensor, optimizer: torch.optim.AdamW, lr: float) -> None:
    """One update; none at all, to the byte, where `halted` is true.

    Args:
        halted: a boolean scalar on the device. It is not waited for: the fused kernel reads it
            beside the gradients, which is how gradient scalers skip an overflow.
        optimizer: a group of it that has an `lr_scale` gets that multiple of the learning rate.
        lr: the schedule's learning rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.found_inf = halted.float()  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `exp_avg.<name>`, `exp_avg_sq.<name>`, `step.…`."""
    return {
        f"{kind}.{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave and nothing else, each tensor on its parameter's
    device.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        optimizer.state[parameter][kind] = tensor.to(parameter.device, copy=True)
