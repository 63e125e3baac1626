import json
import math
from pathlib import Path
from typing import Any

import pytest

from hairpin.reports.formats import (
    format_bytes,
    format_count,
    format_duration,
    format_loss,
    format_lr,
    format_norm,
    format_updates,
    safe_text,
)
from hairpin.reports.history import history
from hairpin.reports.summary import Summary, summarize
from hairpin.runs import events
from hairpin.runs.record import Record, read_record


def _update(update: int, **changed: Any) -> events.Update:
    fields: dict[str, Any] = {
        "update": update,
        "lr": 1e-3,
        "loss": 5.0 - update,
        "grad_norm": 0.5,
        "clipped": False,
        "tokens": 100,
        "tokens_per_second": 2000.0,
    }
    return events.Update(**(fields | changed))


def _evaluation(update: int, train: float, val: float) -> events.Evaluation:
    return events.Evaluation(update, 100 * update, train, val, val / 2)


def _summary(*happened: events.Event) -> Summary:
    return summarize(event.as_json() for event in happened)


START = events.Start(0.0, "0.1.0", ("hairpin", "train"))

RUN: tuple[events.Event, ...] = (
    START,
    _evaluation(0, 6.0, 6.5),
    _update(0, grad_norm=7.5, clipped=True, tokens_per_second=10.0),
    _update(1, clipped=True, grad_norm=2.0),
    _evaluation(2, 3.0, 4.0),
    _update(2, tokens_per_second=3000.0),
    _update(3, loss=1.25, tokens=60, tokens_per_second=1000.0),
    _evaluation(4, 2.0, 4.5),
    events.End(4, "finished", 130.0),
)


def test_the_numbers_of_a_run() -> None:
    summary = _summary(*RUN)
    assert (summary.status, summary.reason) == ("finished", None)
    assert (summary.updates, summary.tokens, summary.seconds) == (4, 360, 130.0)
    assert summary.tokens_per_second == 1500.0
    assert summary.first is not None
    assert summary.last is not None
    assert summary.best is not None
    assert (summary.first.val_loss, summary.first.val_bits_per_byte) == (6.5, 3.25)
    assert (summary.last.update, summary.last.val_loss) == (4, 4.5)
    assert (summary.best.update, summary.best.val_bits_per_byte) == (2, 2.0)
    assert summary.last_train_loss == 1.25
    assert (summary.clipped_updates, summary.clipped_share) == (2, 0.5)
    assert (summary.largest_grad_norm, summary.largest_grad_norm_update) == (7.5, 0)


def test_the_lines_say_it_in_words() -> None:
    assert _summary(*RUN).lines() == [
        "status      finished",
        "length      4 updates, 360 tokens in 2m 10s (1,500 tokens/s while training)",
        "best        validation 4.000 nats per token, 2.000 bits per byte at update 2",
        "last        validation 4.500 nats per token, 2.250 bits per byte at update 4",
        "first       validation 6.500 nats per token, 3.250 bits per byte at update 0",
        "training    loss 1.250 at the last update",
        "clipping    50.0% of updates clipped; largest gradient norm 7.50, at update 0",
        "overfitting after update 2 validation rose from 4.000 to 4.500 while train fell from "
        "3.000 to 2.000",
    ]


@pytest.mark.parametrize(
    ("last_train", "last_val", "after"),
    [
        (2.0, 4.5, 2),
        (2.0, 4.021, 2),
        (2.0, 4.019, None),  # a rise of less than 0.5%
        (3.1, 4.5, None),  # training got worse too: that is not overfitting
        (2.0, 3.9, None),  # the last is the best
    ],
)
def test_overfitting(last_train: float, last_val: float, after: int | None) -> None:
    summary = _summary(_evaluation(2, 3.0, 4.0), _evaluation(4, last_train, last_val))
    assert summary.overfitting_after == after


def test_a_tie_goes_to_the_earlier_evaluation() -> None:
    best = _summary(_evaluation(2, 3.0, 4.0), _evaluation(4, 3.0, 4.0)).best
    assert best is not None
    assert best.update == 2


