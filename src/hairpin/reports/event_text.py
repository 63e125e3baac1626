"""Events of a run other than updates: in words, and as marks on its charts."""

from collections.abc import Iterator, Sequence
from typing import Any

from hairpin.reports.formats import format_loss, format_norm, format_updates, harmless_name
from hairpin.reports.held import of_kind, others
from hairpin.reports.page.chart import Mark
from hairpin.reports.series import Event

_MOST_MARKS = 200


def incident_words(event: Event) -> str:
    """Describe in a sentence what went wrong in an update."""
    done = {
        "spike": "spike, trained on all the same",
        "skip": f"{event.get('reason', '')}, skipped",
        "rewind": f"{event.get('reason', '')}, back to the checkpoint after "
        f"{format_updates(event.get('to_update', 0))}",
    }[event["event"]]
    loss, norm = event.get("loss"), event.get("grad_norm")
    last = event.get("position", 0) + event.get("samples", 1) - 1
    excerpt = harmless_name(event.get("excerpt", ""), 200)
    return (
        f"{done}: loss {_shown(loss, format_loss)}, gradient norm {_shown(norm, format_norm)}, "
        f"most in {harmless_name(str(event.get('parameter', '?')), 80)}; samples "
        f"{event.get('position', 0):,} to {last:,}: “{excerpt}”"
    )


def incidents_of(events: Sequence[Event]) -> list[Event]:
    """Return the spikes, skips and rewinds."""
    return list(of_kind(events, "spike", "skip", "rewind"))


def incident_marks(events: Sequence[Event]) -> Iterator[Mark]:
    """Yield the last incidents as marks on a chart."""
    for event in incidents_of(events)[-_MOST_MARKS:]:
        yield Mark(event["update"], event["event"], incident_words(event))


def turn_marks(events: Sequence[Event]) -> Iterator[Mark]:
    """Yield marks where the run was resumed, extended or corrected."""
    for event in others(events):
        update = event.get("update", 0)
        match event["event"]:
            case "resume":
                yield Mark(update, "resume", f"resumed after {format_updates(update)}")
            case "extend" | "correction":
                policy = f", {event['policy']}" if event.get("policy") else ""
                name = "extended" if event["event"] == "extend" else "corrected"
                words = f"from {event['planned_updates']:,} to {event['updates']:,} updates"
                yield Mark(update, event["event"], f"{name} {words}{policy}")


def _shown(value: float | None, written: Any) -> str:
    return "not finite" if value is None else str(written(value))
