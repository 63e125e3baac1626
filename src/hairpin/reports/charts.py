"""The charts of a run and of a schedule, the same for pictures and for the page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config
from hairpin.errors import ConfigError
from hairpin.reports.chart import (
    DASHES,
    FORMATS,
    Chart,
    KeyPoint,
    Line,
    Mark,
    Picture,
    SecondAxis,
    all_positive,
    style,
)
from hairpin.reports.event_text import incident_text, new_length_text, resume_text
from hairpin.reports.formats import (
    format_count,
    format_loss,
    format_lr,
    format_norm,
    safe_name,
)
from hairpin.reports.history import of_kind, others
from hairpin.reports.phases import phases, plotted_updates, schedule_title
from hairpin.reports.series import (
    Event,
    Floats,
    highest,
    series,
    smoothed,
    source_series,
    values_of,
)
from hairpin.reports.summary import EvaluationPoint, best_evaluation
from hairpin.schedules.curves import CURVES, Schedule

BITS_UNIT = "of validation text"
_MAX_ROWS = 60
_MAX_MARKS = 200
_PLANNED_POINTS = 500

Matrix = Sequence[Sequence[int]]


def charts_of(events: Sequence[Event], config: Config) -> Iterator[Chart]:
    """Yield all charts that the record has data for, one by one: of a long run each is large.

    Args:
        events: the record's valid events (`reports.history.history`).
        config: the run's.
    """
    make: tuple[Callable[[], Chart | None], ...] = (
        lambda: loss_chart(events),
        lambda: bits_chart(events),
        lambda: accuracy_chart(events),
        lambda: source_loss_chart(events),
        lambda: source_bits_chart(events),
        lambda: lr_chart(events, config),
        lambda: norm_chart(events, config),
        lambda: ratios_chart(events),
        lambda: speed_chart(events),
    )
    for each in make:
        if chart := each():
            yield chart


def loss_chart(events: Sequence[Event]) -> Chart:
    """Chart the loss of each update's own batch, raw and smoothed, and the evaluations."""
    updates, losses = series(events, "update", "loss")
    evaluated, train = series(events, "evaluation", "train_loss")
    val = values_of(events, "evaluation", "val_loss")
    unit = f"nats per {unit_of(events)}"
    best = best_evaluation(events)
    points: tuple[KeyPoint, ...] = ()
    if best is not None and best.val_loss is not None:
        points = (KeyPoint(best.update, best.val_loss, "best validation", "orange", "star"),)
    return Chart(
        "loss",
        "Loss",
        unit,
        "loss",
        (
            Line("training, each update", updates, losses, color="sky", look="faint"),
            Line("training, smoothed", updates, smoothed(losses)),
            Line("training, evaluated", evaluated, train, look="points", marker="square"),
            Line("validation", evaluated, val, color="vermillion", look="marked"),
        ),
        log=all_positive(losses, train, val),
        marks=_incident_marks(events),
        head=("update", "training", "validation"),
        rows=_rows(evaluated, (train, _loss), (val, _loss)),
        picture=Picture(
            _loss_title(best),
            f"loss ({unit})",
            points=points,
            top=_tokens_axis(events),
            right=_bits_axis(events),
        ),
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
        (Line("validation", evaluated, bits, color="vermillion", look="marked"),),
        log=all_positive(bits),
        head=("update", "bits per byte"),
        rows=_rows(evaluated, (bits, _loss)),
    )


