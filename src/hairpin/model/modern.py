"""The parts of a modern block: the architecture that transformers calls NanoChat.

RMSNorm without weights after the embedding, before each sublayer and before the head; rotary
positions, then norms of query and key; a squared ReLU; no biases. Shape suffixes as in `layers`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.layers import LayerCache

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, [T, D] each

SOFTCAP = 15.0  # logits are 15·tanh(x / 15) (Gemma 2, section 2)
_ROTARY_BASE = 10_000.0
EPSILON = 1e-6


class _RMSNorm(torch.autograd.Function):
    """x / root(mean square of x + ε) over the last dimension.

    PyTorch's own is made of six passes on a CPU; this keeps its output and one number a row.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (norm.square_() / x.size(-1)).add_(EPSILON).rsqrt_()
        out: Tensor = x * scale
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        out, scale = ctx.saved_tensors
        along = (gradient * out).mean(-1, keepdim=True)
        below: Tensor = torch.addcmul(gradient, out, along, value=-1.0).mul_(scale)
        return below


def rms_norm(x: Tensor) -> Tensor:
    """RMSNorm without weights over the last dimension (Zhang and Sennrich 2019), ε = 1e-6.

    Under autocast it is computed in float32, as PyTorch's norms are.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.float()
    out: Tensor = _RMSNorm.apply(x)  # type: ignore[no-untyped-call]
    return out


class RMSNorm(nn.Module):
    """`rms_norm` as a module; it has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return rms_norm(x)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): halves of a head turned by −position / base^(2i/D).

    Args:
        width: D of a head, even.
        context: positions.
    """

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        angles = torch.outer(torch.arange(context, dtype=torch.float64), _ROTARY_BASE**-exponents)
        cos, sin = angles.cos().float(), angles.sin().float()
        # The sign of the turned half is in the table, so that turning is one product more.
        self.register_buffer("cos_TD", torch.cat((cos, cos), -1), persistent=False)
        self.register_buffer("sin_TD", torch.cat((sin, -sin), -1), persistent=False)

    def at(self, start: int, count: int) -> Rotation:
        """Cosines and signed sines of so many positions, [T, D] each."""
        return self.cos_TD[start : start + count], self.sin_TD[start : start + count]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn heads [..., T, D] to their positions."""
    cos_TD, sin_TD = rotation
    swapped = x.roll(x.size(-1) // 2, dims=-1)  # the halves change places
    return torch.addcmul(x * cos_TD, swapped, sin_TD)


class ModernAttention(nn.Module):
    """Causal attention of rotated, normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x_BTC: Tensor, rotation: Rotation, cache: LayerCache | None = None) -> Tensor:
        """Attend; with a cache, `x` is a first block of positions or the single next one."""
        B, T, C = x_BTC.shape
        qkv = self.query_key_value(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        v_BHTD = qkv[:, :, 2].transpose(1, 2)
        qk_2BHTD = rms_norm(rotate(qkv[:, :, :2].permute(2, 0, 3, 1, 4), rotation))
        q_BHTD, k_BHTD = qk_2BHTD.to(v_BHTD.dtype).unbind(0)
        if cache is not None:
            k_BHTD, v_BHTD = cache.append(k_BHTD, v_BHTD)
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=T > 1)
        out: Tensor = self.output(y_BHTD.transpose(1, 2).reshape(B, T, C))
        return out


class ModernMLP(nn.Module):
    """Two linear layers around a squared ReLU (So et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.output = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply to each position by itself."""
        out: Tensor = self.output(F.relu(self.expand(x_BTC)).square())
        return out


class ModernBlock(nn.Module):
    """Attention, then MLP, each on a normalised copy and added to the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = ModernAttention(width, heads)
        self.mlp = ModernMLP(width)

    def forward(
        self,
        x_BTC: Tensor,
        cache: LayerCache | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """One step along the residual stream."""
        assert rotation is not None  # `assert rotation` cannot be compiled
        x_BTC = x_BTC + self.attention(rms_norm(x_BTC), rotation, cache)
        y_BTC: Tensor = x_BTC + self.mlp(rms_norm(x_BTC))
        return y_BTC
