"""The optimizer with its parameter groups, and an update that can be called off on the device."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hairpin.config.settings import Optimizer as OptimizerSettings
from hairpin.optim.muon import MuonAdamW, Shards
from hairpin.optim.uncompiled import AdamW


class Named(Protocol):
    """What has parameters with names: a model, or the part of one that a process keeps."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters."""
        ...


def build_optimizer(
    model: Named, settings: OptimizerSettings, shards: Shards | None = None
) -> torch.optim.Optimizer:
    """The optimizer over all of the model that trains.

    Matrices decay; biases, norms and single vectors do not. The learning rate is set before every
    update, so none is given here; a group's `lr_scale` is the constant multiple of it that the
    group gets.

    Args:
        model: with `blocks`, embeddings and heads.
        settings: which rule, and its constants.
        shards: where the parameters are some rows each of the model's; None: they are whole.
    """
    if settings.kind == "muon":
        return MuonAdamW(
            _muon_groups(model, settings),
            lr=0.0,
            momentum=settings.momentum,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            shards=shards,
        )
    return AdamW(
        _adamw_groups(model, settings),
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def _adamw_groups(model: Named, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Matrices and the rest, by how fast they learn."""
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (parameter.dim() < 2, _lr_scale(name, settings))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": groups[is_vector, scale],
            "weight_decay": 0.0 if is_vector else settings.weight_decay,
            "lr_scale": scale,
        }
        for is_vector, scale in sorted(groups)
    ]


def _muon_groups(model: Named, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """The matrices of blocks for Muon, query, key and value each by itself; the rest for AdamW."""
    matrices: dict[int, list[Tensor]] = {}
    others: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("blocks.") and parameter.dim() == 2:
            pieces = 3 if name.endswith("query_key_value.weight") else 1
            matrices.setdefault(pieces, []).append(parameter)
        else:
            others.setdefault(_lr_scale(name, settings), []).append(parameter)
    muon = [
        {
            "params": parameters,
            "muon": True,
            "pieces": pieces,
            "weight_decay": settings.weight_decay,
            "lr_scale": settings.matrix_lr_scale,
        }
        for pieces, parameters in sorted(matrices.items())
    ]
    rest = [
        {"params": parameters, "weight_decay": 0.0, "lr_scale": scale}
        for scale, parameters in sorted(others.items())
    ]
    return muon + rest


def _lr_scale(name: str, settings: OptimizerSettings) -> float:
    if "embedding" in name:
        return settings.embedding_lr_scale
    return settings.head_lr_scale if "head." in name else 1.0


def step_unless(
    halted: Tensor, optimizer: torch.optim.Optimizer, lr: float, divisor: Tensor | None = None
) -> None:
    """One update; none at all, to the byte, where `halted` is true.

    Args:
        halted: a boolean scalar on the device. It is not waited for: the fused kernel reads it
            beside the gradients, which is how gradient scalers skip an overflow.
        optimizer: a fused one. A group of it that has an `lr_scale` gets that multiple of the
            learning rate.
        lr: the schedule's learning rate.
        divisor: a float32 scalar on the device by which gradients are divided as they are read,
            which costs no pass of its own; None: by nothing.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.found_inf = halted.float()  # type: ignore[attr-defined]
    optimizer.grad_scale = divisor  # type: ignore[attr-defined]
    optimizer.step()


def optimizer_tensors(model: Named, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `exp_avg.<name>`, `exp_avg_sq.<name>`, `step.…`,
    `momentum.…`.
    """
    return {
        f"{kind}.{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: Named, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
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
