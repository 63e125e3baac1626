"""A path that exists and cannot be read: its disk gives errors, or it is another user's."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_unreadable(path: Path, number: int, readable_first: int = 0) -> None:
    """From here on this process gets an error where it opens the file for reading, or looks into
    the folder. It may still write there, as the one who runs the tests may do anything.

    Args:
        path: the file or folder.
        number: of the error, such as `errno.EIO`.
        readable_first: how often it can be read before that.
    """
    target = os.path.realpath(path)
    opened = 0

    def check(name: Any) -> None:
        nonlocal opened
        if isinstance(name, str | os.PathLike) and os.path.realpath(name) == target:
            opened += 1
            if opened > readable_first:
                raise OSError(number, os.strerror(number), os.fspath(name))

    def checked(call: Callable[..., Any]) -> Callable[..., Any]:
        def reading(name: Any = ".", *rest: Any, **named: Any) -> Any:
            check(name)
            return call(name, *rest, **named)

        return reading

    open_file = builtins.open

    def opening(name: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wax"):
            check(name)
        return open_file(name, mode, *rest, **named)

    io.open = builtins.open = opening  # type: ignore[assignment]
    os.listdir = checked(os.listdir)
    os.scandir = checked(os.scandir)
