"""Events in words: the same of an event as of its line in a record."""

import json
import math
from typing import Any

import pytest

from hairpin.reports.event_text import (
    end_text,
    evaluation_fields,
    incident_text,
    new_length_text,
    resume_text,
)
from hairpin.runs import events

WHERE: dict[str, Any] = {
    "loss": 9.5,
    "grad_norm": 77.0,
    "parameter": "head.weight",
    "position": 320,
    "samples": 8,
    "excerpt": "a\nb\x1b[2J",
}
WHERE_TEXT = (
    ': loss 9.500, gradient norm 77, largest in head.weight; samples 320 to 327: "a\\nb\\x1b[2J"'
)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.Spike(7, **WHERE), f"spike, applied anyway{WHERE_TEXT}"),
        (events.Skip(7, **WHERE, reason="non-finite"), f"non-finite, skipped{WHERE_TEXT}"),
        (
            events.Rewind(7, **WHERE, reason="spike", to_update=5, skipped_samples=1600),
            "spike, rewound to the checkpoint after 5 updates, skipping 1,600 samples"
            f"{WHERE_TEXT}",
        ),
    ],
)  # fmt: skip
def test_an_incident_and_its_line_in_the_record(event: events.Incident, words: str) -> None:
    assert incident_text(event) == words
    assert incident_text(json.loads(json.dumps(event.as_json()))) == words


def test_numbers_that_are_not_finite() -> None:
    event = events.Spike(7, **WHERE | {"loss": math.nan, "grad_norm": math.inf})
    assert "loss nan, gradient norm inf, " in incident_text(event)
    assert "loss not finite, gradient norm not finite, " in incident_text(event.as_json())


def test_a_line_of_an_older_version_lacks_fields() -> None:
    line = {"event": "rewind", "update": 7, "reason": "spike", "to_update": 1}
    words = incident_text(line)
    assert words.startswith("spike, rewound to the checkpoint after 1 update: loss not finite")
    assert evaluation_fields({"event": "evaluation", "update": 3, "val_loss": 2.0}) == [
        "evaluation after 3 updates",
        "train unknown",
        "validation 2.000",
    ]


def test_an_evaluation_has_a_field_for_each_result() -> None:
    sources: Any = {"wi\x1bki": {"train_loss": 1.0, "val_loss": 2.0, "val_bits_per_byte": 0.5}}
    event = events.Evaluation(1, 64, 3.0, 3.25, 1.5, 0.9, 0.8, sources=sources)
    wanted = [
        "evaluation after 1 update",
        "train 3.000",
        "validation 3.250",
        "1.500 bits per byte",
        "80.0% accuracy (90.0% in training)",
        "(wi\\x1bki 2.000)",
    ]
    assert evaluation_fields(event) == evaluation_fields(event.as_json()) == wanted


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.Extend(60, 1200, 2400, "rewarm"), "extended from 1,200 to 2,400 updates, rewarm"),
        (events.Extend(60, 1200, 2400), "extended from 1,200 to 2,400 updates"),
        (
            events.Correction(9, 300, 280),
            "corrected from 300 to 280 updates, to meet the time budget",
        ),
    ],
)
def test_a_new_length(event: events.Event, words: str) -> None:
    assert new_length_text(event) == new_length_text(event.as_json()) == words


def test_beginning_again_and_ending() -> None:
    resumed: Any = events.Resume(1, 0.0)
    assert resume_text(resumed) == resume_text(resumed.as_json()) == "resumed after 1 update"
    assert end_text(events.End(300, "finished", 12.0)) == "finished after 300 updates, 12s"
    failed = events.End(1, "failed", 2.0, "nan\x1b[2J")
    assert end_text(failed) == "failed after 1 update, 2s: nan\\x1b[2J"