def accuracy_chart(events: Sequence[Event]) -> Chart | None:
    """Chart a classifier's share of correct labels."""
    evaluated, train = series(events, "evaluation", "train_accuracy")
    val = values_of(events, "evaluation", "val_accuracy")
    losses = values_of(events, "evaluation", "val_loss")
    if not np.isfinite(val).any():
        return None
    unit = "share of correct labels"
    title = "Accuracy"
    points: tuple[KeyPoint, ...] = ()
    if np.isfinite(losses).any():
        best = int(np.nanargmin(losses))
        title = f"Accuracy: {val[best]:.1%} of validation labels correct at the lowest loss"
        at_best = float(evaluated[best]), float(val[best])
        points = (KeyPoint(*at_best, "lowest validation loss", "orange", "star"),)
    share = _commonest_share(events)
    return Chart(
        "accuracy",
        "Accuracy",
        unit,
        "share",
        (
            Line("training", evaluated, train, look="marked", marker="square", dash=DASHES[1]),
            Line("validation", evaluated, val, color="vermillion", look="marked"),
        ),
        floor=0.0,
        head=("update", "training", "validation"),
        rows=_rows(evaluated, (train, FORMATS["share"]), (val, FORMATS["share"])),
        picture=Picture(
            title,
            unit,
            points=points,
            baseline=None if share is None else (share, "always the most common label"),
        ),
    )


def source_loss_chart(events: Sequence[Event]) -> Chart | None:
    """Chart the validation loss of each source of a mixture."""
    picture = Picture(
        "Validation loss by source", "loss (nats per token)", top=_tokens_axis(events)
    )
    return _source_chart(
        events, "val_loss", "sources", "Validation loss by source", "nats per token", picture
    )


def source_bits_chart(events: Sequence[Event]) -> Chart | None:
    """Chart the bits per byte of each source of a mixture."""
    unit = "of each source's validation text"
    return _source_chart(
        events, "val_bits_per_byte", "source-bits", "Bits per byte by source", unit
    )


def lr_chart(events: Sequence[Event], config: Config) -> Chart:
    """Chart the learning rate of the updates so far, the planned one, and the schedule's phases."""
    updates, lr = series(events, "update", "lr")
    lines = [Line("learning rate", updates, lr)]
    schedule = known_schedule(config)
    named = phases(schedule) if schedule else []
    done = updates[-1] if len(updates) else -1
    if schedule and done < schedule.updates - 1:
        ahead = [u for u in plotted_updates(schedule, _PLANNED_POINTS) if u >= done]
        planned = np.array([schedule(u) for u in ahead], np.float64)
        x = np.array(ahead, np.float64)
        lines.append(Line("planned", x, planned, color="grey", dash=DASHES[1], look="planned"))
    return Chart(
        "lr",
        "Learning rate",
        f"by update; schedule {schedule.kind}" if schedule else "by update",
        "lr",
        tuple(lines),
        floor=0.0,
        bands=tuple((float(start), float(end), name) for start, end, name in named),
        marks=_length_marks(events),
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
        picture=Picture(
            "Learning rate",
            "learning rate",
            points=_lr_points(updates, lr),
            top=_tokens_axis(events),
        ),
    )


