"""Drawing of a schedule's learning rate in the terminal, with its figures and warnings."""

import re
import threading

from hairpin.reports.formats import format_lr, format_updates
from hairpin.schedules.curves import CURVES, Schedule
from hairpin.schedules.extensions import Extended

# plotext draws on one figure per process.
_FIGURE = threading.Lock()
_CURVE = re.compile("[\u2801-\u28ff]+")
_NAME = 17


def draw_schedule(
    schedule: Schedule, width: int = 72, height: int = 16, color: bool = False
) -> str:
    """Draw the curve as text of `width` columns, followed by its figures and warnings.

    Args:
        schedule: the schedule to draw.
        width: columns of the drawing.
        height: lines of the drawing, without the title and the lines below it.
        color: draw the curve in colour, by ANSI codes.
    """
    drawing = _drawing(schedule, width, height)
    if color:
        drawing = _CURVE.sub(lambda found: f"\x1b[36m{found[0]}\x1b[39m", drawing)
    figures = [f"  {name:<{_NAME}}{words}" for name, words in schedule_figures(schedule)]
    warnings = [f"  warning: {warning}" for warning in schedule.warnings]
    return "\n".join([schedule_title(schedule), drawing, *figures, *warnings])


def draw_extension(
    old: Schedule, new: Schedule, width: int = 72, height: int = 16, color: bool = False
) -> str:
    """Draw the curve of a run that is extended, with dots where the old curve differs, followed by
    the new figures.

    Args:
        old: the schedule before the extension.
        new: the schedule after it.
        width, height, color: as in `draw_schedule`.
    """
    drawing = _drawing(new, width, height, old)
    if color:
        drawing = _CURVE.sub(lambda found: f"\x1b[36m{found[0]}\x1b[39m", drawing)
    figures = [f"  {name:<{_NAME}}{words}" for name, words in schedule_figures(new)]
    return "\n".join([schedule_title(new), drawing, *figures])


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


def _drawing(schedule: Schedule, width: int, height: int, old: Schedule | None = None) -> str:
    import plotext

    updates = plotted_updates(schedule, 4 * width)
    last = schedule.updates - 1
    ticks = sorted({last * quarter // 4 for quarter in range(5)})
    heights = [schedule.peak_lr * quarter / 4 for quarter in range(5)]
    with _FIGURE:
        figure = plotext.figure
        figure.clear()
        figure.plot_size(width, height)
        lr = [schedule(update) for update in updates]
        replaced = [u for u in plotted_updates(old, width) if old(u) != schedule(u)] if old else []
        if old and replaced:
            figure.draw(figure.signal(replaced, [old(u) for u in replaced], marker="·"))
        figure.draw(figure.signal(updates, lr, marker="braille").lines())
        figure.label("update", "x")
        figure.ruler("x").ticks(ticks, [f"{tick:,}" for tick in ticks])
        figure.ruler("y").lim(0, schedule.peak_lr * 1.02)
        figure.ruler("y").ticks(heights, [format_lr(tick) for tick in heights])
        drawing = figure.build().string(colorless=True)
        figure.clear()
    return "\n".join(line.rstrip() for line in str(drawing).rstrip("\n").split("\n"))


def schedule_title(schedule: Schedule) -> str:
    """Describe the curve in a line: kind, length and warmup."""
    kind = schedule.kind if CURVES[schedule.kind].decays else f"{schedule.kind} (does not decay)"
    warmup = f"{schedule.warmup:,} of warmup" if schedule.warmup else "no warmup"
    updates = format_updates(schedule.updates)
    parts = schedule.parts if isinstance(schedule, Extended) else ()
    more = "".join(f", {part.policy} from update {part.at:,}" for part in parts)
    return f"Learning rate, {kind}: {updates}, {warmup}{more}"
