"""One command that begins a run or goes on with it, however the process before it ended."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from hairpin import api
from hairpin.errors import Interrupted, RunError
from hairpin.launch import train as launch_train
from hairpin.run import Run
from hairpin.runs.record import first_event
from hairpin.runs.watcher import Quiet
from helpers import (
    TINY_FLAGS,
    Hairpin,
    Watching,
    assert_same_history,
    of_kind,
    text_file,
    tiny,
    updates_without_times,
)


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    """What a script types each time that it is started."""
    return ["train", text_file(tmp_path), *TINY_FLAGS, "--out", tmp_path / "run", "--or-resume"]


@pytest.fixture
def killed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of which there is nothing but the config as asked."""

    class Killed(BaseException):
        """Whatever comes without a warning."""

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(launch_train, "begin", kill)
        train(tmp_path)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    return api.load(tmp_path / "run")


def train(folder: Path, name: str = "run", **options: Any) -> Run:
    settings = tiny(**options.pop("changes", {}))
    options = {"watcher": Quiet(), **options}
    return api.train(text_file(folder), out=folder / name, settings=settings, **options)


def stop(folder: Path, after: int) -> Run:
    with pytest.raises(Interrupted):
        train(folder, watcher=Watching(stop_after_update=after))
    return api.load(folder / "run")


# --- one command ---


def test_it_begins_goes_on_and_says_that_it_is_finished(
    hairpin: Hairpin, command: list[object], tmp_path: Path
) -> None:
    whole = train(tmp_path, "whole")
    run = stop(tmp_path, 6)
    gone_on = hairpin(*command)
    assert (gone_on.code, gone_on.err) == (0, "")
    assert "resumed after 8 updates" in gone_on.out
    assert_same_history(whole, run)
    again = hairpin(*command)
    assert (again.code, again.err) == (0, "")
    assert "is finished after 12 updates: nothing to do" in again.out
    shutil.rmtree(run.path)
    run.path.mkdir()
    assert hairpin(*command).code == 0
    assert updates_without_times(run.record()) == updates_without_times(whole.record())


def test_the_present_config_of_a_run_is_that_run(hairpin: Hairpin, tmp_path: Path) -> None:
    run = stop(tmp_path, 6)
    own = ("train", "--config", run.directory.config, "--out", run.path, "--or-resume")
    assert hairpin(*own).code == 0
    assert run.summary().status == "finished"
    # Longer by now, but what was asked for was this.
    api.resume(run.path, extend=4, policy="constant", watcher=Quiet())
    assert "is finished after 16 updates" in hairpin(*own).out
    assert train(tmp_path, or_resume=True).summary().updates == 16


def test_another_run_is_refused_with_every_key_that_differs(
    hairpin: Hairpin, command: list[object], tmp_path: Path
) -> None:
    run = train(tmp_path)
    before = run.directory.metrics.read_bytes()
    other = hairpin(*command, "--lr", "0.02", "--recipe", "simple", "--budget", "10m").refusal
    for difference in (
        "recipe is gpt2 in that run and simple here",
        "schedule.peak_lr is 0.01 in that run and 0.02 here",
        "schedule.kind is unset in that run and constant here",
        "clip.kind is norm in that run and off here",
        "--budget is unset in that run and 600s here",
    ):
        assert difference in other
    assert "warmup" not in other
    assert other.endswith(
        f"name another folder with --out, or resume that run with `hairpin resume {run.path}`"
    )
    assert run.directory.metrics.read_bytes() == before


def test_a_budget_is_part_of_what_is_asked(tmp_path: Path) -> None:
    run = train(tmp_path, budget="30s")
    assert (first_event(run.directory.metrics) or {})["budget_seconds"] == 30
    assert train(tmp_path, budget="30s", or_resume=True).summary().updates == 12
    with pytest.raises(RunError, match="--budget is 30s in that run and 60s here"):
        train(tmp_path, budget="60s", or_resume=True)


def test_it_needs_a_folder(hairpin: Hairpin, tmp_path: Path) -> None:
    line = hairpin("train", text_file(tmp_path), *TINY_FLAGS, "--or-resume").refusal
    assert line == "--or-resume: name the run's folder with --out"
    assert not (tmp_path / "runs").exists()


def test_without_it_a_run_that_is_there_is_refused_with_both_ways_on(
    hairpin: Hairpin, command: list[object], tmp_path: Path
) -> None:
    run = train(tmp_path)
    line = hairpin(*command[:-1]).refusal
    assert f"`hairpin resume {run.path}`" in line
    assert "--or-resume" in line
    assert "--out" in line


def test_torchrun_implies_it_where_it_starts_a_process_again(
    hairpin: Hairpin, command: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(tmp_path, 6)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert "--or-resume" in hairpin(*command[:-1]).refusal
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert "resumed after 8 updates" in hairpin(*command[:-1]).out
    assert hairpin(*command[:-1], "--lr", "0.5").code == 2


# --- whatever is left of a process that was killed early ---


def test_what_was_asked_stands_in_the_first_line(tmp_path: Path) -> None:
    run = train(tmp_path)
    start, *later = run.record()
    assert start["event"] == "start"
    assert start["asked"]["train"] == {"updates": 12, "tokens_per_update": 64, "seed": 5}
    assert start["asked"]["data"] == {"texts": [str(tmp_path / "text.txt")]}
    assert "optimizer" not in start["asked"]  # as the defaults have it
    assert not any("asked" in event for event in later)


@pytest.mark.parametrize("left", [None, b"", b'{"event": "start", "ti'])
@pytest.mark.parametrize("way", ["resume", "or-resume"])
def test_a_run_killed_before_its_record_was_begun_begins(
    tmp_path: Path, killed_at_once: Run, left: bytes | None, way: str
) -> None:
    run = killed_at_once
    if left is not None:
        run.directory.metrics.write_bytes(left)
    if way == "resume":
        api.resume(run.path, watcher=Quiet())
    else:
        train(tmp_path, or_resume=True)
    whole = train(tmp_path, "whole")
    assert_same_history(whole, run)
    assert [event["event"] for event in run.record()][:2] == ["start", "plan"]
    assert run.record()[0]["asked"] == whole.record()[0]["asked"]
    assert len(of_kind(run.record(), "start")) == 1


def test_a_run_killed_before_its_record_was_begun_is_refused_to_another(
    tmp_path: Path, killed_at_once: Run
) -> None:
    with pytest.raises(RunError, match=r"train\.seed is 5 in that run and 6 here"):
        train(tmp_path, or_resume=True, changes={"train__seed": 6})
    assert not killed_at_once.directory.metrics.exists()


def test_what_is_left_of_making_the_folder_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".tmp-config.toml-123-456").write_bytes(b"[mod")
    (folder / ".lock").write_bytes(b"")
    assert train(tmp_path, or_resume=True).summary().status == "finished"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_bytes(b"mine")
    with pytest.raises(RunError, match="is not an empty folder"):
        train(tmp_path, "other", or_resume=True)
