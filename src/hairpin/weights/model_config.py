"""The shape of a network from the config.json that transformers keeps with its weights.

A setting that hairpin's network does not support is refused, never ignored: the weights would load
and compute something else.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.errors import RunError
from hairpin.model.shape import Shape
from hairpin.system.access import reading

# The sizes that settings can have; see config/model.py.
_SIZES = {
    "layers": (1, 512),
    "heads": (1, 512),
    "width": (1, 65_536),
    "context": (2, 1_048_576),
    "vocabulary": (2, 1 << 31),
}
_ROTARY_BASE = 10_000.0
Computed = Mapping[str, Sequence[Any]]  # key -> values; the first is the default


@dataclass(frozen=True)
class _Family:
    """A kind of network as config.json describes it.

    Args:
        name: for display.
        sizes: ours -> its key.
        computed: the values with which hairpin's network agrees.
        inner: its key of the MLP's inner width.
        same: keys whose value follows from the shape -> that value.
        rotary: True if it has rotary positions.
    """

    name: str
    sizes: Mapping[str, str]
    computed: Computed
    inner: str
    same: Mapping[str, str] = field(default_factory=dict)
    rotary: bool = False


_LLAMA_SIZES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
_FAMILIES = {
    "gpt2": _Family(
        "GPT-2",
        {
            "layers": "n_layer",
            "heads": "n_head",
            "width": "n_embd",
            "context": "n_positions",
            "vocabulary": "vocab_size",
        },
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "layer_norm_epsilon": (1e-5,),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True, False),
            "pruned_heads": ({}, None),
            "quantization_config": (None,),
        },
        "n_inner",
    ),
    "nanochat": _Family(
        "NanoChat",
        _LLAMA_SIZES,
        {
            "hidden_act": ("relu2",),
            "rms_norm_eps": (1e-6,),
            "attention_bias": (False,),
            "final_logit_softcapping": (15.0,),
            "tie_word_embeddings": (False,),
            "quantization_config": (None,),
        },
        "intermediate_size",
        {"num_key_value_heads": "heads"},
        rotary=True,
    ),
    "qwen3": _Family(
        "Qwen3",
        _LLAMA_SIZES,
        {
            "hidden_act": ("silu",),
            "rms_norm_eps": (1e-6,),
            "attention_bias": (False,),
            "use_sliding_window": (False,),
            "tie_word_embeddings": (False, True),
            "quantization_config": (None,),
        },
        "intermediate_size",
        {"num_key_value_heads": "heads", "head_dim": "head width"},
        rotary=True,
    ),
}
_ARCHITECTURES = {"gpt2": "gpt2", "nanochat": "modern", "qwen3": "qwen3"}


def read_shape(file: Path) -> tuple[Shape, str]:
    """Return the shape that a config.json describes, with an id for each row, and the name of the
    kind of network.

    Raises:
        RunError: it is damaged, or not a supported network; each such setting has its line.
    """
    config = json_object(file)
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        found = json.dumps(config.get("model_type"))
        known = ", ".join(f'"{name}"' for name in _FAMILIES)
        raise RunError(f"{file}: model_type is {found}, and hairpin's networks are {known}")
    problems = [f"{file}: {problem}" for problem in _objections(config, family)]
    if problems:
        raise RunError(problems)
    return _shape(config, family), family.name


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        RunError: it cannot be read, or has no object.
    """
    try:
        with reading(path):
            value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}; get the file again") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds no JSON object; get the file again")
    return value


def _shape(config: dict[str, Any], family: _Family) -> Shape:
    sizes: dict[str, Any] = {name: config.get(key) for name, key in family.sizes.items()}
    tied = bool(config.get("tie_word_embeddings", family.computed["tie_word_embeddings"][0]))
    if family.name == "GPT-2":
        return Shape(**sizes, tied=tied)
    return Shape.qwen3(**sizes, tied=tied) if family.name == "Qwen3" else Shape.modern(**sizes)


def _objections(config: dict[str, Any], family: _Family) -> Iterator[str]:
    """Yield a line for each setting that hairpin's network does not support."""
    good = set()
    for name, (least, most) in _SIZES.items():
        key = family.sizes[name]
        size = config.get(key)
        if type(size) is int and least <= size <= most:
            good.add(name)
        else:
            yield f"{key} is {json.dumps(size)}, and should be a number from {least} to {most}"
    if {"width", "heads"} <= good:
        yield from _misfits(config, family)
    for key, values in family.computed.items():
        if config.get(key, values[0]) not in values:
            allowed = " or ".join(json.dumps(value) for value in values)
            yield f"{key} is {json.dumps(config[key])}, and hairpin computes with {allowed}"
    if family.rotary:
        yield from _rotary_objections(config)


def _misfits(config: dict[str, Any], family: _Family) -> Iterator[str]:
    """Yield sizes that do not fit each other or hairpin's network."""
    shape = _shape(config, family)
    width, heads = family.sizes["width"], family.sizes["heads"]
    if shape.width % shape.heads:
        yield f"{width} is {shape.width}, and no multiple of {heads}, {shape.heads}"
        return
    if family.rotary and shape.width // shape.heads % 2:
        yield f"{width} / {heads} is {shape.width // shape.heads}, which is not even"
    inner = config.get(family.inner)
    if inner != shape.inner and (inner is not None or family.name != "GPT-2"):
        yield f"{family.inner} is {json.dumps(inner)}, and hairpin's MLP has {shape.inner}"
    fixed = {"heads": shape.heads, "head width": shape.width // shape.heads}
    for key, what in family.same.items():
        if config.get(key) != fixed[what]:
            found = json.dumps(config.get(key))
            yield f"{key} is {found}, and hairpin computes with {fixed[what]}"


def _rotary_objections(config: dict[str, Any]) -> Iterator[str]:
    asked = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(asked, dict):
        yield f"rope_parameters is {json.dumps(asked)}, and should be an object"
        return
    base = asked.get("rope_theta", config.get("rope_theta", _ROTARY_BASE))
    if base != _ROTARY_BASE:
        yield f"rope_theta is {json.dumps(base)}, and hairpin computes with {_ROTARY_BASE}"
    kind = asked.get("rope_type", asked.get("type", "default"))
    if kind != "default":
        yield f'rope_type is {json.dumps(kind)}, and hairpin computes with "default"'
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        yield f'layer_types is {json.dumps(layers)}, and hairpin computes with "full_attention"'
