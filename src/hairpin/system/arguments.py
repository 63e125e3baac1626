"""Normalise Python arguments that have several forms: one thing or many, numbers of other
libraries.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from hairpin.errors import ConfigError

AnyPath = str | os.PathLike[str]  # a run is one: its folder
Time = str | float | timedelta  # "10m", a number of seconds, or Python's own


def listed(given: Any) -> tuple[Any, ...]:
    """Return an argument as a tuple: a string or a path is one item, not its letters; None is
    empty.

    Raises:
        ConfigError: it is a dict.
    """
    if given is None:
        return ()
    if isinstance(given, Mapping):
        raise ConfigError(
            "got a dict instead of a string or a list of strings; settings as a dict, such as "
            "{'train.updates': 100}, go into `settings`"
        )
    if isinstance(given, str | os.PathLike) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def as_settings(given: Any, name: str = "settings") -> dict[str, Any]:
    """Return a mapping argument as a dict; None is an empty one.

    Args:
        given: dotted key → value, or name → its meaning.
        name: of the argument, for a message.

    Raises:
        ConfigError: it is not a mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        example = "{'train.updates': 100}" if name == "settings" else "{'books': 'books.txt'}"
        also = '; "key=value" strings are `overrides`' if name == "settings" else ""
        raise ConfigError(
            f"{name}: a {type(given).__name__} is not a dict; give one, such as {example}{also}"
        )
    return dict(given)


def plain_number(value: Any) -> Any:
    """Return a single value of NumPy or PyTorch as Python's, and anything else as it is."""
    is_one = getattr(value, "shape", None) == () and callable(getattr(value, "item", None))
    return value.item() if is_one else value
