"""A GPT with a head for labels, applied at the last position of a text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import GPT, derived_seed
from hairpin.model.shape import Shape


class Classifier(GPT):
    """A GPT whose targets are labels.

    A text's label is the target at its last token, the only position that sees all of it; every
    other target is `IGNORED`, so that padding on the right has no effect.

    Args:
        shape: the GPT's.
        labels: K, the number of labels.
        seed: as in `GPT`.
    """

    def __init__(self, shape: Shape, labels: int, seed: int = 0) -> None:
        super().__init__(shape, seed)
        self.class_head = nn.Linear(shape.width, labels)
        generator = torch.Generator().manual_seed(derived_seed(seed, "class_head.weight"))
        with torch.no_grad():
            drawn = torch.empty(labels, shape.width, device="cpu")
            drawn.normal_(0.0, 0.02, generator=generator)
            self.class_head.weight.copy_(drawn)
            self.class_head.bias.zero_()

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed cross entropy of the labels in nats, and their number.

        Args:
            inputs_BT: token ids, padded on the right.
            targets_BT: a label at each text's last token, else `IGNORED`.
        """
        labelled_BT = targets_BT != IGNORED
        logits_NK = self.label_logits(inputs_BT, labelled_BT)
        loss_sum = F.cross_entropy(logits_NK.float(), targets_BT[labelled_BT], reduction="sum")
        return loss_sum, labelled_BT.sum()

    def label_logits(self, inputs_BT: Tensor, labelled_BT: Tensor) -> Tensor:
        """Return the scores of the labels, [N, K], at the N marked positions, row by row."""
        out: Tensor = self.class_head(self.hidden(inputs_BT)[labelled_BT])
        return out


def freeze_below(model: GPT, layers: int | None) -> None:
    """Freeze all but the last blocks, the final norm and the head.

    Args:
        model: its embeddings and lower blocks are frozen.
        layers: number of blocks that train; None: everything trains.

    Raises:
        ValueError: the model has fewer blocks.
    """
    if layers is None:
        return
    if layers > len(model.blocks):
        raise ValueError(f"{layers} blocks were asked for and there are {len(model.blocks)}")
    tops = ("final_norm.", "head.", "class_head.")
    blocks = tuple(f"blocks.{n}." for n in range(len(model.blocks) - layers, len(model.blocks)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tops + blocks))
