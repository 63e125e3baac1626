"""The networks and two optimizers again, in the plainest operations and in float64.

Reads an architecture's traits and uses no code of `model/` and `optim/`, so it does not share an
error there or in the device being checked. It is slow, and meant only for the small sizes of an
examination.

Shape suffixes: B sequences, T positions, C width, H heads, D width of a head, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hairpin.data.batches import IGNORED
from hairpin.model.architectures import RotaryTraits, Traits
from hairpin.model.shape import Shape

_MUON = (3.4445, -4.7750, 2.0315)  # from Jordan et al. 2024

Weights = Mapping[str, Tensor]


def plain_loss(shape: Shape, weights: Weights, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean cross entropy in nats over the targets that are not `IGNORED`."""
    logits_BTV = plain_logits(shape, weights, inputs_BT)
    counted = targets_BT != IGNORED
    log_sums = torch.logsumexp(logits_BTV, -1)
    scores = logits_BTV.gather(-1, targets_BT.clamp(min=0)[..., None])[..., 0]
    return ((log_sums - scores) * counted).sum() / counted.sum()


def plain_logits(shape: Shape, weights: Weights, inputs_BT: Tensor) -> Tensor:
    """Return the scores of the next token at every position, [B, T, V], in the weights' dtype."""
    traits, embedding_VC = shape.traits, weights["token_embedding.weight"]
    x_BTC = embedding_VC[inputs_BT]
    if traits.positions == "learned":
        x_BTC = x_BTC + weights["position_embedding.weight"][: inputs_BT.size(1)]
    if traits.norms_embedding:
        x_BTC = _unit(traits, x_BTC)
    for layer in range(shape.layers):
        at = f"blocks.{layer}."
        normed_BTC = _norm(traits, weights, f"{at}attention_norm", x_BTC)
        x_BTC = x_BTC + _attend(shape, weights, at, normed_BTC)
        normed_BTC = _norm(traits, weights, f"{at}mlp_norm", x_BTC)
        x_BTC = x_BTC + _mlp(traits, weights, at, normed_BTC)
    x_BTC = _norm(traits, weights, "final_norm", x_BTC)
    logits_BTV = x_BTC @ weights.get("head.weight", embedding_VC).T
    if traits.softcap is not None:
        logits_BTV = traits.softcap * torch.tanh(logits_BTV / traits.softcap)
    return logits_BTV


def plain_adamw(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], update: int
) -> Tensor:
    """Return a weight after one update by AdamW (Loshchilov and Hutter 2019).

    Args:
        weight, gradient: float64.
        state: the optimizer state, updated in place.
        group: lr, betas, eps and weight_decay.
        update: its number from 1.
    """
    beta1, beta2 = group["betas"]
    mean = beta1 * state.get("mean", torch.zeros_like(weight)) + (1 - beta1) * gradient
    square = beta2 * state.get("square", torch.zeros_like(weight)) + (1 - beta2) * gradient**2
    state["mean"], state["square"] = mean, square
    root = (square / (1 - beta2**update)).sqrt() + group["eps"]
    decayed = weight * (1 - group["lr"] * group["weight_decay"])
    out: Tensor = decayed - group["lr"] * mean / (1 - beta1**update) / root
    return out


def plain_muon(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
) -> Tensor:
    """Return a matrix after one update by Muon (Jordan et al. 2024), each of its `pieces`
    separately.

    Args:
        weight, gradient: float64 [rows, columns].
        state: the optimizer state, updated in place.
        group: lr, momentum, weight_decay and pieces.
    """
    decay = group["momentum"]
    momentum = decay * state.get("momentum", torch.zeros_like(weight)) + (1 - decay) * gradient
    state["momentum"] = momentum
    ways = ((1 - decay) * gradient + decay * momentum).chunk(group["pieces"])
    rows, columns = ways[0].shape
    step = torch.cat([_orthogonal(way) for way in ways])
    scale = math.sqrt(max(1.0, rows / columns))
    out: Tensor = weight * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * scale * step
    return out


def _orthogonal(matrix: Tensor) -> Tensor:
    a, b, c = _MUON
    x: Tensor = matrix / torch.linalg.vector_norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def _attend(shape: Shape, weights: Weights, at: str, x_BTC: Tensor) -> Tensor:
    B, T, C = x_BTC.shape
    qkv = _linear(weights, f"{at}attention.query_key_value", x_BTC)
    q, k, v = qkv.view(B, T, 3, shape.heads, C // shape.heads).permute(2, 0, 3, 1, 4)
    q = _place(shape.traits, weights, f"{at}attention.query_norm", q)
    k = _place(shape.traits, weights, f"{at}attention.key_norm", k)
    scores = q @ k.mT / math.sqrt(C // shape.heads)
    later = torch.ones(T, T, dtype=torch.bool, device=x_BTC.device).triu(1)
    shares = torch.softmax(scores.masked_fill(later, -math.inf), -1)
    y_BTC = (shares @ v).transpose(1, 2).reshape(B, T, C)
    return _linear(weights, f"{at}attention.output", y_BTC)


def _place(traits: Traits, weights: Weights, norm: str, x_BHTD: Tensor) -> Tensor:
    """Normalise and rotate queries or keys, in the order of the architecture."""
    if traits.norms_heads == "before rotation":
        x_BHTD = _norm(traits, weights, norm, x_BHTD)
    if traits.rotary:
        x_BHTD = _turned(traits.rotary, x_BHTD)
    if traits.norms_heads == "after rotation":
        x_BHTD = _norm(traits, weights, norm, x_BHTD)
    return x_BHTD


def _mlp(traits: Traits, weights: Weights, at: str, x_BTC: Tensor) -> Tensor:
    inner = _linear(weights, f"{at}mlp.expand", x_BTC)
    if traits.mlp == "squared relu":
        inner = inner.clamp(min=0) ** 2
    elif traits.mlp == "swiglu":
        gate = _linear(weights, f"{at}mlp.gate", x_BTC)
        inner = gate / (1 + torch.exp(-gate)) * inner
    else:
        inside = math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)
        inner = inner * (1 + torch.tanh(inside)) / 2
    return _linear(weights, f"{at}mlp.output", inner)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _norm(traits: Traits, weights: Weights, name: str, x: Tensor) -> Tensor:
    if traits.norm == "rms":
        return _unit(traits, x)
    weight_C = weights[f"{name}.weight"]
    if traits.norm == "weighted rms":
        return _unit(traits, x) * weight_C
    y = _unit(traits, x - x.mean(-1, keepdim=True)) * weight_C
    return y + weights[f"{name}.bias"]


def _unit(traits: Traits, x: Tensor) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True) + traits.epsilon).sqrt()


def _turned(rotary: RotaryTraits, x_BHTD: Tensor) -> Tensor:
    """Rotate the halves of heads by ± position / base^(2i / D) (Su et al. 2021)."""
    T, D = x_BHTD.shape[-2:]
    places = torch.arange(T, dtype=x_BHTD.dtype, device=x_BHTD.device)
    rates = rotary.base ** -(torch.arange(0, D, 2, dtype=x_BHTD.dtype) / D)
    angles = rotary.direction * torch.outer(places, rates.to(x_BHTD.device))
    first, second = x_BHTD.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)
