"""A run is made longer: what its config becomes.

The extension belongs to the config, so that the run repeats from it and resumes exactly. It may
change no learning rate that was used already:

    a finished run             a policy says what follows (hairpin.extensions)
    a run that is not          grows as it is, while nothing used so far hangs on its length
    a rate that never falls    grows as it is, finished or not
"""

import math
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hairpin.analysis.curves import draw_extension
from hairpin.commands import command
from hairpin.config.checks import schedule_of
from hairpin.config.durations import parse_duration
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.extensions import POLICIES
from hairpin.run import Run
from hairpin.runs.metrics import first_event, read_record
from hairpin.schedules import Schedule


def is_finished(run: Run) -> bool:
    """Whether the last process came to the end of the run as long as it is now."""
    if first_event(run.directory.metrics) is None:
        return False
    events = read_record(run.directory.metrics)
    end = next(iter(deque((e for e in events if e["event"] == "end"), maxlen=1)), None)
    length = run.config.train.updates
    return bool(end and end["status"] == "finished" and end["update"] >= (length or 0))


def is_imported(run: Run) -> bool:
    """Whether `hairpin import` made the run, so that nothing was to be trained in it."""
    if first_event(run.directory.metrics) is None:
        return False
    events = read_record(run.directory.metrics)
    return any(event["event"] == "plan" and event.get("updates") == 0 for event in events)


def nothing_to_go_on_with(path: Path) -> str:
    """Return what to say of a run that `hairpin import` made."""
    begins = command("train", "TEXT", "--from", path)
    return f"imported, with no training to go on with; `{begins}` begins one"


def make_longer(
    run: Run, by: str | int | None, policy: str | None, notice: Callable[[str], None]
) -> None:
    """Write the config of a longer run, after drawing its learning rate. The caller holds the
    run's lock.

    Args:
        run: finished or not.
        by: how many updates more, or a length of time such as "10m".
        policy: a name in `POLICIES`; None: as it is.
        notice: is given the drawing.

    Raises:
        ConfigError, RunError: this run cannot be made longer like this.
    """
    if by is None:
        raise RunError("--policy: says how a run goes on; add --extend 10m or --extend UPDATES")
    config = run.config
    if is_imported(run):
        raise RunError(f"{run.path}: {nothing_to_go_on_with(run.path)}")
    if not _is_settled(config):
        raise RunError(f"{run.path}: not begun yet; `{command('resume', run.path)}` begins it")
    more = _updates(run, by)
    _refuse_if_rates_would_change(run, schedule_of(config), policy)
    longer = _longer(config, more, policy)
    notice(draw_extension(schedule_of(config), schedule_of(longer)))
    run.directory.write_config(longer)


def _is_settled(config: Config) -> bool:
    train = config.train
    return bool(train.updates and train.tokens_per_update and config.schedule.peak_lr)


def _refuse_if_rates_would_change(run: Run, schedule: Schedule, policy: str | None) -> None:
    path, updates = run.path, schedule.updates
    if is_finished(run):
        if policy is None and schedule.settled < updates:
            ways = "; ".join(f"{name}: {words}" for name, words in POLICIES.items())
            raise RunError(
                f"{path}: finished, and the end of its {schedule.kind} was at its length; say how "
                f"it goes on with --policy ({ways})"
            )
        return
    done = run.summary().updates
    if policy is not None:
        raise RunError(
            f"{path}: {done:,} of {updates:,} updates are done, and --policy says what follows the "
            f"last; finish it with `{command('resume', path)}` first"
        )
    if schedule.settled < done:
        raise RunError(
            f"{path}: of the {done:,} updates done, those from {schedule.settled:,} on had "
            f"learning rates for a length of {updates:,}; finish it with "
            f"`{command('resume', path)}`, then --extend it with --policy"
        )


def _updates(run: Run, by: str | int) -> int:
    """How many updates more that is, at the run's own speed.

    Raises:
        ConfigError, RunError: neither a number nor a length of time, or none at all.
    """
    text = str(by).strip()
    if not text.removeprefix("-").isdecimal():
        seconds = parse_duration(text, "--extend", "a number of updates, or ")
        return max(1, math.floor(seconds / _seconds_per_update(run)))
    if int(text) < 1 or len(text) > 15:
        raise RunError(f"--extend {text}: write how many updates more, from 1 on")
    return int(text)


def _seconds_per_update(run: Run) -> float:
    """The median over the updates in the run's record."""
    timed: list[float] = [
        event["tokens"] / event["tokens_per_second"]
        for event in read_record(run.directory.metrics)
        if event["event"] == "update" and event.get("tokens_per_second")
    ]
    if not timed:
        raise RunError(
            f"{run.path}: no update was made yet, so its speed is not known; give --extend UPDATES"
        )
    return statistics.median(timed)


def _longer(config: Config, more: int, policy: str | None) -> Config:
    schedule, asked = schedule_of(config), config.schedule
    values: dict[str, Any] = {"train.updates": schedule.updates + more}
    if policy is not None:
        parts = [part.model_dump() for part in asked.extensions]
        values["schedule.extensions"] = [*parts, {"at": schedule.updates, "policy": policy}]
    elif not asked.extensions:  # else the curve ends where the first part begins
        values |= _fixed("warmup", schedule.warmup)
        if schedule.kind == "wsd":
            values |= _fixed("decay", schedule.decay)
    return with_values(config, values)


def _fixed(phase: str, updates: int) -> dict[str, Any]:
    """What makes warmup or decay as long as it is, in a run of any length."""
    return {
        f"schedule.{phase}_updates": updates,
        f"schedule.{phase}_tokens": None,
        f"schedule.{phase}_fraction": None,
    }
