"""The parts of a Qwen3 block (Yang et al. 2025), as transformers and llama.cpp compute it.

RMSNorm with weights before each sublayer and before the head; norms of query and key with a weight
for each place in a head, then rotary positions; SwiGLU; no biases. Keys and values have as many
heads as queries. Shape suffixes as in `layers`; I is the MLP's inner width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.layers import LayerCache, attend, is_by_hand
from hairpin.model.modern import (
    EPSILON,
    Rotation,
    inverse_root_mean_square,
    norm_format,
    rotate,
)


class _WeightedNorm(torch.autograd.Function):
    """x / root(mean square of x + ε) · weight, which keeps the quotient and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, dtype: torch.dtype) -> Tensor:
        scale = inverse_root_mean_square(x)
        unit = torch.mul(x, scale, out=torch.empty_like(x, dtype=dtype))
        ctx.save_for_backward(unit, scale, weight_C)
        return torch.mul(unit, weight_C, out=torch.empty_like(unit))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, weight_C = ctx.saved_tensors
        below, product = _below_weighted(gradients[0], unit, scale, weight_C)
        return below, product.flatten(0, -2).sum(0), None


def _below_weighted(
    gradient: Tensor, unit: Tensor, scale: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of a weighted norm's input from that of its output, in the dtype of
    `scale`, and the terms whose sum is the weight's gradient.
    """
    gradient, unit = gradient.to(scale.dtype), unit.to(scale.dtype)
    product = gradient * unit
    along = (product * weight).mean(-1, keepdim=True)
    below = torch.addcmul(gradient * weight, unit, along, value=-1.0).mul_(scale)
    return below, product


def weighted_norm(x: Tensor, weight_C: Tensor) -> Tensor:
    """Apply RMSNorm over the last dimension (Zhang and Sennrich 2019), ε = 1e-6.

    Under autocast it is computed in float32 and returned in the dtype of products.
    """
    x, dtype = norm_format(x)
    if not is_by_hand(x):
        return (F.rms_norm(x, x.shape[-1:], eps=EPSILON) * weight_C).to(dtype)
    out: Tensor = _WeightedNorm.apply(x, weight_C, dtype)  # type: ignore[no-untyped-call]
    return out


class WeightedNorm(nn.Module):
    """`weighted_norm` with its weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return weighted_norm(x, self.weight)


class _Heads(torch.autograd.Function):
    """Queries and keys, normalised and rotated to their positions, with the values."""

    @staticmethod
    def forward(
        ctx: Any, qkv_BT3HD: Tensor, weights_2D: Tensor, cos_TD: Tensor, sin_TD: Tensor
    ) -> Tensor:
        qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        out_3BHTD = torch.empty_like(qkv_3BHTD, memory_format=torch.contiguous_format)
        qk = qkv_3BHTD[:2].to(cos_TD.dtype, memory_format=torch.contiguous_format)
        scale = inverse_root_mean_square(qk)
        unit = qk * scale
        out_3BHTD[:2] = rotate(unit * weights_2D[:, None, None, None], (cos_TD, sin_TD))
        out_3BHTD[2] = qkv_3BHTD[2]
        ctx.save_for_backward(unit.to(out_3BHTD.dtype), scale, weights_2D, cos_TD, sin_TD)
        return out_3BHTD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_3BHTD,) = gradients
        unit, scale, weights_2D, cos_TD, sin_TD = ctx.saved_tensors
        _, B, H, T, D = gradient_3BHTD.shape
        below_BT3HD = gradient_3BHTD.new_empty(B, T, 3, H, D)
        below_3BHTD = below_BT3HD.permute(2, 0, 3, 1, 4)
        turned_back = rotate(gradient_3BHTD[:2].to(scale.dtype), (cos_TD, -sin_TD))
        weights = weights_2D[:, None, None, None]
        below_3BHTD[:2], product = _below_weighted(turned_back, unit, scale, weights)
        below_3BHTD[2] = gradient_3BHTD[2]
        return below_BT3HD, product.sum((1, 2, 3)), None, None


class Qwen3Attention(nn.Module):
    """Causal attention of normalised, rotated queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = WeightedNorm(width // heads)
        self.key_norm = WeightedNorm(width // heads)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x_BTC: Tensor, rotation: Rotation, cache: LayerCache | None = None) -> Tensor:
        """Attend; with a cache, `x` is a first block of positions or the single next one."""
        B, T, C = x_BTC.shape
        qkv_BT3HD = self.query_key_value(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        out: Tensor = self.output(attend(self._ready_heads(qkv_BT3HD, rotation), cache))
        return out

    def _ready_heads(self, qkv_BT3HD: Tensor, rotation: Rotation) -> Tensor:
        """Return normalised and rotated queries and keys, and values: [3, B, H, T, D]."""
        if is_by_hand(qkv_BT3HD):
            weights_2D = torch.stack((self.query_norm.weight, self.key_norm.weight))
            out: Tensor = _Heads.apply(qkv_BT3HD, weights_2D, *rotation)  # type: ignore[no-untyped-call]
            return out
        q_BHTD, k_BHTD, v_BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        parts = ((self.query_norm, q_BHTD), (self.key_norm, k_BHTD))
        turned = [rotate(norm(part), rotation).to(v_BHTD.dtype) for norm, part in parts]
        return torch.stack((*turned, v_BHTD))


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


def swiglu(gate: Tensor, x: Tensor) -> Tensor:
    """Return gate · σ(gate) · x (Shazeer 2020)."""
    if not is_by_hand(x):
        return F.silu(gate) * x
    out: Tensor = _SwiGLU.apply(gate, x)  # type: ignore[no-untyped-call]
    return out


class Qwen3MLP(nn.Module):
    """Two linear layers, one of which gates the other, and a third after them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.expand = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply to each position separately."""
        out: Tensor = self.output(swiglu(self.gate(x_BTC), self.expand(x_BTC)))
        return out


class Qwen3Block(nn.Module):
    """Attention, then MLP, each on a normalised copy and added to the residual stream."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention_norm = WeightedNorm(width)
        self.attention = Qwen3Attention(width, heads)
        self.mlp_norm = WeightedNorm(width)
        self.mlp = Qwen3MLP(width, inner)

    def forward(
        self,
        x_BTC: Tensor,
        cache: LayerCache | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Apply the block to the residual stream."""
        assert rotation is not None  # `assert rotation` cannot be compiled
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), rotation, cache)
        y_BTC: Tensor = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return y_BTC
