"""Where something new may be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hairpin.errors import RunError
from hairpin.files import new_folder


@contextmanager
def new_or_empty_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled inside the block, which is at `path` whole or not at all.

    Raises:
        RunError: there is something at `path`, or no folder can be made there.
    """
    require_free(path)
    try:
        with new_folder(path) as temporary:
            yield temporary
            if path.is_dir():
                path.rmdir()  # it is empty; Windows does not rename over it
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None


def require_free(path: Path) -> None:
    """Nothing, if `path` is new or an empty folder.

    Raises:
        RunError: it is not.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path}: exists and is not an empty folder; name another")
