"""The head and its cross entropy with all logits at once, for a GPU with enough memory.

Shape suffixes: N positions, C width, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.data.batches import IGNORED

# Tensor cores need rows in multiples of 64; GPT-2's 50,257 become 50,304.
_ROWS = 64


def whole_cross_entropy(
    x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, softcap: float | None
) -> Tensor:
    """Return the summed cross entropy of `x @ weight.T` in nats, a float32 scalar.

    The product is padded with zeros to a multiple of 64, which the softmax ignores: the padding is
    not part of the weight, and never saved.

    Args:
        x_NC: the final norm's output.
        weight_VC: the head.
        targets_N: token ids, or `IGNORED`, which adds nothing.
        softcap: c, if logits are c·tanh(logits / c).
    """
    vocabulary = weight_VC.size(0)
    padding = -vocabulary % _ROWS
    logits = F.linear(x_NC, F.pad(weight_VC, (0, 0, 0, padding)) if padding else weight_VC)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.float()
    if padding:
        places = torch.arange(vocabulary + padding, device=logits.device)
        logits = logits.masked_fill(places >= vocabulary, -torch.inf)
    return F.cross_entropy(logits, targets_N, ignore_index=IGNORED, reduction="sum")
