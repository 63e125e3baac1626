"""Rotary positions (Su et al. 2021) of queries and keys, together with the norms of heads.

Shape suffixes: B sequences, T positions, H heads, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hairpin.model.architectures import RotaryTraits
from hairpin.model.kernels import choice
from hairpin.model.kernels.norms import (
    RMSNorm,
    below_norm,
    below_weighted_norm,
    inverse_root_mean_square,
)

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, [T, D] each


class Rotary(nn.Module):
    """A table of rotations: halves of a head by direction · position / base^(2i/D).

    Args:
        width: D of a head, even.
        context: positions.
        traits: base and direction.
    """

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, width: int, context: int, traits: RotaryTraits) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        angles = torch.outer(torch.arange(context, dtype=torch.float64), traits.base**-exponents)
        cos, sin = angles.cos().float(), traits.direction * angles.sin().float()
        # The table includes the sign of the swapped half, so that rotating is just one more
        # product.
        self.register_buffer("cos_TD", torch.cat((cos, cos), -1), persistent=False)
        self.register_buffer("sin_TD", torch.cat((-sin, sin), -1), persistent=False)

    def at(self, start: int, count: int) -> Rotation:
        """Return cosines and signed sines of `count` positions, [T, D] each."""
        return self.cos_TD[start : start + count], self.sin_TD[start : start + count]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate heads [..., T, D] to their positions."""
    cos_TD, sin_TD = rotation
    swapped = x.roll(x.size(-1) // 2, dims=-1)  # the halves change places
    return torch.addcmul(x * cos_TD, swapped, sin_TD)


def rotate_heads(
    qkv_BT3HD: Tensor,
    rotation: Rotation,
    norms: tuple[RMSNorm, RMSNorm] | None = None,
    *,
    norms_first: bool = True,
) -> Tensor:
    """Return rotated queries and keys, and values, [3, B, H, T, D].

    Args:
        qkv_BT3HD: queries, keys and values.
        rotation: to the positions.
        norms: of queries and of keys, if they have any.
        norms_first: they come before the rotation, not after it.
    """
    weighted = norms is not None and norms[0].weight is not None
    if norms is not None and (norms_first or not weighted) and choice.uses_own_backward(qkv_BT3HD):
        return _by_hand(qkv_BT3HD, rotation, norms)
    qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
    # Together, unless their norms differ by their weights.
    groups = torch.split(qkv_3BHTD[:2], 1 if weighted else 2)
    done = []
    for group, norm in zip(groups, norms or (None,), strict=False):
        qk = norm(group) if norm is not None and norms_first else group
        qk = rotate(qk, rotation)
        qk = norm(qk) if norm is not None and not norms_first else qk
        done.append(qk.to(qkv_3BHTD.dtype))
    return torch.cat((*done, qkv_3BHTD[2:]))


def _by_hand(qkv_BT3HD: Tensor, rotation: Rotation, norms: tuple[RMSNorm, RMSNorm]) -> Tensor:
    query, key, epsilon = norms[0].weight, norms[1].weight, norms[0].epsilon
    out: Tensor
    if query is None or key is None:  # in either order: a rotation preserves lengths
        out = _Heads.apply(qkv_BT3HD, *rotation, epsilon)  # type: ignore[no-untyped-call]
    else:
        weights_2D = torch.stack((query, key))
        out = _WeightedHeads.apply(qkv_BT3HD, weights_2D, *rotation, epsilon)  # type: ignore[no-untyped-call]
    return out


class _Heads(torch.autograd.Function):
    """Queries and keys, normalised without weights and rotated, with the values.

    Rotating preserves lengths, so the norm is applied first and its gradient last.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv_BT3HD: Tensor, cos_TD: Tensor, sin_TD: Tensor, epsilon: float
    ) -> Tensor:
        qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        out_3BHTD = torch.empty_like(qkv_3BHTD, memory_format=torch.contiguous_format)
        qk = qkv_3BHTD[:2].to(cos_TD.dtype, memory_format=torch.contiguous_format)
        scale = inverse_root_mean_square(qk, epsilon)
        out_3BHTD[:2] = rotate(qk * scale, (cos_TD, sin_TD))
        out_3BHTD[2] = qkv_3BHTD[2]
        ctx.save_for_backward(out_3BHTD, scale, cos_TD, sin_TD)
        return out_3BHTD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_3BHTD,) = gradients
        out_3BHTD, scale, cos_TD, sin_TD = ctx.saved_tensors
        _, B, H, T, D = gradient_3BHTD.shape
        below_BT3HD = gradient_3BHTD.new_empty(B, T, 3, H, D)
        below_3BHTD = below_BT3HD.permute(2, 0, 3, 1, 4)
        turned = below_norm(gradient_3BHTD[:2], out_3BHTD[:2], scale)
        below_3BHTD[:2] = rotate(turned, (cos_TD, -sin_TD))
        below_3BHTD[2] = gradient_3BHTD[2]
        return below_BT3HD, None, None, None


class _WeightedHeads(torch.autograd.Function):
    """Queries and keys, normalised with weights and then rotated, with the values."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_BT3HD: Tensor,
        weights_2D: Tensor,
        cos_TD: Tensor,
        sin_TD: Tensor,
        epsilon: float,
    ) -> Tensor:
        qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        out_3BHTD = torch.empty_like(qkv_3BHTD, memory_format=torch.contiguous_format)
        qk = qkv_3BHTD[:2].to(cos_TD.dtype, memory_format=torch.contiguous_format)
        scale = inverse_root_mean_square(qk, epsilon)
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
        below_3BHTD[:2], product = below_weighted_norm(turned_back, unit, scale, weights)
        below_3BHTD[2] = gradient_3BHTD[2]
        return below_BT3HD, product.sum((1, 2, 3)), None, None, None
