"""Conversion between hairpin's parameter names and those of transformers, by architecture.

    gpt2      GPT2LMHeadModel (see gpt2_weights)
    modern    NanoChatForCausalLM
    qwen3     Qwen3ForCausalLM

NanoChat and Qwen3 have separate query, key and value where hairpin stacks them in one matrix.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hairpin.errors import RunError
from hairpin.model.shape import Shape
from hairpin.weights import gpt2_weights

HEAD = "lm_head.weight"
_APART = ("q_proj", "k_proj", "v_proj")
_FUSED = "attention.query_key_value.weight"
_TOP = {"token_embedding.weight": "model.embed_tokens.weight", "head.weight": HEAD}
_MODERN = {
    "attention.output.weight": "self_attn.o_proj.weight",
    "mlp.expand.weight": "mlp.fc1.weight",
    "mlp.output.weight": "mlp.fc2.weight",
}
_QWEN3 = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.expand.weight": "mlp.up_proj.weight",
    "mlp.output.weight": "mlp.down_proj.weight",
}


def to_transformers(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return transformers' tensors from hairpin's. A tied head is left out, as transformers does;
    a bias that GPT-2 always has and hairpin's network lacks is zeros.
    """
    if shape.architecture == "gpt2":
        theirs = gpt2_weights.to_gpt2(state, shape.layers)
        head = theirs.pop(HEAD)
        named = {f"transformer.{name}": tensor for name, tensor in theirs.items()}
        return named if shape.tied else named | {HEAD: head}
    converted = {theirs: state[ours] for ours, theirs in _pairs(shape)}
    for ours, apart in _fused(shape):
        converted |= dict(zip(apart, state[ours].chunk(3), strict=True))
    return converted


def from_transformers(plain: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return hairpin's tensors from `plain_names` without a `misfit`. A missing untied head is the
    embedding's; one that should be tied is left out, as transformers does.
    """
    if shape.architecture == "gpt2":
        converted = gpt2_weights.from_gpt2(plain, shape.layers)
    else:
        converted = {ours: plain[theirs] for ours, theirs in _pairs(shape) if theirs in plain}
        for ours, apart in _fused(shape):
            converted[ours] = torch.cat([plain[name] for name in apart])
    if shape.tied:
        converted.pop("head.weight", None)
    else:
        converted.setdefault("head.weight", converted["token_embedding.weight"].clone())
    return converted


def plain_names(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return the weights, without other saved tensors, under the names of a language model: those
    of a saved bare model lack the prefix `model.`.

    Raises:
        RunError: a tensor exists twice, under both names.
    """
    if shape.architecture == "gpt2":
        named = {name: name.removeprefix("transformer.") for name in state}
    else:
        bare = {name for name in state if name.startswith(("embed_tokens.", "layers.", "norm."))}
        named = {name: f"model.{name}" if name in bare else name for name in state}
    for name, ours in named.items():
        if name != ours and ours in state:
            raise RunError(f"{name} and {ours} are the same tensor; save the model again")
    plain = {ours: state[name] for name, ours in named.items()}
    if shape.architecture == "gpt2":
        return gpt2_weights.without_masks_and_heads(plain)
    return {name: t for name, t in plain.items() if not name.endswith("rotary_emb.inv_freq")}


def other_heads(state: Mapping[str, Tensor], shape: Shape) -> list[str]:
    """Return the names of tensors outside the language model, which `plain_names` leaves out."""
    return gpt2_weights.other_heads(state) if shape.architecture == "gpt2" else []


def embedding_name(shape: Shape) -> str:
    """Return the embedding's name among `plain_names`."""
    return "wte.weight" if shape.architecture == "gpt2" else _TOP["token_embedding.weight"]


def misfit(
    plain: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], shape: Shape
) -> str | None:
    """Return the first mismatch of `plain_names` with this shape; None: no mismatch.

    Args:
        plain: transformers' tensors.
        shapes: of hairpin's parameters, by name.
        shape: of the network.
    """
    if shape.architecture == "gpt2":
        return gpt2_weights.misfit(plain, shapes, shape.layers)
    wanted = {theirs: [*shapes[ours]] for ours, theirs in _pairs(shape)}
    if HEAD in plain:
        wanted[HEAD] = [*shapes["token_embedding.weight"]]
    for ours, apart in _fused(shape):
        rows, columns = shapes[ours]
        wanted |= {name: [rows // 3, columns] for name in apart}
    for name, size in wanted.items():
        if name not in plain:
            return f"{name} is missing"
        if [*plain[name].shape] != size:
            return f"{name} is {[*plain[name].shape]}, and config.json makes it {size}"
    strange = [name for name in plain if name not in wanted]
    more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
    return f"{strange[0]}{more}: the network has no such tensor" if strange else None


def _pairs(shape: Shape) -> Iterator[tuple[str, str]]:
    """Yield (our name, transformers') of every unchanged tensor."""
    for ours, theirs in _TOP.items():
        if ours != "head.weight" or not shape.tied:
            yield ours, theirs
    if shape.architecture == "qwen3":
        yield "final_norm.weight", "model.norm.weight"
    names = _QWEN3 if shape.architecture == "qwen3" else _MODERN
    for layer in range(shape.layers):
        for ours, theirs in names.items():
            yield f"blocks.{layer}.{ours}", f"model.layers.{layer}.{theirs}"


def _fused(shape: Shape) -> Iterator[tuple[str, list[str]]]:
    """Yield (our name, transformers' three) of query, key and value."""
    for layer in range(shape.layers):
        theirs = [f"model.layers.{layer}.self_attn.{name}.weight" for name in _APART]
        yield f"blocks.{layer}.{_FUSED}", theirs
