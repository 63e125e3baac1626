import json
import os
import sys
from pathlib import Path

import pytest

from hairpin.config.load import build_config
from hairpin.errors import RunError
from hairpin.runs import events
from hairpin.runs.folder import (
    RUNS,
    RunDirectory,
    create_run,
    list_runs,
    new_run_path,
    open_run,
)
from hairpin.runs.record import Record
from hairpin.system.files import sha256_of, sync_file, sync_folder, write_atomically, write_json


def begun(path: Path, time: float) -> RunDirectory:
    """A run whose record begins at `time`."""
    run = create_run(path, build_config(overrides=[f"train.seed={int(time)}"]))
    with Record(run.metrics) as record:
        record.write(events.Start(time, "0.1.0", ("train",)))
    return run


# --- making and opening ---


def test_everything_of_a_run_is_in_its_folder(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert not run.path.exists()
    names = {
        run.config: "config.toml",
        run.environment: "environment.json",
        run.metrics: "metrics.jsonl",
        run.tokenizer: "tokenizer",
        run.checkpoints: "checkpoints",
        run.best: "best",
        run.plots: "plots",
        run.report: "report.html",
    }
    assert {path.relative_to(run.path).as_posix() for path in names} == set(names.values())
    first, second = run.discarded_metrics(), run.discarded_metrics()
    assert first != second
    assert first.name.startswith("metrics.discarded-")
    assert first.suffix == ".jsonl"


def test_a_new_run_holds_its_config(tmp_path: Path) -> None:
    config = build_config(overrides=["train.seed=7"])
    for path in (tmp_path / "deep" / "run", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        run = create_run(path, config)
        assert run == RunDirectory(path)
        assert open_run(path).read_config() == config
        assert sorted(entry.name for entry in path.iterdir()) == [".lock", "config.toml"]


def test_the_config_is_replaced_and_the_environment_is_json(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", build_config())
    changed = build_config(overrides=["train.seed=8"])
    run.write_config(changed)
    assert run.read_config() == changed
    run.write_environment({"threads": 2})
    assert json.loads(run.environment.read_text()) == {"threads": 2}


def test_nothing_that_exists_is_taken_for_a_new_run(tmp_path: Path) -> None:
    config = build_config()
    run = create_run(tmp_path / "run", config)
    with pytest.raises(RunError, match="a run already exists; resume it with `hairpin resume"):
        create_run(run.path, config)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(RunError, match="is not an empty folder; name another with --out"):
            create_run(tmp_path / name, config)
    with pytest.raises(RunError, match="cannot make a run here"):
        create_run(tmp_path / "file" / "run", config)
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "full" / "mine").read_text() == "mine"


def test_a_name_with_a_nul_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\\x00b: cannot make a run here: embedded null byte"):
        create_run(tmp_path / "a\0b", build_config())


def test_what_is_no_run_is_refused_with_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"^no runs in ./runs yet: start one with `hairpin train`"):
        open_run(None)
    with pytest.raises(RunError, match=r"^nowhere: not a run: it has no config.toml$"):
        open_run(Path("nowhere"))
    for number in range(5):
        begun(RUNS / f"text-{number}", 100.0 + number)
    with pytest.raises(RunError) as caught:
        open_run(Path("nowhere"))
    shown = ", ".join(str(RUNS / f"text-{number}") for number in (2, 3, 4))
    assert str(caught.value).endswith(f"; the newest: {shown}")


# --- which there are ---


def test_runs_are_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    for name, time in (("c", 10.0), ("a", 30.0), ("b", 2000.0), ("d", 20.0)):
        begun(tmp_path / name, time)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    # Whatever is written later, in the oldest of all, makes it no newer.
    oldest = RunDirectory(tmp_path / "c")
    oldest.write_config(oldest.read_config())
    assert [run.path.name for run in list_runs(tmp_path)] == ["c", "d", "a", "b"]
    assert list_runs(tmp_path / "nowhere") == []


def test_the_newest_run_is_the_one_that_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, time in (("b", 10.0), ("a", 20.5)):
        begun(RUNS / name, time)
    assert open_run(None).path == RUNS / "a"


def test_a_run_without_a_record_is_as_old_as_its_config(tmp_path: Path) -> None:
    begun(tmp_path / "first", 100.0)
    bare = create_run(tmp_path / "second", build_config())
    os.utime(bare.config, (50.0, 50.0))
    assert [run.path.name for run in list_runs(tmp_path)] == ["second", "first"]
    os.utime(bare.config, (150.0, 150.0))
    assert [run.path.name for run in list_runs(tmp_path)] == ["first", "second"]


# --- names ---


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("book", "book"),
        ("My Book!", "My-Book"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "run"),
        ("", "run"),
        ("caf\u00e9", "caf"),
        ("\x1b[2J", "2J"),
        ("x" * 300, "x" * 60),
    ],
)
def test_a_new_run_is_named_after_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_path(name) == RUNS / f"{stem}-1"


def test_the_first_free_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 4):
        create_run(RUNS / f"book-{number}", build_config())
    assert new_run_path("book") == RUNS / "book-3"


# --- files ---


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old\n")
    write_atomically(path, "new\r\n\u00e9".encode())
    assert path.read_bytes() == "new\r\n\u00e9".encode()

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == "new\r\n\u00e9".encode()


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "facts.json", {"name": "\u00e9", "numbers": [1, 2.5]})
    text = (tmp_path / "facts.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "\u00e9" in text
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "facts.json", {"loss": float("nan")})
    assert (tmp_path / "facts.json").read_text(encoding="utf-8") == text


def test_sha256_of_a_file_of_several_blocks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of(path) == empty
    path.write_bytes(b"a" * 1_000_000)  # a test vector of FIPS 180
    million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    assert sha256_of(path) == million
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_of(path) != million


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no handles")
def test_files_and_folders_are_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    (tmp_path / "file").write_text("x")
    sync_file(tmp_path / "file")
    sync_folder(tmp_path)
    write_atomically(tmp_path / "file", b"y")
    assert len(synced) == 4  # the last wrote a file and renamed it
