"""The charts of one run, from its record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config
from hairpin.errors import ConfigError
from hairpin.reports.curves import plotted_updates
from hairpin.reports.event_text import incident_marks, turn_marks
from hairpin.reports.formats import (
    format_count,
    format_loss,
    format_lr,
    format_norm,
)
from hairpin.reports.held import of_kind, others
from hairpin.reports.page.chart import COLORS, DASHES, MARKERS, Chart, line
from hairpin.reports.page.sources import source_charts
from hairpin.reports.phases import phases
from hairpin.reports.series import Event, Floats, highest, series, smoothed, thin
from hairpin.schedules.curves import Schedule

# Points that remain distinguishable after zooming in.
COLUMNS = 3000
_SMOOTH_COLUMNS = 500
BITS_UNIT = "of validation text"
_MOST_ROWS = 60


def charts_of(events: Sequence[Event], config: Config) -> list[Chart]:
    """Return all charts that the record has data for.

    Args:
        events: the record's valid events (`analysis.summary.history`).
        config: the run's.
    """
    made = [
        loss_chart(events),
        bits_chart(events),
        accuracy_chart(events),
        *source_charts(events),
        lr_chart(events, config),
        norm_chart(events, config),
        ratios_chart(events),
        speed_chart(events),
    ]
    return [chart for chart in made if chart]


def loss_chart(events: Sequence[Event]) -> Chart:
    """Chart the loss of each update's own batch, raw and smoothed, and the evaluations."""
    updates, losses = series(events, "update", "loss")
    evaluated, train = series(events, "evaluation", "train_loss")
    _, val = series(events, "evaluation", "val_loss")
    lines = (
        line("training, each update", *thin(updates, losses, COLUMNS), color="sky", look="faint"),
        line("training, smoothed", *thin(updates, smoothed(losses), _SMOOTH_COLUMNS)),
        line("training, evaluated", evaluated, train, look="points", marker="square"),
        line("validation", evaluated, val, color="vermillion", look="marked"),
    )
    return Chart(
        "loss",
        "Loss",
        f"nats per {unit_of(events)}",
        "loss",
        lines,
        log=_all_positive(losses, train, val),
        marks=tuple(incident_marks(events)),
        head=("update", "training", "validation"),
        rows=tuple(
            (f"{update:,.0f}", format_loss(_known(a)), format_loss(_known(b)))
            for update, a, b in _some(list(zip(evaluated, train, val, strict=True)))
        ),
        notes=_thinned(len(updates)),
    )


def bits_chart(events: Sequence[Event]) -> Chart | None:
    """Chart the bits per byte of the validation text, which are comparable across tokenizers."""
    evaluated, bits = series(events, "evaluation", "val_bits_per_byte")
    if not np.isfinite(bits).any():
        return None
    return Chart(
        "bits",
        "Bits per byte",
        BITS_UNIT,
        "loss",
        (line("validation", evaluated, bits, color="vermillion", look="marked"),),
        log=_all_positive(bits),
        head=("update", "bits per byte"),
        rows=tuple(
            (f"{update:,.0f}", format_loss(_known(value)))
            for update, value in _some(list(zip(evaluated, bits, strict=True)))
        ),
    )


def accuracy_chart(events: Sequence[Event]) -> Chart | None:
    """Chart a classifier's share of correct labels."""
    evaluated, train = series(events, "evaluation", "train_accuracy")
    _, val = series(events, "evaluation", "val_accuracy")
    if not np.isfinite(val).any():
        return None
    return Chart(
        "accuracy",
        "Accuracy",
        "share of labels that are right",
        "share",
        (
            line("training", evaluated, train, look="marked", marker="square", dash=DASHES[1]),
            line("validation", evaluated, val, color="vermillion", look="marked"),
        ),
        floor=0.0,
        head=("update", "training", "validation"),
        rows=tuple(
            (f"{update:,.0f}", f"{a:.1%}", f"{b:.1%}")
            for update, a, b in _some(list(zip(evaluated, train, val, strict=True)))
        ),
    )


def lr_chart(events: Sequence[Event], config: Config) -> Chart:
    """Chart the learning rate of the updates so far, the planned one, and the schedule's phases."""
    updates, lr = series(events, "update", "lr")
    lines = [line("learning rate", *thin(updates, lr, _SMOOTH_COLUMNS))]
    schedule = known_schedule(config)
    named = phases(schedule) if schedule else []
    done = updates[-1] if len(updates) else -1
    if schedule and done < schedule.updates - 1:
        ahead = [u for u in plotted_updates(schedule, _SMOOTH_COLUMNS) if u >= done]
        planned = np.array([schedule(u) for u in ahead], np.float64)
        lines.append(
            line(
                "planned",
                np.array(ahead, np.float64),
                planned,
                color="grey",
                dash=DASHES[1],
                look="planned",
            )
        )
    return Chart(
        "lr",
        "Learning rate",
        f"by update; schedule {schedule.kind}" if schedule else "by update",
        "lr",
        tuple(lines),
        floor=0.0,
        bands=tuple((float(start), float(end), name) for start, end, name in named),
        marks=tuple(turn_marks(events)),
        head=("part", "updates", "learning rate"),
        rows=tuple(
            (
                name,
                f"{start:,} to {end - 1:,}",
                f"{format_lr(schedule(start))} to {format_lr(schedule(end - 1))}",
            )
            for start, end, name in named
        )
        if schedule
        else (),
    )


