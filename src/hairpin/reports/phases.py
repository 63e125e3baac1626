"""A schedule's phases, named updates and corners, for drawings of it."""

from hairpin.reports.formats import format_lr, format_updates
from hairpin.schedules.curves import CURVES, Schedule
from hairpin.schedules.extensions import Extended

_MAX_CYCLES = 8
_AFTER_WARMUP = {
    "constant": "constant",
    "linear": "linear decay",
    "cosine": "cosine decay",
    "inverse-sqrt": "inverse square root",
}

Phase = tuple[int, int, str]


def phases(schedule: Schedule) -> list[Phase]:
    """Return the first update, the update after the last, and the name of each non-empty phase."""
    if not isinstance(schedule, Extended):
        return _parts(schedule, 0, "warmup")
    found = phases(schedule.base)
    for part in schedule.parts:
        if part.curve:
            found += _parts(part.curve, part.at, "rewarm")
        else:
            found.append((part.at, part.at + part.updates, part.policy))
    return found


def schedule_title(schedule: Schedule) -> str:
    """Describe the curve in a line: kind, length and warmup."""
    kind = schedule.kind if CURVES[schedule.kind].decays else f"{schedule.kind} (does not decay)"
    warmup = f"{schedule.warmup:,} of warmup" if schedule.warmup else "no warmup"
    updates = format_updates(schedule.updates)
    parts = schedule.parts if isinstance(schedule, Extended) else ()
    more = "".join(f", {part.policy} from update {part.at:,}" for part in parts)
    return f"Learning rate, {kind}: {updates}, {warmup}{more}"


def schedule_figures(schedule: Schedule) -> list[tuple[str, str]]:
    """Return the learning rate at important updates: the first, the end of warmup, the middle and
    the last; for an extended run, the beginning of each part.
    """
    last = schedule.updates - 1
    marks = _marks(schedule)
    if not isinstance(schedule, Extended):
        marks.setdefault(schedule.updates // 2, "middle")
    digits = len(f"{last:,}")
    return [
        (name, f"update {update:>{digits},}   lr {format_lr(schedule(update))}")
        for update, name in sorted(marks.items())
    ]


def plotted_updates(schedule: Schedule, points: int) -> list[int]:
    """Return about `points` updates, evenly spread, including every corner of the curve."""
    last = schedule.updates - 1
    step = max(1, last // max(1, points))
    return sorted({*range(0, last + 1, step), *(c for c in _corners(schedule) if 0 <= c <= last)})


def _parts(schedule: Schedule, at: int, warmup_name: str) -> list[Phase]:
    """Return the phases of a plain schedule whose update 0 is the run's update `at`."""
    start, end = schedule.warmup, schedule.updates
    if schedule.kind == "wsd":
        falls = max(start, end - schedule.decay)
        rest = [(start, falls, "stable"), (falls, end, "decay")]
    elif schedule.kind == "cosine-restarts" and schedule.cycles <= _MAX_CYCLES:
        length = end - start
        starts = [start + c * length // schedule.cycles for c in range(schedule.cycles + 1)]
        rest = [(starts[c], starts[c + 1], f"cycle {c + 1}") for c in range(schedule.cycles)]
    else:
        name = _AFTER_WARMUP.get(schedule.kind, schedule.kind.replace("-", " "))
        rest = [(start, end, name)]
    named = [(0, start, warmup_name), *rest]
    return [(at + first, at + last, name) for first, last, name in named if last > first]


def _marks(schedule: Schedule) -> dict[int, str]:
    """Return the updates that have a name."""
    last = schedule.updates - 1
    if isinstance(schedule, Extended):
        marks = _marks(schedule.base)
        del marks[schedule.base.updates - 1]
        marks |= {part.at: part.policy for part in schedule.parts}
        return {last: "last", **marks}
    marks = {0: "first", last: "last"}
    marks.setdefault(schedule.warmup, "end of warmup")
    if schedule.kind == "wsd":
        marks.setdefault(last - schedule.decay, "start of decay")
    return marks


def _corners(schedule: Schedule) -> set[int]:
    """Return the updates between which the curve is smooth, and some next to them."""
    if isinstance(schedule, Extended):
        corners = _corners(schedule.base) | {schedule.updates - 1}
        for part in schedule.parts:
            within = _corners(part.curve) if part.curve else set()
            corners |= {part.at - 1, part.at, *(part.at + corner for corner in within)}
        return corners
    last = schedule.updates - 1
    corners = {0, schedule.warmup - 1, schedule.warmup, last - schedule.decay, last}
    if schedule.kind == "cosine-restarts":
        length = schedule.updates - schedule.warmup
        starts = [schedule.warmup + c * length // schedule.cycles for c in range(schedule.cycles)]
        corners.update(starts, (start - 1 for start in starts))
    return corners
