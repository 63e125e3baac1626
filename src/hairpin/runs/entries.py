"""The entries that hairpin writes in the folder of a run or an experiment, by name.

None of them may be a link: a folder from elsewhere could make hairpin overwrite or delete the
link's target. A run's folder itself may be a link, or lie behind one.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hairpin.errors import RunError, UnreadableError
from hairpin.plugins.registry import TRACKERS
from hairpin.system.files import is_link, remove

LOCKS = (".lock", ".lock.held")
# Left behind by a process that is killed while it makes a folder, or takes its lock.
LEFT_OVER = (".tmp-*", *LOCKS)
_UNFINISHED_ENTRIES = (".tmp-config.toml-*", ".tmp-experiment.json-*", ".tmp-lock-*", *LOCKS)
CONFIG = "config.toml"
# Pattern → the patterns of its own entries.
_RUN: Mapping[str, Any] = {
    "environment.json": {},
    "metrics.jsonl": {},
    "metrics.discarded-*": {},
    "report.html": {},
    "tracking.json": {},
    **{kind.entry: {} for kind in TRACKERS.values() if kind.entry},
    "tokenizer": {},
    "plots": {"*": {}},
    ".old-best": {},
    "best": {},
    "checkpoints": {"*": {}},
    "trial.json": {},
    ".committed": {},
    CONFIG: {},
}
_EXPERIMENT: Mapping[str, Any] = {
    "experiment.json": {},
    "results.json": {},
    "report.md": {},
    "runs": {"*": {"*": {}}},
}
_ALL = {name: {} for name in LEFT_OVER} | {".bad-*": {}} | dict(_RUN) | dict(_EXPERIMENT)


def refuse_links(folder: Path) -> None:
    """Check that no entry that hairpin writes in a folder is a link.

    Raises:
        RunError: a line for each link.
        UnreadableError: an entry cannot be examined now.
    """
    problems = [_words(path) for path in _links(folder, _ALL)]
    if problems:
        raise RunError(problems)


def is_left_over(path: Path) -> bool:
    """Return True for a worthless leftover of a process that was killed while it began a run."""
    return any(fnmatchcase(path.name, pattern) for pattern in _UNFINISHED_ENTRIES)


def is_free(path: Path) -> bool:
    """Return True if something new may be made at `path`: it does not exist or is an empty folder,
    apart from leftovers of a killed process.
    """
    return not path.exists() or (path.is_dir() and all(map(is_left_over, path.iterdir())))


def remove_entries(folder: Path) -> None:
    """Remove a run's own entries from its folder, the config last; keep all others and its lock."""
    for pattern in (".tmp-*", *_RUN):
        for path in folder.glob(pattern):
            remove(path, may_stay=True)


def _links(folder: Path, patterns: Mapping[str, Any]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UnreadableError(folder, error) from None
    for entry in entries:
        for pattern, below in patterns.items():
            # Some file systems ignore case.
            if fnmatchcase(entry.name.casefold(), pattern):
                path = folder / entry.name
                if is_link(path):
                    yield path
                elif below and stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                    yield from _links(path, below)
                break


def _words(path: Path) -> str:
    try:
        target = f" to {path.readlink()}"
    except (OSError, ValueError):
        target = ""
    return (
        f"{path}: is a link{target}, which hairpin does not allow in its own folders; replace it "
        "with its target, or delete it"
    )
