"""A GPT-2 checkpoint as transformers writes it: config.json, safetensors, a tokenizer's files.

A setting that hairpin's network does not compute with is refused, never passed over: the weights
would load, and mean something else.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hairpin.data.gpt2_files import read_tokenizer
from hairpin.data.tokenizers import Gpt2Tokenizer, Tokenizer
from hairpin.errors import RunError
from hairpin.model.gpt import GPT
from hairpin.model.gpt2_weights import from_gpt2, misfit, plain_names
from hairpin.model.shape import Shape

_GPT2_IDS = 50_257
# The sizes that settings can have; see config/settings.py.
_SIZES = {
    "n_layer": (1, 512),
    "n_head": (1, 512),
    "n_embd": (1, 65_536),
    "n_positions": (2, 1_048_576),
    "vocab_size": (2, 1 << 31),
}
# Key -> the values under which GPT-2 is what hairpin computes; the first is meant by no value.
_COMPUTATION: dict[str, Sequence[Any]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True, False),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_gpt2(folder: Path) -> tuple[Shape, Tokenizer, dict[str, Tensor]]:
    """The shape, the tokenizer and hairpin's tensors, float32, of a GPT-2 checkpoint.

    The embedding has a row for each id of the tokenizer; rows behind those are left out.

    Raises:
        RunError: something is missing, damaged or not GPT-2's; every such setting has its line.
    """
    shape = _shape(folder / "config.json")
    tokenizer = _tokenizer(folder, shape.vocabulary)
    shape_in_file, shape = shape, replace(shape, vocabulary=tokenizer.vocabulary)
    file, state = _state(folder)
    plain = plain_names(state)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT(shape_in_file).named_parameters()}
    problem = misfit(plain, shapes, shape.layers) or _not_numbers(plain)
    if problem:
        raise RunError(f"{file}: {problem}")
    tensors = from_gpt2({name: t.float() for name, t in plain.items()}, shape.layers)
    if shape.tied:
        tensors.pop("head.weight", None)  # as transformers has it: the setting decides
    else:
        tensors.setdefault("head.weight", tensors["token_embedding.weight"].clone())
    for name in {"token_embedding.weight", "head.weight"} & tensors.keys():
        tensors[name] = tensors[name][: shape.vocabulary].clone()
    return shape, tokenizer, tensors


def _not_numbers(state: dict[str, Tensor]) -> str | None:
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"{name} is {kind}; save the weights as float32, float16 or bfloat16"
    return None


def _shape(file: Path) -> Shape:
    config = _json_object(file)
    if config.get("model_type") != "gpt2":
        found = json.dumps(config.get("model_type"))
        raise RunError(f'{file}: model_type is {found}, and hairpin\'s network is "gpt2"')
    problems = [f"{file}: {problem}" for problem in _objections(config)]
    if problems:
        raise RunError(problems)
    return Shape(
        vocabulary=config["vocab_size"],
        context=config["n_positions"],
        layers=config["n_layer"],
        heads=config["n_head"],
        width=config["n_embd"],
        tied=config.get("tie_word_embeddings", True),
    )


def _objections(config: dict[str, Any]) -> Iterator[str]:
    """What keeps the network from being hairpin's, a line each."""
    good = set()
    for key, (least, most) in _SIZES.items():
        size = config.get(key)
        if type(size) is int and least <= size <= most:
            good.add(key)
        else:
            yield f"{key} is {json.dumps(size)}, and should be a number from {least} to {most}"
    if {"n_embd", "n_head"} <= good and config["n_embd"] % config["n_head"]:
        yield f"n_embd is {config['n_embd']}, and no multiple of n_head, {config['n_head']}"
    inner = config.get("n_inner")
    if inner is not None and "n_embd" in good and inner != 4 * config["n_embd"]:
        yield f"n_inner is {json.dumps(inner)}, and hairpin's MLP has {4 * config['n_embd']}"
    for key, values in _COMPUTATION.items():
        if config.get(key, values[0]) not in values:
            allowed = " or ".join(json.dumps(value) for value in values)
            yield f"{key} is {json.dumps(config[key])}, and hairpin computes with {allowed}"


def _tokenizer(folder: Path, rows: int) -> Tokenizer:
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        if rows != _GPT2_IDS:
            raise RunError(
                f"{folder}: no tokenizer in it, and {rows:,} ids are not GPT-2's; put "
                "tokenizer.json there, or vocab.json and merges.txt"
            )
        tokenizer = Gpt2Tokenizer.fetch()
    if tokenizer.vocabulary > rows:
        raise RunError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary:,} ids, and its config.json has a "
            f"vocab_size of {rows:,}; put the tokenizer there that belongs to the weights"
        )
    return tokenizer


def _state(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file that names the weights, and all of them under GPT-2's names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return whole, _load(whole)
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        if pickles:
            raise RunError(
                f"{folder}: its weights are a pickle ({pickles[0]}), which can run any program and "
                "is never read; convert them where you trust them: from transformers import "
                f"GPT2LMHeadModel; GPT2LMHeadModel.from_pretrained({str(folder)!r})"
                f".save_pretrained({str(folder)!r})"
            )
        raise RunError(f"{folder}: no model.safetensors and no model.safetensors.index.json in it")
    part_of = _json_object(index).get("weight_map")
    if not isinstance(part_of, dict) or not all(
        isinstance(part, str) and Path(part).name == part for part in part_of.values()
    ):
        raise RunError(f"{index}: its weight_map does not say which file has which tensor")
    parts = {part: _load(folder / part) for part in sorted(set(part_of.values()))}
    for name, part in part_of.items():
        if name not in parts[part]:
            raise RunError(f"{folder / part}: {name} is missing, and {index.name} says it is there")
    return index, {name: parts[part][name] for name, part in part_of.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise RunError(f"{path}: cannot be read ({reason}); get the file again") from None
    return tensors


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}; get the file again") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds no JSON object; get the file again")
    return value
