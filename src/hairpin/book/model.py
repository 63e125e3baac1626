"""The GPT of the book's chapters 3 and 4, as plainly as it can be written.

    GPTModel
    ├── tok_emb, pos_emb, drop_emb
    ├── trf_blocks   TransformerBlock: norm1 → att → + → norm2 → ff → +
    └── final_norm, out_head

The names of parts and settings are the book's, so that its listings run and published weights load.
The parts are made in the order in which the book makes them: each draws its first weights from
torch's default random stream, and that order reproduces the book's figures.

Shape suffixes: B sequences, T positions, C width, H heads, D width of a head, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

GPT_CONFIG_124M: dict[str, Any] = {
    "vocab_size": 50257,  # tokens of GPT-2's vocabulary
    "context_length": 256,  # positions that the model sees; GPT-2 itself has 1024
    "emb_dim": 768,  # width of the residual stream
    "n_heads": 12,  # attention heads in a block
    "n_layers": 12,  # blocks
    "drop_rate": 0.1,  # share of activations dropped in training
    "qkv_bias": False,  # biases of query, key and value
}


class LayerNorm(nn.Module):
    """Normalisation to mean 0 and variance 1 over the width, then a learned scale and shift."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] → [..., C]."""
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (centred / torch.sqrt(variance + self.eps)) + self.shift


class GELU(nn.Module):
    """The tanh form of the Gaussian error linear unit (Hendrycks and Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each entry."""
        # The root of a float32, as in the book: its last bit differs from math.sqrt's.
        inner = torch.tensor(2.0 / math.pi).sqrt() * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1 + torch.tanh(inner))


class FeedForward(nn.Module):
    """Projection to four times the width, GELU, and back; each position on its own."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        width = cfg["emb_dim"]
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] → [B, T, C]."""
        out: Tensor = self.layers(x)
        return out


class MultiHeadAttention(nn.Module):
    """Causal attention: a position sees itself and those before it (Vaswani et al. 2017).

    Args:
        d_in, d_out: input and output width; `d_out` is a multiple of
            `num_heads`.
        context_length: maximum number of positions.
        dropout: share of the attention weights dropped in training.
        num_heads: heads.
        qkv_bias: True if query, key and value have biases.
    """

    mask: Tensor

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        if d_out % num_heads:
            raise ValueError(f"d_out, {d_out}, is not a multiple of num_heads, {num_heads}")
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        future = torch.triu(torch.ones(context_length, context_length), diagonal=1)
        self.register_buffer("mask", future)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d_in] → [B, T, d_out]."""
        B, T, _ = x.shape
        q_BHTD, k_BHTD, v_BHTD = (
            projection(x).view(B, T, self.num_heads, self.head_dim).transpose(1, 2)
            for projection in (self.W_query, self.W_key, self.W_value)
        )
        scores_BHTT = q_BHTD @ k_BHTD.transpose(2, 3)
        scores_BHTT = scores_BHTT.masked_fill(self.mask.bool()[:T, :T], -torch.inf)
        weights_BHTT = torch.softmax(scores_BHTT / self.head_dim**0.5, dim=-1)
        weights_BHTT = self.dropout(weights_BHTT)
        heads_BTHD = (weights_BHTT @ v_BHTD).transpose(1, 2)
        out: Tensor = self.out_proj(heads_BTHD.contiguous().view(B, T, self.d_out))
        return out


class TransformerBlock(nn.Module):
    """Attention, then the feed-forward layers, each on a normalised copy and added back."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.att = MultiHeadAttention(
            d_in=cfg["emb_dim"],
            d_out=cfg["emb_dim"],
            context_length=cfg["context_length"],
            num_heads=cfg["n_heads"],
            dropout=cfg["drop_rate"],
            qkv_bias=cfg["qkv_bias"],
        )
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg["emb_dim"])
        self.norm2 = LayerNorm(cfg["emb_dim"])
        self.drop_shortcut = nn.Dropout(cfg["drop_rate"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] → [B, T, C]."""
        x = x + self.drop_shortcut(self.att(self.norm1(x)))
        out: Tensor = x + self.drop_shortcut(self.ff(self.norm2(x)))
        return out


class GPTModel(nn.Module):
    """GPT: token ids in, logits of the next token out.

    Args:
        cfg: the keys of `GPT_CONFIG_124M`.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(*(TransformerBlock(cfg) for _ in range(cfg["n_layers"])))
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, in_idx: Tensor) -> Tensor:
        """[B, T] token ids → [B, T, V] logits; T is at most the context length."""
        positions_T = torch.arange(in_idx.shape[1], device=in_idx.device)
        x_BTC = self.drop_emb(self.tok_emb(in_idx) + self.pos_emb(positions_T))
        logits_BTV: Tensor = self.out_head(self.final_norm(self.trf_blocks(x_BTC)))
        return logits_BTV


def generate_text_simple(
    model: nn.Module, idx: Tensor, max_new_tokens: int, context_size: int
) -> Tensor:
    """Continue `idx`, [B, T] token ids, with the most likely token each time.

    Args:
        model: ids → logits.
        idx: the prompt.
        max_new_tokens: number to add.
        context_size: number of last tokens that the model sees.

    Returns:
        [B, T + max_new_tokens] ids.
    """
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits_BV = model(idx[:, -context_size:])[:, -1, :]
        likeliest_B1 = torch.softmax(logits_BV, dim=-1).argmax(dim=-1, keepdim=True)
        idx = torch.cat((idx, likeliest_B1), dim=1)
    return idx


def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
) -> Tensor:
    """Continue `idx`, [B, T] token ids, by sampling or with the most likely token each time.

    Args:
        model: ids → logits.
        idx: the prompt.
        max_new_tokens: the most to add.
        context_size: number of last tokens that the model sees.
        temperature: divides the logits before a token is drawn; 0: take the most likely.
        top_k: only this many of the most likely tokens can be drawn; None: all.
        eos_id: ends generation, and is not added itself; with several sequences, once all end.

    Returns:
        [B, T + the number of tokens added] ids.
    """
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits_BV = model(idx[:, -context_size:])[:, -1, :]
        if top_k is not None:
            least_B1 = torch.topk(logits_BV, top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if temperature > 0:
            probabilities_BV = torch.softmax(logits_BV / temperature, dim=-1)
            next_B1 = torch.multinomial(probabilities_BV, num_samples=1)
        else:
            next_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        if eos_id is not None and bool((next_B1 == eos_id).all()):
            break
        idx = torch.cat((idx, next_B1), dim=1)
    return idx
