"""The entries that hairpin writes in the folder of a run or an experiment, by name.

None of it may be a link: a folder that came from elsewhere could have what it leads to written over
or deleted. A run's folder itself may be one, or lie behind one.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hairpin.errors import RunError, UnreadableError
from hairpin.files import is_link, remove

LOCKS = (".lock", ".lock.held")
# What a process leaves that is killed while it makes a folder, or takes its lock.
LEFT_OVER = (".tmp-*", *LOCKS)
_HALF_BEGUN = (".tmp-config.toml-*", ".tmp-experiment.json-*", ".tmp-lock-*", *LOCKS)
CONFIG = "config.toml"
# Pattern → the same for what is in it.
_RUN: Mapping[str, Any] = {
    "environment.json": {},
    "metrics.jsonl": {},
    "metrics.discarded-*": {},
    "report.html": {},
    "tracking.json": {},
    "tensorboard": {},
    "wandb": {},
    "mlruns": {},
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
    """Check that nothing that hairpin writes in a folder is a link.

    Raises:
        RunError: a line for each that is one.
        UnreadableError: that cannot be told now.
    """
    problems = [_words(path) for path in _links(folder, _ALL)]
    if problems:
        raise RunError(problems)


def is_left_over(path: Path) -> bool:
    """Tell whether a process left it that was killed as it began a run; it says nothing."""
    return any(fnmatchcase(path.name, pattern) for pattern in _HALF_BEGUN)


def is_free(path: Path) -> bool:
    """Tell whether something new may be made at `path`: nothing is there, or an empty folder, but
    for what a killed process left.
    """
    return not path.exists() or (path.is_dir() and all(map(is_left_over, path.iterdir())))


def remove_entries(folder: Path) -> None:
    """Remove what a run has put in its folder, its config last, and nothing else; not its lock."""
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
            # Some file systems take capitals for small letters.
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
        f"{path}: is a link{target}, and nothing that hairpin writes in its own folders may be "
        "one; put what it leads to in its place, or delete the link"
    )
