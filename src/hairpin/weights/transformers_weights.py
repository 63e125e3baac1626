"""Conversion between hairpin's tensors and those of transformers, by the names in an architecture's
traits.

Names are compared without the prefix that depends on the class that saved them ("model." or
"transformer."). A language model's head has none.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hairpin.errors import RunError
from hairpin.model.shape import Shape

HEAD = "lm_head.weight"


def to_transformers(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return transformers' tensors from hairpin's. A tied head is left out, as transformers does;
    a bias that others of this architecture have and the network lacks is zeros.
    """
    prefix = shape.traits.transformers.prefix
    plain = to_plain(state, shape)
    return {name if name == HEAD else prefix + name: tensor for name, tensor in plain.items()}


def to_plain(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return `to_transformers` by names without the prefix."""
    converted: dict[str, Tensor] = {}
    for ours, theirs, transposed in _pairs(shape):
        tensor = state.get(ours)
        if tensor is None:  # a bias
            weight = state[ours.removesuffix("bias") + "weight"]
            tensor = weight.new_zeros(weight.size(0))
        tensor = tensor.t().contiguous() if transposed else tensor
        converted |= dict(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    return converted if shape.tied else converted | {HEAD: state["head.weight"]}


def from_transformers(plain: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return hairpin's tensors from `plain_names` without a `misfit`. A missing untied head is the
    embedding's; one that should be tied is left out, as transformers does.
    """
    converted = {}
    for ours, theirs, transposed in _pairs(shape):
        tensor = torch.cat([plain[name] for name in theirs]) if theirs[1:] else plain[theirs[0]]
        converted[ours] = tensor.t().contiguous() if transposed else tensor
    if not shape.tied:
        embedding = converted["token_embedding.weight"]
        converted["head.weight"] = plain[HEAD] if HEAD in plain else embedding.clone()
    return converted


def plain_names(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Return the weights of a language model by names without a prefix; other saved tensors are
    left out.

    Raises:
        RunError: a tensor exists twice, with and without the prefix.
    """
    theirs = shape.traits.transformers
    for name in state:
        if (plain := name.removeprefix(theirs.prefix)) != name and plain in state:
            raise RunError(f"{name} and {plain} are the same tensor; save the model again")
    named = {name.removeprefix(theirs.prefix): tensor for name, tensor in state.items()}
    left_out = re.compile(theirs.left_out)
    return {
        name: tensor
        for name, tensor in named.items()
        if not left_out.fullmatch(name) and not name.startswith(theirs.other_heads)
    }


def other_heads(state: Mapping[str, Tensor], shape: Shape) -> list[str]:
    """Return the names of tensors outside the language model, which `plain_names` leaves out."""
    return [name for name in state if name.startswith(shape.traits.transformers.other_heads)]


def embedding_name(shape: Shape) -> str:
    """Return the embedding's name among `plain_names`."""
    return f"{shape.traits.transformers.top['token_embedding']}.weight"


def misfit(
    plain: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], shape: Shape
) -> str | None:
    """Return the first mismatch of `plain_names` with this shape; None: no mismatch.

    Args:
        plain: transformers' tensors.
        shapes: of hairpin's parameters, by name.
        shape: of the network.
    """
    wanted: dict[str, list[int]] = {}
    for ours, theirs, transposed in _pairs(shape):
        size = [*shapes[ours]][:: -1 if transposed else 1]
        size[0] //= len(theirs)
        wanted |= dict.fromkeys(theirs, size)
    if HEAD in plain or not shape.tied:
        wanted[HEAD] = [*shapes["token_embedding.weight"]]
    for name, size in wanted.items():
        if name not in plain:
            return f"{name} is missing"
        if [*plain[name].shape] != size:
            return f"{name} is {[*plain[name].shape]}, but config.json implies {size}"
    strange = [name for name in plain if name not in wanted]
    more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
    kind = shape.traits.transformers.name
    return f"{strange[0]}{more}: {kind} has no such tensor" if strange else None


def _pairs(shape: Shape) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield (our name, transformers' one or three, True if theirs is transposed) of every tensor of
    the architecture except the head.
    """
    theirs = shape.traits.transformers
    named: dict[str, tuple[str, ...]] = {ours: (name,) for ours, name in theirs.top.items()}
    for layer in range(shape.layers):
        for ours, name in theirs.block.items():
            apart = (name,) if isinstance(name, str) else name
            start = f"{theirs.blocks}.{layer}."
            named[f"blocks.{layer}.{ours}"] = tuple(start + part for part in apart)
    for ours, names in named.items():
        is_linear = not ours.endswith(("norm", "embedding"))
        yield f"{ours}.weight", tuple(f"{n}.weight" for n in names), theirs.transposed and is_linear
        if "bias" in shape.traits.options and not ours.endswith("embedding"):
            yield f"{ours}.bias", tuple(f"{n}.bias" for n in names), False
