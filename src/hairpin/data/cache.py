"""The user's cache: downloads, surveys and token shards, which can all be made again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`HAIRPIN_CACHE` where it is set, else the place that this platform has for caches."""
    return Path(os.environ.get("HAIRPIN_CACHE") or platformdirs.user_cache_dir("hairpin"))


def shown(path: Path | str) -> str:
    """A path as text for one line of a message: control characters and stray bytes escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(path)
    )
