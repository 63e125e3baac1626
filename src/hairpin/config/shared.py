"""A config, and words about a run, as others may see them: names in the place of whole paths."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from hairpin.config.load import to_tree
from hairpin.config.settings import Config

# To the end, as a path may have blanks in it; or up to what ends a path in a sentence.
_AT_THE_END = re.compile(r"(?<= (?:of|in) )(?:/|~/|[A-Za-z]:\\|\\\\).*$")
_WITHIN = re.compile(r"(?<![\w.:/~\\-])(?:~?/|[A-Za-z]:\\|\\\\)[^\s\"'`,;:()]+")


def shared_tree(config: Config) -> dict[str, Any]:
    """The config as nested tables; of a path in it only the last name."""
    tree: dict[str, Any] = shared_value(to_tree(config))
    return tree


def without_paths(words: str) -> str:
    """The words; of an absolute path in them only the last name."""
    named = _AT_THE_END.sub(lambda found: name_of_path(found[0]), words)
    return _WITHIN.sub(lambda found: name_of_path(found[0]), named)


def name_of_path(text: str) -> str:
    """The last name of an absolute path; anything else as it is."""
    for kind in (PureWindowsPath, PurePosixPath):
        path = kind(text.removeprefix("file://"))
        if path.is_absolute() or text.startswith("~") or (path.root and kind is PurePosixPath):
            return path.name or path.anchor
    return text


def shared_value(value: Any) -> Any:
    """A setting's value; of a path in it only the last name."""
    if isinstance(value, Mapping):
        return {key: shared_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [shared_value(entry) for entry in value]
    return name_of_path(value) if isinstance(value, str) else value
