"""The page about one run."""

import time
from collections.abc import Sequence
from typing import Any

from hairpin.config.settings import Config
from hairpin.config.shared import without_paths
from hairpin.reports.charts import best_confusion, charts_of, counted, incidents_of, labels_of
from hairpin.reports.diagnostics import diagnose
from hairpin.reports.event_text import incident_text
from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_updates,
    safe_name,
)
from hairpin.reports.history import history, of_kind
from hairpin.reports.page.chart_data import charts_data, charts_script, clock, figure_of
from hairpin.reports.page.facts import (
    Rows,
    config_toml,
    data_rows,
    environment_rows,
    first,
    samples_of,
    settings_table,
)
from hairpin.reports.page.markup import Table, cut
from hairpin.reports.page.shell import page
from hairpin.reports.series import Event
from hairpin.reports.summary import Summary, summarize
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record

_REFRESH_SECONDS = 10
_MAX_LABELS = 40
_LABEL_CHARACTERS = 24
_MAX_INCIDENTS = 200
_MAX_OVERLAP = 5_000  # characters
# A sign before the status, which must not depend on colour alone.
_SIGNS = {"finished": "✓", "failed": "✕", "interrupted": "‖"}


def run_page(run: RunDirectory, now: float, *, full: bool = False) -> str:
    """Return the page about a run; it reloads itself until the run has ended.

    Args:
        run: finished or not.
        now: seconds since 1970.
        full: include the run's location and its command.

    Raises:
        RunError: its record is damaged or missing.
        ConfigError: its config is damaged or missing.
    """
    events, config = history(read_record(run.metrics)), run.read_config()
    summary = summarize(events)
    name = run.path.absolute().name
    figures = [figure_of(chart) for chart in charts_of(events, config)]
    start = first(events, "start")
    data = charts_data(
        figures,
        [clock(events)],
        [{"name": safe_name(name), "color": "blue", "dash": "", "marker": "circle"}],
    )
    return page(
        "run.html",
        f"{name} · hairpin",
        scripts=charts_script(),
        chart_data=data,
        refresh_seconds=_REFRESH_SECONDS if summary.status == "unfinished" else None,
        name=name,
        status=summary.status,
        sign=_SIGNS.get(summary.status, "…"),
        began=format_time(start["time"]) if "time" in start else None,
        written=format_time(now),
        progress=_progress(summary, events, now),
        tiles=_tiles(summary),
        charts=figures,
        counted=counted(events),
        confusion=_confusion_table(events),
        samples=samples_of(events),
        summary=[(row, without_paths(words)) for row, words in summary.rows()],
        diagnostics=_diagnostics_rows(events, config),
        overlap=_overlap(events),
        incidents=_incidents(events),
        settings=settings_table(config, events, full=full),
        config_toml=config_toml(config, full=full),
        data=data_rows(events, config, summary.tokens),
        environment=environment_rows(run, events, full=full),
    )


def format_time(seconds: float) -> str:
    """Format a time, in seconds since 1970, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the most important figures: name, figure and remark."""
    rows = []
    if (best := summary.best) is not None:
        at = f"at update {best.update:,}"
        if best.val_accuracy is not None:
            rows.append(("best validation", f"{best.val_accuracy:.1%}", f"accuracy, {at}"))
        else:
            rows.append(("best validation", format_loss(best.val_loss), f"nats per token, {at}"))
        if best.val_bits_per_byte is not None:
            rows.append(("bits per byte", format_loss(best.val_bits_per_byte), at))
    of = f"of {summary.planned_updates:,}" if summary.planned_updates else ""
    rows.append(("updates", f"{summary.updates:,}", of))
    rows.append((summary.counted, format_count(summary.tokens), "trained on"))
    if summary.tokens_per_second is not None:
        each = f"{summary.counted}/s, median"
        rows.append(("speed", format_count(summary.tokens_per_second), each))
    if summary.parameters is not None:
        rows.append(("parameters", format_count(summary.parameters), ""))
    if summary.seconds is not None:
        rows.append(("time", format_duration(summary.seconds), "in all"))
    return rows


def _progress(summary: Summary, events: Sequence[Event], now: float) -> dict[str, Any] | None:
    """Return the progress of a run that has not ended."""
    planned = summary.planned_updates
    if summary.status != "unfinished" or not planned:
        return None
    plan = first(events, "plan")
    words = f"{summary.updates:,} of {format_updates(planned)}, {summary.updates / planned:.0%}"
    if plan.get("ends", 0) > now and not first(events, "resume"):
        words += f"; about {format_duration(plan['ends'] - now)} left when this was written"
    return {"planned": planned, "done": summary.updates, "words": words}


def _confusion_table(events: Sequence[Event]) -> Table | None:
    """Return the confusion table of the labels at the lowest validation loss."""
    labels, best = labels_of(events)[:_MAX_LABELS], best_confusion(events)
    if not labels or not best:
        return None
    update, matrix = best
    names = [safe_name(label, _LABEL_CHARACTERS) for label in labels]
    rows = [
        (name, *(f"{count:,}" for count in row[:_MAX_LABELS]))
        for name, row in zip(names, matrix, strict=False)
    ]
    caption = f"Validation after {update:,} updates: rows are true labels, columns predictions"
    return Table(caption, ("true \\ predicted", *names), rows)


def _diagnostics_rows(events: Sequence[Event], config: Config) -> Rows:
    """Return the findings, each with its name; continuation rows are merged."""
    found: Rows = []
    for name, words in diagnose(events, config).lines():
        if name or not found:
            found.append((name, words))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}; {words}")
    return found


def _overlap(events: Sequence[Event]) -> str:
    """Return the longest text of the run's samples that is in the training text; empty: none is."""
    event = next(reversed(of_kind(events, "memorisation")), {})
    return cut(event.get("longest_text") or "", _MAX_OVERLAP)


def _incidents(events: Sequence[Event]) -> dict[str, Any] | None:
    """Return a table of the last updates that went wrong."""
    found = incidents_of(events)
    if not found:
        return None
    rows = [(f"{event['update']:,}", incident_text(event)) for event in found[-_MAX_INCIDENTS:]]
    left_out = ""
    if len(found) > _MAX_INCIDENTS:
        left_out = f"The last {_MAX_INCIDENTS} of {len(found):,}."
    return {
        "summary": f"{len(found):,} updates that went wrong",
        "table": Table("Updates that went wrong", ("update", "what happened"), rows, words=2),
        "left_out": left_out,
    }
