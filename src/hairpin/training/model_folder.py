"""A model as transformers writes it: config.json, safetensors, a tokenizer's files.

GPT-2, and NanoChat and Qwen3 where they are networks of hairpin's, as those that it exports are.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hairpin.checkpoints.tensors import read_tensors
from hairpin.data.gpt2_files import read_tokenizer
from hairpin.data.tokenizers import Gpt2Tokenizer, Tokenizer
from hairpin.errors import CheckpointError, RunError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.model.transformers_weights import from_transformers, misfit, plain_names
from hairpin.training.model_config import json_object, read_shape

_GPT2_IDS = 50_257
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_model(folder: Path) -> tuple[Shape, Tokenizer, dict[str, Tensor], str]:
    """The shape, the tokenizer and hairpin's tensors, float32, of a model that transformers wrote;
    and what kind of network it is, in a word.

    The embedding has a row for each id of the tokenizer; rows behind those are left out.

    Raises:
        RunError: something is missing, damaged or not hairpin's; every such setting has its line.
    """
    shape_in_file, kind = read_shape(folder / "config.json")
    tokenizer = _tokenizer(folder, shape_in_file.vocabulary)
    shape = replace(shape_in_file, vocabulary=tokenizer.vocabulary)
    file, state = _state(folder)
    plain = plain_names(state, shape)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT(shape_in_file).named_parameters()}
    problem = misfit(plain, shapes, shape) or _not_numbers(plain)
    if problem:
        raise RunError(f"{file}: {problem}")
    tensors = from_transformers({name: t.float() for name, t in plain.items()}, shape)
    for name in {"token_embedding.weight", "head.weight"} & tensors.keys():
        tensors[name] = tensors[name][: shape.vocabulary].clone()
    return shape, tokenizer, tensors, kind


def _not_numbers(state: dict[str, Tensor]) -> str | None:
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"{name} is {kind}; save the weights as float32, float16 or bfloat16"
    return None


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
    """The file that names the weights, and all of them under the names that they have there."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return whole, _load(whole)
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        if pickles:
            raise RunError(
                f"{folder}: its weights are a pickle ({pickles[0]}), which can run any program and "
                "is never read; convert them where you trust them: from transformers import "
                f"AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained({str(folder)!r})"
                f".save_pretrained({str(folder)!r})"
            )
        raise RunError(f"{folder}: no model.safetensors and no model.safetensors.index.json in it")
    part_of = json_object(index).get("weight_map")
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
        return read_tensors(path)
    except CheckpointError as error:
        words = str(error).removeprefix(f"{path}: ")
        reason = words.removeprefix("cannot be read as safetensors (").removesuffix(")")
        raise RunError(f"{path}: cannot be read ({reason}); get the file again") from None
