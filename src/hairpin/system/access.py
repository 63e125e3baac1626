"""Tell a missing file from one that cannot be read now.

A missing file says something about a run. A disk error, a file of another user's or too many open
files say nothing: callers that meet them stop, and change nothing.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hairpin.errors import RunError, UnreadableError, UserError
from hairpin.system.shell import quoted_words

# No regular file: nothing, or a link, a folder, a name that is too long.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG)
# A link is not followed, and a pipe that replaced the file is not waited for.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn system errors inside the block into one line that names the path.

    Raises:
        FileNotFoundError: the file is missing; the caller decides what that means.
        UnreadableError: anything else went wrong.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
        raise UnreadableError(path, error) from None


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; it is closed at the end of the block.

    Raises:
        FileNotFoundError: it is missing, or is a link or a folder.
        UnreadableError: it cannot be read now, or the block meets a system error.
        ValueError: the path is not a valid file name.
    """
    with reading(path):
        _require_plain(path.lstat().st_mode)
        with open(path, "rb", buffering=0, opener=_open) as file:
            _require_plain(os.fstat(file.fileno()).st_mode)
            yield file


def is_there(path: Path) -> bool:
    """True if the path exists.

    Raises:
        UnreadableError: that cannot be determined now.
    """
    try:
        with reading(path):
            path.stat()
    except (FileNotFoundError, ValueError):  # a ValueError: there is a NUL in the name
        return False
    return True


def require_working_folder() -> None:
    """Check that the working folder exists: no relative path has a meaning without it.

    Raises:
        RunError: it was removed.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise RunError(
            f"the working folder cannot be determined ({error.strerror}): it was deleted, or its "
            "disk is gone; change to an existing one with `cd`"
        ) from None


def require_utf8(path: Path) -> Path:
    """Return the path if a config and a record, which are UTF-8, can hold it.

    Raises:
        UserError: a part of it has bytes that are not UTF-8; with a command to rename it.
    """
    for part in (*reversed(path.parents), path):
        try:
            part.name.encode()
        except UnicodeEncodeError:
            # Latin-1 has a character for each byte, and most such names date from its time.
            name = os.fsencode(part.name).decode("latin-1")
            rename = quoted_words("mv", part, part.with_name(name))
            way_out = f"rename it, as with `{rename}`" if os.path.lexists(part) else "name another"
            raise UserError(
                f"{path}: the name {part.name} is not UTF-8, as the paths in a run must be; "
                f"{way_out}"
            ) from None
    return path


def entries(folder: Path) -> list[Path]:
    """Return the paths in a folder, unordered; none if the folder does not exist.

    Raises:
        UnreadableError: it cannot be read now.
    """
    try:
        with reading(folder):
            return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


def _require_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
