"""The page about several runs: their curves in shared charts, and their differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.reports.charts import BITS_UNIT, counted, unit_of
from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_lr,
    format_norm,
    harmless_name,
)
from hairpin.reports.page.chart import (
    COLORS,
    DASHES,
    MARKERS,
    WRITTEN,
    Chart,
    charts_data,
    charts_html,
    charts_script,
    clock,
    line,
)
from hairpin.reports.page.facts import count_words, sample_html, settings_that_differ
from hairpin.reports.page.markup import data_script, escape, note, section, table
from hairpin.reports.page.run_page import contents, written
from hairpin.reports.page.shell import page
from hairpin.reports.series import Event, Floats, series, smoothed, thin
from hairpin.reports.summary import Summary, summarize
from hairpin.run import Run

_POINTS = 6000  # of all runs together, in each chart
_MOST_ROWS = 30
_MOST_PARTS = 3  # of a path; earlier ones identify the machine and its user
_EVALUATED = ("val_loss", "val_bits_per_byte", "val_accuracy")


@dataclass(frozen=True)
class _Told:
    """The data of one run."""

    name: str
    events: Sequence[Event]
    summary: Summary
    config: Config


def several_page(runs: Sequence[Run], now: float) -> str:
    """Return the page about several runs in their current state.

    Args:
        runs: two or more.
        now: seconds since 1970.

    Raises:
        RunError, ConfigError: a run is damaged, or their losses are of labels and of text.
    """
    names = short_names([run.path.absolute().parts for run in runs])
    _require_one_loss(runs)
    told = []
    for run, name in zip(runs, names, strict=True):
        events = run.events()
        told.append(_Told(name, events, summarize(events), run.config))
    charts = _charts(told)
    styles = [{"name": harmless_name(one.name), **style(at)} for at, one in enumerate(told)]
    title = f"{len(runs)} runs compared"
    parts = [
        ("outcomes", "Outcomes", _outcomes_html(told)),
        ("curves", "Curves", charts_html(charts, counted(told[0].events))),
        ("settings", "Settings that differ", _settings_html(told)),
        ("samples", "Last samples", _samples_html(told)),
    ]
    there = [(key, name, body) for key, name, body in parts if body]
    body = "\n".join(
        [
            f'<header><h1>{escape(title)}</h1><p class="standing">'
            f"{escape(', '.join(names))}; page written {written(now)}</p></header>",
            contents([(key, name) for key, name, _ in there]),
            *(section(*part) for part in there),
            data_script("charts", charts_data(charts, [clock(one.events) for one in told], styles)),
        ]
    )
    return page(f"{title} · hairpin", body, scripts=charts_script())


def _require_one_loss(runs: Sequence[Run]) -> None:
    """Check that all are classifiers, or none: one axis has no place for both losses."""
    first: dict[bool, Run] = {}
    for run in runs:
        first.setdefault(run.config.finetune.kind == "classify", run)
    if len(first) > 1:
        raise RunError(
            f"{first[True].path} is a classifier, whose loss is per example, and "
            f"{first[False].path} a language model, whose loss is per token; name runs of one kind"
        )


def style(at: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the run at index `at`: the first sixty all differ."""
    return {
        "color": COLORS[at % len(COLORS)],
        "dash": DASHES[at % len(DASHES)],
        "marker": MARKERS[at % len(MARKERS)],
    }


