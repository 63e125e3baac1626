"""The weights that training starts from, put into a config and into a model."""

from collections.abc import Callable
from pathlib import Path

import torch

from hairpin.config.load import with_values
from hairpin.config.recipes import SIZES
from hairpin.config.settings import Config
from hairpin.errors import ConfigError
from hairpin.training.spread import Spread
from hairpin.weights.origin import Origin, open_origin


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
            "made with (start.hash); remove the key to take them all the same"
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
        f"model.{name}: {getattr(asked, name)} was asked for and {config.start.path} has {value}; "
        "remove the key"
        for name, value in fixed.items()
        if getattr(asked, name) not in (None, value)
    ]
    of_size = SIZES.get(asked.size or "", fixed)
    if not problems and any(of_size[name] != value for name, value in fixed.items()):
        problems = [f"model.size: the size is that of {config.start.path}; remove the key"]
    if asked.context and asked.context > shape.context:
        problems.append(
            f"model.context: {asked.context} was asked for and {config.start.path} sees "
            f"{shape.context} tokens; at most that many are possible"
        )
    if config.tokenizer.vocabulary not in (None, shape.vocabulary):
        problems.append(f"tokenizer.vocabulary: {config.start.path} has its own; remove the key")
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
    """Return a function that loads the first weights into a model; None if they are random.

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
