"""The nonlinearities of MLPs: GPT-2's GELU, the squared ReLU, SwiGLU.

GELU has its slope computed in the forward pass:
½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Hendrycks and Gimpel 2016) is x·σ(u) with
u = x·(k + c·x²), k = 2·√(2/π) and c = 0.044715·k. PyTorch's tanh takes five times as long as its σ,
and the gradient of its GELU takes another; here the slope is kept for the backward pass
instead of x.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.model.kernels import choice

_K = 2 * math.sqrt(2 / math.pi)
_C = 0.044715 * _K
_PIECE_NUMBERS = 2**18  # chunks of 1 MB stay in a core's cache


def gelu(x: Tensor) -> Tensor:
    """Apply tanh GELU, with x's shape and format; computed in float32, or in x's if wider.

    Without a gradient PyTorch's own is as fast.
    """
    if not (x.requires_grad and choice.uses_own_backward(x)):
        return F.gelu(x, approximate="tanh")
    out: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return out


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        count = min(x.numel(), _PIECE_NUMBERS * torch.get_num_threads())
        room = x.new_empty(3, count, dtype=torch.promote_types(x.dtype, torch.float32))
        k = room.new_tensor(_K)
        pieces = (torch.split(numbers.view(-1), count) for numbers in (x, y, slope))
        for x_in, y_out, slope_out in zip(*pieces, strict=True):
            x_part, factor, sigma = room[:, : len(x_in)]
            x_part.copy_(x_in)
            torch.mul(x_part, x_part, out=factor)
            torch.add(k, factor, alpha=_C, out=factor)  # u / x
            torch.mul(x_part, factor, out=sigma).sigmoid_()
            slope_out.copy_(_slope(x_part, factor, sigma, k))
            y_out.copy_(x_part.mul_(sigma))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        below: Tensor = gradients[0] * slope
        return below


def _slope(x: Tensor, factor: Tensor, sigma: Tensor, k: Tensor) -> Tensor:
    """Compute σ + σ·(1 − σ)·x·du/dx, in place, in `factor`."""
    torch.add(-2 * k, factor, alpha=3, out=factor)  # du/dx = k + 3·c·x²
    factor.mul_(x)
    factor.addcmul_(factor, sigma, value=-1.0)
    return torch.addcmul(sigma, factor, sigma, out=factor)


def squared_relu(x: Tensor) -> Tensor:
    """Return max(x, 0)² (So et al. 2021)."""
    if not choice.uses_own_backward(x):
        return F.relu(x).square()
    out: Tensor = _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]
    return out


class _SquaredReLU(torch.autograd.Function):
    """max(x, 0)², with a gradient in two passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        below: Tensor = gradients[0] * positive
        return below.mul_(2)


def swiglu(gate: Tensor, x: Tensor) -> Tensor:
    """Return gate · σ(gate) · x (Shazeer 2020)."""
    if not choice.uses_own_backward(x):
        return F.silu(gate) * x
    out: Tensor = _SwiGLU.apply(gate, x)  # type: ignore[no-untyped-call]
    return out


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · x, which keeps its two inputs and no more."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gate, x)
        return F.silu(gate).mul_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, x = ctx.saved_tensors
        below_gate = torch.ops.aten.silu_backward(gradients[0] * x, gate)
        return below_gate, F.silu(gate).mul_(gradients[0])
