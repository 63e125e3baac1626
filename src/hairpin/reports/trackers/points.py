"""Points for trackers: the events of a record as named numbers, independent of the tool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NAMES: dict[str, dict[str, str]] = {
    "update": {
        "loss": "train/loss",
        "lr": "train/lr",
        "grad_norm": "train/grad_norm",
        "tokens_per_second": "train/tokens_per_second",
        "clipped": "train/clipped",
        "skipped": "train/skipped",
        "overflow": "train/overflow",
        "loss_scale": "train/loss_scale",
    },
    "evaluation": {
        "train_loss": "train/evaluated_loss",
        "val_loss": "val/loss",
        "val_bits_per_byte": "val/bits_per_byte",
        "train_accuracy": "train/evaluated_accuracy",
        "val_accuracy": "val/accuracy",
    },
    "checkpoint": {"best": "checkpoint/best"},
}
_INCIDENTS = ("spike", "skip", "rewind")
UPDATE = "update"


@dataclass(frozen=True)
class Point:
    """An event of the record in the form that trackers take.

    Args:
        kind: the event's name.
        update: position as in the record: an update's index from 0, otherwise the number of updates
            completed.
        tokens: number trained on until then.
        values: name → number, such as "train/loss".
        text: generated text.
    """

    kind: str
    update: int
    tokens: int
    values: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None


def point_of(event: Mapping[str, Any], tokens: int) -> Point | None:
    """Convert a line of the record to a point; None: trackers do not get this event.

    Args:
        event: as in metrics.jsonl.
        tokens: number trained on until then.
    """
    kind = event["event"]
    if kind in _NAMES:
        values = {name: _number(event, key) for key, name in _NAMES[kind].items() if key in event}
        return Point(kind, event["update"], tokens, values)
    if kind in _INCIDENTS:  # a rewind is placed where the run continues
        update = event.get("to_update", event["update"])
        return Point(kind, update, tokens, {f"incident/{kind}": 1.0})
    if kind == "ratios":
        values = {f"ratio/{part}": value for part, value in event["ratios"].items()}
        return Point(kind, event["update"], tokens, values)
    if kind == "sample":
        return Point(kind, event["update"], tokens, text=event["prompt"] + event["text"])
    return None


def _number(event: Mapping[str, Any], key: str) -> float:
    """Return a number of the record, which stores a non-finite one as null and a word."""
    value = event[key]
    return float(event["non_finite"] if value is None else value)
