"""A GPT with a head for labels: the last position of a text says which one it has."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.data.batches import IGNORED
from hairpin.model.gpt import GPT, derived_seed
from hairpin.model.shape import Shape


class Classifier(GPT):
    """A GPT whose targets are labels.

    A text's label is the target at its last token, the one position that has seen all of it; every
    other target is `IGNORED`, so that padding on the right changes nothing.

    Args:
        shape: of the GPT.
        labels: K, how many there are.
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
        """The summed cross entropy of the labels in nats, and how many there are.

        Args:
            inputs_BT: token ids, padded on the right.
            targets_BT: a label at each text's last token, else `IGNORED`.
        """
        labelled_BT = targets_BT != IGNORED
        logits_NK = self.label_logits(inputs_BT, labelled_BT)
        loss_sum = F.cross_entropy(logits_NK.float(), targets_BT[labelled_BT], reduction="sum")
        return loss_sum, labelled_BT.sum()

    def label_logits(self, inputs_BT: Tensor, labelled_BT: Tensor) -> Tensor:
        """Scores of the labels, [N, K], at the N positions that are marked, row by row."""
        out: Tensor = self.class_head(self.hidden(inputs_BT)[labelled_BT])
        return out


def freeze_below(model: GPT, layers: int | None) -> None:
    """Let only the last blocks train, with the final norm and whatever head there is.

    Args:
        model: its embeddings and lower blocks stay as they are.
        layers: blocks that train; None: everything does.

    Raises:
        ValueError: there are not so many blocks.
    """
    if layers is None:
        return
    if layers > len(model.blocks):
        raise ValueError(f"{layers} blocks were asked for and there are {len(model.blocks)}")
    tops = ("final_norm.", "head.", "class_head.")
    blocks = tuple(f"blocks.{n}." for n in range(len(model.blocks) - layers, len(model.blocks)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tops + blocks))
