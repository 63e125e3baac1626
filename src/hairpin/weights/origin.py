"""The weights that training starts from, of a run or a model's folder: opened, put into a config,
and loaded into a model.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hairpin.config.load import with_values
from hairpin.config.recipes import SIZES
from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.errors import ConfigError, RunError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.runs.folder import RunDirectory, open_run
from hairpin.training.checkpoint import load_weights
from hairpin.training.spread import Spread
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
        raise RunError(_not_a_model_error(path))
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise RunError(f"{path}: {name} is not finite; such weights cannot be trained")
    return Origin(path, shape, tokenizer, tensors, weights_sha256(tensors), words, notices)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256, in hex, over names, shapes and bytes of tensors, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def open_start(config: Config) -> Origin:
    """Open the weights that `start.path` names.

    Raises:
        RunError: it is neither a run nor a model in safetensors, or is damaged.
        ConfigError: its weights differ from those that the config was made with.
    """
    assert config.start.path
    origin = open_origin(Path(config.start.path), config.start.weights)
    if config.start.hash not in (None, origin.sha256):
        raise ConfigError(
            f"start.path: the weights in {config.start.path} are not those that this config was "
            "made with (start.hash); remove the key to use them anyway"
        )
    return origin


def with_start(config: Config, origin: Origin) -> Config:
    """Return the config with the shape and tokenizer of the weights it starts from.

    Raises:
        ConfigError: it asks for another shape or tokenizer.
    """
    shape, asked = origin.shape, config.model
    fixed = {"layers": shape.layers, "heads": shape.heads, "width": shape.width}
    problems = [
        f"model.{name}: {getattr(asked, name)} was requested, but {config.start.path} has "
        f"{value}; remove the key"
        for name, value in fixed.items()
        if getattr(asked, name) not in (None, value)
    ]
    of_size = SIZES.get(asked.size or "", fixed)
    if not problems and any(of_size[name] != value for name, value in fixed.items()):
        problems = [f"model.size: the size is that of {config.start.path}; remove the key"]
    if asked.context and asked.context > shape.context:
        problems.append(
            f"model.context: {asked.context} was requested, but {config.start.path} sees at most "
            f"{shape.context} tokens"
        )
    if config.tokenizer.vocabulary not in (None, shape.vocabulary):
        problems.append(
            f"tokenizer.vocabulary: {config.start.path} has its own vocabulary; remove the key"
        )
    if problems:
        raise ConfigError(problems)
    return with_values(
        config,
        {
            **{f"model.{name}": value for name, value in fixed.items()},
            "model.context": asked.context or shape.context,
            "model.architecture": shape.architecture,
            "model.bias": shape.bias,
            "model.qkv_bias": shape.qkv_bias,
            "model.tied": shape.tied,
            "tokenizer.kind": origin.tokenizer.kind,
            "tokenizer.vocabulary": origin.tokenizer.vocabulary,
            "start.hash": origin.sha256,
        },
    )


def load_start(config: Config, origin: Origin | None) -> Callable[[Spread], None] | None:
    """Return a function that loads the initial weights into a model; None if they are random.

    Args:
        config: of the run.
        origin: the weights that `start.path` names, if opened already.
    """
    if config.start.path is None:
        return None

    @torch.no_grad()
    def load(spread: Spread) -> None:
        tensors = (origin or open_start(config)).tensors
        # Copied and freed: they are as large as the model, and training is long.
        for name, parameter in spread.named_parameters():
            if name in tensors:  # a classifier's own head is missing
                # A shorter context has fewer positions.
                start, stop = spread.rows_of(name) or (0, parameter.size(0))
                parameter.copy_(tensors[name][start:stop])
        tensors.clear()

    return load


def _from_run(run: RunDirectory, weights: str) -> tuple[Shape, Tokenizer, dict[str, Tensor], str]:
    """Return a run's shape, tokenizer, weights and their name; a classifier's head is left out."""
    tokenizer = load_tokenizer(run.tokenizer)
    saved, which = load_weights(run, weights, tokenizer_sha256=tokenizer.hash())
    shape = replace(Shape.of(run.read_config().model, tokenizer.vocabulary), dropout=0.0)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT(shape).named_parameters()}
    if any(name not in saved or saved[name].shape != shapes[name] for name in shapes):
        raise RunError(f"{run.config}: its [model] differs from the model that was trained")
    return shape, tokenizer, {name: saved[name].float() for name in shapes}, which


def _not_a_model_error(path: Path) -> str:
    """Return the problem with a path that is neither a run nor a checkpoint."""
    if path.is_dir():
        return f"{path}: neither a run nor a model in safetensors: {_KINDS}"
    if path.exists():
        return f"{path}: is a file; name its folder, a run or a model"
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
