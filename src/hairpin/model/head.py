"""The head and its cross entropy in one: logits exist for a few rows at a time.

For 4,096 tokens and GPT-2's vocabulary they are 824 MB, three times that with their log-softmax
and gradient. Here the gradient is taken while a chunk of them is at hand, which leaves nothing to
keep for the backward pass. Shape suffixes: N positions, C width, V vocabulary, R rows of a chunk.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.data.batches import IGNORED

# Small enough to leave room for all else, large enough that adding up the weight's gradient, once a
# chunk, does not matter.
_CHUNK_BYTES = 128 * 2**20
_ROW_NUMBERS = 64
_PRODUCT_ROWS = 8192
_SLOPE = 4.0  # c·tanh(x / c) has the derivative 4·σ·(1 − σ), σ of 2x / c


@dataclass
class TiedGradient:
    """Where the head leaves the gradient of a weight that it shares with the embedding, which adds
    its own rows to it: the two would otherwise be made and added as whole matrices.
    """

    gradient_VC: Tensor | None = None


def cross_entropy(
    x_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    *,
    softcap: float | None = None,
    tied: TiedGradient | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """The summed cross entropy of `x @ weight.T` in nats, a float32 scalar.

    Args:
        x_NC: the last norm's output.
        weight_VC: the head.
        targets_N: token ids, or `IGNORED`, which adds nothing.
        softcap: c, where logits are c·tanh(logits / c).
        tied: takes the weight's gradient, for `look_up` to hand on.
        chunk_rows: rows of logits at a time; None: as suits. It does not change the loss.

    Under autocast products are in its format; the softmax is always float32.
    """
    rows = chunk_rows or max(64, _CHUNK_BYTES // (4 * weight_VC.size(0)))
    out: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        x_NC, weight_VC, targets_N, softcap, tied, rows
    )
    return out


def look_up(weight_VC: Tensor, ids_BT: Tensor, tied: TiedGradient) -> Tensor:
    """Rows of an embedding, [B, T, C], that the head shares: their gradient is added to `tied`."""
    out: Tensor = _LookUp.apply(weight_VC, ids_BT, tied)  # type: ignore[no-untyped-call]
    return out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, softcap: float | None,
        tied: TiedGradient | None, rows: int,
    ) -> Tensor:  # fmt: skip
        device = x_NC.device.type
        dtype = x_NC.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            x, weight = x_NC.to(dtype), weight_VC.to(dtype)
            losses_N = torch.empty(len(x), device=x.device)
            wanted = any(ctx.needs_input_grad)
            grad_x = torch.empty_like(x) if wanted else None
            grad_weight: Tensor | None = None
            logits_RP = _room(min(rows, len(x)), weight)
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                losses_N[part], grad_RV = _chunk(
                    x[part], weight, targets_N[part], softcap, logits_RP[: len(x[part])], wanted
                )
                if grad_RV is not None and grad_x is not None:
                    torch.mm(grad_RV, weight, out=grad_x[part])
                    grad_weight = _add_product(grad_weight, grad_RV, x[part])
        ctx.gradients = (grad_x, grad_weight)
        ctx.factor = 1.0 if softcap is None else _SLOPE
        ctx.tied, ctx.dtypes = tied, (x_NC.dtype, weight_VC.dtype)
        return losses_N.sum(dtype=torch.float64).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] * ctx.factor
        grad_x, grad_weight = ctx.gradients
        ctx.gradients = (None, None)  # they are let go as soon as they are used
        grad_x = grad_x.to(ctx.dtypes[0]).mul_(scale)
        grad_weight = grad_weight.to(ctx.dtypes[1]).mul_(scale)
        if ctx.tied is not None:
            ctx.tied.gradient_VC = grad_weight
            grad_weight = None
        return grad_x, grad_weight, None, None, None, None


def _room(rows: int, weight_VC: Tensor) -> Tensor:
    """Memory for a chunk's logits, [R, P]: rows begin where a processor likes them to, since
    products of rows of an odd length take a third longer.
    """
    return weight_VC.new_empty(rows, -(-len(weight_VC) // _ROW_NUMBERS) * _ROW_NUMBERS)


def _chunk(
    x_RC: Tensor, weight_VC: Tensor, targets_R: Tensor, softcap: float | None,
    logits_RP: Tensor, wanted: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Losses of some rows, and the gradient of their sum by the logits, if it is wanted; with a
    softcap, a quarter of it.
    """
    torch.mm(x_RC, weight_VC.t(), out=logits_RP[:, : len(weight_VC)])
    sigmoid_RP = None
    if softcap is not None:
        # c·tanh(x / c) is 2c·σ(2x / c) − c, and a softmax is blind to the − c. PyTorch's σ takes a
        # sixth of the time of its tanh.
        sigmoid_RP = (logits_RP.float() * (2 / softcap)).sigmoid_()
        scores_RP = sigmoid_RP * (2 * softcap)
    else:
        scores_RP = logits_RP
    scores_RP[:, len(weight_VC) :] = -torch.inf  # beyond the vocabulary nothing is likely
    valid_R1 = (targets_R != IGNORED)[:, None]
    targets_R1 = targets_R.clamp(min=0)[:, None]
    target_scores_R1, largest_R1 = scores_RP.gather(1, targets_R1), scores_RP.amax(1, keepdim=True)
    if scores_RP.dtype == torch.float32:
        probabilities_RP = torch.softmax(scores_RP, 1, out=scores_RP)
    else:
        probabilities_RP = torch.softmax(scores_RP, 1, dtype=torch.float32)
    # The largest probability, which is never too small for its logarithm, tells the sum that the
    # softmax divided by.
    log_sum_R1 = largest_R1.float() - probabilities_RP.amax(1, keepdim=True).log()
    losses_R = ((log_sum_R1 - target_scores_R1.float()) * valid_R1)[:, 0]
    if not wanted:
        return losses_R, None
    grad_RP = probabilities_RP
    grad_RP.scatter_add_(1, targets_R1, grad_RP.new_full((1, 1), -1.0).expand_as(targets_R1))
    if not valid_R1.all():
        grad_RP.mul_(valid_R1)
    if sigmoid_RP is not None:
        grad_RP = torch.ops.aten.sigmoid_backward(grad_RP, sigmoid_RP)
    if grad_RP.dtype != x_RC.dtype:
        grad_RP = logits_RP.copy_(grad_RP)  # the logits are not needed any more
    return losses_R, grad_RP[:, : len(weight_VC)]


