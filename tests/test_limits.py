"""What a file may make us do: headers, names that are there twice, long records."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hairpin.checkpoints.tensors import read_tensors
from hairpin.config.load import build_config
from hairpin.errors import CheckpointError, RunError
from hairpin.reports.history import history
from hairpin.reports.summary import summarize
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import first_event
from hairpin.weights.origin import open_origin
from helpers import gpt2_folder

_UPDATES = 60_000
PLAN: dict[str, Any] = {
    "warmup": 9,
    "tokens_per_update": 64,
    "train_tokens": 1000,
    "val_tokens": 10,
    "epochs": 1.0,
    "seconds": 1.0,
    "ends": 2.0,
}


def safetensors_file(path: Path, header: str, data: bytes = b"") -> Path:
    content = header.encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def entry(begin: int, end: int, shape: object = None) -> dict[str, Any]:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "bytes_of_data"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12),  # overlapping
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12),  # a gap
        ({"a": entry(0, 8)}, 12),  # more than its tensors
        ({"a": entry(0, 8)}, 4),  # less
        ({"a": entry(0, 8, [3])}, 8),
        ({"a": entry(0, 8, [2**62, 4])}, 8),
        ({"a": entry(0, 8, [-1, -2])}, 8),
        ({"a": entry(0, 4, [1] * 100)}, 4),
        ({"a": entry(0, 8) | {"dtype": "F7"}}, 8),
        ({"a": 3}, 0),
        ([], 0),
    ],
)
def test_tensors_that_do_not_fill_their_file_are_refused(
    tmp_path: Path, header: Any, bytes_of_data: int
) -> None:
    path = safetensors_file(tmp_path / "x", json.dumps(header), bytes(bytes_of_data))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_tensors(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    one = json.dumps(entry(0, 4))
    path = safetensors_file(tmp_path / "x", f'{{"a":{one},"a":{one}}}', bytes(4))
    with pytest.raises(CheckpointError, match="twice"):
        read_tensors(path)


def test_what_the_library_writes_is_read_the_same(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "none": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
        "half": torch.randn(3, 2).to(torch.bfloat16),
        "whole": torch.arange(6).reshape(2, 3),
    }
    save_file(tensors, tmp_path / "x", {"format": "pt"})
    ours, theirs = read_tensors(tmp_path / "x"), load_file(tmp_path / "x")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])


def test_the_header_of_an_imported_model_is_limited_too(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes((1 << 25).to_bytes(8, "little") + b" " * 100)
    with pytest.raises(
        RunError, match=r"model\.safetensors: cannot be read \(its header claims 33,554,432 bytes"
    ):
        open_origin(folder)


def long_record(path: Path, updates: int) -> None:
    """The record of a long run, with a resume in it."""

    def lines() -> Any:
        yield {"event": "start", "time": 1.0, "version": "1", "command": ["hairpin"]}
        yield {"event": "plan", "text": "t", "parameters": 1, "updates": updates} | PLAN
        for update in range(updates):
            yield {
                "event": "update",
                "update": update,
                "lr": 0.01 / (1 + update),
                "loss": 5.0 / (1 + update / 1000),
                "grad_norm": 1.0 + update % 7 / 10,
                "clipped": update % 3 == 0,
                "tokens": 64,
                "tokens_per_second": 1000.0 + update % 11,
                "leader": f"blocks.{update % 6}.mlp.expand.weight",
                "leader_share": 0.25,
            }
        yield {"event": "end", "update": updates, "status": "finished", "seconds": 9.0}

    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines())


def test_a_long_record_is_read_in_little_memory(tmp_path: Path) -> None:
    """Of a process that reads a record as training does; a dict of an update takes a kilobyte."""
    run = RunDirectory(tmp_path)
    run.write_config(build_config(flags={"train.updates": _UPDATES, "data.texts": ["x.txt"]}))
    long_record(run.metrics, _UPDATES)
    program = """
import sys
from pathlib import Path
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory
from hairpin.launch.extend import is_finished, is_imported
from hairpin.reports import plots
from hairpin.reports.page.run_page import run_page

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

run = Run(RunDirectory(Path(sys.argv[1])))
before = peak()
assert is_finished(run) and not is_imported(run)
assert run.summary().updates == 60_000
run_page(run.directory, 0.0)
run.lines()
print(peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60, "in MB; as dicts these updates take 90"


def test_the_first_event_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "start"}\n' + b"not json\n" * 10)
    assert first_event(path) == {"event": "start"}


# --- the record in columns ---


def test_events_come_back_as_they_were_and_in_their_order(tmp_path: Path) -> None:
    record: list[dict[str, Any]] = [
        {"event": "start", "time": 1.5},
        {"event": "update", "update": 0, "loss": 1.5, "clipped": True, "leader": "a"},
        {"event": "update", "update": 1, "loss": None, "non_finite": "nan", "clipped": False},
        {"event": "evaluation", "update": 2, "val_loss": 3.0},
        {"event": "update", "update": 2, "loss": 1, "odd": [1, {"x": 2}], "leader": "b"},
        {"event": "end", "update": 3, "status": "finished", "seconds": 1.0},
    ]
    events = history(record)
    assert list(events) == record and len(events) == 6
    assert [type(value) for value in events[4].values()] == [type(v) for v in record[4].values()]
    assert [events[at] for at in range(-6, 6)] == [*record, *record]
    assert list(reversed(events)) == record[::-1] and events[1:3] == record[1:3]
    assert list(events.of_kind("update")) == [record[1], record[2], record[4]]
    losses = events.updates.column("loss")
    assert np.array_equal(losses, [1.5, np.nan, 1.0], equal_nan=True)


@pytest.mark.parametrize("seed", range(6))
def test_what_a_resume_went_back_behind_is_left_out_as_a_list_would(seed: int) -> None:
    draw = np.random.default_rng(seed)
    record: list[dict[str, Any]] = []
    update = 0
    for _ in range(300):
        kind = draw.choice(
            ["update"] * 8 + ["evaluation", "spike", "end", "resume", "memorisation"]
        )
        if kind == "resume":
            update = int(draw.integers(0, update + 3))
        record.append({"event": str(kind), "update": update, "tokens": 1, "seconds": 1.0})
        record[-1] |= {"status": "finished", "val_loss": 1.0}
        update += kind == "update"
        if seed == 5:  # numbers in no order, as nobody writes them
            update = max(0, update + int(draw.integers(-3, 3)))
    kept: list[dict[str, Any]] = []
    for event in record:
        if event["event"] == "resume":
            kept = [old for old in kept if holds(old, event["update"])]
        kept.append(event)
    found = history(record)
    assert [e for e in found if e["event"] == "update"] == [
        e for e in kept if e["event"] == "update"
    ]
    assert list(found.others) == [e for e in kept if e["event"] != "update"]
    if seed < 5:
        assert list(found) == kept
    assert summarize(found) == summarize(record)


def holds(event: dict[str, Any], resumed: int) -> bool:
    """Whether a line of before a resume is still true after it."""
    if event["event"] in ("update", "spike"):
        return bool(event["update"] < resumed)
    if event["event"] == "evaluation":
        return bool(event["update"] <= resumed)
    return bool(event["event"] != "memorisation")
