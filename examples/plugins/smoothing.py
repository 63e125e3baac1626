"""Cross entropy with a tenth of each target spread over the vocabulary (Szegedy et al. 2016).

hairpin train book.txt --set train.loss=label-smoothing --plugin examples/plugins/smoothing.py
"""

from torch import Tensor
from torch.nn import functional as F

from hairpin.plugins import register_loss

SHARE = 0.1


def label_smoothing(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss for each position, [B, T], of logits [B, T, vocabulary]."""
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=SHARE
    )
    return losses.view_as(targets)


register_loss("label-smoothing", label_smoothing)
