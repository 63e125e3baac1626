"""Origin of the first weights of a run that are not random: a run, or a model's folder."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.errors import RunError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.runs.folder import RunDirectory, open_run
from hairpin.training.checkpoint import load_weights
from hairpin.weights.model_folder import read_model

_KINDS = (
    "a run has config.toml, tokenizer/ and best/ in it; a model of transformers config.json, "
    "model.safetensors and tokenizer.json, or vocab.json and merges.txt"
)


@dataclass(frozen=True, eq=False)
class Origin:
    """Weights to start from, with their shape, tokenizer and hash.

    Args:
        path: the folder that they are from.
        shape: of their network; no dropout.
        tokenizer: its ids are the rows of the embedding.
        tensors: a GPT's parameters by hairpin's names, float32 on the CPU, all finite.
        sha256: over names, shapes and bytes in the order of the names, in hex: equal weights have
            equal hashes, wherever they lie.
        words: name of the weights.
        notices: lines about parts that were changed or left out.
    """

    path: Path
    shape: Shape
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    sha256: str
    words: str
    notices: tuple[str, ...] = ()


def open_origin(path: Path, weights: str = "best") -> Origin:
    """Read the weights of a run, or of a model saved by transformers: GPT-2, and NanoChat and Qwen3
    if hairpin supports their settings.

    Args:
        path: a folder.
        weights: of a run, "best" or "last".

    Raises:
        RunError: the folder is neither, or is damaged, or its network is not supported.
        UserError: it has no tokenizer, and GPT-2's cannot be loaded.
    """
    notices: tuple[str, ...] = ()
    if RunDirectory(path).config.is_file():
        shape, tokenizer, tensors, which = _from_run(open_run(path), weights)
        words = f"{which}, of {path}"
    elif (path / "config.json").is_file():
        model = read_model(path)
        shape, tokenizer, tensors, notices = (
            model.shape, model.tokenizer, model.tensors, model.notices
        )  # fmt: skip
        words = f"{model.kind} checkpoint in {path}"
    else:
        raise RunError(_neither(path))
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise RunError(f"{path}: {name} is not finite; such weights cannot be trained further")
    return Origin(path, shape, tokenizer, tensors, weights_sha256(tensors), words, notices)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256, in hex, over names, shapes and bytes of tensors, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_run(run: RunDirectory, weights: str) -> tuple[Shape, Tokenizer, dict[str, Tensor], str]:
    """Return a run's shape, tokenizer, weights and their name; a classifier's head is left out."""
    tokenizer = load_tokenizer(run.tokenizer)
    saved, which = load_weights(run, weights, tokenizer_sha256=tokenizer.hash())
    shape = replace(Shape.of(run.read_config().model, tokenizer.vocabulary), dropout=0.0)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT(shape).named_parameters()}
    if any(name not in saved or saved[name].shape != shapes[name] for name in shapes):
        raise RunError(f"{run.config}: its [model] is not the one that was trained")
    return shape, tokenizer, {name: saved[name].float() for name in shapes}, which


def _neither(path: Path) -> str:
    """Return the problem with a path that is neither a run nor a checkpoint."""
    if path.is_dir():
        return f"{path}: neither a run nor a model in safetensors: {_KINDS}"
    if path.exists():
        return f"{path}: is a file; name the folder that it is in, a run or a model"
    # A config has absolute paths, and people type names of models. `runs/book-3` is a missing run
    # if there are runs; `someone/model` is a model.
    here = Path.cwd()
    name = path.relative_to(here) if path.is_relative_to(here) else path
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name.as_posix())
    if is_name and (name.parent == Path() or not name.parent.is_dir()):
        return (
            f"{path}: no such folder; hairpin downloads no weights: if that is a model on Hugging "
            f"Face, type `hf download {name.as_posix()} --local-dir {name.name}`, and name that "
            "folder"
        )
    return f"{path}: no such folder: {_KINDS}"
