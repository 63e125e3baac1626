"""Choice of the trackers that follow a run; none is imported before it is used.

A run's config may have come from anywhere, and says which trackers follow it and where they write.
It must not make this machine send data or run code: a tracker that does more than write in the
run's folder follows a run only if the user has named it on this machine. One that was named stays
agreed for that run, at its path and with those settings, so that a resume need not name it again;
a run that was copied here has no agreed trackers.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from hairpin.config.settings import Track
from hairpin.errors import ConfigError, UserError
from hairpin.plugins.registry import TRACKERS, known, no_such_name, registered
from hairpin.reports.trackers.tracker import Tracker
from hairpin.system.files import cache_folder, private_folder, write_atomically


def followed(asked: Track, named: Iterable[str], notice: Callable[[str], None]) -> tuple[str, ...]:
    """Return the trackers of a config that follow the run.

    Args:
        asked: the config's tracking settings.
        named: trackers that the call names, or an earlier one for this run.
        notice: called for each that is left out, and for an address that the config gives.
    """
    agreed, there = set(named), known("tracker")
    names = tuple(dict.fromkeys(asked.tools))
    tools = tuple(t for t in names if t in there and (t in agreed or _stays_here(t)))
    for name in names:
        if name not in tools:
            why = _why_not_known(name) if name not in there else _why_not_agreed(name)
            notice(f"track: {name} does not follow this run: {why}")
    for line in _addresses(asked, tools):
        notice(line)
    return tools


def maker_of(tool: str) -> Callable[[], Tracker]:
    """Return what makes a tracker that has not started."""
    found = registered("tracker", tool)
    return found.make if found else TRACKERS[tool].make


def require_known(named: Iterable[str]) -> None:
    """Check that the trackers that a call names exist.

    Raises:
        ConfigError: a line for each that does not.
    """
    unknown = [name for name in named if name not in known("tracker")]
    if unknown:
        raise ConfigError(f"track.tools: {_why_not_known(name)}" for name in unknown)


def require_installed(tools: Iterable[str]) -> None:
    """Check that the packages the trackers need are installed.

    Raises:
        UserError: a line for each that is missing.
    """
    packages = {name: TRACKERS[name].package for name in tools if name in TRACKERS}
    missing = [
        f"track.tools: {name} is not installed: pip install 'hairpin[{name}]', or remove it"
        for name, package in packages.items()
        if package and find_spec(package) is None
    ]
    if missing:
        raise UserError(missing)


def remember(run: Path, track: Track, tools: Iterable[str]) -> None:
    """Record that these tools may follow the run; if that fails, they have to be named again."""
    named = sorted(set(tools))
    if named:
        with suppress(OSError):
            path = _agreement(run)
            private_folder(path.parent)
            write_atomically(path, json.dumps({"settings": _hash(track), "tools": named}).encode())


def agreed(run: Path, track: Track) -> set[str]:
    """Return the tools that were named for the run, if its settings of them are the same."""
    try:
        kept = json.loads(_agreement(run).read_bytes())
        return set(kept["tools"]) if kept["settings"] == _hash(track) else set()
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _agreement(run: Path) -> Path:
    name = hashlib.sha256(str(run.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "trackers" / f"{name}.json"


def _hash(track: Track) -> str:
    return hashlib.sha256(json.dumps(track.model_dump(mode="json")).encode()).hexdigest()


def _stays_here(name: str) -> bool:
    return name in TRACKERS and TRACKERS[name].stays_here


def _why_not_known(name: str) -> str:
    return no_such_name("tracker", name)


def _why_not_agreed(name: str) -> str:
    return f"its config names it, and this call does not; to have it, add --track {name}"


def _addresses(asked: Track, tools: Iterable[str]) -> Iterator[str]:
    """Yield a line for each tracker that the config gives an address."""
    for name in tools:
        key = TRACKERS[name].address if name in TRACKERS else None
        address = getattr(asked, key) if key else None
        if address and "://" in address:
            yield f"track: {name} writes to {address}, as track.{key} says"
