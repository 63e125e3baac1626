"""The page about one run."""

import time
from collections.abc import Sequence

from hairpin.config.settings import Config
from hairpin.config.shared import without_paths
from hairpin.reports.charts import charts_of, counted
from hairpin.reports.event_text import incident_words, incidents_of
from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_updates,
    harmless_name,
)
from hairpin.reports.held import others
from hairpin.reports.page.chart import charts_data, charts_html, charts_script, clock
from hairpin.reports.page.diagnosis import diagnosis_lines, overlap_html
from hairpin.reports.page.facts import (
    data_html,
    environment_html,
    first,
    samples_html,
    settings_html,
)
from hairpin.reports.page.markup import (
    data_script,
    details,
    escape,
    note,
    pairs,
    section,
    table,
    tiles,
)
from hairpin.reports.page.shell import page
from hairpin.reports.series import Event
from hairpin.reports.summary import Summary, summarize
from hairpin.run import Run

_REFRESH_SECONDS = 10
_MOST_LABELS = 40
_LABEL_CHARACTERS = 24
_MOST_INCIDENTS = 200


def run_page(run: Run, now: float, *, full: bool = False) -> str:
    """Return the page about a run; it reloads itself until the run has ended.

    Args:
        run: finished or not.
        now: seconds since 1970.
        full: include the run's location and its command.

    Raises:
        RunError: its record is damaged or missing.
        ConfigError: its config is damaged or missing.
    """
    events, config = run.events(), run.config
    summary = summarize(events)
    name = run.path.absolute().name
    charts = charts_of(events, config)
    runs = [{"name": harmless_name(name), "color": "blue", "dash": "", "marker": "circle"}]
    sections = [
        ("curves", "Curves", charts_html(charts, counted(events))),
        ("confusion", "Which label was taken for which", confusion_html(events)),
        ("samples", "Samples", samples_html(events)),
        ("summary", "Summary", _summary_html(summary)),
        ("diagnostics", "Diagnostics", _diagnostics_html(events, config)),
        ("settings", "Settings", settings_html(config, events, full=full)),
        ("data", "Data", data_html(events, config, summary.tokens)),
        ("environment", "Environment", environment_html(run.directory, events, full=full)),
    ]
    there = [(key, title, body) for key, title, body in sections if body]
    body = "\n".join(
        [
            _header(name, summary, events, now),
            contents([(key, title) for key, title, _ in there]),
            *(section(*part) for part in there),
            data_script("charts", charts_data(charts, [clock(events)], runs)),
        ]
    )
    return page(
        f"{name} · hairpin",
        body,
        scripts=charts_script(),
        refresh_seconds=_REFRESH_SECONDS if summary.status == "unfinished" else None,
    )


def contents(parts: Sequence[tuple[str, str]]) -> str:
    """Return links to the parts of the page."""
    links = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in parts)
    return f'<nav aria-label="On this page"><ul>{links}</ul></nav>'


def status_html(summary: Summary) -> str:
    """Return the run's status as a word with a symbol, so as not to depend on colour alone."""
    signs = {"finished": "✓", "failed": "✕", "interrupted": "‖"}
    return (
        f'<span class="status {escape(summary.status)}">'
        f'<span aria-hidden="true">{signs.get(summary.status, "…")}</span> '
        f"{escape(summary.status)}</span>"
    )


def written(now: float) -> str:
    """Format the time at which the page was written, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))


def confusion_html(events: Sequence[Event]) -> str:
    """Return the confusion table of the labels at the lowest validation loss."""
    labels = list(first(events, "plan").get("labels") or ())[:_MOST_LABELS]
    found = [e for e in others(events) if e.get("val_confusion") and e.get("val_loss") is not None]
    if not labels or not found:
        return ""
    best = min(found, key=lambda event: float(event["val_loss"]))
    names = [harmless_name(label, _LABEL_CHARACTERS) for label in labels]
    rows = [
        (name, *(f"{count:,}" for count in row[:_MOST_LABELS]))
        for name, row in zip(names, best["val_confusion"], strict=False)
    ]
    caption = f"Validation after {best['update']:,} updates: a row for what is, a column for taken"
    return table(caption, ("is \\ taken for", *names), rows)


def _header(name: str, summary: Summary, events: Sequence[Event], now: float) -> str:
    start = first(events, "start")
    began = f"began {written(start['time'])}, " if "time" in start else ""
    rows = []
    if (best := summary.best) is not None:
        at = f"at update {best.update:,}"
        if best.val_accuracy is not None:
            rows.append(("best validation", f"{best.val_accuracy:.1%}", f"right, {at}"))
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
    return (
        f'<header><h1>{escape(name)}</h1>\n<p class="standing">{status_html(summary)} '
        f"{escape(began)}page written {written(now)}</p>\n"
        f"{_progress_html(summary, events, now)}{tiles(rows)}</header>"
    )


def _progress_html(summary: Summary, events: Sequence[Event], now: float) -> str:
    """Return the progress of a run that has not ended."""
    planned = summary.planned_updates
    if summary.status != "unfinished" or not planned:
        return ""
    share = summary.updates / planned
    plan = first(events, "plan")
    words = f"{summary.updates:,} of {format_updates(planned)}, {share:.0%}"
    if plan.get("ends", 0) > now and not first(events, "resume"):
        words += f"; about {format_duration(plan['ends'] - now)} left when this was written"
    return (
        f'<p class="progress"><progress max="{planned}" value="{summary.updates}" '
        f'aria-label="updates done"></progress> <span>{escape(words)}</span></p>\n'
    )


def _summary_html(summary: Summary) -> str:
    return pairs([(name, without_paths(words)) for name, words in summary.rows()])


def _diagnostics_html(events: Sequence[Event], config: Config) -> str:
    found = incidents_of(events)
    rows = [(f"{event['update']:,}", incident_words(event)) for event in found[-_MOST_INCIDENTS:]]
    listed = table("Updates that went wrong", ("update", "what happened"), rows, words=2)
    if len(found) > _MOST_INCIDENTS:
        listed += note(f"The last {_MOST_INCIDENTS} of {len(found):,}.")
    return (
        pairs(diagnosis_lines(events, config))
        + overlap_html(events)
        + (details(f"{len(found):,} updates that went wrong", listed) if found else "")
    )
