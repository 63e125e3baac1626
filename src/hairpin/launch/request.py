"""The request of a call: its config, a name for its run, and the defaults for what is left out."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hairpin.config.checks import value_of
from hairpin.config.data import named
from hairpin.config.durations import parse_duration
from hairpin.config.layers import shown, written
from hairpin.config.load import Asked, ask, parse_override, with_values
from hairpin.config.settings import Config
from hairpin.data.tables.spool import spool
from hairpin.errors import ConfigError, CorpusError
from hairpin.launch.decided import disagreements
from hairpin.plugins.files import PluginFile, entries_for
from hairpin.plugins.registry import KEYS
from hairpin.system.access import require_utf8
from hairpin.system.arguments import AnyPath, as_settings

Text = AnyPath | Iterable[Any]

DEFAULT_BUDGET = "3m"
DEFAULT_CORPUS = "stdlib"
NO_TEXT = (
    "no text given: training on the source of the Python standard library; for your own text, "
    "`hairpin train FILE` or `hairpin train FOLDER`"
)


def asked_config(
    texts: Iterable[Text],
    corpus: str | None,
    config: AnyPath | None,
    overrides: Iterable[str],
    settings: Mapping[str, Any],
    on_notice: Callable[[str], None] = lambda line: None,
) -> Config:
    """Return the config that a call asks for.

    Args:
        texts: files and folders, or iterables of texts or dicts, which are first written to disk.
        corpus: a corpus by name.
        config: a TOML file of settings.
        overrides: "key=value" strings.
        settings: dotted key → value.
        on_notice: receives what is read of an iterable's rows.

    Raises:
        ConfigError: the config is invalid.
    """
    file = None if config is None else Path(config)
    flags = with_text(settings, texts, corpus, on_notice)
    return agreed_config(ask(file=file, overrides=overrides, flags=flags))


def agreed_config(asked: Asked) -> Config:
    """Return the requested config, after checking it against the model that it starts from.

    Raises:
        ConfigError: the config is invalid.
    """
    problems = disagreements(asked)
    try:
        config = asked.config()
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def with_text(
    settings: Mapping[str, Any] | None,
    texts: Iterable[Text],
    corpus: str | None,
    on_notice: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return the settings with the named files and folders, or the corpus by name, if any.

    Raises:
        CorpusError: an iterable has a row that is no text.
    """
    flags: Mapping[str, Any] = as_settings(settings)
    if paths := [path_of(text, flags.get("data.column"), on_notice) for text in texts]:
        flags = and_also(flags, "data.texts", paths)
    return and_also(flags, "data.corpus", corpus) if corpus is not None else dict(flags)


def and_also(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the settings with the value of a dedicated argument.

    Raises:
        ConfigError: they already have a different value.
    """
    if settings.get(key) is not None and settings[key] != value:
        both = f"{written(key, settings[key])} in the settings and {shown(value)}"
        raise ConfigError(f"{key}: {both} as an argument disagree; keep one")
    return {**settings, key: value}


def path_of(
    text: Text, column: str | None, on_notice: Callable[[str], None] = lambda line: None
) -> str:
    """Return the path of a text: made absolute, or the file that an iterable is written to."""
    if isinstance(text, str | os.PathLike):
        if not os.fspath(text):
            raise CorpusError("a text's name is empty (a variable that is not set?); name a file")
        return str(require_utf8(Path(text).absolute()))
    return str(spool(text, column, on_notice=on_notice))


def source_tables(sources: Mapping[str, Any], column: str | None) -> list[dict[str, Any]]:
    """Return `data.sources` for name → path, iterable, or a dict of the keys of `[[data.sources]]`.

    Raises:
        CorpusError: an iterable has a row that is no text.
    """
    tables = []
    for name, given in as_settings(sources, "sources").items():
        table = dict(given) if isinstance(given, Mapping) else {"texts": given}
        if (texts := table.get("texts")) is not None:
            is_list = isinstance(texts, list | tuple) and all(
                isinstance(text, os.PathLike) for text in texts
            )
            own_column = table.get("column", column)
            table["texts"] = [path_of(t, own_column) for t in (texts if is_list else [texts])]
        tables.append({"name": name, **table})
    return tables


def require_text(config: Config) -> None:
    """Check that a text is named.

    Raises:
        CorpusError: none is.
    """
    if not config.data.is_named:
        raise CorpusError("no text given: name files or folders, or a corpus with --corpus")


def with_start(settings: Mapping[str, Any] | None, start: AnyPath | None) -> dict[str, Any]:
    """Return the settings with the run or the folder to start from."""
    given = as_settings(settings)
    if start is None:
        return given
    return and_also(given, "start.path", str(require_utf8(Path(start).absolute())))


def with_tracks(settings: Mapping[str, Any], tools: Iterable[str]) -> dict[str, Any]:
    """Return the settings with the named trackers; none: those that the config names."""
    named = tuple(tools)
    return and_also(settings, "track.tools", named) if named else dict(settings)


def tracks_named(
    tools: Iterable[str], overrides: Iterable[str], settings: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Return the trackers that the call itself names in any way, without those of a file."""
    said = [value for key, value in map(parse_override, overrides) if key == "track.tools"]
    said.append(as_settings(settings).get("track.tools"))
    lists = [(entry,) if isinstance(entry, str) else entry for entry in said]
    return (*tools, *(t for entry in lists if isinstance(entry, list | tuple) for t in entry))


def with_plugins(config: Config, files: Iterable[PluginFile]) -> Config:
    """Return the config with the named plugins, which replace those with the same path."""
    names = {kind: value_of(config, key) for kind, key in KEYS.items()}
    entries = entries_for(files, names)
    taken = {value for entry in entries for value in entry.values()}
    kept = [p.model_dump() for p in config.plugins if not {p.path, p.sha256} & taken]
    return with_values(config, {"plugins": [*kept, *entries]}) if entries else config


def name_of(config: Config) -> str:
    """Return a name for a run of this text."""
    return named(config.data)


def with_tables(
    settings: Mapping[str, Any], column: str | None, sources: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the settings with the column of tables and the sources of a mixture."""
    flags = dict(settings) if column is None else and_also(settings, "data.column", column)
    if sources:
        tables = source_tables(sources, flags.get("data.column"))
        flags = and_also(flags, "data.sources", tables)
    return flags


def default_budget_seconds(config: Config) -> float | None:
    """Return three minutes if neither the model's size nor the run's length is set."""
    sized = config.model.size or config.model.width
    if config.finetune.kind:  # epochs set the length
        return None
    return None if sized or length_of(config) else parse_duration(DEFAULT_BUDGET)


def length_of(config: Config) -> float | None:
    """Return updates, tokens or epochs, whichever is given; None if none is."""
    train = config.train
    return train.updates or train.tokens or train.epochs
