"""A config, and messages about a run, fit for sharing: names instead of whole paths."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from hairpin.config.load import to_tree
from hairpin.config.settings import Config

# To the end, as a path may have blanks in it; or up to what ends a path in a sentence.
_AT_THE_END = re.compile(r"(?<= (?:of|in) )(?:/|~/|[A-Za-z]:\\|\\\\).*$")
_BETWEEN_MARKS = re.compile(r"(?<=[`'\"])(?:~?/|[A-Za-z]:\\)[^`'\"\n]+(?=[`'\"])")
_DATABASE = re.compile(r"([\w+]+:///)(/.+)")
# The settings, by the last part of their names, whose values are paths.
_PATHS = {"texts", "path", "mlflow_uri", "data", "dir"}
_WITHIN = re.compile(r"(?<![\w.:/~\\-])(?:~?/|[A-Za-z]:\\|\\\\)[^\s\"'`,;:()]+")


def shared_tree(config: Config) -> dict[str, Any]:
    """Return the config as nested tables, with paths cut to their last names."""
    tree: dict[str, Any] = shared_value("", to_tree(config))
    return tree


def without_paths(words: str) -> str:
    """Return the words, with absolute paths cut to their last names."""
    for known in (Path.cwd(), Path.home()):  # a name with blanks in it has no end of its own
        words = words.replace(f"{known}{os.sep}", os.sep) if len(known.parts) > 1 else words
    for pattern in (_BETWEEN_MARKS, _AT_THE_END, _WITHIN):
        words = pattern.sub(lambda found: name_of_path(found[0]), words)
    return words


def name_of_path(text: str) -> str:
    """The last name of an absolute path; anything else as it is."""
    for kind in (PureWindowsPath, PurePosixPath):
        path = kind(text.removeprefix("file://"))
        if path.is_absolute() or text.startswith("~") or (path.root and kind is PurePosixPath):
            return path.name or path.anchor
    if found := _DATABASE.fullmatch(text):
        return found[1] + PurePosixPath(found[2]).name
    return text


def shared_value(key: str, value: Any) -> Any:
    """Return the value of a setting, or of a table of them; of a path in it only the last name."""
    if isinstance(value, Mapping):
        return {name: shared_value(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [shared_value(key, entry) for entry in value]
    is_path = isinstance(value, str) and key.rpartition(".")[2] in _PATHS
    return name_of_path(value) if is_path else value