def test_a_resumed_run() -> None:
    summary = _summary(
        START,
        _evaluation(0, 6.0, 6.0),
        _update(0),
        _update(1),
        events.End(2, "interrupted", 10.0),
        START,
        events.Resume(2, 5.0),
        _update(2, clipped=True),
        _evaluation(3, 3.0, 3.0),
        events.End(3, "finished", 7.5),
    )
    assert (summary.status, summary.updates, summary.seconds) == ("finished", 3, 17.5)
    assert (summary.tokens, summary.clipped_share) == (300, 1 / 3)


def test_what_a_resume_went_back_behind_does_not_count() -> None:
    lost = (_update(2, clipped=True, grad_norm=99.0), _update(3), _evaluation(4, 1.0, 1.0))
    kept = (_update(0), _update(1), _evaluation(2, 4.0, 4.0))
    again = (_update(2), _evaluation(3, 3.0, 3.5))
    happened = (START, *kept, *lost, START, events.Resume(2, 5.0), *again)
    record = [event.as_json() for event in happened]
    updates = [e["update"] for e in history(record) if e["event"] in ("update", "evaluation")]
    assert updates == [0, 1, 2, 2, 3]
    summary = summarize(record)
    assert (summary.updates, summary.tokens, summary.clipped_updates) == (3, 300, 0)
    assert summary.best is not None
    assert summary.best.val_loss == 3.5


def test_a_run_whose_last_process_was_killed_is_unfinished() -> None:
    summary = _summary(START, _update(0), events.End(1, "interrupted", 4.0), START)
    assert (summary.status, summary.seconds) == ("unfinished", 4.0)
    assert _summary(START, _update(0)).seconds is None


def test_a_failed_run_says_why() -> None:
    summary = _summary(START, _update(0), events.End(1, "failed", 4.0, "the loss is nan"))
    assert summary.lines()[0] == "status      failed: the loss is nan"


def test_the_correction_of_the_length() -> None:
    plan = events.Plan("book", 10, 5, 1, 100, 1000, 100, 0.5, 60.0, 60.0)
    corrected = (START, plan, _update(0), events.Correction(1, 5, 3), _update(1))
    summary = _summary(*corrected)
    assert (summary.correction, summary.planned_updates) == ((5, 3), 3)
    assert "corrected   from 5 to 3 updates, to meet the time budget" in summary.lines()
    assert "length      2 of 3 updates, 200 tokens" in summary.lines()[1]
    assert _summary(START, plan).planned_updates == 5


def test_records_with_little_in_them() -> None:
    assert _summary().lines() == [
        "status      unfinished",
        "length      0 updates, 0 tokens",
        "validation  never evaluated",
    ]
    assert _summary().clipped_share is None
    assert "validation  never evaluated" in _summary(START, _update(0)).lines()
    only_evaluated = _summary(_evaluation(0, 6.0, 6.0))
    assert only_evaluated.best == only_evaluated.first == only_evaluated.last
    assert "clipping" not in "".join(only_evaluated.lines())


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    nan = float("nan")
    record = Record(tmp_path / "metrics.jsonl")
    for event in (
        _evaluation(0, nan, nan),
        _update(0, loss=nan, grad_norm=float("inf"), clipped=True),
    ):
        record.write(event)
    record.close()
    summary = summarize(read_record(tmp_path / "metrics.jsonl"))
    assert (summary.best, summary.last_train_loss, summary.largest_grad_norm) == (None, None, None)
    assert summary.lines()[2:] == [
        "validation  no finite loss",
        "clipping    100.0% of updates clipped",
    ]


def test_the_best_is_among_the_finite() -> None:
    summary = _summary(_evaluation(0, 6.0, 6.0), _evaluation(1, 1.0, float("nan")))
    assert summary.best is not None
    assert summary.best.update == 0
    assert "last        validation unknown nats per token at update 1" in summary.lines()


