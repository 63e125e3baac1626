"""The page about several runs: their curves in shared charts, and their differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.reports.chart import FORMATS, Chart, Line, style
from hairpin.reports.charts import BITS_UNIT, counted, unit_of
from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_lr,
    format_norm,
    safe_name,
    short_names,
)
from hairpin.reports.history import history, of_kind
from hairpin.reports.page.chart_data import charts_data, charts_script, clock, figure_of
from hairpin.reports.page.facts import SampleCard, count_words, sample_card, settings_that_differ
from hairpin.reports.page.markup import Table
from hairpin.reports.page.run_page import format_time
from hairpin.reports.page.shell import page
from hairpin.reports.series import Event, Floats, series, smoothed, thin
from hairpin.reports.summary import Summary, summarize
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record

_POINTS = 6000  # of all runs together, in each chart
_MAX_ROWS = 30
_EVALUATED = ("val_loss", "val_bits_per_byte", "val_accuracy")


@dataclass(frozen=True)
class RunData:
    """The data of one run."""

    name: str
    events: Sequence[Event]
    summary: Summary
    config: Config


def compare_page(directories: Sequence[RunDirectory], now: float) -> str:
    """Return the page about several runs in their current state.

    Args:
        directories: two or more runs.
        now: seconds since 1970.

    Raises:
        RunError, ConfigError: a run is damaged, or their losses are of labels and of text.
    """
    names = short_names([one.path.absolute().parts for one in directories])
    configs = [one.read_config() for one in directories]
    _require_comparable_losses(directories, configs)
    runs = []
    for one, name, config in zip(directories, names, configs, strict=True):
        events = history(read_record(one.metrics))
        runs.append(RunData(name, events, summarize(events), config))
    figures = [figure_of(chart, columns={}) for chart in _charts(runs)]  # thinned already
    styles = [{"name": safe_name(run.name), **style(at)} for at, run in enumerate(runs)]
    lowest = _lowest(runs)
    title = f"{len(runs)} runs compared"
    clocks = [clock(run.events) for run in runs]
    data = charts_data(figures, clocks, styles)
    return page(
        "compare.html",
        f"{title} · hairpin",
        scripts=charts_script(),
        chart_data=data,
        heading=title,
        names=names,
        written=format_time(now),
        outcomes=_outcomes_table(runs, lowest),
        has_best=lowest is not None,
        cautions=_cautions(runs),
        charts=figures,
        counted=counted(runs[0].events),
        settings=_settings_table(runs),
        samples=_last_samples(runs),
    )


def _require_comparable_losses(
    directories: Sequence[RunDirectory], configs: Sequence[Config]
) -> None:
    """Check that all are classifiers, or none: one axis has no place for both losses."""
    first: dict[bool, RunDirectory] = {}
    for one, config in zip(directories, configs, strict=True):
        first.setdefault(config.finetune.kind == "classify", one)
    if len(first) > 1:
        raise RunError(
            f"{first[True].path} is a classifier, whose loss is per example, and "
            f"{first[False].path} a language model, whose loss is per token; name runs of one kind"
        )


def _charts(runs: Sequence[RunData]) -> list[Chart]:
    per = f"nats per {unit_of(runs[0].events)}"
    speed = f"{counted(runs[0].events).capitalize()} per second, smoothed"
    asked = (
        ("loss", "Validation loss", per, "loss", "val_loss"),
        ("bits", "Bits per byte", BITS_UNIT, "loss", "val_bits_per_byte"),
        ("accuracy", "Accuracy", "share of validation labels", "share", "val_accuracy"),
        ("training", "Training loss, smoothed", per, "loss", "loss"),
        ("lr", "Learning rate", "by update", "lr", "lr"),
        ("norm", "Gradient norm, smoothed", "before clipping", "norm", "grad_norm"),
        ("speed", speed, "in each update", "count", "tokens_per_second"),
    )
    charts = (_chart(runs, *one) for one in asked)
    return [chart for chart in charts if chart]


def _points(run: RunData, key: str, columns: int) -> tuple[Floats, Floats]:
    """Return a run's values of a key, from its evaluations or, thinned, from its updates."""
    if key in _EVALUATED:
        return series(run.events, "evaluation", key)
    xs, ys = series(run.events, "update", key)
    if key == "grad_norm":
        ys = np.where(ys > 0, ys, np.nan)  # a logarithmic axis has no zero
    return thin(xs, ys if key == "lr" else smoothed(ys), columns)


