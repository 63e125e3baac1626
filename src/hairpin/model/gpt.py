"""The network: embeddings, blocks, a final norm, a head (Radford et al. 2019).

What an architecture has in each place is in its traits (`model/architectures.py`); the passes that
are written by hand are in `model/kernels/`.

Shape suffixes: B sequences, T positions, C width, H heads, D width of a head, V vocabulary.
"""

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hairpin.data.batches import IGNORED
from hairpin.model.kernels.activations import gelu, squared_relu, swiglu
from hairpin.model.kernels.attention import LayerCache, attend
from hairpin.model.kernels.cross_entropy import (
    TiedGradient,
    cross_entropy,
    full_cross_entropy,
    look_up,
)
from hairpin.model.kernels.norms import RMSNorm, rms_norm
from hairpin.model.kernels.rotary import Rotary, Rotation, rotate_heads
from hairpin.model.shape import Shape


def make_norm(shape: Shape, width: int) -> nn.LayerNorm | RMSNorm:
    """Make a norm of the architecture's kind."""
    if shape.traits.norm == "layer norm":
        return nn.LayerNorm(width, shape.traits.epsilon, bias=shape.bias)
    return make_rms_norm(shape, width)


def make_rms_norm(shape: Shape, width: int) -> RMSNorm:
    """Make an RMSNorm, with weights if the architecture's norms have them."""
    return RMSNorm(width, shape.traits.epsilon, weighted=shape.traits.norm != "rms")


