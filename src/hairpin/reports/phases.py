"""Named phases of a schedule, for the shading of a chart."""

from hairpin.schedules.curves import Schedule
from hairpin.schedules.extensions import Extended

_MOST_CYCLES = 8
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


def _parts(schedule: Schedule, at: int, warmup_name: str) -> list[Phase]:
    """Return the phases of a plain schedule whose update 0 is the run's update `at`."""
    start, end = schedule.warmup, schedule.updates
    if schedule.kind == "wsd":
        falls = max(start, end - schedule.decay)
        rest = [(start, falls, "stable"), (falls, end, "decay")]
    elif schedule.kind == "cosine-restarts" and schedule.cycles <= _MOST_CYCLES:
        length = end - start
        starts = [start + c * length // schedule.cycles for c in range(schedule.cycles + 1)]
        rest = [(starts[c], starts[c + 1], f"cycle {c + 1}") for c in range(schedule.cycles)]
    else:
        name = _AFTER_WARMUP.get(schedule.kind, schedule.kind.replace("-", " "))
        rest = [(start, end, name)]
    named = [(0, start, warmup_name), *rest]
    return [(at + first, at + last, name) for first, last, name in named if last > first]
