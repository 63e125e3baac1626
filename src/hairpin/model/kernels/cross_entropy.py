"""The head fused with its cross entropy: logits exist for a few rows at a time, or, on a GPU with
enough memory, all at once.

For 4,096 tokens and GPT-2's vocabulary they take 824 MB, three times that with their log-softmax
and gradient. Here the gradient is computed while a chunk of them exists, so that nothing is kept
for the backward pass. Shape suffixes: N positions, C width, V vocabulary, R rows of a chunk, Q rows
of a piece of it, P the vocabulary rounded up.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.data.batches import IGNORED

# Small enough to leave memory for everything else, large enough that the cost of adding up the
# weight's gradient, once a chunk, is negligible.
_CHUNK_BYTES = 128 * 2**20
_ROW_NUMBERS = 64  # tensor cores need rows in multiples of it; GPT-2's 50,257 become 50,304
_PIECE_NUMBERS = 2**19  # per core: 2 MB are processed in its cache
_EXACT_UP_TO = 80.0  # nats; e^-87 is the smallest probability that has all its digits
_PRODUCT_ROWS = 8192
_SLOPE = 4.0  # c·tanh(x / c) has the derivative 4·σ·(1 − σ), σ of 2x / c


@dataclass
class TiedGradient:
    """The head's gradient of a weight that it shares with the embedding, which adds its own rows to
    it; otherwise both would be built and added as full matrices.
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
    """Return the summed cross entropy of `x @ weight.T` in nats, a float32 scalar.

    Args:
        x_NC: the final norm's output.
        weight_VC: the head.
        targets_N: token ids, or `IGNORED`, which adds nothing.
        softcap: c, if logits are c·tanh(logits / c).
        tied: receives the weight's gradient, for `look_up` to pass on.
        chunk_rows: rows of logits at a time; None: chosen automatically. It does not change the
            loss.

    Under autocast products use its dtype; the softmax is always float32.
    """
    rows = chunk_rows or max(64, _CHUNK_BYTES // (4 * weight_VC.size(0)))
    out: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        x_NC, weight_VC, targets_N, softcap, tied, rows
    )
    return out


