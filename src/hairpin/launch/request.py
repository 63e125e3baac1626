"""The request of a call, and the checked config that it makes.

    Request  →  check_request  →  CheckedRequest  →  training

`train`, `finetune`, `plan`, `prepare`, `schedule`, `compare`, `ablate` and `find_lr` put their
arguments into a `Request` at once.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hairpin.config.checks import value_of
from hairpin.config.durations import parse_duration
from hairpin.config.layers import assignment, get, short_repr
from hairpin.config.load import RequestedSettings, parse_override, read_settings, with_values
from hairpin.config.settings import Config, named
from hairpin.data.tables.spool import spool
from hairpin.errors import ConfigError, CorpusError
from hairpin.launch.start_model import disagreements
from hairpin.plugins.files import PluginFile, entries_for, load_plugins
from hairpin.plugins.registry import KEYS
from hairpin.system.access import require_utf8
from hairpin.system.arguments import AnyPath, Time, as_settings, listed

Text = AnyPath | Iterable[Any]
OnNotice = Callable[[str], None]

DEFAULT_BUDGET = "3m"
DEFAULT_CORPUS = "stdlib"
NO_TEXT = (
    "no text given: training on the source of the Python standard library; to use your own text: "
    "`hairpin train FILE` or `hairpin train FOLDER`"
)


@dataclass(frozen=True)
class Request:
    """The arguments of a call, as given; a list may be given as one string or path.

    Args:
        texts: files, folders and patterns, or iterables of texts or dicts; of fine-tuning, records.
        corpus: a corpus by name.
        column: of tables and dicts, the one that holds the text.
        sources: of a mixture, name → text, or a dict of the keys of `[[data.sources]]`.
        config: a TOML file of settings.
        start: a run, or a folder with a model, to start from.
        finetune: "classify" or "instruct"; None: train on text.
        out: the folder to write.
        budget: wall time, such as "10m".
        settings: dotted key → value.
        overrides: "key=value" strings.
        varied: dotted key → value, of an experiment's arm.
        track: trackers.
        plugin: Python files to run.
    """

    texts: Iterable[Text] = ()
    corpus: str | None = None
    column: str | None = None
    sources: Mapping[str, Any] | None = None
    config: AnyPath | None = None
    start: AnyPath | None = None
    finetune: str | None = None
    out: AnyPath | None = None
    budget: Time | None = None
    settings: Mapping[str, Any] | None = None
    overrides: Iterable[str] = ()
    varied: Mapping[str, Any] | None = None
    track: Iterable[str] = ()
    plugin: AnyPath | Iterable[AnyPath] = ()

    def __post_init__(self) -> None:
        """Make lists of what may be one thing or an iterator.

        Raises:
            ConfigError: a dict is given for a list, or a list for a dict.
        """
        for name in ("overrides", "track", "plugin"):
            object.__setattr__(self, name, listed(getattr(self, name)))
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "settings", as_settings(self.settings))

    @property
    def folder(self) -> Path | None:
        """`out` as a path; None: not given, or empty."""
        return Path(self.out) if self.out else None


@dataclass(frozen=True)
class CheckedRequest:
    """A request whose config is valid.

    Args:
        request: the request.
        config: the settings; those left open are chosen later.
        budget_seconds: wall time; None: the settings decide the length.
        notes: lines for people.
    """

    request: Request
    config: Config
    budget_seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for the run's folder."""
        name, kind = name_of(self.config), self.request.finetune
        return f"{name}-{kind}" if kind else name

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that the call itself names in any way, without those of a file."""
        request = self.request
        said = [
            value for key, value in map(parse_override, request.overrides) if key == "track.tools"
        ]
        said.append(as_settings(request.settings).get("track.tools"))
        lists = [(entry,) if isinstance(entry, str) else entry for entry in said]
        return (
            *request.track,
            *(tool for entry in lists if isinstance(entry, list | tuple) for tool in entry),
        )


def check_request(request: Request) -> CheckedRequest:
    """Run the plugins of a request, and check its settings.

    Raises:
        UserError: the request is invalid; a line for each reason.
    """
    files, notes = load_plugins(request.plugin), list[str]()
    config = with_plugins(requested_config(request, notes.append), files)
    budget = request.budget
    seconds = default_budget_seconds(config) if budget is None else parse_duration(budget)
    return CheckedRequest(request, config, seconds, tuple(notes))


def with_training_defaults(checked: CheckedRequest) -> CheckedRequest:
    """Name the default corpus if no text is named, and note if the budget decides no length."""
    config, notes = checked.config, [*checked.notes]
    if not config.data.is_named:
        config = with_values(config, {"data.corpus": DEFAULT_CORPUS})
        notes.append(NO_TEXT)
    if checked.request.budget is not None and length_of(config):
        notes.append("--budget: the length is set, so the budget only chooses the size")
    return replace(checked, config=config, notes=tuple(notes))


def requested_config(request: Request, on_notice: OnNotice = lambda line: None) -> Config:
    """Return the config of a request, after checking it against the model that it starts from.

    Args:
        request: its plugins have been run.
        on_notice: receives a line about the rows of an iterable.

    Raises:
        ConfigError: the config is invalid.
    """
    asked = requested_settings(request, on_notice)
    start = get(asked.tree, "start.path")
    problems = list(disagreements(asked, Path(start))) if isinstance(start, str) else []
    try:
        config = asked.config()
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def requested_settings(
    request: Request, on_notice: OnNotice = lambda line: None
) -> RequestedSettings:
    """Read the settings of a request from its file and its arguments.

    Raises:
        ConfigError: two of them disagree, or the file cannot be read.
        CorpusError: an iterable has a row that is no text.
    """
    return read_settings(
        file=None if request.config is None else Path(request.config),
        overrides=request.overrides,
        flags=_flags_of(request, on_notice),
        varied=request.varied,
    )


def _flags_of(request: Request, on_notice: OnNotice) -> dict[str, Any]:
    """Return the settings of a request, including those that have an argument of their own."""
    flags = as_settings(request.settings)

    def add(key: str, value: Any) -> None:
        if value is not None:
            flags.update(with_argument(flags, key, value))

    add("start.path", None if request.start is None else _absolute(request.start))
    add("data.column", request.column)
    column = flags.get("data.column")
    add("data.sources", source_tables(request.sources, column) if request.sources else None)
    add("track.tools", tuple(request.track) or None)
    add("finetune.kind", request.finetune)
    add("data.texts", [path_of(text, column, on_notice) for text in request.texts] or None)
    add("data.corpus", request.corpus)
    return flags


def with_argument(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the settings with the value of a dedicated argument.

    Raises:
        ConfigError: they already have a different value.
    """
    if settings.get(key) is not None and settings[key] != value:
        both = f"{assignment(key, settings[key])} in the settings and {short_repr(value)}"
        raise ConfigError(f"{key}: {both} as an argument disagree; keep one")
    return {**settings, key: value}


def path_of(text: Text, column: str | None, on_notice: OnNotice = lambda line: None) -> str:
    """Return the path of a text: made absolute, or the file that an iterable is written to."""
    if isinstance(text, str | os.PathLike):
        if not os.fspath(text):
            raise CorpusError("a text's name is empty (a variable that is not set?); name a file")
        return _absolute(text)
    return str(spool(text, column, on_notice=on_notice))


def _absolute(path: AnyPath) -> str:
    return str(require_utf8(Path(path).absolute()))


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
