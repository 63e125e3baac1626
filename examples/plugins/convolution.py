"""A network without attention: gated causal convolutions (Dauphin et al. 2017) at ever wider
spacing.

    hairpin train book.txt --recipe gpt2 --size nano --set model.architecture=gated-convolution \\
        --plugin examples/plugins/convolution.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.data.batches import IGNORED
from hairpin.model.shape import Shape
from hairpin.plugins import register_model

TAPS = 4  # tokens that one layer sees; each layer leaves out twice as many between them


class Block(nn.Module):
    """A norm, a causal convolution twice as wide, and half of it as the gate of the other."""

    def __init__(self, width: int, spacing: int) -> None:
        super().__init__()
        self.reach = spacing * (TAPS - 1)
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, 2 * width, TAPS, dilation=spacing)

    def forward(self, x_btc: Tensor) -> Tensor:
        """The stream with what the block adds to it, [B, T, C]."""
        past = F.pad(self.norm(x_btc).transpose(1, 2), (self.reach, 0))  # nothing from the future
        return x_btc + F.glu(self.convolution(past), dim=1).transpose(1, 2)


class GatedConvolution(nn.Module):
    """An embedding, blocks with ever wider spacing, a head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, 2**n) for n in range(shape.layers))
        self.final_norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def logits(self, inputs: Tensor) -> Tensor:
        """Scores of the next token at every position, [B, T, vocabulary]."""
        x_btc = self.token_embedding(inputs)
        for block in self.blocks:
            x_btc = block(x_btc)
        scores: Tensor = self.head(self.final_norm(x_btc))
        return scores

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross entropy in nats, and the number of targets."""
        logits = self.logits(inputs).float().flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss, torch.count_nonzero(targets != IGNORED)


register_model("gated-convolution", GatedConvolution)
