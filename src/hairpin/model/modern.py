"""The parts of a modern block: the architecture that transformers calls NanoChat.

RMSNorm without weights after the embedding, before each sublayer and before the head; rotary
positions, then norms of query and key; a squared ReLU; no biases. Shape suffixes as in `layers`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.layers import LayerCache, attend, is_by_hand

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, [T, D] each

SOFTCAP = 15.0  # logits are 15·tanh(x / 15) (Gemma 2, section 2)
ROTARY_BASE = 10_000.0
EPSILON = 1e-6


class _RMSNorm(torch.autograd.Function):
    """x / root(mean square of x + ε) over the last dimension.

    PyTorch's own takes six passes on a CPU; this one keeps its output and one number a row. The
    output has the dtype of the products after it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        scale = inverse_root_mean_square(x)
        out: Tensor = torch.mul(x, scale, out=torch.empty_like(x, dtype=dtype))
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _below_norm(gradients[0], *ctx.saved_tensors), None


def inverse_root_mean_square(x: Tensor) -> Tensor:
    """Return 1 / root(mean square of x + ε) of each row, [..., 1]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    out: Tensor = norm.square_().div_(x.size(-1)).add_(EPSILON).rsqrt_()
    return out


def _below_norm(gradient: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient of a norm's input from that of its output, in the dtype of `scale`."""
    gradient, out = gradient.to(scale.dtype), out.to(scale.dtype)
    along = (gradient * out).mean(-1, keepdim=True)
    return torch.addcmul(gradient, out, along, value=-1.0).mul_(scale)


def norm_format(x: Tensor) -> tuple[Tensor, torch.dtype]:
    """Return a norm's input and its output's dtype: under autocast float32 and that of products."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return x.float(), torch.get_autocast_dtype(device)
    return x, x.dtype


def rms_norm(x: Tensor) -> Tensor:
    """Apply RMSNorm without weights over the last dimension (Zhang and Sennrich 2019), ε = 1e-6.

    Under autocast it is computed in float32 and returned in the dtype of products.
    """
    x, dtype = norm_format(x)
    if not is_by_hand(x):
        return F.rms_norm(x, x.shape[-1:], eps=EPSILON).to(dtype)
    out: Tensor = _RMSNorm.apply(x, dtype)  # type: ignore[no-untyped-call]
    return out


class RMSNorm(nn.Module):
    """`rms_norm` as a module; it has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return rms_norm(x)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): halves of a head rotated by −position / base^(2i/D).

    Args:
        width: D of a head, even.
        context: positions.
        forward: rotate by +position / base^(2i/D), as nearly all networks do; NanoChat rotates
            backwards.
    """

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, width: int, context: int, *, forward: bool = False) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        angles = torch.outer(torch.arange(context, dtype=torch.float64), ROTARY_BASE**-exponents)
        cos, sin = angles.cos().float(), angles.sin().float()
        sin = -sin if forward else sin
        # The table includes the sign of the swapped half, so that rotating is just one more
        # product.
        self.register_buffer("cos_TD", torch.cat((cos, cos), -1), persistent=False)
        self.register_buffer("sin_TD", torch.cat((sin, -sin), -1), persistent=False)

    def at(self, start: int, count: int) -> Rotation:
        """Return cosines and signed sines of `count` positions, [T, D] each."""
        return self.cos_TD[start : start + count], self.sin_TD[start : start + count]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate heads [..., T, D] to their positions."""
    cos_TD, sin_TD = rotation
    swapped = x.roll(x.size(-1) // 2, dims=-1)  # the halves change places
    return torch.addcmul(x * cos_TD, swapped, sin_TD)


class _Heads(torch.autograd.Function):
    """Queries and keys, rotated to their positions and normalised, with the values.

    Rotating preserves lengths, so the norm is applied first and its gradient last.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BT3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        out_3BHTD = torch.empty_like(qkv_3BHTD, memory_format=torch.contiguous_format)
        qk = qkv_3BHTD[:2].to(cos_TD.dtype, memory_format=torch.contiguous_format)
        scale = inverse_root_mean_square(qk)
        out_3BHTD[:2] = rotate(qk * scale, (cos_TD, sin_TD))
        out_3BHTD[2] = qkv_3BHTD[2]
        ctx.save_for_backward(out_3BHTD, scale, cos_TD, sin_TD)
        return out_3BHTD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_3BHTD,) = gradients
        out_3BHTD, scale, cos_TD, sin_TD = ctx.saved_tensors
        _, B, H, T, D = gradient_3BHTD.shape
        below_BT3HD = gradient_3BHTD.new_empty(B, T, 3, H, D)
        below_3BHTD = below_BT3HD.permute(2, 0, 3, 1, 4)
        turned = _below_norm(gradient_3BHTD[:2], out_3BHTD[:2], scale)
        below_3BHTD[:2] = rotate(turned, (cos_TD, -sin_TD))
        below_3BHTD[2] = gradient_3BHTD[2]
        return below_BT3HD, None, None


def ready_heads(qkv_BT3HD: Tensor, rotation: Rotation) -> Tensor:
    """Return rotated and normalised queries and keys, and values, [3, B, H, T, D]."""
    if is_by_hand(qkv_BT3HD):
        out: Tensor = _Heads.apply(qkv_BT3HD, *rotation)  # type: ignore[no-untyped-call]
        return out
    qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
    qk_2BHTD = rms_norm(rotate(qkv_3BHTD[:2], rotation)).to(qkv_3BHTD.dtype)
    return torch.cat((qk_2BHTD, qkv_3BHTD[2:]))


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
        qkv_BT3HD = self.query_key_value(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        out: Tensor = self.output(attend(ready_heads(qkv_BT3HD, rotation), cache))
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


def squared_relu(x: Tensor) -> Tensor:
    """Return max(x, 0)² (So et al. 2021)."""
    if not is_by_hand(x):
        return F.relu(x).square()
    out: Tensor = _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]
    return out


class ModernMLP(nn.Module):
    """Two linear layers around a squared ReLU (So et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.output = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply to each position separately."""
        out: Tensor = self.output(squared_relu(self.expand(x_BTC)))
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
        """Apply the block to the residual stream."""
        assert rotation is not None  # `assert rotation` cannot be compiled
        x_BTC = x_BTC + self.attention(rms_norm(x_BTC), rotation, cache)
        y_BTC: Tensor = x_BTC + self.mlp(rms_norm(x_BTC))
        return y_BTC
