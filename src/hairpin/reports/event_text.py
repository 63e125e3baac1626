"""Events of a run in words, for the terminal, notebooks, the page and the summary.

The functions take an event of `runs.events`, or the same event as a line of metrics.jsonl; lines
of older versions may lack fields. Text of unknown origin is made harmless, not escaped for HTML.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from hairpin.reports.formats import (
    format_count,
    format_duration,
    format_loss,
    format_norm,
    format_updates,
    safe_name,
    safe_text,
)
from hairpin.runs import events

AnyEvent = events.Event | Mapping[str, Any]

TO_MEET_THE_BUDGET = ", to meet the time budget"
_MAX_NAME_LENGTH, _LONGEST_EXCERPT, _LONGEST_COLUMN = 80, 200, 40  # characters
_MOST_COLUMNS = 8


def plan_text(plan: events.Plan) -> str:
    """Describe the plan in a sentence, with the time of day when the run will end."""
    try:
        ends = time.strftime("%H:%M:%S", time.localtime(plan.ends))
    except (OverflowError, ValueError, OSError):  # beyond the calendar, or not a number
        ends = "?"
    if plan.examples is None:
        size = f"{plan.tokens_per_update:,} tokens"
        data = f"{format_count(plan.train_tokens)} training tokens"
    else:
        each = plan.epochs * plan.examples / plan.updates if plan.updates else math.nan
        size = f"{each:,.0f} examples"
        data = f"{plan.examples:,} training examples"
    labels = f" with {len(plan.labels):,} labels" if plan.labels else ""
    columns = _columns(plan.records) if plan.records else ""
    start = f", from the {safe_text(plan.start)}" if plan.start else ""
    sources = "".join(
        f"{', ' if at else '; '}{safe_text(name)} {each['share']:.0%} ({each['epochs']:.2g} passes)"
        for at, (name, each) in enumerate((plan.sources or {}).items())
    )
    return (
        f"plan: {safe_text(plan.text)}{labels}{start}{columns}; "
        f"{format_count(plan.parameters)} parameters, {plan.updates:,} updates of {size} "
        f"({plan.warmup:,} of warmup), {plan.epochs:.2g} passes over {data}{sources}; "
        f"about {format_duration(plan.seconds)}, until {ends}"
    )


def evaluation_fields(event: AnyEvent) -> list[str]:
    """Return the place and the results of an evaluation, the validation loss third."""
    fields = _fields(event)
    words = [
        f"evaluation after {format_updates(fields['update'])}",
        f"train {format_loss(fields.get('train_loss'))}",
        f"validation {format_loss(fields.get('val_loss'))}",
    ]
    if (bits := fields.get("val_bits_per_byte")) is not None:
        words.append(f"{bits:.3f} bits per byte")
    train_accuracy, val_accuracy = fields.get("train_accuracy"), fields.get("val_accuracy")
    if val_accuracy is not None and train_accuracy is not None:
        words.append(f"{val_accuracy:.1%} accuracy ({train_accuracy:.1%} in training)")
    if sources := fields.get("sources"):
        losses = (
            f"{safe_name(name)} {format_loss(each['val_loss'])}" for name, each in sources.items()
        )
        words.append(f"({', '.join(losses)})")
    return words


def incident_text(event: AnyEvent) -> str:
    """Describe what went wrong in an update and what was done about it."""
    fields = _fields(event)
    last = fields.get("position", 0) + fields.get("samples", 1) - 1
    return (
        f"{_action(fields)}: loss {_number(fields.get('loss'), format_loss)}, "
        f"gradient norm {_number(fields.get('grad_norm'), format_norm)}, "
        f"largest in {safe_name(str(fields.get('parameter', '?')), _MAX_NAME_LENGTH)}; "
        f"samples {fields.get('position', 0):,} to {last:,}: "
        f'"{safe_name(fields.get("excerpt", ""), _LONGEST_EXCERPT)}"'
    )


def resume_text(event: AnyEvent) -> str:
    """Tell where a run was resumed."""
    return f"resumed after {format_updates(_fields(event).get('update', 0))}"


def new_length_text(event: AnyEvent) -> str:
    """Describe an extension, or a correction of the length."""
    fields = _fields(event)
    change = length_change(fields["planned_updates"], fields["updates"])
    if fields["event"] == "correction":
        return f"corrected {change}{TO_MEET_THE_BUDGET}"
    policy = fields.get("policy")
    return f"extended {change}" + (f", {policy}" if policy else "")


def length_change(planned: int, updates: int) -> str:
    """Describe the change of a run's length."""
    return f"from {planned:,} to {updates:,} updates"


def end_text(event: events.End) -> str:
    """Describe the end of a process, with the reason if it failed."""
    words = f"{event.status} after {format_updates(event.update)}, {format_duration(event.seconds)}"
    return words if event.reason is None else f"{words}: {safe_text(event.reason)}"


def _fields(event: AnyEvent) -> Mapping[str, Any]:
    if isinstance(event, events.Event):
        return {"event": type(event).__name__.lower(), **vars(event)}
    return event


def _columns(records: Mapping[str, Any]) -> str:
    """Return the columns of a file of records that are read, and those that are not."""
    *asked, answer = (safe_name(name, _LONGEST_COLUMN) for name in records["columns"].values())
    counts = records.get("unused", {})
    named = [f"{safe_name(name, _LONGEST_COLUMN)} in {n:,}" for name, n in counts.items()]
    if len(named) > _MOST_COLUMNS:
        named[_MOST_COLUMNS:] = [f"{len(named) - _MOST_COLUMNS:,} more columns in some"]
    unused = f" (not used: {', '.join(named)} of {records['count']:,} records)" if named else ""
    return f"; {' and '.join(asked)} → {answer}{unused}"


def _action(fields: Mapping[str, Any]) -> str:
    reason = fields.get("reason", "")
    match fields["event"]:
        case "spike":
            return "spike, applied anyway"
        case "skip":
            return f"{reason}, skipped"
    skipped = fields.get("skipped_samples")
    return f"{reason}, rewound to the checkpoint after {format_updates(fields['to_update'])}" + (
        "" if skipped is None else f", skipping {skipped:,} samples"
    )


def _number(value: float | None, written: Callable[[float], str]) -> str:
    return "not finite" if value is None else written(value)
