"""The config.json that transformers keeps with a model's weights: read and written.

Its entries are in the traits of each architecture. On reading, a setting that hairpin's network
does not support is refused, never ignored: the weights would load and compute something else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hairpin.errors import RunError
from hairpin.model.architectures import ARCHITECTURES, Derived, Fixed, Size, Traits, Written
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


def config_json(shape: Shape) -> dict[str, Any]:
    """Return the contents of config.json for a network; its dropout does not affect inference."""
    theirs = shape.traits.transformers
    return {
        "architectures": [theirs.class_name],
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "dtype": "float32",
        "use_cache": True,
        "initializer_range": 0.02,
        **{
            key: _written(entry, shape)
            for key, entry in theirs.config.items()
            if not (isinstance(entry, Fixed) and not entry.written)
        },
    }


def _written(entry: Size | Derived | Fixed | Written, shape: Shape) -> Any:
    match entry:
        case Size(name):
            return getattr(shape, name)
        case Derived(name, implied):
            return None if implied else getattr(shape, name)
        case Fixed(value):
            return value
        case Written(value):
            return value(shape) if callable(value) else value


def read_shape(file: Path) -> tuple[Shape, str]:
    """Return the shape that a config.json describes, with an id for each row, and the name of the
    kind of network.

    Raises:
        RunError: it is damaged, or not a supported network; each such setting has its line.
    """
    config = json_object(file)
    kinds = {traits.transformers.model_type: name for name, traits in ARCHITECTURES.items()}
    architecture = kinds.get(str(config.get("model_type")))
    if architecture is None:
        found = json.dumps(config.get("model_type"))
        known = ", ".join(f'"{kind}"' for kind in kinds)
        raise RunError(f"{file}: model_type is {found}, and hairpin's networks are {known}")
    problems = [f"{file}: {problem}" for problem in _config_problems(config, architecture)]
    if problems:
        raise RunError(problems)
    return _shape(config, architecture), ARCHITECTURES[architecture].transformers.name


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


def _keys(traits: Traits) -> dict[str, str]:
    """Return the keys of the sizes, by `Shape`'s names."""
    entries = traits.transformers.config.items()
    keys = {entry.name: key for key, entry in entries if isinstance(entry, Size)}
    return keys | {"vocabulary": "vocab_size"}


def _shape(config: dict[str, Any], architecture: str) -> Shape:
    traits = ARCHITECTURES[architecture]
    sizes: dict[str, Any] = {name: config.get(key) for name, key in _keys(traits).items()}
    tied = bool(config.get("tie_word_embeddings", traits.tied))
    return Shape.default(architecture, **sizes, tied=tied)


def _config_problems(config: dict[str, Any], architecture: str) -> Iterator[str]:
    """Yield a line for each setting that hairpin's network does not support."""
    traits = ARCHITECTURES[architecture]
    good, keys = set(), _keys(traits)
    for name, (least, most) in _SIZES.items():
        key = keys[name]
        size = config.get(key)
        if type(size) is int and least <= size <= most:
            good.add(name)
        else:
            yield f"{key} is {json.dumps(size)}, but should be a number from {least} to {most}"
    if {"width", "heads"} <= good:
        yield from _size_problems(config, _shape(config, architecture))
    both = "tied" in traits.options
    settings = {
        **traits.transformers.config,
        "tie_word_embeddings": Fixed(traits.tied, same=(not traits.tied,) if both else ()),
        "quantization_config": Fixed(None),
    }
    for key, entry in settings.items():
        if isinstance(entry, Fixed):
            values = (entry.value, *entry.same)
            if config.get(key, entry.value) not in values:
                allowed = " or ".join(json.dumps(value) for value in values)
                yield f"{key} is {json.dumps(config[key])}, but hairpin supports only {allowed}"
    if traits.rotary:
        yield from _rotary_problems(config, traits.rotary.base)


def _size_problems(config: dict[str, Any], shape: Shape) -> Iterator[str]:
    """Yield sizes that do not fit each other or hairpin's network."""
    keys = _keys(shape.traits)
    width, heads = keys["width"], keys["heads"]
    if shape.width % shape.heads:
        yield f"{width} is {shape.width}, not a multiple of {heads}, {shape.heads}"
        return
    if shape.traits.rotary and shape.head_width % 2:
        yield f"{width} / {heads} is {shape.head_width}, which is not even"
    for key, entry in shape.traits.transformers.config.items():
        if isinstance(entry, Derived):
            value, found = getattr(shape, entry.name), config.get(key)
            if found != value and not (entry.implied and found is None):
                yield f"{key} is {json.dumps(found)}, but hairpin supports only {value}"


def _rotary_problems(config: dict[str, Any], expected: float) -> Iterator[str]:
    asked = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(asked, dict):
        yield f"rope_parameters is {json.dumps(asked)}, but should be an object"
        return
    base = asked.get("rope_theta", config.get("rope_theta", expected))
    if base != expected:
        yield f"rope_theta is {json.dumps(base)}, but hairpin supports only {expected}"
    kind = asked.get("rope_type", asked.get("type", "default"))
    if kind != "default":
        yield f'rope_type is {json.dumps(kind)}, but hairpin supports only "default"'
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        yield f'layer_types is {json.dumps(layers)}, but hairpin supports only "full_attention"'
