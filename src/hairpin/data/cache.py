"""The user's cache: downloads, surveys and token shards, which can all be made again."""

import contextlib
import os
import tempfile
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`HAIRPIN_CACHE` where it is set, else the place that this platform has for caches."""
    return Path(os.environ.get("HAIRPIN_CACHE") or platformdirs.user_cache_dir("hairpin"))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all, also after a power cut.

    Raises:
        OSError: the folder cannot be made, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def shown(path: Path | str) -> str:
    """A path as text for one line of a message: control characters and stray bytes escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(path)
    )
