"""From files, recipes and the command line to one validated `Config`, and back to TOML.

    defaults < recipe < file < --set and flags

All problems are reported at once, a line each.
"""

import errno
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from hairpin.config.checks import contradictions
from hairpin.config.layers import (
    RECIPE_ALTERNATIVES,
    Statement,
    Tree,
    assignment,
    flat,
    get,
    join_statements,
    merge,
    nested,
    short_repr,
    with_places,
    without_filled_in,
    without_overridden,
)
from hairpin.config.names import FLAG_OF, advice_for
from hairpin.config.recipes import DEFAULT_RECIPE, RECIPES, SIZES
from hairpin.config.settings import Config, Table
from hairpin.errors import ConfigError, is_secret
from hairpin.system.access import reading

# Tables that another recipe replaces in a run's own file; text, size and length stay.
_RECIPE_KEYS = ("model.", "optimizer.", "schedule.", "clip.")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}  # of a separator that was typed in a shell
# Used where pydantic's own messages are about Python.
_MESSAGES = {"model_type": "must be a table of keys", "tuple_type": "must be a list, as in ['a']"}


@dataclass(frozen=True)
class RequestedSettings:
    """Settings that a file and a call ask for, before recipe and defaults.

    Args:
        tree: as nested tables.
        typed: dotted key → its form in the call.
        file: settings in it are below those.
        problems: a line for every two things of the call that disagree.
    """

    tree: Tree
    typed: Mapping[str, str]
    file: Path | None
    problems: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """Dotted key → its form, or the file that has it."""
        return {**dict.fromkeys(flat(self.tree), f"in {self.file}"), **self.typed}

    def config(self) -> Config:
        """Return the config, by the recipe that is asked for.

        Raises:
            ConfigError: unknown keys, impossible values, contradictions: a line each.
        """
        recipe = self.tree.get("recipe", default_recipe(self.tree))
        if not isinstance(recipe, str) or recipe not in RECIPES:
            there_is_no = f"recipe: there is no {short_repr(recipe)}"
            raise ConfigError(
                [*self.problems, f"{there_is_no}; choose one of {', '.join(RECIPES)}"]
            )
        below = without_overridden(RECIPES[recipe], self.tree, RECIPE_ALTERNATIVES)
        try:
            config = validate(merge(below, {**self.tree, "recipe": recipe}))
        except ConfigError as error:
            places = {**dict.fromkeys(flat(below), f"recipe {recipe}"), **self.places}
            raise ConfigError([*self.problems, *with_places(error.problems, places)]) from None
        if self.problems:
            raise ConfigError(self.problems)
        return config


def build_config(
    *,
    file: Path | None = None,
    content: bytes | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    varied: Mapping[str, Any] | None = None,
) -> Config:
    """Build the config of a file, `--set a.b=value` overrides and flags (dotted name → value).

    Args:
        file: TOML; its paths are relative to its folder.
        content: of the file, if it was read already.
        overrides: "key=value" strings.
        flags: dotted key → value.
        varied: the same, of `--vary`.

    Raises:
        ConfigError: unknown keys, impossible values, contradictions: a line each.
    """
    return read_settings(
        file=file, content=content, overrides=overrides, flags=flags, varied=varied
    ).config()


def read_settings(
    *,
    file: Path | None = None,
    content: bytes | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    varied: Mapping[str, Any] | None = None,
) -> RequestedSettings:
    """Read the settings that `build_config` makes a config of.

    Raises:
        ConfigError: the file cannot be read, or an override has no `=`.
    """
    in_file: Tree = read_toml(file, content) if file else {}
    if file:
        _make_paths_absolute(in_file, file.parent)
    call = join_statements(_statements(overrides, flags or {}, varied or {}))
    if any(get(call.tree, key) is not None for key in ("data.texts", "data.sources")):
        in_file = without_filled_in(in_file)
    in_file = without_overridden(_without_own_recipe(in_file, call.tree), call.tree)
    return RequestedSettings(merge(in_file, call.tree), call.words, file, call.problems)


def _without_own_recipe(in_file: Tree, call: Tree) -> Tree:
    """Return a file's settings for a call that names another recipe: without those that it has only
    by its own recipe, which a run writes into its config.toml.
    """
    own, other = in_file.get("recipe", default_recipe(in_file)), call.get("recipe")
    if own == other or not all(isinstance(name, str) and name in RECIPES for name in (own, other)):
        return in_file
    by_recipe = flat(merge(to_tree(Config()), RECIPES[str(own)]))
    either = {key for name in (own, other) for key in flat(RECIPES[str(name)])}
    kept: Tree = {}
    for key, value in flat(in_file).items():
        is_kind = key.startswith(_RECIPE_KEYS) and key.rpartition(".")[2] not in SIZES["gpt2"]
        if not (is_kind and key in either and value == by_recipe.get(key)):
            kept = merge(kept, nested(key, value))
    return kept


def default_recipe(tree: Tree) -> str:
    """Return the recipe of settings that name none. A trained model has its own network, and
    AdamW's gentler steps suit it.
    """
    return "gpt2" if get(tree, "start.path") else DEFAULT_RECIPE


