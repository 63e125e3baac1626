"""From files, recipes and the command line to one validated `Config`, and back to TOML.

    defaults < recipe < file < --set < flags

Everything that is wrong is said at once, a line each.
"""

import errno
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from hairpin.config.checks import ALTERNATIVES, contradictions
from hairpin.config.data import unescaped
from hairpin.config.names import advice_for
from hairpin.config.recipes import DEFAULT_RECIPE, RECIPES, SIZES
from hairpin.config.settings import Config
from hairpin.config.table import Table
from hairpin.errors import ConfigError, is_secret
from hairpin.reading import reading

Tree = dict[str, Any]

# What a layer says, and what that silences in the layers below it: a length given on the command
# line replaces the file's, in whatever way the file says it, and a named size the file's shape.
_RIVALS = (
    *((key, tuple(k for k in group if k != key)) for group in ALTERNATIVES for key in group),
    ("model.size", tuple(f"model.{name}" for name in SIZES["gpt2"])),
    ("data.corpus", ("data.hash",)),
    ("data.sources", ("data.hash",)),
    ("start.path", ("start.hash",)),
    ("start.weights", ("start.hash",)),
    ("finetune.label_column", ("finetune.labels",)),
    ("finetune.examples_per_update", ("train.tokens_per_update",)),
    ("train.tokens_per_update", ("finetune.examples_per_update",)),
)

# The same for a recipe, whose minimum belongs to the curve that it names.
_RECIPE_RIVALS = (*_RIVALS, ("schedule.kind", ("schedule.min_lr",)))

# Where pydantic's own words are about Python.
_MESSAGES = {"model_type": "must be a table of keys", "tuple_type": "must be a list, as in ['a']"}


def build_config(
    *,
    file: Path | None = None,
    content: bytes | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The config that a file, `--set a.b=value` overrides and flags (dotted name → value) ask for.

    Args:
        file: TOML; its paths are relative to its folder.
        content: of the file, where that was read already.
        overrides: "key=value" strings.
        flags: dotted key → value.

    Raises:
        ConfigError: unknown keys, impossible values, contradictions: a line each.
    """
    in_file: Tree = read_toml(file, content) if file else {}
    if file:
        _make_paths_absolute(in_file, file.parent)
    set_ones: Tree = {}
    for override in overrides:
        _put(set_ones, *parse_override(override))
    in_flags: Tree = {}
    for key, value in (flags or {}).items():
        _put(in_flags, key, value)
    said = _merge(set_ones, in_flags)
    if any(_get(said, key) is not None for key in ("data.texts", "data.sources")):
        in_file = _without_learned(in_file)
    asked: Tree = {}
    for layer in (in_file, set_ones, in_flags):
        asked = _merge(_without_rivals(asked, layer), layer)
    _make_paths_absolute(asked, Path())
    # What was trained already has its own network, and AdamW's gentler ways suit it.
    recipe = asked.setdefault("recipe", "gpt2" if _get(asked, "start.path") else DEFAULT_RECIPE)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(
            f"recipe: there is no {_shown(recipe)}; choose one of {', '.join(RECIPES)}"
        )
    below = _without_rivals(RECIPES[recipe], asked, _RECIPE_RIVALS)
    return validate(_merge(below, asked))


def validate(tree: Mapping[str, Any]) -> Config:
    """A `Config` from nested tables.

    Raises:
        ConfigError: a line for every problem.
    """
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_line(problem) for problem in error.errors()) from None
    problems = contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys replaced, validated again."""
    tree = to_tree(config)
    for key, value in values.items():
        _put(tree, key, value)
    return validate(tree)


def read_toml(path: Path, content: bytes | None = None) -> Tree:
    """The tables of a TOML file.

    Args:
        path: the file.
        content: of it, where that was read already.

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
    """`"a.b=value"` as a key and a value: a TOML value if it is one, else the text itself.

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


def to_tree(config: Config) -> Tree:
    """The config as nested tables of plain values, without what is unset."""
    tree: Tree = config.model_dump(mode="json", exclude_none=True)
    for table in ("start", "finetune", "track"):  # most runs have nothing to do with them
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
    """The same without what is as the defaults have it; `validate` makes the config of it again."""
    defaults, short = flat(to_tree(Config())), Tree()
    for key, value in flat(to_tree(config)).items():
        if value != defaults.get(key):
            _put(short, key, value)
    return short


def differences(was: Config, now: Config) -> list[tuple[str, Any, Any]]:
    """Each dotted key that differs with both its values; None: unset."""
    before, after = flat(to_tree(was)), flat(to_tree(now))
    keys = [key for key in known_keys() if before.get(key) != after.get(key)]
    return [(key, before.get(key), after.get(key)) for key in keys]


def to_toml(config: Config | Tree) -> str:
    """The config, or its tables, as a TOML file; every key is explained in docs/config.md."""
    header = (
        "# hairpin train --config THIS-FILE repeats the run; docs/config.md explains the keys.\n"
    )
    return header + tomli_w.dumps(config if isinstance(config, dict) else to_tree(config))


def known_keys(table: type[Table] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key there is."""
    for name, info in table.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _put(tree: Tree, key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for name in tables:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {name} is a value, not a table")
        tree = inner
    tree[last] = value


def _make_paths_absolute(tree: Tree, folder: Path) -> None:
    """Paths in a file are relative to the file's folder, so that it means the same anywhere."""
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


def _without_rivals(
    below: Mapping[str, Any],
    above: Tree,
    rivals: Iterable[tuple[str, tuple[str, ...]]] = _RIVALS,
) -> Tree:
    """The lower layer without what the upper one says in another way."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in below.items()}
    for said, silenced in rivals:
        if _get(above, said) is None:
            continue
        for key in silenced:
            table, _, name = key.partition(".")
            if _get(above, key) is None and isinstance(kept.get(table), dict):
                kept[table].pop(name, None)
    return kept


def _without_learned(in_file: Tree) -> Tree:
    """A file, for other text than its own: if a run wrote it, without what the run filled in from
    its text.
    """
    if _get(in_file, "data.hash") is None:
        return in_file
    learned = {"data": ("hash", "column", "format"), "finetune": ("labels", "same_prompts")}
    return {
        table: {name: value for name, value in values.items() if name not in learned[table]}
        if table in learned and isinstance(values, dict)
        else values
        for table, values in in_file.items()
    }


def _get(tree: Tree, key: str) -> Any:
    table, _, name = key.partition(".")
    values = tree.get(table)
    return values.get(name) if isinstance(values, dict) else None


def flat(tree: Mapping[str, Any]) -> Tree:
    """Nested tables as dotted key → value."""
    return {
        f"{key}.{name}" if name else key: entry
        for key, value in tree.items()
        for name, entry in (value.items() if isinstance(value, dict) else [("", value)])
    }


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _line(problem: Any) -> str:
    """One of pydantic's problems as a line for people."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; {advice_for(key, known_keys())}"
    message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    got = "" if is_secret(key) else f" (got {_shown(problem['input'])})"
    return f"{key}: {message[0].lower()}{message[1:]}{got}"


def _shown(value: Any) -> str:
    """The value as Python writes it, cut to what fits in a line."""
    try:
        written = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number with thousands of digits"
    return written if len(written) <= 60 else written[:57] + "..."
