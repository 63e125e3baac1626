"""Drawing of a schedule's learning rate in the terminal, with its figures and warnings."""

import re
import threading

from hairpin.reports.chart import Chart
from hairpin.reports.charts import schedule_chart
from hairpin.reports.formats import format_lr
from hairpin.reports.phases import schedule_figures
from hairpin.schedules.curves import Schedule

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
    drawn = _drawn(schedule_chart(schedule, 4 * width), schedule, width, height, color)
    return "\n".join([*drawn, *(f"  warning: {warning}" for warning in schedule.warnings)])


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
    return "\n".join(_drawn(schedule_chart(new, 4 * width, old), new, width, height, color))


def _drawn(chart: Chart, schedule: Schedule, width: int, height: int, color: bool) -> list[str]:
    """Return the title, the drawing and the schedule's figures."""
    drawing = _drawing(chart, width, height)
    if color:
        drawing = _CURVE.sub(lambda found: f"\x1b[36m{found[0]}\x1b[39m", drawing)
    figures = [f"  {name:<{_NAME}}{words}" for name, words in schedule_figures(schedule)]
    return [chart.title, drawing, *figures]


def _drawing(chart: Chart, width: int, height: int) -> str:
    import plotext

    last = int(chart.lines[-1].x[-1])
    peak = float(chart.lines[-1].y.max())
    ticks = sorted({last * quarter // 4 for quarter in range(5)})
    heights = [peak * quarter / 4 for quarter in range(5)]
    with _FIGURE:
        figure = plotext.figure
        figure.clear()
        figure.plot_size(width, height)
        for line in chart.lines:
            xs, ys = line.x.tolist(), line.y.tolist()
            if line.look == "dots":
                figure.draw(figure.signal(xs, ys, marker="·"))
            else:
                figure.draw(figure.signal(xs, ys, marker="braille").lines())
        figure.label("update", "x")
        figure.ruler("x").ticks(ticks, [f"{tick:,}" for tick in ticks])
        figure.ruler("y").lim(0, peak * 1.02)
        figure.ruler("y").ticks(heights, [format_lr(tick) for tick in heights])
        drawing = figure.build().string(colorless=True)
        figure.clear()
    return "\n".join(line.rstrip() for line in str(drawing).rstrip("\n").split("\n"))
