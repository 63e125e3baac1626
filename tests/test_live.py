"""Reading the weights of a run that replaces and deletes them meanwhile."""

import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch

from hairpin.checkpoints.best import best_folder
from hairpin.checkpoints.live import read_live
from hairpin.checkpoints.manifest import Checkpoint, described_checkpoint, open_checkpoint
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.doctor.verify_run import check_run
from hairpin.errors import CheckpointError, RunError
from hairpin.runs.folder import RunDirectory
from hairpin.training.checkpoint import load_weights


def save(run: RunDirectory, step: int) -> None:
    """Commit a step whose every weight is its number, as the best and the only one that stays."""
    store = CheckpointStore(run.checkpoints, keep=1, best=run.best)
    weights = {name: torch.full((120, 80), float(step)) for name in "abc"}
    store.save(Snapshot(step, {"model": weights}, {"step": step}), is_best=True)
    store.finish()


def loaded(run: RunDirectory, which: str) -> int:
    """The step whose weights are loaded; all of them are its own, and the words say so."""
    tensors, words = load_weights(run, which)
    (step,) = set(torch.cat([tensor.flatten() for tensor in tensors.values()]).tolist())
    assert words == f"{which} weights, update {step:.0f}"
    return int(step)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    save(run, 1)
    return run


@pytest.mark.parametrize("which", ["best", "last"])
def test_whatever_is_replaced_meanwhile_one_checkpoint_is_read(
    run: RunDirectory, which: str
) -> None:
    over, steps = threading.Event(), [0]

    def write() -> None:
        for step in count(2):
            if over.is_set():
                return
            save(run, step)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(set(steps)) < 12:
            steps.append(loaded(run, which))
    finally:
        over.set()
        writer.join()
    assert steps == sorted(steps), "what is read never goes back"


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("moment", ["before it is opened", "after its manifest"])
def test_what_is_replaced_at_that_very_moment_is_read_again(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, which: str, moment: str
) -> None:
    """The replacement comes between two reads of the reader, once."""
    replaced: list[bool] = []

    def replacing(call: Callable[..., object]) -> Callable[..., object]:
        def reading(*arguments: object) -> object:
            if not replaced:
                replaced.append(True)
                save(run, 2)
            return call(*arguments)

        return reading

    if moment == "after its manifest":
        monkeypatch.setattr(Checkpoint, "read", replacing(Checkpoint.read))
    else:
        from hairpin.checkpoints import live

        monkeypatch.setattr(live, "described_checkpoint", replacing(described_checkpoint))
    assert loaded(run, which) == 2 and replaced


def test_bytes_that_change_after_they_were_verified_are_not_loaded(run: RunDirectory) -> None:
    checkpoint = open_checkpoint(run.best)
    path = run.best / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its bytes differ"):
        checkpoint.tensors("model")


def test_a_best_that_moves_once_it_was_found_is_not_given_up_for_the_last(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a replacement, right after the folder was found: the other name is read then."""

    def found_and_moved(best: Path) -> Path | None:
        found = best_folder(best)
        if best.exists():
            best.rename(best.with_name(f".old-{best.name}"))
        return found

    monkeypatch.setattr("hairpin.training.checkpoint.best_folder", found_and_moved)
    assert loaded(run, "best") == 1


def test_the_best_before_is_read_while_a_new_one_is_put_in_its_place(run: RunDirectory) -> None:
    run.best.rename(run.path / ".old-best")
    save_only_step = shutil.copytree(run.checkpoints, run.path / "kept")
    assert best_folder(run.best) == run.path / ".old-best" and save_only_step
    assert loaded(run, "best") == 1


def test_a_checkpoint_that_stays_damaged_is_an_error_at_once(run: RunDirectory) -> None:
    (run.best / "manifest.json").write_bytes(b"{}")
    with pytest.raises(
        RunError,
        match=r"manifest\.json: its bytes differ from those that were "
        r"written",
    ):
        load_weights(run, "best")


def test_a_name_that_leads_nowhere_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    (tmp_path / "step").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        read_live(lambda: tmp_path / "step", lambda found: found.step)


def test_a_check_of_a_run_that_trains_finds_nothing_wrong(run: RunDirectory) -> None:
    over = threading.Event()

    def write() -> None:
        for step in count(2):
            if over.is_set():
                return
            save(run, step)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [finding for _ in range(20) for finding in check_run(run)]
    finally:
        over.set()
        writer.join()
    of_weights = [f for f in found if f.what == "best" or f.what.startswith("checkpoints/step")]
    assert len(of_weights) >= 20 and [f for f in of_weights if f.problems] == []
