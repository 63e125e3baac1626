"""RMSNorm (Zhang and Sennrich 2019), with and without weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.kernels import choice


def rms_norm(x: Tensor, weight_C: Tensor | None = None, epsilon: float = 1e-6) -> Tensor:
    """Return x / root(mean square of x + ε) · weight over the last dimension.

    Under autocast it is computed in float32 and returned in the dtype of products.
    """
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device):
        x, dtype = x.float(), torch.get_autocast_dtype(device)
    if choice.uses_own_backward(x):
        out: Tensor = _RMSNorm.apply(x, weight_C, epsilon, dtype)  # type: ignore[no-untyped-call]
        return out
    unit = F.rms_norm(x, x.shape[-1:], eps=epsilon)
    return (unit if weight_C is None else unit * weight_C).to(dtype)


class RMSNorm(nn.Module):
    """`rms_norm` as a module; without weights it has no parameters."""

    weight: nn.Parameter | None

    def __init__(self, width: int, epsilon: float, *, weighted: bool) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width)) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return rms_norm(x, self.weight, self.epsilon)


class _RMSNorm(torch.autograd.Function):
    """PyTorch's own takes six passes on a CPU; this one keeps x / root(…) and one number a row. The
    output has the dtype of the products after it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_C: Tensor | None, epsilon: float, dtype: torch.dtype
    ) -> Tensor:
        scale = inverse_root_mean_square(x, epsilon)
        unit = torch.mul(x, scale, out=torch.empty_like(x, dtype=dtype))
        ctx.save_for_backward(unit, scale, weight_C)
        if weight_C is None:
            return unit
        return torch.mul(unit, weight_C, out=torch.empty_like(unit))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, weight_C = ctx.saved_tensors
        if weight_C is None:
            return below_norm(gradients[0], unit, scale), None, None, None
        below, product = below_weighted_norm(gradients[0], unit, scale, weight_C)
        return below, product.flatten(0, -2).sum(0), None, None


def inverse_root_mean_square(x: Tensor, epsilon: float) -> Tensor:
    """Return 1 / root(mean square of x + ε) of each row, [..., 1]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    out: Tensor = norm.square_().div_(x.size(-1)).add_(epsilon).rsqrt_()
    return out


def below_norm(gradient: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient of a norm's input from that of its output, in the dtype of `scale`."""
    gradient, unit = gradient.to(scale.dtype), unit.to(scale.dtype)
    along = (gradient * unit).mean(-1, keepdim=True)
    return torch.addcmul(gradient, unit, along, value=-1.0).mul_(scale)


def below_weighted_norm(
    gradient: Tensor, unit: Tensor, scale: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same for a norm with weights, and the terms whose sum is the weight's gradient."""
    gradient, unit = gradient.to(scale.dtype), unit.to(scale.dtype)
    product = gradient * unit
    along = (product * weight).mean(-1, keepdim=True)
    below = torch.addcmul(gradient * weight, unit, along, value=-1.0).mul_(scale)
    return below, product