def norm_chart(events: Sequence[Event], config: Config) -> Chart:
    """Chart the gradient norm before clipping, the threshold, and the updates that were clipped."""
    updates, norms = series(events, "update", "grad_norm")
    norms = np.where(norms > 0, norms, np.nan)
    clipped = series(events, "update", "clipped")[1] == 1
    lines = [line("gradient norm", *thin(updates, norms, COLUMNS), look="thin")]
    marked = clipped & np.isfinite(norms)
    if marked.any():
        xs, ys = highest(updates[marked], norms[marked], updates[-1])
        lines.append(line("clipped", xs, ys, color="vermillion", look="dots", marker="speck"))
    kind, threshold = config.clip.kind, config.clip.threshold
    share = f"; {clipped.mean():.1%} clipped" if len(clipped) and kind != "off" else ""
    rows = _some(list(zip(updates, norms, clipped, strict=True)))
    return Chart(
        "norm",
        "Gradient norm",
        "clipping is off" if kind == "off" else f"before clipping{share}",
        "norm",
        tuple(lines),
        log=True,
        rules=((threshold, f"threshold {threshold:g}"),) if kind == "norm" else (),
        marks=tuple(incident_marks(events)),
        head=("update", "gradient norm", "clipped"),
        rows=tuple(
            (f"{u:,.0f}", format_norm(float(norm)), "yes" if was else "") for u, norm, was in rows
        ),
        notes=_thinned(len(updates)),
    )


def ratios_chart(events: Sequence[Event]) -> Chart | None:
    """Chart the relative change of the weights by an update, for each part of the network."""
    found = of_kind(events, "ratios")
    parts = list(dict.fromkeys(name for event in found for name in event["ratios"]))
    if not parts:
        return None
    x = np.array([event["update"] for event in found], np.float64)
    values = {
        part: np.array([_number(event["ratios"].get(part)) for event in found]) for part in parts
    }
    lines = [
        line(
            part,
            x,
            np.where(values[part] > 0, values[part], np.nan),
            color=COLORS[at % len(COLORS)],
            dash=DASHES[at % len(DASHES)],
            marker=MARKERS[at % len(MARKERS)],
            look="marked",
        )
        for at, part in enumerate(parts)
    ]
    return Chart(
        "ratios",
        "Update-to-weight ratio",
        "RMS of the change by one update over RMS of the weights",
        "lr",
        tuple(lines),
        log=True,
        head=("update", *parts),
        rows=tuple(
            (f"{x[at]:,.0f}", *(format_lr(float(values[part][at])) for part in parts))
            for at in _some(list(range(len(x))))
        ),
    )


def speed_chart(events: Sequence[Event]) -> Chart:
    """Chart tokens, or a classifier's examples, per second."""
    updates, speed = series(events, "update", "tokens_per_second")
    name = counted(events)
    return Chart(
        "speed",
        f"{name.capitalize()} per second",
        "in updates, without evaluations",
        "count",
        (
            line("each update", *thin(updates, speed, COLUMNS), color="sky", look="faint"),
            line("smoothed", *thin(updates, smoothed(speed), _SMOOTH_COLUMNS)),
        ),
        floor=0.0,
        marks=tuple(turn_marks(events)),
        head=("update", f"{name} per second"),
        rows=tuple(
            (f"{update:,.0f}", format_count(value))
            for update, value in _some(list(zip(updates, speed, strict=True)))
        ),
    )


def counted(events: Sequence[Event]) -> str:
    """Return the unit that tokens are counted in: a classifier has one target per example."""
    return "examples" if any(event.get("labels") for event in others(events)) else "tokens"


def unit_of(events: Sequence[Event]) -> str:
    """Return the unit that a loss is averaged over."""
    return "example" if counted(events) == "examples" else "token"


def known_schedule(config: Config) -> Schedule | None:
    """Return the run's schedule; None: its length is not known yet."""
    if not (config.train.updates and config.train.tokens_per_update and config.schedule.peak_lr):
        return None
    try:
        return schedule_of(config)
    except ConfigError:
        return None


def _some(rows: list[Any]) -> list[Any]:
    """Pick at most `_MOST_ROWS` rows, evenly spread, including the last."""
    if len(rows) <= _MOST_ROWS:
        return rows
    step = (len(rows) - 1) / (_MOST_ROWS - 1)
    return [rows[round(at * step)] for at in range(_MOST_ROWS)]


def _thinned(updates: int) -> tuple[str, ...]:
    if updates <= 2 * COLUMNS:
        return ()
    each = updates / COLUMNS
    return (f"Of every {each:.0f} updates the lowest and the highest value are drawn.",)


def _all_positive(*values: Floats) -> bool:
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    return bool(len(finite) and finite.min() > 0)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
