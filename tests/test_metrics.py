import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hairpin.errors import HairpinError, RunError
from hairpin.runs.events import Correction, End, Event, Rewind, Sample, Start, Update
from hairpin.runs.record import Record, read_record, truncate_record

UPDATE = Update(
    0, lr=1e-3, loss=4.25, grad_norm=2.5, clipped=True, tokens=64, tokens_per_second=9.5
)


def strict(line: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def recorded(path: Path, *happened: Event) -> Path:
    with Record(path) as record:
        for event in happened:
            record.write(event)
    return path


def test_an_update_is_the_documented_line(tmp_path: Path) -> None:
    path = recorded(tmp_path / "metrics.jsonl", UPDATE)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and text.count("\n") == 1
    assert strict(text) == {
        "event": "update",
        "update": 0,
        "lr": 1e-3,
        "loss": 4.25,
        "grad_norm": 2.5,
        "clipped": True,
        "tokens": 64,
        "tokens_per_second": 9.5,
    }


@pytest.mark.parametrize(
    ("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_what_is_not_finite_is_null_and_named(tmp_path: Path, value: float, name: str) -> None:
    path = recorded(tmp_path / "metrics.jsonl", replace(UPDATE, loss=value))
    event = strict(path.read_text(encoding="utf-8"))
    assert event["loss"] is None
    assert event["non_finite"] == name
    assert event["grad_norm"] == 2.5


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "m", End(3, "finished", 1.5), Start(5.0, "0.1", ("hairpin", "train"))
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    assert strict(lines[0]) == {"event": "end", "update": 3, "status": "finished", "seconds": 1.5}
    assert strict(lines[1])["command"] == ["hairpin", "train"]
    assert "budget_seconds" not in lines[1]


@pytest.mark.parametrize("text", ["two\nlines", "\u2028 \u0085 \x00", "日本語 🎼", '"\\', "\ud83c"])
def test_any_text_is_one_line_and_comes_back(tmp_path: Path, text: str) -> None:
    path = recorded(tmp_path / "m", Sample(1, "p", text), UPDATE)
    assert path.read_bytes().count(b"\n") == 2
    sample, update = read_record(path)
    assert sample["text"] == (text if text != "\ud83c" else "?")
    assert update["update"] == 0


def test_events_are_read_in_order_over_several_openings(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in range(5):
        recorded(path, replace(UPDATE, update=number))
    assert [event["update"] for event in read_record(path)] == [0, 1, 2, 3, 4]


def test_a_line_cut_short_at_any_byte_at_the_end_is_left_out(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole", UPDATE, Correction(1, 10, 12)).read_bytes()
    first = whole.index(b"\n") + 1
    torn = tmp_path / "torn"
    for length in range(first, len(whole) - 1):
        torn.write_bytes(whole[:length])
        assert [event["event"] for event in read_record(torn)] == ["update"], length
    torn.write_bytes(whole[:-1])  # all but the line's end
    assert [event["event"] for event in read_record(torn)] == ["update", "correction"]


def test_a_damaged_line_in_the_middle_is_refused_with_its_number(tmp_path: Path) -> None:
    path = recorded(tmp_path / "metrics.jsonl", UPDATE, UPDATE, UPDATE)
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:-4]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: not a line of JSON"):
        list(read_record(path))


@pytest.mark.parametrize("line", ["1", "[]", '{"update": 1}', '{"event": 3}', "[" * 50_000])
def test_a_line_that_is_no_event_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = recorded(tmp_path / "metrics.jsonl", UPDATE, UPDATE)
    first, second, end = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join((first, line, second, end)), encoding="utf-8")
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: .*the record is damaged"):
        list(read_record(path))


def test_a_line_that_a_crash_cut_short_is_not_written_behind(tmp_path: Path) -> None:
    path = recorded(tmp_path / "metrics.jsonl", UPDATE, UPDATE)
    path.write_bytes(path.read_bytes()[:-7])
    recorded(path, Correction(1, 10, 12))
    assert [event["event"] for event in read_record(path)] == ["update", "correction"]


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    with Record(path) as record:
        record.write(UPDATE)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (record.sync() + 10, before[1]))
        try:
            with pytest.raises(HairpinError) as full:
                record.write(UPDATE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{path}: cannot be written (File too large)" in str(full.value)
    assert f"hairpin resume {path.parent}" in str(full.value)
    assert len(list(read_record(path))) == 2, "with space again the rest is written at its closing"


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such record"):
        list(read_record(tmp_path / "metrics.jsonl"))


def test_syncing_gives_the_length_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for text in ("été", "x"):  # bytes, not characters; and in a file that was there already
        with Record(path) as record:
            record.write(Sample(0, "", text))
            assert record.sync() == path.stat().st_size


def test_cutting_back_keeps_the_beginning_and_sets_the_rest_aside(tmp_path: Path) -> None:
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "discarded.jsonl"
    with Record(path) as record:
        record.write(Sample(0, "", "été"))
        length = record.sync()
        record.write(UPDATE)
        record.write(replace(UPDATE, update=1))
    whole = path.read_bytes()
    truncate_record(path, length, aside)
    assert path.read_bytes() == whole[:length]
    assert [event["update"] for event in read_record(aside)] == [0, 1]
    recorded(path, replace(UPDATE, update=7))
    assert [event["event"] for event in read_record(path)] == ["sample", "update"]


def test_cutting_back_nothing_leaves_no_file(tmp_path: Path) -> None:
    path, aside = recorded(tmp_path / "metrics.jsonl", UPDATE), tmp_path / "discarded.jsonl"
    whole = path.read_bytes()
    truncate_record(path, len(whole), aside)
    assert path.read_bytes() == whole
    assert not aside.exists()


def test_an_open_record_is_cut_back_and_goes_on_with_the_lines_that_stay(tmp_path: Path) -> None:
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "discarded.jsonl"
    with Record(path) as record:
        record.write(Sample(0, "", "été"))
        length = record.sync()
        record.write(UPDATE)
        record.write(Correction(1, 10, 12))
        record.write(replace(UPDATE, update=1))
        tail = path.read_bytes()[length:]
        record.cut_back(length, aside, ("correction", "rewind"))
        assert record.sync() == path.stat().st_size
        assert aside.read_bytes() == tail
        record.write(replace(UPDATE, update=7))
        assert record.sync() == path.stat().st_size
    kept = [(event["event"], event["update"]) for event in read_record(path)]
    assert kept == [("sample", 0), ("correction", 1), ("update", 7)]


def test_cutting_an_open_record_back_to_its_end_changes_nothing(tmp_path: Path) -> None:
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "discarded.jsonl"
    with Record(path) as record:
        record.write(UPDATE)
        record.cut_back(record.sync(), aside, ())
    assert [event["update"] for event in read_record(path)] == [0]
    assert not aside.exists()


def test_a_skipped_update_says_so_and_no_other_does() -> None:
    assert "skipped" not in UPDATE.as_json()
    assert replace(UPDATE, skipped=True).as_json()["skipped"] is True


def test_a_rewind_is_the_documented_line() -> None:
    happened = Rewind(9, math.nan, 2.5, "head.weight", 36, 4, "a\nb", "non-finite", 8, 8)
    assert strict(json.dumps(happened.as_json())) == {
        "event": "rewind",
        "update": 9,
        "loss": None,
        "non_finite": "nan",
        "grad_norm": 2.5,
        "parameter": "head.weight",
        "position": 36,
        "samples": 4,
        "excerpt": "a\nb",
        "reason": "non-finite",
        "to_update": 8,
        "skipped_samples": 8,
    }
