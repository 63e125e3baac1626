"""The parts of a GPT-2 block: attention and MLP, each behind a LayerNorm and a residual.

Shape suffixes: B sequences, T positions, C width, H heads, D width of a head, S positions in cache.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.model.attention import causal_attention
from hairpin.model.gelu import gelu


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


def is_by_hand(x: Tensor) -> bool:
    """Return True if hand-written gradients should be used: they save passes over memory where
    PyTorch runs one operation after the other. A compiler fuses the plain ones by itself.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def attend(qkv_3BHTD: Tensor, cache: LayerCache | None = None, dropout: float = 0.0) -> Tensor:
    """Return the attention of each position to itself and those before it, [B, T, C].

    Args:
        qkv_3BHTD: queries, keys and values.
        cache: of the positions before, which is extended; T must be 1, or the cache empty.
        dropout: of probabilities.
    """
    if cache is None and dropout == 0 and is_by_hand(qkv_3BHTD):
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


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and those before it."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias and qkv_bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x_BTC: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Attend; with a cache, `x` is a first block of positions or the single next one."""
        B, T, C = x_BTC.shape
        qkv = self.query_key_value(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        dropout = self.dropout if self.training else 0.0
        out: Tensor = self.output(attend(qkv.permute(2, 0, 3, 1, 4), cache, dropout))
        return F.dropout(out, self.dropout, self.training)


class MLP(nn.Module):
    """Two linear layers around a GELU (the tanh form, as in GPT-2)."""

    def __init__(self, width: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.expand = nn.Linear(width, 4 * width, bias=bias)
        self.output = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply to each position separately."""
        inner = self.expand(x_BTC)
        wants_slope = inner.requires_grad and is_by_hand(inner)
        inner = gelu(inner) if wants_slope else F.gelu(inner, approximate="tanh")
        out: Tensor = self.output(inner)
        return F.dropout(out, self.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP, each on a normalised copy and added to the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = CausalSelfAttention(width, heads, dropout, bias, qkv_bias)
        self.mlp_norm = nn.LayerNorm(width, bias=bias)
        self.mlp = MLP(width, dropout, bias)

    def forward(
        self, x_BTC: Tensor, cache: LayerCache | None = None, rotation: None = None
    ) -> Tensor:
        """Apply the block to the residual stream, which includes positions: nothing is rotated."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cache)
        y_BTC: Tensor = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return y_BTC
