"""Conversion between hairpin's parameter names and those of the book's GPTModel.

The book has separate query, key and value where hairpin has one matrix, and never ties its head to
the embedding. Published weights of the book's model load this way.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hairpin.errors import RunError

_TOP = {"token_embedding.weight": "tok_emb.weight", "position_embedding.weight": "pos_emb.weight"}
_NORMS = {"attention_norm": "norm1", "mlp_norm": "norm2"}
_LINEARS = {
    "attention.output": "att.out_proj",
    "mlp.expand": "ff.layers.0",
    "mlp.output": "ff.layers.2",
}
_FUSED = "attention.query_key_value"
_APART = ("att.W_query", "att.W_key", "att.W_value")


def to_book(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the state of the book's GPTModel from hairpin's.

    The book's norms and most of its linear layers always have a bias: zeros where hairpin's have
    none. Query, key and value have one where hairpin's do (`qkv_bias` in the book's settings).
    """
    converted = {}
    for ours, theirs in _pairs(layers):
        if ours not in state and ours.endswith("bias"):
            weight = state[ours.removesuffix("bias") + "weight"]
            converted[theirs] = weight.new_zeros(weight.size(0))
        else:
            converted[theirs] = state[ours].clone()
    context = state["position_embedding.weight"].size(0)
    for layer in range(layers):
        for part in ("weight", "bias"):
            if (fused := state.get(f"blocks.{layer}.{_FUSED}.{part}")) is not None:
                for name, third in zip(_APART, fused.chunk(3), strict=True):
                    converted[f"trf_blocks.{layer}.{name}.{part}"] = third.clone()
        future = torch.ones(context, context).triu(diagonal=1)
        converted[f"trf_blocks.{layer}.att.mask"] = future
    converted["out_head.weight"] = state.get("head.weight", state["token_embedding.weight"]).clone()
    return converted


def from_book(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return hairpin's tensors from those of the book's GPTModel; the head is included only where
    it is not a copy of the token embedding.

    Raises:
        RunError: a tensor is missing.
    """
    names = [theirs for _, theirs in _pairs(layers)] + ["out_head.weight"]
    names += [f"trf_blocks.{n}.{name}.weight" for n in range(layers) for name in _APART]
    missing = [name for name in names if name not in state]
    if missing:
        raise RunError(f"not a GPTModel of the book of {layers} layers: {missing[0]} is missing")
    converted = {ours: state[theirs].clone() for ours, theirs in _pairs(layers)}
    for layer in range(layers):
        for part in ("weight", "bias"):
            thirds = [state.get(f"trf_blocks.{layer}.{name}.{part}") for name in _APART]
            present = [third for third in thirds if third is not None]
            if len(present) == len(thirds):
                converted[f"blocks.{layer}.{_FUSED}.{part}"] = torch.cat(present)
    if not torch.equal(state["out_head.weight"], state["tok_emb.weight"]):
        converted["head.weight"] = state["out_head.weight"].clone()
    return converted


def _pairs(layers: int) -> Iterator[tuple[str, str]]:
    """Yield (our name, the book's) of every unchanged tensor except the head."""
    norms = {"final_norm": "final_norm"}
    linears: dict[str, str] = {}
    for layer in range(layers):
        ours, theirs = f"blocks.{layer}.", f"trf_blocks.{layer}."
        norms |= {ours + name: theirs + other for name, other in _NORMS.items()}
        linears |= {ours + name: theirs + other for name, other in _LINEARS.items()}
    yield from _TOP.items()
    for ours, theirs in norms.items():
        yield f"{ours}.weight", f"{theirs}.scale"
        yield f"{ours}.bias", f"{theirs}.shift"
    for ours, theirs in linears.items():
        yield f"{ours}.weight", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"
