"""Record, kept outside the run, of the trackers that a user has named for it on this machine.

A run's config may have come from anywhere, and says which tools follow it and where they write.
A tool that the user has named on this machine stays agreed for that run, at its path and with those
settings, so that a resume need not name it again; a run that was copied here has no agreed tools.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hairpin.config.track import Track
from hairpin.system.files import cache_folder, private_folder, write_atomically


def remember(run: Path, track: Track, tools: Iterable[str]) -> None:
    """Record that these tools may follow the run; if that fails, they have to be named again."""
    named = sorted(set(tools))
    if named:
        with suppress(OSError):
            path = _place(run)
            private_folder(path.parent)
            write_atomically(path, json.dumps({"settings": _hash(track), "tools": named}).encode())


def agreed(run: Path, track: Track) -> set[str]:
    """Return the tools that were named for the run, if its settings of them are the same."""
    try:
        kept = json.loads(_place(run).read_bytes())
        return set(kept["tools"]) if kept["settings"] == _hash(track) else set()
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _place(run: Path) -> Path:
    name = hashlib.sha256(str(run.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "trackers" / f"{name}.json"


def _hash(track: Track) -> str:
    return hashlib.sha256(json.dumps(track.model_dump(mode="json")).encode()).hexdigest()
