"""Conversion between hairpin's parameter names and those of published GPT-2 checkpoints.

GPT-2 stores its linear layers as [in, out], the transpose of PyTorch's own; names are those of
transformers (the prefix `transformer.` is optional).
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from hairpin.errors import RunError

_TOP = {
    "token_embedding.weight": "wte.weight",
    "position_embedding.weight": "wpe.weight",
    "final_norm.weight": "ln_f.weight",
    "final_norm.bias": "ln_f.bias",
}
_NORMS = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
_LINEARS = {
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "mlp.expand": "mlp.c_fc",
    "mlp.output": "mlp.c_proj",
}
# Causal masks, which older versions of transformers saved with the weights.
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
# Heads of transformers' GPT-2 models other than the language model's.
_OTHER_HEADS = ("score.", "classifier.", "multiple_choice_head.")


def to_gpt2(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return GPT-2's tensors from hairpin's; a missing bias becomes zeros, as GPT-2 needs one."""
    converted = {}
    for ours, theirs, transposed in _pairs(layers):
        if ours not in state and ours.endswith("bias"):
            weight = state[ours.removesuffix("bias") + "weight"]
            converted[theirs] = weight.new_zeros(weight.size(0))
        else:
            tensor = state[ours]
            converted[theirs] = tensor.t().contiguous() if transposed else tensor.clone()
    head = state.get("head.weight", state["token_embedding.weight"])
    converted["lm_head.weight"] = head.clone()
    return converted


def from_gpt2(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return hairpin's tensors from GPT-2's; the head is included only where it is not tied.

    Raises:
        RunError: a tensor is missing.
    """
    plain = plain_names(state)
    missing = [theirs for _, theirs, _ in _pairs(layers) if theirs not in plain]
    if missing:
        raise RunError(f"not a GPT-2 checkpoint of {layers} layers: {missing[0]} is missing")
    converted = {
        ours: plain[theirs].t().contiguous() if transposed else plain[theirs].clone()
        for ours, theirs, transposed in _pairs(layers)
    }
    head = plain.get("lm_head.weight")
    if head is not None and not torch.equal(head, plain["wte.weight"]):
        converted["head.weight"] = head.clone()
    return converted


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return GPT-2's tensors without the prefix `transformer.`, masks and other heads."""
    plain = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    return without_masks_and_heads(plain)


def without_masks_and_heads(plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the language model's tensors, of those without the prefix `transformer.`."""
    return {
        name: tensor
        for name, tensor in plain.items()
        if not _MASK.fullmatch(name) and not name.startswith(_OTHER_HEADS)
    }


def other_heads(state: Iterable[str]) -> list[str]:
    """Return the names of tensors of heads other than the language model's."""
    return [name for name in state if name.startswith(_OTHER_HEADS)]


def misfit(
    plain: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], layers: int
) -> str | None:
    """Return the first mismatch of `plain_names` with a GPT-2 of these shapes; None: no mismatch.

    Args:
        plain: GPT-2's tensors.
        shapes: of hairpin's parameters, by name.
        layers: number of blocks.
    """
    wanted = {theirs: (shapes[ours], flip) for ours, theirs, flip in _pairs(layers)}
    if "lm_head.weight" in plain or "head.weight" in shapes:
        wanted["lm_head.weight"] = (shapes["token_embedding.weight"], False)
    for name, (shape, transposed) in wanted.items():
        if name not in plain:
            return f"{name} is missing"
        expected, found = [*shape][:: -1 if transposed else 1], [*plain[name].shape]
        if found != expected:
            return f"{name} is {found}, and config.json makes it {expected}"
    strange = [name for name in plain if name not in wanted]
    more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
    return f"{strange[0]}{more}: GPT-2 has no such tensor" if strange else None


def _pairs(layers: int) -> Iterator[tuple[str, str, bool]]:
    """Yield (our name, GPT-2's name, True if transposed) of every tensor except the head."""
    for ours, theirs in _TOP.items():
        yield ours, theirs, False
    for layer in range(layers):
        for part in ("weight", "bias"):
            for ours, theirs in _NORMS.items():
                yield f"blocks.{layer}.{ours}.{part}", f"h.{layer}.{theirs}.{part}", False
            for ours, theirs in _LINEARS.items():
                transposed = part == "weight"
                yield f"blocks.{layer}.{ours}.{part}", f"h.{layer}.{theirs}.{part}", transposed