def schedule_chart(schedule: Schedule, points: int, replaced: Schedule | None = None) -> Chart:
    """Chart a schedule that nothing has been trained with yet.

    Args:
        schedule: the schedule.
        points: about as many are computed.
        replaced: the schedule before an extension; where it differs, it is a curve of its own.
    """
    end = "min" if CURVES[schedule.kind].decays else "last"
    chart = rates_chart(
        schedule_title(schedule),
        *_rates(schedule, plotted_updates(schedule, points)),
        last_name=end,
    )
    sampled = plotted_updates(replaced, points // 4) if replaced else []
    old = [u for u in sampled if replaced and replaced(u) != schedule(u)]
    if not replaced or not old:
        return chart
    before = Line("before", *_rates(replaced, old), color="grey", look="dots")
    return replace(chart, lines=(before, *chart.lines))


def rates_chart(title: str, updates: Floats, lr: Floats, last_name: str = "last") -> Chart:
    """Chart learning rates, of which the first, the peak and the last are emphasised."""
    picture = Picture(title, "learning rate", points=_lr_points(updates, lr, last_name))
    lines = (Line("learning rate", updates, lr),)
    return Chart("lr", title, "by update", "lr", lines, floor=0.0, picture=picture)


def norm_chart(events: Sequence[Event], config: Config) -> Chart:
    """Chart the gradient norm before clipping, the threshold, and the updates that were clipped."""
    updates, norms = series(events, "update", "grad_norm")
    norms = np.where(norms > 0, norms, np.nan)  # a logarithmic axis has no zero
    clipped = values_of(events, "update", "clipped") == 1
    lines = [Line("gradient norm", updates, norms, look="thin")]
    marked = clipped & np.isfinite(norms)
    if marked.any():
        xs, ys = highest(updates[marked], norms[marked], updates[-1])
        lines.append(Line("clipped", xs, ys, color="vermillion", look="dots", marker="speck"))
    kind, threshold = config.clip.kind, config.clip.threshold
    share = f"; {clipped.mean():.1%} clipped" if len(clipped) and kind != "off" else ""
    return Chart(
        "norm",
        "Gradient norm",
        "clipping is off" if kind == "off" else f"before clipping{share}",
        "norm",
        tuple(lines),
        log=True,
        rules=((threshold, f"threshold {threshold:g}"),) if kind == "norm" else (),
        marks=_incident_marks(events),
        head=("update", "gradient norm", "clipped"),
        rows=_rows(updates, (norms, format_norm), (clipped, lambda was: "yes" if was else "")),
        picture=Picture(_norm_title(clipped, kind), "global L2 norm", top=_tokens_axis(events)),
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
        Line(
            part,
            x,
            np.where(values[part] > 0, values[part], np.nan),
            look="marked",
            **style(at),
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
        rows=_rows(x, *((values[part], format_lr) for part in parts)),
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
            Line("each update", updates, speed, color="sky", look="faint"),
            Line("smoothed", updates, smoothed(speed)),
        ),
        floor=0.0,
        marks=_length_marks(events),
        head=("update", f"{name} per second"),
        rows=_rows(updates, (speed, format_count)),
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


def incidents_of(events: Sequence[Event]) -> list[Event]:
    """Return the spikes, skips and rewinds."""
    return list(of_kind(events, "spike", "skip", "rewind"))


def labels_of(events: Sequence[Event]) -> tuple[str, ...]:
    """Return a classifier's labels; empty for other runs."""
    plans = of_kind(events, "plan")
    return tuple(plans[-1].get("labels") or ()) if plans else ()


def best_confusion(events: Sequence[Event]) -> tuple[int, Matrix] | None:
    """Return the update and the confusion matrix of the lowest validation loss, whose weights are
    kept; None: the record has no matrix.
    """
    found = [e for e in others(events) if e.get("val_confusion") and e.get("val_loss") is not None]
    if not found:
        return None
    best = min(found, key=lambda event: float(event["val_loss"]))
    return best["update"], best["val_confusion"]


def _source_chart(
    events: Sequence[Event],
    key: str,
    name: str,
    title: str,
    unit: str,
    picture: Picture | None = None,
) -> Chart | None:
    found = source_series(events, key)
    values = [ys for _, ys in found.values()]
    if not any(np.isfinite(ys).any() for ys in values):
        return None
    updates = next(iter(found.values()))[0]
    names = [safe_name(name) for name in found]
    step = -(-len(updates) // _MAX_ROWS)
    shown = sorted({*range(0, len(updates), step), len(updates) - 1})
    return Chart(
        name,
        title,
        unit,
        "loss",
        tuple(
            Line(source, updates, ys, look="marked", **style(at))
            for at, (source, ys) in enumerate(zip(names, values, strict=True))
        ),
        log=all_positive(*values),
        head=("update", *names),
        rows=tuple((f"{updates[at]:,.0f}", *(_loss(ys[at]) for ys in values)) for at in shown),
        picture=picture,
    )


def _rates(schedule: Schedule, updates: Sequence[int]) -> tuple[Floats, Floats]:
    return np.array(updates, np.float64), np.array([schedule(update) for update in updates])


def _lr_points(updates: Floats, lr: Floats, last_name: str = "last") -> tuple[KeyPoint, ...]:
    """Return the first update, the peak and the last update, named with their values."""
    if not np.isfinite(lr).any():
        return ()
    peak, last = int(np.nanargmax(lr)), len(lr) - 1
    named = {0: ("first", "grey"), last: (last_name, "vermillion")}
    named[peak] = ("end of warmup, peak" if 0 < peak < last else "peak", "orange")
    return tuple(
        KeyPoint(
            float(updates[at]),
            float(lr[at]),
            f"{name}: {format_lr(lr[at])} at update {updates[at]:,.0f}",
            color,
        )
        for at, (name, color) in sorted(named.items())
    )


def _incident_marks(events: Sequence[Event]) -> tuple[Mark, ...]:
    """Return the last incidents as marks."""
    return tuple(
        Mark(event["update"], event["event"], incident_text(event))
        for event in incidents_of(events)[-_MAX_MARKS:]
    )


def _length_marks(events: Sequence[Event]) -> tuple[Mark, ...]:
    """Return marks where the run was resumed, extended or corrected."""
    return tuple(
        Mark(
            event.get("update", 0),
            event["event"],
            resume_text(event) if event["event"] == "resume" else new_length_text(event),
        )
        for event in of_kind(events, "resume", "extend", "correction")
    )


def _tokens_axis(events: Sequence[Event]) -> SecondAxis | None:
    """Return the unit of tokens, or a classifier's examples, if the record has their number."""
    tokens = values_of(events, "update", "tokens")
    return SecondAxis(counted(events), float(tokens.mean())) if tokens.sum() > 0 else None


def _bits_axis(events: Sequence[Event]) -> SecondAxis | None:
    """Return the unit of bits per byte: for a fixed text they are proportional to the loss."""
    val = values_of(events, "evaluation", "val_loss")
    bits = values_of(events, "evaluation", "val_bits_per_byte")
    usable = np.isfinite(val) & np.isfinite(bits) & (val > 0) & (bits > 0)
    if not usable.any():
        return None
    return SecondAxis("validation bits per byte", float(np.median(bits[usable] / val[usable])))


def _commonest_share(events: Sequence[Event]) -> float | None:
    """Return the accuracy of always predicting the most common validation label; None: the
    record has no matrix.
    """
    found = best_confusion(events)
    if found is None:
        return None
    rows = [sum(row) for row in found[1]]
    return max(rows) / max(1, sum(rows))


def _loss_title(best: EvaluationPoint | None) -> str:
    if best is None:
        return "Loss"
    unit = "nats per token" if best.val_accuracy is None else "nats per example"
    title = f"Loss: best validation {format_loss(best.val_loss)} {unit}"
    if best.val_bits_per_byte is not None:
        title += f" ({best.val_bits_per_byte:.3f} bits per byte)"
    return f"{title} after {best.update:,} updates"


def _norm_title(clipped: NDArray[np.bool_], clip_kind: str) -> str:
    if clip_kind == "off":
        return "Gradient norm (clipping is off)"
    title = "Gradient norm before clipping" + (" by value" if clip_kind == "value" else "")
    if not len(clipped):
        return title
    return f"{title}: {clipped.mean():.1%} of {len(clipped):,} updates clipped"


def _rows(
    updates: Floats, *columns: tuple[NDArray[Any], Callable[[Any], str]]
) -> tuple[tuple[str, ...], ...]:
    """Return formatted values at no more than `_MAX_ROWS` updates, evenly spread, including
    the last.
    """
    count = len(updates)
    kept: Iterable[int] = range(count)
    if count > _MAX_ROWS:
        kept = (round(at * (count - 1) / (_MAX_ROWS - 1)) for at in range(_MAX_ROWS))
    return tuple(
        (f"{updates[at]:,.0f}", *(written(values[at]) for values, written in columns))
        for at in kept
    )


def _loss(value: float) -> str:
    return format_loss(float(value) if np.isfinite(value) else None)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
