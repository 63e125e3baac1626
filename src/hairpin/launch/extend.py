"""The config of a run that continues with changes, above all for longer.

The extension belongs to the config, so that the run repeats from it and resumes exactly. It may
not change a learning rate that was already used:

    a finished run             a policy decides what follows (hairpin.schedules.extensions)
    an unfinished run          grows as it is, if nothing used so far depends on its length
    a rate that never falls    grows as it is, finished or not
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.config.checks import schedule_of
from hairpin.config.durations import parse_duration
from hairpin.config.layers import flat
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.launch.request import with_plugins
from hairpin.planning.choose import CLOSING_SECONDS, evaluation_interval
from hairpin.plugins.files import PluginFile
from hairpin.reports.formats import format_duration
from hairpin.run import Run
from hairpin.runs.lock import RunLock
from hairpin.runs.record import first_event, read_record
from hairpin.schedules.curves import Schedule
from hairpin.schedules.extensions import POLICIES
from hairpin.system.shell import command

# A first start may have prepared the text, which is not repeated: at most this much counts.
_MAX_STARTING_SECONDS = 30.0


def is_finished(run: Run, config: Config | None = None) -> bool:
    """True if the last process reached the end of the run, at its present length or that of
    `config`.
    """
    if first_event(run.directory.metrics) is None:
        return False
    events = read_record(run.directory.metrics)
    end = next(iter(deque((e for e in events if e["event"] == "end"), maxlen=1)), None)
    length = (config or run.config).train.updates
    return bool(end and end["status"] == "finished" and end["update"] >= (length or 0))


def is_imported(run: Run) -> bool:
    """True if `hairpin import` made the run, so that there was nothing to train."""
    if first_event(run.directory.metrics) is None:
        return False
    events = read_record(run.directory.metrics)
    return any(event["event"] == "plan" and event.get("updates") == 0 for event in events)


def nothing_to_resume(path: Path) -> str:
    """Return the message for a run that `hairpin import` made and that cannot be resumed."""
    begins = command("train", "TEXT", "--from", path)
    return f"imported, so there is no training to resume; `{begins}` starts one"


def config_to_resume(
    run: Run,
    plugins: Iterable[PluginFile],
    tools: Sequence[str],
    by: str | int | None,
    policy: str | None,
) -> tuple[Config, str | None]:
    """Return the config with which a run is to continue, and a line about its length or None; it is
    written once it is known to fit.

    Args:
        run: finished or not.
        plugins: to use as they are now; none: those that it was made with.
        tools: trackers from here on; none: those that it has.
        by, policy: as in `extended_config`.

    Raises:
        ConfigError, RunError: it cannot continue so.
    """
    files = tuple(plugins)
    config = with_plugins(run.config, files) if files else run.config
    if tools:
        config = with_values(config, {"track.tools": tuple(tools)})
    if by is None and policy is None:
        return config, None
    with RunLock(run.path):  # another process may be training it
        return extended_config(run, config, by, policy)


def extended_config(
    run: Run, config: Config, by: str | int | None, policy: str | None
) -> tuple[Config, str | None]:
    """Return the config of a longer run, without writing it; and a line if it becomes longer than
    was asked for.

    Args:
        run: finished or not.
        config: of the run.
        by: number of further updates, or a duration such as "10m".
        policy: a name in `POLICIES`; None: as it is.

    Raises:
        ConfigError, RunError: this run cannot be extended like this.
    """
    if by is None:
        raise RunError("--policy: only with --extend; add --extend 10m or --extend UPDATES")
    if policy is not None and policy not in POLICIES:
        raise RunError(f"--policy {policy}: choose one of {', '.join(POLICIES)}")
    if is_imported(run):
        raise RunError(f"{run.path}: {nothing_to_resume(run.path)}")
    if not _is_filled(config):
        raise RunError(f"{run.path}: not started yet; `{command('resume', run.path)}` starts it")
    more, note = _updates(run, config, by)
    _refuse_if_rates_would_change(run, schedule_of(config), policy)
    return _with_more_updates(config, more, policy, _requested_keys(run)), note


def _requested_keys(run: Run) -> frozenset[str]:
    """Return the settings requested when the run began; the others were chosen."""
    start = first_event(run.directory.metrics) or {}
    return frozenset(flat(start.get("asked", {})))


def _is_filled(config: Config) -> bool:
    train = config.train
    return bool(train.updates and train.tokens_per_update and config.schedule.peak_lr)


def _refuse_if_rates_would_change(run: Run, schedule: Schedule, policy: str | None) -> None:
    path, updates = run.path, schedule.updates
    if is_finished(run):
        if policy is None and schedule.length_independent_updates < updates:
            ways = "; ".join(f"{name}: {words}" for name, words in POLICIES.items())
            raise RunError(
                f"{path}: finished, and its {schedule.kind} schedule is complete; choose how it "
                f"continues with --policy ({ways})"
            )
        return
    done = run.summary().updates
    if policy is not None:
        raise RunError(
            f"{path}: {done:,} of {updates:,} updates are done, and --policy applies after the "
            f"last; finish it with `{command('resume', path)}` first"
        )
    independent = schedule.length_independent_updates
    if independent < done:
        raise RunError(
            f"{path}: of the {done:,} updates done, those from {independent:,} on used learning "
            f"rates for a length of {updates:,}; finish it with "
            f"`{command('resume', path)}`, then --extend it with --policy"
        )


def _updates(run: Run, config: Config, by: str | int) -> tuple[int, str | None]:
    """Return the number of further updates, and a line if a duration is too short for one.

    Raises:
        ConfigError, RunError: neither a number nor a duration, or zero.
    """
    text = str(by).strip()
    if not text.removeprefix("-").isdecimal():
        return _updates_in(run, config, text)
    if int(text) < 1 or len(text) > 15:
        raise RunError(f"--extend {text}: give the number of further updates, at least 1")
    return int(text), None


def _updates_in(run: Run, config: Config, text: str) -> tuple[int, str | None]:
    seconds = parse_duration(text, "--extend", "a number of updates, or ")
    timing = timing_of(read_record(run.directory.metrics))
    if timing is None:
        raise RunError(
            f"{run.path}: no update is done yet, so its speed is unknown; give --extend UPDATES"
        )
    planned, asked = config.train.updates or 0, _requested_keys(run)
    # An unfinished run starts and ends anyway.
    around = timing.around if is_finished(run, config) else 0.0
    more = 0
    for _ in range(2):  # a longer run evaluates less often, which leaves time for more
        every = _every(config, planned + more, asked)
        more = timing.updates_in(seconds - around, planned, every)
    if more:
        return more, None
    taken = format_duration(around + timing.update + timing.pause)
    return 1, (
        f"--extend {text}: one more update takes {taken} here, with startup, an evaluation and "
        "the end; the run becomes one update longer"
    )


def _every(config: Config, updates: int, asked: frozenset[str]) -> int:
    """Return the updates between evaluations in a run of this many: as requested, or a tenth."""
    there = config.evaluate.every_updates
    if there and "evaluate.every_updates" in asked:
        return there
    return evaluation_interval(updates)


def _with_more_updates(
    config: Config, more: int, policy: str | None, said: frozenset[str]
) -> Config:
    """Return the config `more` updates longer, with rarer evaluations and checkpoints."""
    schedule, asked = schedule_of(config), config.schedule
    updates = schedule.updates + more
    values: dict[str, Any] = {"train.updates": updates}
    every = _every(config, updates, said)
    values["evaluate.every_updates"] = every
    if "checkpoint.every_updates" not in said:
        values["checkpoint.every_updates"] = every
    if policy is not None:
        parts = [part.model_dump() for part in asked.extensions]
        values["schedule.extensions"] = [*parts, {"at": schedule.updates, "policy": policy}]
    elif not asked.extensions:  # otherwise the curve ends where the first part begins
        values |= _fixed("warmup", schedule.warmup)
        if schedule.kind == "wsd":
            values |= _fixed("decay", schedule.decay)
    return with_values(config, values)


def _fixed(phase: str, updates: int) -> dict[str, Any]:
    """Return settings that keep the length of warmup or decay in a run of any length."""
    return {
        f"schedule.{phase}_updates": updates,
        f"schedule.{phase}_tokens": None,
        f"schedule.{phase}_fraction": None,
    }


@dataclass(frozen=True)
class Timing:
    """Seconds of a run's parts.

    The record times updates and whole processes; the time that a process spent on neither its start
    nor its updates went to evaluations, samples and checkpoints.

    Args:
        update: of one.
        starting: from the start of a process to its first update.
        pause: of an evaluation with its sample and checkpoint.
    """

    update: float
    starting: float
    pause: float

    @property
    def around(self) -> float:
        """Seconds of a process outside its updates and evaluations: its start and its end."""
        return self.starting + CLOSING_SECONDS

    def updates_in(self, seconds: float, after: int, every: int) -> int:
        """Return the number of updates that fit in the time, with the evaluations on the way and
        the last; 0 if none.

        Args:
            seconds: without the start and the end of the process.
            after: the run's updates before these.
            every: updates between evaluations.
        """
        updates = math.floor((seconds - self.pause) / self.update)
        while updates > 0:
            cost = updates * self.update + self.pause * _pauses(after, updates, every)
            if cost <= seconds:
                return updates
            updates -= max(1, math.floor((cost - seconds) / (self.update + self.pause)))
        return 0


def timing_of(events: Iterable[Mapping[str, Any]]) -> Timing | None:
    """Read the times from a record; None if no update in it was timed."""
    updates: list[float] = []
    begun = starting = pause = training = 0.0
    pauses = 0
    for event in events:
        kind = event["event"]
        if kind == "start":
            begun = event.get("time", 0.0)
        elif kind == "plan" and begun and "ends" in event:
            starting = max(0.0, event["ends"] - event.get("seconds", 0.0) - begun)
        elif kind == "resume":
            training, pauses = 0.0, 0
        elif kind == "update" and event.get("tokens_per_second"):
            seconds = event["tokens"] / event["tokens_per_second"]
            updates.append(seconds)
            training += seconds
        elif kind == "evaluation":
            pauses += 1
        elif kind == "end" and pauses:
            pause = max(0.0, event["seconds"] - starting - training) / pauses
    if not updates:
        return None
    return Timing(statistics.median(updates), min(starting, _MAX_STARTING_SECONDS), pause)


def _pauses(after: int, updates: int, every: int) -> int:
    """Count the evaluations in this many further updates, including the last."""
    end = after + updates
    return end // every - after // every + (end % every > 0)
