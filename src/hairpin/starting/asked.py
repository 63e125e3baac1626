"""What a call asks for: its config, a name for its run, and what it means by saying nothing."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hairpin.config.checks import value_of
from hairpin.config.durations import parse_duration
from hairpin.config.load import build_config, with_values
from hairpin.config.settings import Config
from hairpin.errors import CorpusError
from hairpin.plugin_files import PluginFile, entries_for
from hairpin.plugins import KEYS

DEFAULT_BUDGET = "3m"
DEFAULT_CORPUS = "stdlib"


def asked_config(
    texts: Iterable[str | Path],
    corpus: str | None,
    config: str | Path | None,
    overrides: Iterable[str],
    settings: Mapping[str, Any],
) -> Config:
    """The config that a call asks for.

    Args:
        texts: files and folders.
        corpus: a corpus by name.
        config: a TOML file of settings.
        overrides: "key=value" strings.
        settings: dotted key → value.

    Raises:
        ConfigError: it cannot be.
    """
    file = None if config is None else Path(config)
    return build_config(file=file, overrides=overrides, flags=with_text(settings, texts, corpus))


def with_text(
    settings: Mapping[str, Any] | None, texts: Iterable[str | Path], corpus: str | None
) -> dict[str, Any]:
    """The settings with files and folders, or a corpus by name, where any are named."""
    flags = dict(settings or {})
    if paths := [str(Path(text).absolute()) for text in texts]:
        flags["data.texts"] = paths
    if corpus:
        flags["data.corpus"] = corpus
    return flags


def require_text(config: Config) -> None:
    """Nothing, if a text is named.

    Raises:
        CorpusError: none is.
    """
    if not config.data.texts and config.data.corpus is None:
        raise CorpusError("no text given: name files or folders, or a corpus with --corpus")


def with_start(settings: Mapping[str, Any] | None, start: str | Path | None) -> dict[str, Any]:
    """The settings with the run or the folder to start from."""
    named = {} if start is None else {"start.path": str(Path(start).absolute())}
    return {**(settings or {}), **named}


def with_tracks(settings: Mapping[str, Any], tools: Iterable[str]) -> dict[str, Any]:
    """The settings with the trackers that are named; none: those that the config names."""
    named = tuple(tools)
    return {**settings, **({"track.tools": named} if named else {})}


def with_plugins(config: Config, files: Iterable[PluginFile]) -> Config:
    """The config with the plugins that the user named, in the place of those with the same path."""
    names = {kind: value_of(config, key) for kind, key in KEYS.items()}
    entries = entries_for(files, names)
    taken = {value for entry in entries for value in entry.values()}
    kept = [p.model_dump() for p in config.plugins if not {p.path, p.sha256} & taken]
    return with_values(config, {"plugins": [*kept, *entries]}) if entries else config


def name_of(config: Config) -> str:
    """A name for a run of this text."""
    if config.data.corpus:
        return config.data.corpus
    return Path(config.data.texts[0]).name.split(".")[0] or "text"


def default_budget_seconds(config: Config) -> float | None:
    """Three minutes where nothing says how large the model or how long the run is."""
    sized = config.model.size or config.model.width
    if config.finetune.kind:  # epochs say how long
        return None
    return None if sized or length_of(config) else parse_duration(DEFAULT_BUDGET)


def length_of(config: Config) -> float | None:
    """Updates, tokens or epochs, whichever is given; None: none is."""
    train = config.train
    return train.updates or train.tokens or train.epochs
