"""The user's cache: downloads, surveys and token shards, all of which can be recreated."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return `HAIRPIN_CACHE` if it is set, else this platform's folder for caches."""
    return Path(os.environ.get("HAIRPIN_CACHE") or platformdirs.user_cache_dir("hairpin"))


def shown(path: Path | str) -> str:
    """Format a path for one line of a message: control characters and stray bytes are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(path)
    )