def test_the_record_is_left_as_it_is() -> None:
    record = [event.as_json() for event in RUN]
    before = json.dumps(record)
    summarize(record)
    assert json.dumps(record) == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0s"),
        (0.44, "0.4s"),
        (0.96, "1s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (130, "2m 10s"),
        (3599.6, "1h 00m"),
        (11_100, "3h 05m"),
        (86_399, "1d 00h"),
        (187_200, "2d 04h"),
        (-1, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (12_449, "12.4k"),
        (999_949, "1M"),
        (12_400_000, "12.4M"),
        (124_439_808, "124M"),
        (1_557_611_200, "1.56B"),
        (2e12, "2T"),
    ],
)
def test_counts(n: float, text: str) -> None:
    assert format_count(n) == text


def test_other_formats() -> None:
    assert [format_bytes(n) for n in (999, 1_000, 12_400_000, 5e9)] == [
        "999 bytes",
        "1 kB",
        "12.4 MB",
        "5 GB",
    ]
    assert [format_lr(lr) for lr in (0, 1.2e-3, 0.01, 1.6666e-5, 1.0)] == [
        "0",
        "1.2e-3",
        "1e-2",
        "1.67e-5",
        "1e0",
    ]
    assert [format_loss(loss) for loss in (10.826, 3.2171, 0.01234, float("nan"), None)] == [
        "10.83",
        "3.217",
        "0.0123",
        "nan",
        "unknown",
    ]
    assert [format_norm(norm) for norm in (0.0, 0.874, 14.21, 123_456.0, 0.00123)] == [
        "0.00",
        "0.87",
        "14.2",
        "1.23e5",
        "1.23e-3",
    ]
    assert [format_updates(n) for n in (0, 1, 2400)] == ["0 updates", "1 update", "2,400 updates"]


def test_numbers_that_are_not_finite_are_named() -> None:
    assert [format_lr(math.nan), format_norm(math.inf), format_norm(math.nan)] == [
        "nan",
        "inf",
        "nan",
    ]


def test_harmless_text_is_left_as_it_is() -> None:
    text = "naïve 漢字 😀 [bold]\n  def f():\n"
    assert safe_text(text) == text


@pytest.mark.parametrize(
    ("harmful", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x07\x08\x7f", "a\\x0db\\x07\\x08\\x7f"),
        ("a\r\nb", "a\nb"),
        ("\u202eabc\u2066\u200f", "\\u202eabc\\u2066\\u200f"),
        ("\ud800\u2028", "\\ud800\\u2028"),
        ("a\tb", "a   b"),
    ],
)
def test_harmful_characters_are_shown(harmful: str, shown: str) -> None:
    assert safe_text(harmful) == shown


def test_what_the_encoding_lacks_is_shown() -> None:
    assert safe_text("é漢", "latin-1") == "é\\u6f22"


def test_what_went_wrong_is_counted() -> None:
    what = (1, 3.0, 9.0, "head.weight", 4, 4, "text")
    run = (
        START,
        _update(0),
        _update(1, skipped=True),
        events.Skip(*what, "spike"),
        _update(2),
        events.Spike(*what),
        events.Rewind(*what, "spike", 3, 8),
        events.Rewind(*what, "spike", 3, 12),
        _update(3),
    )
    summary = _summary(*run)
    assert (summary.skipped_updates, summary.spikes, summary.rewinds) == (1, 1, 2)
    assert "incidents   updates skipped: 1, spikes: 1, rewinds: 2" in summary.lines()
    assert not any("incidents" in line for line in _summary(*RUN).lines())
    # A resume goes back behind what was skipped, which happens again.
    assert _summary(*run, events.Resume(1, 0.0)).skipped_updates == 0
    assert _summary(*run, events.Resume(1, 0.0)).spikes == 0


def test_the_time_of_processes_whose_end_a_resume_cut_off_is_that_of_their_updates() -> None:
    # Ten updates of 5 s, of which the last process made two in 11 s.
    made = [_update(n, tokens_per_second=20.0) for n in range(10)]
    summary = _summary(
        START, *made[:8], events.Resume(8, 2.0), *made[8:], events.End(10, "finished", 11.0)
    )
    assert summary.seconds == 50.0
