"""Causal attention: PyTorch's own, and on a CPU in blocks of queries.

A block of queries is multiplied only with the keys up to its own last position, which saves nearly
half of the products; each is one batched product of a size at which the processor's libraries are
fastest. PyTorch's flash attention uses smaller products, in float32: that takes twice the time in
bfloat16 here, and somewhat more in float32 (docs/performance.md).

Shape suffixes: B sequences, H heads, N their product, T positions, S positions in cache, Q queries
of a block, K keys that they see, D width of a head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.model.kernels import choice

_BLOCK = 128  # queries
# Probabilities are kept for the backward pass up to this size, and recomputed beyond it.
_KEPT_BYTES = 64 * 2**20


@dataclass
class LayerCache:
    """Keys and values that one attention layer has seen, for generation.

    Args:
        keys_BHSD, values_BHSD: memory for all positions of the context, initialised with finite
            numbers: a kernel may read beyond the filled positions.
        length: number of filled positions.
    """

    keys_BHSD: Tensor
    values_BHSD: Tensor
    length: int = 0

    def append(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new positions; return all filled ones."""
        start, count = self.length, keys_BHTD.size(2)
        self.keys_BHSD.narrow(2, start, count).copy_(keys_BHTD)
        self.values_BHSD.narrow(2, start, count).copy_(values_BHTD)
        self.length = end = start + count
        return self.keys_BHSD.narrow(2, 0, end), self.values_BHSD.narrow(2, 0, end)


def attend(qkv_3BHTD: Tensor, cache: LayerCache | None = None, dropout: float = 0.0) -> Tensor:
    """Return the attention of each position to itself and those before it, [B, T, C].

    Args:
        qkv_3BHTD: queries, keys and values.
        cache: of the positions before, which is extended; T must be 1, or the cache empty.
        dropout: of probabilities.
    """
    if cache is None and dropout == 0 and choice.uses_own_backward(qkv_3BHTD):
        return causal_attention(qkv_3BHTD)
    _, B, H, T, D = qkv_3BHTD.shape
    q_BHTD, k_BHTD, v_BHTD = qkv_3BHTD
    if cache is not None:
        k_BHTD, v_BHTD = cache.append(k_BHTD, v_BHTD)
    if qkv_3BHTD.device.type == "mps":  # its kernels misread others: pytorch/pytorch#181133
        q_BHTD, k_BHTD, v_BHTD = q_BHTD.contiguous(), k_BHTD.contiguous(), v_BHTD.contiguous()
    y_BHTD = F.scaled_dot_product_attention(
        q_BHTD, k_BHTD, v_BHTD, dropout_p=dropout, is_causal=T > 1
    )
    return y_BHTD.transpose(1, 2).reshape(B, T, H * D)


def causal_attention(qkv_3BHTD: Tensor) -> Tensor:
    """Return softmax(q·kᵀ / √D, no key after its query)·v of each head, [B, T, H·D].

    Args:
        qkv_3BHTD: queries, keys and values; on a CPU, float32 or bfloat16.
    """
    _, B, H, T, D = qkv_3BHTD.shape
    y_NTD: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        qkv_3BHTD.reshape(3, B * H, T, D)
    )
    return y_NTD.view(B, H, T, D).transpose(1, 2).reshape(B, T, H * D)


def _blocks(positions: int) -> Iterator[tuple[int, int]]:
    """Yield the first query of each block, and the number of keys it sees."""
    for start in range(0, positions, _BLOCK):
        yield start, min(start + _BLOCK, positions)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_3NTD: Tensor) -> Tensor:
        q_NTD, k_NTD, v_NTD = qkv_3NTD
        y_NTD = torch.empty_like(q_NTD)
        N, T, _ = q_NTD.shape
        keeps = ctx.needs_input_grad[0] and N * T * T * q_NTD.element_size() <= 2 * _KEPT_BYTES
        kept = []
        for start, end in _blocks(T):
            p_NQK = _probabilities(q_NTD[:, start:end], k_NTD[:, :end], start)
            torch.bmm(p_NQK, v_NTD[:, :end], out=y_NTD[:, start:end])
            if keeps:
                kept.append(p_NQK)
        ctx.save_for_backward(qkv_3NTD, *kept)
        return y_NTD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (dy_NTD,) = gradients
        qkv_3NTD, *kept = ctx.saved_tensors
        q_NTD, k_NTD, v_NTD = qkv_3NTD
        out_3NTD = torch.empty_like(qkv_3NTD)
        dq_NTD, dk_NTD, dv_NTD = out_3NTD
        # Begin with the last block, which sees all keys: it initialises the sums that others add
        # to.
        for index, (start, end) in reversed(list(enumerate(_blocks(q_NTD.size(1))))):
            q_NQD, k_NKD, dy_NQD = q_NTD[:, start:end], k_NTD[:, :end], dy_NTD[:, start:end]
            p_NQK = kept[index] if kept else _probabilities(q_NQD, k_NKD, start)
            dp_NQK = torch.bmm(dy_NQD, v_NTD[:, :end].mT)
            ds_NQK = torch._softmax_backward_data(dp_NQK, p_NQK, -1, p_NQK.dtype)
            torch.bmm(ds_NQK, k_NKD, out=dq_NTD[:, start:end])
            is_first = end == q_NTD.size(1)
            _add(dk_NTD[:, :end], ds_NQK.mT, q_NQD, is_first=is_first)
            _add(dv_NTD[:, :end], p_NQK.mT, dy_NQD, is_first=is_first)
        out_3NTD[:2] *= _scale(q_NTD)
        return out_3NTD


def _probabilities(q_NQD: Tensor, k_NKD: Tensor, start: int) -> Tensor:
    """Return the attention of each query to each key; the first query is at `start`."""
    mask_QK = _mask(q_NQD.size(1), k_NKD.size(1), start, q_NQD.dtype)
    scores_NQK = torch.baddbmm(mask_QK, q_NQD, k_NKD.mT, alpha=_scale(q_NQD))
    return torch.softmax(scores_NQK, -1, out=scores_NQK)


@lru_cache(maxsize=64)
def _mask(queries: int, keys: int, start: int, dtype: torch.dtype) -> Tensor:
    """Return −∞ where a key comes after its query, else 0."""
    return torch.full((queries, keys), -torch.inf, dtype=dtype).triu(start + 1)


def _scale(q: Tensor) -> float:
    return float(q.size(-1) ** -0.5)


def _add(sum_NKD: Tensor, left: Tensor, right: Tensor, *, is_first: bool) -> None:
    if is_first:
        torch.bmm(left, right, out=sum_NKD)
    else:
        sum_NKD += torch.bmm(left, right)