def short_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """Return the last parts of each path, as many as needed to tell all apart; numbered if the
    parts that others may see are not enough.
    """
    paths = [_without_user(parts) for parts in paths]
    longest = min(_MOST_PARTS, max(map(len, paths)))
    for count in range(1, longest + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{parts[-1]} ({number})" for number, parts in enumerate(paths, 1)]


def _without_user(parts: Sequence[str]) -> Sequence[str]:
    """Return a path's parts below a user's home folder, whose name is the user's."""
    is_home = len(parts) > 3 and parts[1].lower() in ("home", "users")
    return parts[3:] if is_home else parts


def _charts(told: Sequence[_Told]) -> list[Chart]:
    per = f"nats per {unit_of(told[0].events)}"
    speed = f"{counted(told[0].events).capitalize()} per second, smoothed"
    asked = (
        ("loss", "Validation loss", per, "loss", "val_loss"),
        ("bits", "Bits per byte", BITS_UNIT, "loss", "val_bits_per_byte"),
        ("accuracy", "Accuracy", "share of validation labels", "share", "val_accuracy"),
        ("training", "Training loss, smoothed", per, "loss", "loss"),
        ("lr", "Learning rate", "by update", "lr", "lr"),
        ("norm", "Gradient norm, smoothed", "before clipping", "norm", "grad_norm"),
        ("speed", speed, "in each update", "count", "tokens_per_second"),
    )
    charts = (_chart(told, *one) for one in asked)
    return [chart for chart in charts if chart]


def _points(one: _Told, key: str, columns: int) -> tuple[Floats, Floats]:
    """Return a run's values of a key, from its evaluations or, thinned, from its updates."""
    if key in _EVALUATED:
        return series(one.events, "evaluation", key)
    xs, ys = series(one.events, "update", key)
    if key == "grad_norm":
        ys = np.where(ys > 0, ys, np.nan)  # a logarithmic axis has no zero
    return thin(xs, ys if key == "lr" else smoothed(ys), columns)


def _chart(
    told: Sequence[_Told], name: str, title: str, unit: str, kind: str, key: str
) -> Chart | None:
    """Build a chart with one curve per run; None: no run has data."""
    columns = max(100, _POINTS // len(told) // 2)
    found = [_points(one, key, columns) for one in told]
    values = np.concatenate([ys[np.isfinite(ys)] for _, ys in found])
    if not len(values):
        return None
    look = "marked" if key in _EVALUATED else "line"
    lines = [
        line(one.name, xs, ys, look=look, run=at, **style(at))
        for at, (one, (xs, ys)) in enumerate(zip(told, found, strict=True))
    ]
    chart = Chart(name, title, unit, kind, tuple(lines))
    if kind in ("loss", "norm"):
        chart = replace(chart, log=bool(values.min() > 0))
    else:
        chart = replace(chart, floor=0.0)
    updates = np.unique(np.concatenate([xs for xs, _ in found]))
    if len(updates) > _MOST_ROWS:
        updates = updates[np.linspace(0, len(updates) - 1, _MOST_ROWS).astype(np.int64)]
    rows = tuple(
        (f"{update:,.0f}", *(_cell(kind, _latest(*points, float(update))) for points in found))
        for update in updates
    )
    return replace(chart, head=("update", *(one.name for one in told)), rows=rows)


def _latest(xs: Floats, ys: Floats, update: float) -> float:
    """Return the value at an update or the last one before it; NaN: outside the run."""
    at = int(np.searchsorted(xs, update, side="right")) - 1
    return float(ys[at]) if at >= 0 and update <= xs[-1] else np.nan


def _cell(kind: str, value: float) -> str:
    return WRITTEN[kind](value) if np.isfinite(value) else "–"


def _outcomes_html(told: Sequence[_Told]) -> str:
    head = (
        *("run", "status", "parameters", "updates", "tokens", "time", "speed", "best validation"),
        *("at update", "bits per byte", "accuracy", "clipped", "largest norm", "peak rate"),
    )
    rows = [_outcome(one) for one in told]
    kept = [at for at in range(len(head)) if at < 2 or any(row[at] != "–" for row in rows)]
    lowest = _lowest(told)
    body = table(
        "What came of the runs",
        [head[at] for at in kept],
        [
            [row[at] + (" ★" if head[at] == "bits per byte" and n == lowest else "") for at in kept]
            for n, row in enumerate(rows)
        ],
        words=2,
    )
    if lowest is not None:
        body += note("★ the lowest bits per byte.")
    return body + "".join(map(note, _cautions(told)))


def _outcome(one: _Told) -> tuple[str, ...]:
    summary, best = one.summary, one.summary.best
    bits = best.val_bits_per_byte if best else None
    accuracy = best.val_accuracy if best else None
    speed, norm, share = (
        summary.tokens_per_second,
        summary.largest_grad_norm,
        summary.clipped_share,
    )
    planned = summary.planned_updates
    of = f" of {planned:,}" if planned and planned != summary.updates else ""
    peak = one.config.schedule.peak_lr
    return (
        one.name,
        summary.status,
        count_words(summary.parameters),
        f"{summary.updates:,}{of}",
        count_words(summary.tokens),
        "–" if summary.seconds is None else format_duration(summary.seconds),
        "–" if speed is None else f"{format_count(speed)}/s",
        "–" if best is None else format_loss(best.val_loss),
        "–" if best is None else f"{best.update:,}",
        "–" if bits is None else f"{bits:.3f}",
        "–" if accuracy is None else f"{accuracy:.1%}",
        "–" if share is None or one.config.clip.kind == "off" else f"{share:.1%}",
        "–" if norm is None else format_norm(norm),
        "–" if peak is None else format_lr(peak),
    )


def _lowest(told: Sequence[_Told]) -> int | None:
    """Return the index of the run with the lowest bits per byte, if all have the same text."""
    if len({one.config.data.hash for one in told}) > 1:
        return None
    found = [
        (one.summary.best.val_bits_per_byte, at)
        for at, one in enumerate(told)
        if one.summary.best and one.summary.best.val_bits_per_byte is not None
    ]
    return min(found)[1] if len(found) > 1 else None


def _cautions(told: Sequence[_Told]) -> list[str]:
    """Return reasons why figures of these runs may not be comparable."""
    found = []
    if len({one.config.data.hash for one in told}) > 1:
        found.append(
            "These runs have different text, and so different validation text: neither loss nor "
            "bits per byte says which is better."
        )
    kinds = {(one.config.tokenizer.kind, one.config.tokenizer.vocabulary) for one in told}
    if len(kinds) > 1:
        found.append(
            "These runs have different tokenizers: a loss per token compares only within one; bits "
            "per byte do compare."
        )
    if len({one.summary.counted for one in told}) > 1:
        found.append("Some of these runs are classifiers, whose losses are per example.")
    return found


def _settings_html(told: Sequence[_Told]) -> str:
    rows = settings_that_differ([one.config for one in told])
    if not rows:
        return note("All settings are the same.")
    head = ("setting", *(one.name for one in told))
    return table("Settings in which the runs differ", head, rows, words=len(head))


def _samples_html(told: Sequence[_Told]) -> str:
    cards = []
    for one in told:
        samples = [event for event in one.events if event["event"] == "sample"]
        if samples:
            title = f"{one.name}, after {samples[-1]['update']:,} updates"
            cards.append(sample_html(title, samples[-1]))
    if not cards:
        return ""
    return (
        '<div class="samples" tabindex="0" role="region" aria-label="The last sample of each run">'
        f"{''.join(cards)}</div>"
    )
