"""Begin a run, and check that an existing one is the one requested."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hairpin.config.load import changed_keys, short_tree, validate
from hairpin.config.settings import Config
from hairpin.distributed.launch import is_restarted, launcher
from hairpin.errors import RunError, shown_command
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory, list_runs
from hairpin.runs.record import Record, first_event
from hairpin.system.shell import command
from hairpin.system.version import __version__


def begin(run: RunDirectory, asked: Config, budget_seconds: float | None) -> dict[str, Any]:
    """Return the first line of the run's record, writing it if it does not exist."""
    first = first_event(run.metrics)
    if first is None:
        start = events.Start(
            time.time(),
            __version__,
            shown_command(sys.argv),
            budget_seconds,
            short_tree(asked),
            launcher(),
        )
        with Record(run.metrics) as record:
            record.write(start)
            record.sync()  # before anything is filled in: only it has the request
        first = start.as_json()
    return first


def begun_by_this_launcher(folder: Path) -> Path | None:
    """Return the run that this process's torchrun began before restarting the process; None if
    it did not, or there is none in the folder.
    """
    if not is_restarted():
        return None
    for run in reversed(list_runs(folder)):
        if (first_event(run.metrics) or {}).get("launcher") == launcher():
            return run.path
    return None


def require_same(run: RunDirectory, asked: Config, budget_seconds: float | None) -> None:
    """Check that the run is the one requested, by the request that began it or by the config that
    it has now.

    Raises:
        RunError: it is a different one; the line names what differs.
    """
    present = run.read_config()
    if asked == present:
        return
    start = first_event(run.metrics) or {"budget_seconds": budget_seconds}
    first = validate(start["asked"]) if "asked" in start else present
    there = start.get("budget_seconds")
    different = [
        f"{key} is {was} in that run and {now} here" for key, was, now in _shown(first, asked)
    ]
    if there != budget_seconds:
        different.append(
            f"--budget is {_seconds(there)} in that run and {_seconds(budget_seconds)} here"
        )
    if different:
        raise RunError(
            f"{run.path}: a different run exists: {'; '.join(different)}; name another folder "
            f"with --out, or resume that run with `{command('resume', run.path)}`"
        )


def _shown(was: Config, now: Config) -> Iterator[tuple[str, str, str]]:
    for key, before, after in changed_keys(was, now):
        yield key, _value(before), _value(after)


def _value(value: object) -> str:
    return "unset" if value is None else str(value)


def _seconds(seconds: float | None) -> str:
    return "unset" if seconds is None else f"{seconds:g}s"
