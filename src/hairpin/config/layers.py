"""Layers of settings, and how one is laid over another.

    defaults < recipe < file < what a call says

A call's flags and `--set` are one layer: a setting replaces that of an earlier layer, never another
of the same call. Two that disagree within a call are refused, wherever each was written.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hairpin.config.checks import ALTERNATIVES
from hairpin.config.recipes import SIZES
from hairpin.errors import is_secret

Tree = dict[str, Any]
ExclusiveKeys = Iterable[tuple[str, tuple[str, ...]]]

_LONGEST_VALUE, _LONGEST_WORD = 60, 200  # a path is best shown whole
_KEY = re.compile(r"[a-z0-9_.]+")

# A key of a layer, and the keys that it overrides in the layers below it: a length of the command
# line replaces the file's, in whatever form the file has it, and a named size the file's shape.
EXCLUSIVE_KEYS = (
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

# The same for a recipe, whose minimum belongs to its curve.
RECIPE_ALTERNATIVES = (*EXCLUSIVE_KEYS, ("schedule.kind", ("schedule.min_lr",)))


@dataclass(frozen=True)
class Statement:
    """One setting, or several together, from a call.

    Args:
        tree: nested tables; each key in them is set.
        words: the form in which it was written.
    """

    tree: Tree
    words: str


@dataclass(frozen=True)
class Layer:
    """Settings that were written in one place.

    Args:
        tree: as nested tables.
        words: dotted key → the form in which it was written.
        problems: a line for every two statements that disagree.
    """

    tree: Tree = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def join_statements(statements: Iterable[Statement]) -> Layer:
    """Join statements into a layer; equal ones are no problem."""
    first: dict[str, tuple[Any, str]] = {}
    tree: Tree = {}
    problems: list[str] = []
    for said in statements:
        for key, value in flat(said.tree).items():
            there, words = first.setdefault(key, (value, said.words))
            if there is not value and there != value:
                problems.append(f"{key}: {words} and {said.words} disagree; keep one")
        tree = merge(tree, said.tree)
    for key in first:
        table, _, name = key.partition(".")
        if name and first.get(table, ({}, ""))[0] != {}:
            problems.append(f"{key}: {table} is a value, not a table")
    return Layer(tree, {key: words for key, (_, words) in first.items()}, tuple(problems))


def short_repr(value: Any) -> str:
    """Return the value as Python writes it, cut to what fits in a line."""
    try:
        written = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number with thousands of digits"
    return written if len(written) <= _LONGEST_VALUE else written[: _LONGEST_VALUE - 3] + "..."


def assignment(name: str, value: Any, between: str = "=") -> str:
    """Return `name=value` as it was typed, without secrets."""
    if is_secret(name):
        return f"{name}{between}…"
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    is_word = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_WORD
    return f"{name}{between}{value if is_word else short_repr(value)}"


def nested(key: str, value: Any) -> Tree:
    """Return nested tables with a value under a dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    tree: Tree = value
    return tree


def flat(tree: Mapping[str, Any]) -> Tree:
    """Return nested tables as dotted key → value."""
    return {
        f"{key}.{name}" if name else key: entry
        for key, value in tree.items()
        for name, entry in (value.items() if isinstance(value, dict) and value else [("", value)])
    }


def get(tree: Mapping[str, Any], key: str) -> Any:
    """Return the value under a dotted key; None if there is none."""
    table, _, name = key.partition(".")
    values = tree.get(table)
    if not name:
        return values
    return values.get(name) if isinstance(values, dict) else None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Lay one layer over another: where both have a key, the upper one's value stays."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def without_overridden(
    below: Mapping[str, Any], above: Tree, exclusive: ExclusiveKeys = EXCLUSIVE_KEYS
) -> Tree:
    """Return the lower layer without the keys that the upper one sets in another way."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in below.items()}
    for said, silenced in exclusive:
        if get(above, said) is None:
            continue
        for key in silenced:
            table, _, name = key.partition(".")
            if get(above, key) is None and isinstance(kept.get(table), dict):
                kept[table].pop(name, None)
    return kept


def without_filled_in(in_file: Tree) -> Tree:
    """Return a file's settings for another text than its own: if a run wrote the file, without what
    the run filled in from its text.
    """
    if get(in_file, "data.hash") is None:
        return in_file
    learned = {"data": ("hash", "column", "format"), "finetune": ("labels", "same_prompts")}
    return {
        table: {name: value for name, value in values.items() if name not in learned[table]}
        if table in learned and isinstance(values, dict)
        else values
        for table, values in in_file.items()
    }


def with_places(problems: Iterable[str], places: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines; one about several settings says at its end where each was written.

    Args:
        problems: a line each.
        places: dotted key → its form, or the file that has it.
    """
    for line in problems:
        about, _, _ = line.partition("did you mean")  # what is suggested was not typed
        in_it = {word.strip(".") for word in _KEY.findall(about)}
        where = dict.fromkeys(place for key, place in places.items() if key in in_it)
        yield f"{line} ({', '.join(where)})" if len(in_it & places.keys()) > 1 else line