def _statements(
    overrides: Iterable[str], flags: Mapping[str, Any], varied: Mapping[str, Any]
) -> Iterator[Statement]:
    """Yield a statement for each setting of a call."""
    for override in overrides:
        key, value = parse_override(override)
        yield _statement(key, value, assignment(f"--set {key}", override.partition("=")[2]))
    for key, value in flags.items():
        name, between = (FLAG_OF[key], " ") if key in FLAG_OF else (key, "=")
        yield _statement(key, value, assignment(name, value, between).strip())
    for key, value in varied.items():
        yield _statement(key, value, assignment(f"--vary {key}", value))


def _statement(key: str, value: Any, words: str) -> Statement:
    tree = nested(key, value)
    _make_paths_absolute(tree, Path())
    return Statement(tree, words)


def validate(tree: Mapping[str, Any]) -> Config:
    """Return a `Config` from nested tables.

    Raises:
        ConfigError: a line for every problem.
    """
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_problem_line(problem) for problem in error.errors()) from None
    problems = contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a copy of `config` with dotted keys replaced, validated again."""
    tree = to_tree(config)
    for key, value in values.items():
        tree = merge(tree, nested(key, value))
    return validate(tree)


def read_toml(path: Path, content: bytes | None = None) -> Tree:
    """Return the tables of a TOML file.

    Args:
        path: the file.
        content: of it, if it was read already.

    Raises:
        ConfigError: the file is missing or not TOML.
        UnreadableError: it cannot be read now.
    """
    try:
        with reading(path):
            return tomllib.loads((path.read_bytes() if content is None else content).decode())
    except FileNotFoundError as error:
        missing = error.errno == errno.ENOENT
        what = "no such config file" if missing else f"cannot be read ({error.strerror})"
        raise ConfigError(f"{path}: {what}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    except (ValueError, RecursionError) as error:  # a plain ValueError: too many digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_override(override: str) -> tuple[str, Any]:
    """Parse `"a.b=value"` as a key and a value: a TOML value if valid, else the text itself.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        shown = "…" if is_secret(override) else override
        raise ConfigError(f"--set {shown}: write it as --set table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (ValueError, RecursionError):
        value = text
    if key.strip() == "data.separator" and value == text:
        value = unescaped(text)
    return key.strip(), value


def unescaped(typed: str) -> str:
    r"""Return the separator that was typed in a shell, where \n arrives as a backslash and an n."""
    return re.sub(r"\\([nrt\\])", lambda found: _ESCAPES[found[1]], typed)


def to_tree(config: Config) -> Tree:
    """Return the config as nested tables of plain values, without unset keys."""
    tree: Tree = config.model_dump(mode="json", exclude_none=True)
    for table in ("start", "finetune", "track"):  # most runs do not use them
        if getattr(config, table) == type(getattr(config, table))():
            del tree[table]
    if not config.plugins:
        del tree["plugins"]
    if not config.data.sources:
        del tree["data"]["sources"]
    if not config.schedule.extensions:
        del tree["schedule"]["extensions"]
    return tree


def short_tree(config: Config) -> Tree:
    """Return the same without defaults; `validate` restores the config from it."""
    defaults, short = flat(to_tree(Config())), Tree()
    for key, value in flat(to_tree(config)).items():
        if value != defaults.get(key):
            short = merge(short, nested(key, value))
    return short


def changed_keys(was: Config, now: Config) -> list[tuple[str, Any, Any]]:
    """Return each dotted key that differs, with both its values; None: unset."""
    before, after = flat(to_tree(was)), flat(to_tree(now))
    keys = [key for key in known_keys() if before.get(key) != after.get(key)]
    return [(key, before.get(key), after.get(key)) for key in keys]


def to_toml(config: Config | Tree) -> str:
    """Return the config, or its tables, as TOML; docs/config.md explains every key."""
    header = (
        "# hairpin train --config THIS-FILE repeats the run; docs/config.md explains the keys.\n"
    )
    return header + tomli_w.dumps(config if isinstance(config, dict) else to_tree(config))


def known_keys(table: type[Table] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every known dotted key."""
    for name, info in table.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _make_paths_absolute(tree: Tree, folder: Path) -> None:
    """Resolve paths against the file's folder, so that a file means the same anywhere."""
    data = tree.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    for table in (data, *(sources if isinstance(sources, list | tuple) else ())):
        texts = table.get("texts") if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(texts, list):
            table["texts"] = [
                str(folder.absolute() / text) if isinstance(text, str) and text else text
                for text in texts
            ]
    start = tree.get("start")
    if isinstance(start, dict) and isinstance(start.get("path"), str):
        start["path"] = str(folder.absolute() / start["path"])
    track = tree.get("track")
    uri = track.get("mlflow_uri") if isinstance(track, dict) else None
    if isinstance(track, dict) and isinstance(uri, str) and ":" not in uri:  # a folder
        track["mlflow_uri"] = str(folder.absolute() / uri)


def _problem_line(problem: Any) -> str:
    """Return one of pydantic's problems as a readable line."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; {advice_for(key, known_keys())}"
    message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    got = "" if is_secret(key) else f" (got {short_repr(problem['input'])})"
    return f"{key}: {message[0].lower()}{message[1:]}{got}"
