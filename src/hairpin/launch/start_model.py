"""The settings that a trained model decides for a run that starts from it.

Read before anything is made, from the small files next to the weights; damage to the weights
themselves is found when they are read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hairpin.config.layers import get
from hairpin.config.load import RequestedSettings
from hairpin.config.recipes import RECIPES, SIZES
from hairpin.config.settings import Config
from hairpin.data.gpt2_files import read_tokenizer
from hairpin.errors import HairpinError
from hairpin.runs.folder import RunDirectory

_NETWORK = ("layers", "heads", "width", "architecture", "bias", "qkv_bias", "tied")
_TOKENIZER = ("kind", "vocabulary")
_RECIPE_KEYS = ("architecture", "layers", "heads", "width")
_SIZE_KEYS = ("layers", "heads", "width")


def disagreements(asked: RequestedSettings, start: Path) -> Iterator[str]:
    """Yield a line for each requested setting that contradicts the model at `start`."""
    decided = _settings_of_model(start)
    for key, theirs in decided.items():
        ours = get(asked.tree, key)
        if key == "model.context":
            if isinstance(ours, int) and ours > theirs:
                yield _line(asked, key, f"{start} sees {theirs} tokens at most")
        elif ours is not None and ours != theirs:
            yield _line(asked, key, f"{start} has {_plain(theirs)}; remove the key")
    size = SIZES.get(str(get(asked.tree, "model.size")))
    theirs = {name: decided.get(f"model.{name}") for name in _SIZE_KEYS}
    if size and decided and theirs != {name: size[name] for name in _SIZE_KEYS}:
        shape = ", ".join(f"{value} {name}" for name, value in theirs.items())
        yield _line(asked, "model.size", f"{start} has {shape}; remove the key")
    network = _network_of(asked.tree.get("recipe"))
    others = [
        f"{name} {decided[key]}, not {network[name]}"
        for name in _RECIPE_KEYS
        if (key := f"model.{name}") in decided and name in network and get(asked.tree, key) is None
        if network[name] != decided[key]
    ]
    if others:
        yield _line(
            asked,
            "recipe",
            f"{start} has another network ({', '.join(others)}); leave the recipe out, and set "
            "its other settings, such as optimizer.kind=muon",
        )


def _network_of(recipe: Any) -> dict[str, Any]:
    """Return a requested recipe's settings of the network; those it leaves out are GPT-2's."""
    if recipe not in RECIPES:
        return {}
    return {"architecture": Config().model.architecture, **RECIPES[recipe].get("model", {})}


def _line(asked: RequestedSettings, key: str, theirs: str) -> str:
    """Write the line for one setting, with both as they were typed."""
    value = _plain(get(asked.tree, key))
    where = ", ".join(asked.places[each] for each in (key, "start.path"))
    return f"{key}: {value} was requested, but {theirs} ({where})"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings_of_model(start: Path) -> dict[str, Any]:
    """Return dotted key → value; empty if unreadable, which is reported when it is opened."""
    try:
        found = (
            _settings_of_run(start)
            if RunDirectory(start).config.is_file()
            else _settings_of_folder(start)
        )
    except (HairpinError, OSError):
        return {}
    return {key: value for key, value in found.items() if value is not None}


def _settings_of_run(start: Path) -> dict[str, Any]:
    config = RunDirectory(start).read_config()
    return {
        **{f"model.{name}": getattr(config.model, name) for name in (*_NETWORK, "context")},
        **{f"tokenizer.{name}": getattr(config.tokenizer, name) for name in _TOKENIZER},
    }


def _settings_of_folder(start: Path) -> dict[str, Any]:
    """Return the settings of a model as transformers writes it."""
    from hairpin.weights.model_config import read_shape

    shape, _ = read_shape(start / "config.json")
    found = read_tokenizer(start, shape.vocabulary)
    tokenizer = found.tokenizer if found else None
    return {
        **{f"model.{name}": getattr(shape, name) for name in (*_NETWORK, "context")},
        "tokenizer.kind": tokenizer.kind if tokenizer else "gpt2",
        "tokenizer.vocabulary": tokenizer.vocabulary if tokenizer else None,
    }