def full_cross_entropy(
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
    padding = -vocabulary % _ROW_NUMBERS
    logits = F.linear(x_NC, F.pad(weight_VC, (0, 0, 0, padding)) if padding else weight_VC)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.float()
    if padding:
        places = torch.arange(vocabulary + padding, device=logits.device)
        logits = logits.masked_fill(places >= vocabulary, -torch.inf)
    return F.cross_entropy(logits, targets_N, ignore_index=IGNORED, reduction="sum")


def look_up(weight_VC: Tensor, ids_BT: Tensor, tied: TiedGradient) -> Tensor:
    """Return rows of an embedding shared with the head, [B, T, C]; `tied` gets their gradient."""
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
            logits_RP, room_2QP = _room(min(rows, len(x)), weight)
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                losses_N[part], grad_RV = _chunk(
                    x[part], weight, targets_N[part], softcap, logits_RP[: len(x[part])], room_2QP,
                    wanted,
                )  # fmt: skip
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
        ctx.gradients = (None, None)  # freed as soon as they are used
        grad_x = grad_x.to(ctx.dtypes[0]).mul_(scale)
        grad_weight = grad_weight.to(ctx.dtypes[1]).mul_(scale)
        if ctx.tied is not None:
            ctx.tied.gradient_VC = grad_weight
            grad_weight = None
        return grad_x, grad_weight, None, None, None, None


def _room(rows: int, weight_VC: Tensor) -> tuple[Tensor, Tensor]:
    """Return memory for a chunk's logits, [R, P], and twice for a float32 piece, [2, Q, P].

    Rows are aligned: products of rows of an odd length take a third longer.
    """
    padded = -(-len(weight_VC) // _ROW_NUMBERS) * _ROW_NUMBERS
    piece_rows = min(rows, max(1, _PIECE_NUMBERS * torch.get_num_threads() // padded))
    room_2QP = weight_VC.new_empty(2, piece_rows, padded, dtype=torch.float32)
    return weight_VC.new_empty(rows, padded), room_2QP


def _chunk(
    x_RC: Tensor, weight_VC: Tensor, targets_R: Tensor, softcap: float | None,
    logits_RP: Tensor, room_2QP: Tensor, wanted: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return the losses of some rows, and the gradient of their sum by the logits if it is wanted;
    with a softcap, a quarter of it.
    """
    V, Q = len(weight_VC), room_2QP.size(1)
    torch.mm(x_RC, weight_VC.t(), out=logits_RP[:, :V])
    losses_R = x_RC.new_empty(len(x_RC), dtype=torch.float32)
    for start in range(0, len(x_RC), Q):
        part = slice(start, start + Q)
        losses_R[part] = _into_gradient(
            logits_RP[part], targets_R[part], softcap, V, room_2QP, wanted
        )
    large_R = losses_R > _EXACT_UP_TO
    if large_R.any():
        losses_R[large_R] = _large_losses(x_RC[large_R], weight_VC, targets_R[large_R], softcap)
    return losses_R, logits_RP[:, :V] if wanted else None


def _into_gradient(
    logits_QP: Tensor, targets_Q: Tensor, softcap: float | None, vocabulary: int,
    room_2QP: Tensor, wanted: bool,
) -> Tensor:  # fmt: skip
    """Compute the losses of a few rows, small enough for the processor's cache; their gradient
    overwrites the logits.
    """
    sigmoids_QP, scores_QP = room_2QP[:, : len(logits_QP)]
    if softcap is not None:
        # c·tanh(x / c) is 2c·σ(2x / c) − c, and a softmax ignores the − c. PyTorch's σ takes a
        # sixth of the time of its tanh.
        sigmoids_QP.copy_(logits_QP).mul_(2 / softcap).sigmoid_()
        torch.mul(sigmoids_QP, 2 * softcap, out=scores_QP)
    elif logits_QP.dtype == torch.float32:
        scores_QP = logits_QP
    else:
        scores_QP.copy_(logits_QP)
    scores_QP[:, vocabulary:] = -torch.inf  # the padding has no probability
    probabilities_QP = torch.softmax(scores_QP, 1, out=scores_QP)
    valid_Q1, targets_Q1 = (targets_Q != IGNORED)[:, None], targets_Q.clamp(min=0)[:, None]
    losses_Q = (-probabilities_QP.gather(1, targets_Q1).log()).where(valid_Q1, 0.0)[:, 0]
    if not wanted:
        return losses_Q
    grad_QP = probabilities_QP
    grad_QP.scatter_add_(1, targets_Q1, grad_QP.new_full((1, 1), -1.0).expand_as(targets_Q1))
    if not valid_Q1.all():
        grad_QP.masked_fill_(~valid_Q1, 0.0)
    if softcap is not None:
        torch.ops.aten.sigmoid_backward.grad_input(grad_QP, sigmoids_QP, grad_input=grad_QP)
    # Products on AMX read rows up to a multiple of 32 columns (uxlfoundation/oneDNN#5717), where
    # passes over whole rows may have turned freed memory into NaN: 0 · NaN is NaN.
    grad_QP[:, vocabulary:] = 0
    if grad_QP is not logits_QP:
        logits_QP.copy_(grad_QP)
    return losses_Q


def _large_losses(
    x_QC: Tensor, weight_VC: Tensor, targets_Q: Tensor, softcap: float | None
) -> Tensor:
    """Return losses whose probability is too small for a float32; every row counts."""
    logits_QV = F.linear(x_QC, weight_VC).float()
    if softcap is not None:
        logits_QV = softcap * torch.tanh(logits_QV / softcap)
    return F.cross_entropy(logits_QV, targets_Q, reduction="none")


def _add_product(sum_VC: Tensor | None, grad_RV: Tensor, x_RC: Tensor) -> Tensor:
    """Add a chunk's gradient of the weight, in pieces: a single product with that many rows takes a
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
