"""Creation of folders that are filled completely or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hairpin.errors import RunError
from hairpin.system.files import move, new_folder, remove, sync_folder, write_json

_PART = ".tmp-new"  # in a folder that is filled in place
_NAMES = ".names.json"
_LAST = "config.toml"  # its presence makes the folder a run


@contextmanager
def new_or_empty_folder(path: Path, *, remedy: str = "name another") -> Iterator[Path]:
    """Yield a folder to fill inside the block; it appears at `path` completely or not at all.

    An existing folder stays the same folder, a link the same link, and gets its content at the end;
    unfinished content of a killed process is replaced.

    Args:
        path: new, or an empty folder.
        remedy: what to do if it is neither, for the error message.

    Raises:
        RunError: `path` is taken, or no folder can be made there.
    """
    try:
        place = Path(os.path.realpath(path))
    except ValueError as error:  # the name contains a NUL
        raise RunError(f"{path}: cannot be written ({error}); {remedy}") from None
    try:
        if place.is_dir():
            _remove_half_made(place)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: exists and is not an empty folder; {remedy}")
        with _filled_in_place(place) if place.is_dir() else new_folder(place) as temporary:
            yield temporary
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None


@contextmanager
def _filled_in_place(folder: Path) -> Iterator[Path]:
    """Yield a folder inside an empty one; its content moves up at the end of the block."""
    part = folder / _PART
    try:
        part.mkdir()
        yield part
        names = sorted((path.name for path in part.iterdir()), key=lambda name: name == _LAST)
        write_json(part / _NAMES, names)  # the list allows cleaning up if moving is interrupted
        for name in names:
            move(part / name, folder / name)
        sync_folder(folder)
        remove(part)
    except BaseException:
        _remove_half_made(folder)
        raise


def _remove_half_made(folder: Path) -> None:
    """Remove the content of a folder whose filling was interrupted, and nothing else."""
    part = folder / _PART
    with suppress(OSError, ValueError, TypeError, RecursionError):  # no list: nothing was moved up
        names = set(json.loads((part / _NAMES).read_bytes()))
        here = {path.name for path in folder.iterdir()} - {_PART}
        to_move = {path.name for path in part.iterdir()} - {_NAMES}
        # Some entries were moved up and the rest not yet. Otherwise they belong to another user, or
        # the folder is complete and only the last step is missing.
        if to_move and here | to_move == names and not here & to_move:
            for name in here:
                remove(folder / name)
    remove(part, may_stay=True)
