"""The book's GPT with PyTorch's own parts instead of those that the chapters write out.

The same network in fewer and faster operations: one matrix for query, key and value,
`scaled_dot_product_attention`, PyTorch's norms and GELU. Names are those of the book's repository.

A part whose passes are those of the plain one under the same names takes them from it. Shape
suffixes as in `model`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.book.model import FeedForward, GPTModel, TransformerBlock


class PyTorchMultiHeadAttention(nn.Module):
    """`MultiHeadAttention` by `scaled_dot_product_attention`.

    Args:
        d_in, d_out: input and output width; `d_out` is a multiple of
            `num_heads`.
        num_heads: heads.
        dropout: share of the attention weights dropped in training.
        qkv_bias: True if query, key and value have biases.
    """

    def __init__(
        self, d_in: int, d_out: int, num_heads: int, dropout: float = 0.0, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        if d_out % num_heads:
            raise ValueError(f"d_out, {d_out}, is not a multiple of num_heads, {num_heads}")
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.qkv = nn.Linear(d_in, 3 * d_out, bias=qkv_bias)
        self.proj = nn.Linear(d_out, d_out)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d_in] → [B, T, d_out]."""
        B, T, _ = x.shape
        fused_BTNHD = self.qkv(x).view(B, T, 3, self.num_heads, self.head_dim)
        q_BHTD, k_BHTD, v_BHTD = fused_BTNHD.permute(2, 0, 3, 1, 4)
        heads_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BHTD, v_BHTD, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        out: Tensor = self.proj(heads_BHTD.transpose(1, 2).reshape(B, T, self.d_out))
        return out


class FeedForwardFast(nn.Module):
    """`FeedForward` with PyTorch's GELU."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        width = cfg["emb_dim"]
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    forward = FeedForward.forward


class TransformerBlockFast(nn.Module):
    """`TransformerBlock` of the parts above."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.att = PyTorchMultiHeadAttention(
            d_in=cfg["emb_dim"],
            d_out=cfg["emb_dim"],
            num_heads=cfg["n_heads"],
            dropout=cfg["drop_rate"],
            qkv_bias=cfg["qkv_bias"],
        )
        self.ff = FeedForwardFast(cfg)
        self.norm1 = nn.LayerNorm(cfg["emb_dim"])
        self.norm2 = nn.LayerNorm(cfg["emb_dim"])
        self.drop_shortcut = nn.Dropout(cfg["drop_rate"])

    forward = TransformerBlock.forward


class GPTModelFast(nn.Module):
    """`GPTModel` of the parts above; it has no buffers.

    Args:
        cfg: the keys of `GPT_CONFIG_124M`.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(
            *(TransformerBlockFast(cfg) for _ in range(cfg["n_layers"]))
        )
        self.final_norm = nn.LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    forward = GPTModel.forward
