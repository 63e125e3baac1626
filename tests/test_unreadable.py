"""A file that is there and cannot be read says nothing of a run, and is no reason to change it."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hairpin
from faults.unreadable import make_unreadable
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.doctor.verify_run import check_run
from hairpin.errors import HairpinError, Interrupted, RunError, UnreadableError
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import Hairpin, Watching, assert_same_history, text_file, tiny

ERRORS = (
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EBUSY,
    errno.EINTR,
)
Plant = Callable[..., None]
SETTINGS = tiny(checkpoint__every_updates=4)

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def cannot_read(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes a path unreadable, until the patches are undone."""

    def plant(path: Path, number: int = errno.EIO, readable_first: int = 0) -> None:
        for module, name in ((builtins, "open"), (io, "open"), (os, "listdir"), (os, "scandir")):
            monkeypatch.setattr(module, name, getattr(module, name))  # so that it comes back
        make_unreadable(path, number, readable_first)

    return plant


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A run of 12 updates that a signal stopped after update 6, with a checkpoint before that."""
    with pytest.raises(Interrupted):
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=SETTINGS, watcher=Watching(6)
        )
    return hairpin.load(tmp_path / "run")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def committed(folder: Path, *steps: int, keep: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder / "checkpoints", keep=keep, best=folder / "best")
    for step in steps:
        weights = {"model": {"weight": torch.full((3, 5), float(step))}}
        store.save(Snapshot(step, weights, {"step": step}), is_best=True)
    store.finish()
    return store


def whole(folder: Path) -> Run:
    return hairpin.train(
        folder / "text.txt", out=folder / "whole", settings=SETTINGS, watcher=Quiet()
    )


# --- the store ---


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize(
    "place",
    [
        "checkpoints",
        "checkpoints/step-00000002/manifest.json",
        "checkpoints/step-00000002/model.safetensors",
        "checkpoints/step-00000002/state.json",
        "best/manifest.json",
        "best/model.safetensors",
    ],
)
def test_no_error_of_the_system_is_damage(
    tmp_path: Path, cannot_read: Plant, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    store = committed(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / ".tmp-step-00000003").mkdir()
    before = tree(tmp_path)
    cannot_read(tmp_path / place, number)
    with pytest.raises(UnreadableError) as refused:
        store.newest(pytest.fail)
    monkeypatch.undo()
    (line,) = refused.value.problems
    assert str(tmp_path / place) in line and os.strerror(number) in line and "try again" in line
    assert tree(tmp_path) == before
    found = store.newest(pytest.fail)
    assert found and found.step == 2


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "state.json"])
def test_a_file_that_is_missing_is_damage(tmp_path: Path, name: str) -> None:
    store, notices = committed(tmp_path, 1, 2), list[str]()
    (tmp_path / "checkpoints" / "step-00000002" / name).unlink()
    found = store.newest(notices.append)
    assert found and found.step == 1 and f"step-00000002/{name}" in notices[0]


@pytest.mark.parametrize("place", ["best", "checkpoints/step-00000001"])
def test_the_best_is_not_replaced_because_it_cannot_be_read(
    tmp_path: Path, cannot_read: Plant, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = committed(tmp_path, 1, 2)
    before = tree(tmp_path)
    cannot_read(tmp_path / place / "model.safetensors", errno.EMFILE)
    with pytest.raises(UnreadableError, match="Too many open files"):
        store.keep_as_best(1, pytest.fail)
    monkeypatch.undo()
    assert tree(tmp_path) == before


def test_nothing_is_deleted_for_a_newest_that_cannot_be_read_back(
    tmp_path: Path, cannot_read: Plant
) -> None:
    store = committed(tmp_path, 1, keep=1)
    cannot_read(tmp_path / "checkpoints" / "step-00000002" / "manifest.json", errno.EACCES)
    store.save(Snapshot(2, {"model": {"weight": torch.zeros(2)}}, {"step": 2}))
    with pytest.raises(HairpinError) as refused:
        store.finish()
    (line,) = refused.value.problems
    assert "was saved but cannot be read back (Permission denied)" in line
    assert [path.name[-1] for path in store.steps()] == ["1", "2"]


# --- a run ---


@pytest.mark.parametrize("readable_first", [0, 1])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "config.toml"]
)
def test_a_resume_that_cannot_read_its_checkpoint_changes_nothing(
    stopped: Run,
    cannot_read: Plant,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    readable_first: int,
) -> None:
    newest = sorted(stopped.directory.checkpoints.glob("step-*"))[-1]
    before = tree(stopped.path)
    cannot_read(newest / name, errno.EACCES, readable_first)
    with pytest.raises(UnreadableError, match=rf"{name}: cannot be read \(Permission denied\)"):
        hairpin.resume(stopped.path, watcher=Quiet())
    monkeypatch.undo()
    assert tree(stopped.path) == before
    assert_same_history(whole(tmp_path), hairpin.resume(stopped.path, watcher=Quiet()))


@pytest.mark.parametrize("place", ["config.toml", "metrics.jsonl", "tokenizer/hairpin.json"])
def test_nor_one_that_cannot_read_the_run(
    stopped: Run, cannot_read: Plant, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = tree(stopped.path)
    cannot_read(stopped.path / place, errno.ESTALE)
    text, quiet = stopped.path.parent / "text.txt", Quiet()
    for again in (True, False):
        with pytest.raises(UnreadableError) as refused:
            if again:
                hairpin.resume(stopped.path, watcher=quiet)
            out, settings = stopped.path, SETTINGS
            hairpin.train(text, out=out, settings=settings, or_resume=True, watcher=quiet)
        (line,) = refused.value.problems
        assert str(stopped.path / place) in line and os.strerror(errno.ESTALE) in line
        assert "copy" not in line, "what cannot be read now need not be put back"
    monkeypatch.undo()
    assert tree(stopped.path) == before


def test_weights_that_cannot_be_read_are_not_called_damaged(
    stopped: Run, cannot_read: Plant, hairpin: Hairpin, tmp_path: Path
) -> None:
    cannot_read(stopped.directory.best / "model.safetensors", errno.EIO)
    verbs: list[list[object]] = [
        ["sample", stopped.path],
        ["export", stopped.path, tmp_path / "out", "--to", "huggingface"],
        ["train", tmp_path / "text.txt", "--from", stopped.path, "--out", tmp_path / "other"],
    ]
    for verb in verbs:
        line = hairpin(*verb).refusal
        assert "best/model.safetensors: cannot be read (Input/output error)" in line, verb
    findings = {found.what: found for found in check_run(stopped.directory)}
    (problem,) = findings["best"].problems
    assert "cannot be read" in problem and "aside" not in problem


def test_a_list_of_runs_and_a_page_tell_an_unreadable_one_from_a_damaged_one(
    stopped: Run, cannot_read: Plant, hairpin: Hairpin
) -> None:
    cannot_read(stopped.directory.metrics, errno.EACCES)
    assert "unreadable" in hairpin("runs", stopped.path.parent).out
    assert "metrics.jsonl: cannot be read" in hairpin("report", stopped.path).refusal


def test_what_cannot_be_read_is_found_by_the_store_of_any_loop(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError):
        open_checkpoint(tmp_path / "checkpoints" / "step-00000001")