class Attention(nn.Module):
    """Multi-head attention in which a position sees itself and those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.query_key_value = nn.Linear(
            shape.width, 3 * shape.width, bias=shape.bias and shape.qkv_bias
        )
        self.norms_heads = shape.traits.norms_heads
        if self.norms_heads:
            self.query_norm = make_rms_norm(shape, shape.head_width)
            self.key_norm = make_rms_norm(shape, shape.head_width)
        self.output = nn.Linear(shape.width, shape.width, bias=shape.bias)

    def forward(
        self, x_BTC: Tensor, cache: LayerCache | None = None, rotation: Rotation | None = None
    ) -> Tensor:
        """Attend; with a cache, `x` is a first block of positions or the single next one."""
        B, T, C = x_BTC.shape
        qkv_BT3HD = self.query_key_value(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        if rotation is None:
            qkv_3BHTD = qkv_BT3HD.permute(2, 0, 3, 1, 4)
        else:
            norms = (self.query_norm, self.key_norm) if self.norms_heads else None
            norms_first = self.norms_heads == "before rotation"
            qkv_3BHTD = rotate_heads(qkv_BT3HD, rotation, norms, norms_first=norms_first)
        y_BTC = attend(qkv_3BHTD, cache, self.dropout if self.training else 0.0)
        return F.dropout(self.output(y_BTC), self.dropout, self.training)


class MLP(nn.Module):
    """Two linear layers around a nonlinearity; or a third, which gates the inner numbers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dropout = shape.dropout
        self.kind = shape.traits.mlp
        if shape.traits.gated:
            self.gate = nn.Linear(shape.width, shape.inner, bias=shape.bias)
        self.expand = nn.Linear(shape.width, shape.inner, bias=shape.bias)
        self.output = nn.Linear(shape.inner, shape.width, bias=shape.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply to each position separately."""
        if self.kind == "swiglu":
            inner = swiglu(self.gate(x_BTC), self.expand(x_BTC))
        elif self.kind == "squared relu":
            inner = squared_relu(self.expand(x_BTC))
        else:
            inner = gelu(self.expand(x_BTC))
        return F.dropout(self.output(inner), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP, each on a normalised copy and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = make_norm(shape, shape.width)
        self.attention = Attention(shape)
        self.mlp_norm = make_norm(shape, shape.width)
        self.mlp = MLP(shape)

    def forward(
        self, x_BTC: Tensor, cache: LayerCache | None = None, rotation: Rotation | None = None
    ) -> Tensor:
        """Apply the block to the residual stream."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cache, rotation)
        y_BTC: Tensor = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return y_BTC


class GPT(nn.Module):
    """A decoder-only transformer.

    Args:
        shape: its sizes.
        seed: each parameter is drawn from (seed, its name), so that models that share a parameter's
            name and shape share its initial value whatever else differs.

    On the device "meta" it has shapes and no values: `initial_value` yields them one by one.
    """

    position_embedding: nn.Embedding  # learned positions
    rotary: Rotary  # or rotary ones

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.traits = shape.traits
        self.recomputes = False  # activation checkpointing (Chen et al. 2016)
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        if self.traits.rotary:
            self.rotary = Rotary(shape.head_width, shape.context, self.traits.rotary)
        else:
            self.position_embedding = nn.Embedding(shape.context, shape.width)
        self.final_norm = make_norm(shape, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.head = None if shape.tied else nn.Linear(shape.width, shape.vocabulary, bias=False)
        self._seed = seed
        if not self.token_embedding.weight.is_meta:
            with torch.no_grad():
                values = dict(self.named_parameters())
                for name, value in self.initial_value():
                    values[name].copy_(value)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed cross entropy in nats and the number of targets in the sum.

        Args:
            inputs_BT: token ids, at most `context` positions.
            targets_BT: the next ids, or `IGNORED`.

        Returns:
            Two scalars: a float32 sum and an integer count. Divide them only after adding up
            everything in one update.
        """
        count, targets_N = (targets_BT != IGNORED).sum(), targets_BT.flatten()
        if inputs_BT.device.type != "cpu":  # scattered sums differ there
            return self.head_loss(self.hidden(inputs_BT), targets_BT), count
        tied = TiedGradient() if self.head is None else None
        x_NC = self._run_blocks(*self._embed(inputs_BT, 0, tied), None).flatten(0, 1)
        loss_sum = cross_entropy(
            x_NC, self.head_weight, targets_N, softcap=self.traits.softcap, tied=tied
        )
        return loss_sum, count

    def head_loss(self, x_BTC: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the summed cross entropy after `hidden`, with all logits at once."""
        x_NC, targets_N = x_BTC.flatten(0, 1), targets_BT.flatten()
        return full_cross_entropy(x_NC, self.head_weight, targets_N, self.traits.softcap)

    def logits(self, inputs_BT: Tensor) -> Tensor:
        """Return the scores of the next token at every position, [B, T, vocabulary]."""
        return self.project(self.hidden(inputs_BT))

    def hidden(self, inputs_BT: Tensor, cache: list[LayerCache] | None = None) -> Tensor:
        """Return the final norm's output, [B, T, width]; a cache is read and extended."""
        start = cache[0].length if cache else 0
        return self._run_blocks(*self._embed(inputs_BT, start), cache)

    @property
    def head_weight(self) -> Tensor:
        """The projection to the vocabulary, [V, C]."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def _run_blocks(
        self, x_BTC: Tensor, rotation: Rotation | None, cache: list[LayerCache] | None
    ) -> Tensor:
        """Apply all blocks and the final norm."""
        recomputes = self.recomputes and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            if recomputes:
                x_BTC = checkpoint(block, x_BTC, None, rotation, use_reentrant=False)
            else:
                x_BTC = block(x_BTC, cache[index] if cache else None, rotation)
        out: Tensor = self.final_norm(x_BTC)
        return out

    def project(self, x_BTC: Tensor) -> Tensor:
        """Project from the width to the vocabulary."""
        logits_BTV, softcap = F.linear(x_BTC, self.head_weight), self.traits.softcap
        return logits_BTV if softcap is None else softcap * torch.tanh(logits_BTV / softcap)

    def _embed(
        self, inputs_BT: Tensor, start: int, tied: TiedGradient | None = None
    ) -> tuple[Tensor, Rotation | None]:
        """Return the input of the first block, and the rotation of heads if there is one."""
        count, weight = inputs_BT.size(1), self.token_embedding.weight
        x_BTC = look_up(weight, inputs_BT, tied) if tied else self.token_embedding(inputs_BT)
        rotation = None
        if self.traits.rotary:
            rotation = self.rotary.at(start, count)
        else:
            x_BTC = x_BTC + self.position_embedding.weight[start : start + count]
        if self.traits.norms_embedding:
            x_BTC = rms_norm(x_BTC, None, self.traits.epsilon)
        return F.dropout(x_BTC, self.shape.dropout, self.training), rotation

    def empty_cache(self, sequences: int = 1) -> list[LayerCache]:
        """Return an empty cache for the keys and values of a whole context."""
        shape, weight = self.shape, self.token_embedding.weight
        size = (sequences, shape.heads, shape.context, shape.head_width)
        return [
            LayerCache(weight.new_zeros(size), weight.new_zeros(size)) for _ in range(shape.layers)
        ]

    def initial_value(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and initial value, on the CPU; one at a time is in memory."""
        draws = {
            "gpt2": self._init_as_gpt2,
            "pytorch": self._init_as_pytorch,
            "identity": self._draw_as_identity,
        }
        draw = draws[self.traits.initialisation or self.shape.initialisation]
        for name, parameter in self.named_parameters():
            value = torch.zeros(parameter.shape, device="cpu")
            if "norm." in name:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                draw(name, value, torch.Generator().manual_seed(derived_seed(self._seed, name)))
            yield name, value

    def fill_buffers(self, device: str) -> None:
        """Create the buffers of a model that was made without values."""
        if self.traits.rotary:
            table = Rotary(self.shape.head_width, self.shape.context, self.traits.rotary)
            self.rotary = table.to(device)

    def _init_as_gpt2(self, name: str, zeros: Tensor, generator: torch.Generator) -> None:
        """Draw N(0, 0.02), residual outputs smaller by the root of their number; biases are 0."""
        if name.endswith("weight"):
            is_residual = name.endswith("output.weight")
            std = 0.02 / math.sqrt(2 * self.shape.layers) if is_residual else 0.02
            zeros.normal_(0.0, std, generator=generator)

    def _init_as_pytorch(self, name: str, zeros: Tensor, generator: torch.Generator) -> None:
        """Draw as nn.Embedding and nn.Linear do: N(0, 1); uniform within ± the root of one over the
        inputs, biases too.
        """
        if "embedding" in name:
            zeros.normal_(0.0, 1.0, generator=generator)
        else:
            layer = self.get_submodule(name.rpartition(".")[0])
            assert isinstance(layer, nn.Linear)
            bound = 1 / math.sqrt(layer.in_features)
            zeros.uniform_(-bound, bound, generator=generator)

    def _draw_as_identity(self, name: str, zeros: Tensor, generator: torch.Generator) -> None:
        """Leave residual outputs 0, so that a block begins as the identity; draw the head close to
        0; the embedding, which a norm follows at once, N(0, 1), or N(0, 0.02) if it is the head
        too; the rest uniform, with standard deviation 1 / √width.
        """
        if name == "token_embedding.weight":
            zeros.normal_(0.0, 0.02 if self.shape.tied else 1.0, generator=generator)
        elif name == "head.weight":
            zeros.normal_(0.0, 0.001, generator=generator)
        elif not name.endswith("output.weight"):
            bound = math.sqrt(3 / self.shape.width)
            zeros.uniform_(-bound, bound, generator=generator)


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends only on the parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