def _chart(
    runs: Sequence[RunData], name: str, title: str, unit: str, kind: str, key: str
) -> Chart | None:
    """Build a chart with one curve per run; None: no run has data."""
    columns = max(100, _POINTS // len(runs) // 2)
    found = [_points(run, key, columns) for run in runs]
    values = np.concatenate([ys[np.isfinite(ys)] for _, ys in found])
    if not len(values):
        return None
    look = "marked" if key in _EVALUATED else "line"
    lines = [
        Line(run.name, xs, ys, look=look, run=at, **style(at))
        for at, (run, (xs, ys)) in enumerate(zip(runs, found, strict=True))
    ]
    chart = Chart(name, title, unit, kind, tuple(lines))
    if kind in ("loss", "norm"):
        chart = replace(chart, log=bool(values.min() > 0))
    else:
        chart = replace(chart, floor=0.0)
    updates = np.unique(np.concatenate([xs for xs, _ in found]))
    if len(updates) > _MAX_ROWS:
        updates = updates[np.linspace(0, len(updates) - 1, _MAX_ROWS).astype(np.int64)]
    rows = tuple(
        (f"{update:,.0f}", *(_cell(kind, _latest(*points, float(update))) for points in found))
        for update in updates
    )
    return replace(chart, head=("update", *(run.name for run in runs)), rows=rows)


def _latest(xs: Floats, ys: Floats, update: float) -> float:
    """Return the value at an update or the last one before it; NaN: outside the run."""
    at = int(np.searchsorted(xs, update, side="right")) - 1
    return float(ys[at]) if at >= 0 and update <= xs[-1] else np.nan


def _cell(kind: str, value: float) -> str:
    return FORMATS[kind](value) if np.isfinite(value) else "–"


def _outcomes_table(runs: Sequence[RunData], lowest: int | None) -> Table:
    head = (
        *("run", "status", "parameters", "updates", "tokens", "time", "speed", "best validation"),
        *("at update", "bits per byte", "accuracy", "clipped", "largest norm", "peak rate"),
    )
    rows = [_outcome(run) for run in runs]
    kept = [at for at in range(len(head)) if at < 2 or any(row[at] != "–" for row in rows)]
    return Table(
        "Results of the runs",
        [head[at] for at in kept],
        [
            [row[at] + (" ★" if head[at] == "bits per byte" and n == lowest else "") for at in kept]
            for n, row in enumerate(rows)
        ],
        words=2,
    )


def _outcome(run: RunData) -> tuple[str, ...]:
    summary, best = run.summary, run.summary.best
    bits = best.val_bits_per_byte if best else None
    accuracy = best.val_accuracy if best else None
    speed, norm, share = (
        summary.tokens_per_second,
        summary.largest_grad_norm,
        summary.clipped_share,
    )
    planned = summary.planned_updates
    of = f" of {planned:,}" if planned and planned != summary.updates else ""
    peak = run.config.schedule.peak_lr
    return (
        run.name,
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
        "–" if share is None or run.config.clip.kind == "off" else f"{share:.1%}",
        "–" if norm is None else format_norm(norm),
        "–" if peak is None else format_lr(peak),
    )


def _lowest(runs: Sequence[RunData]) -> int | None:
    """Return the index of the run with the lowest bits per byte, if all have the same text."""
    if len({run.config.data.hash for run in runs}) > 1:
        return None
    found = [
        (run.summary.best.val_bits_per_byte, at)
        for at, run in enumerate(runs)
        if run.summary.best and run.summary.best.val_bits_per_byte is not None
    ]
    return min(found)[1] if len(found) > 1 else None


def _cautions(runs: Sequence[RunData]) -> list[str]:
    """Return reasons why figures of these runs may not be comparable."""
    found = []
    if len({run.config.data.hash for run in runs}) > 1:
        found.append(
            "These runs have different textand so different validation text: neither loss nor "
            "bits per byte tells which is better."
        )
    kinds = {(run.config.tokenizer.kind, run.config.tokenizer.vocabulary) for run in runs}
    if len(kinds) > 1:
        found.append(
            "These runs have different tokenizers: losses per token are not comparable; bits per "
            "byte are."
        )
    if len({run.summary.counted for run in runs}) > 1:
        found.append("Some of these runs are classifiers, whose losses are per example.")
    return found


def _settings_table(runs: Sequence[RunData]) -> Table:
    rows = settings_that_differ([run.config for run in runs])
    head = ("setting", *(run.name for run in runs))
    return Table("Settings in which the runs differ", head, rows, words=len(head))


def _last_samples(runs: Sequence[RunData]) -> list[SampleCard]:
    cards = []
    for run in runs:
        if samples := of_kind(run.events, "sample"):
            title = f"{run.name}, after {samples[-1]['update']:,} updates"
            cards.append(sample_card(title, samples[-1]))
    return cards