def _add_product(sum_VC: Tensor | None, grad_RV: Tensor, x_RC: Tensor) -> Tensor:
    """Add a chunk's gradient of the weight, in pieces: as one product with so many rows it takes a
    quarter longer.
    """
    if sum_VC is None:
        sum_VC, is_first = x_RC.new_empty(grad_RV.size(1), x_RC.size(1)), True
    else:
        is_first = False
    for start in range(0, len(sum_VC), _PRODUCT_ROWS):
        piece = slice(start, start + _PRODUCT_ROWS)
        if is_first:
            torch.mm(grad_RV[:, piece].t(), x_RC, out=sum_VC[piece])
        else:
            sum_VC[piece].addmm_(grad_RV[:, piece].t(), x_RC)
    return sum_VC


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VC: Tensor, ids_BT: Tensor, tied: TiedGradient) -> Tensor:
        ctx.ids_BT, ctx.tied, ctx.shape = ids_BT, tied, weight_VC.shape
        return F.embedding(ids_BT, weight_VC)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_BTC,) = gradients
        total_VC = ctx.tied.gradient_VC
        ctx.tied.gradient_VC = None
        if total_VC is None:  # the head was not used
            total_VC = grad_BTC.new_zeros(ctx.shape)
        total_VC.index_add_(0, ctx.ids_BT.flatten(), grad_BTC.flatten(0, 1).to(total_VC.dtype))
        return total_VC, None, None
