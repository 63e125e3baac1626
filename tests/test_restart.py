"""A run that has saved something begins at update 0 only where it is asked to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hairpin
from hairpin.errors import Interrupted
from hairpin.run import Run
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

pytestmark = pytest.mark.usefixtures("no_plots")


def empty(run: Run) -> None:
    """As an unmounted disk leaves it."""
    shutil.rmtree(run.directory.checkpoints)
    run.directory.checkpoints.mkdir()


def damage_all(run: Run) -> None:
    for path in run.directory.checkpoints.glob("step-*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])


def without_a_best(run: Run) -> None:
    empty(run)
    shutil.rmtree(run.directory.best)


LOSSES: list[Callable[[Run], None]] = [
    lambda run: shutil.rmtree(run.directory.checkpoints),
    empty,
    damage_all,
    without_a_best,
]


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A run that a signal stopped after its sixth update, and that had saved before."""
    with pytest.raises(Interrupted):
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Watching(6)
        )
    return hairpin.load(tmp_path / "run")


def whole(folder: Path) -> Run:
    return hairpin.train(folder / "text.txt", out=folder / "w", settings=tiny(), watcher=Quiet())


def names(run: Run) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in run.path.rglob("*") if p.name != ".lock"}


@pytest.mark.parametrize("lose", LOSSES)
def test_a_run_whose_checkpoints_are_lost_is_refused_until_it_is_asked_to_begin_again(
    stopped: Run, hairpin: Hairpin, tmp_path: Path, lose: Callable[[Run], None]
) -> None:
    lose(stopped)
    before = names(stopped)
    command = ["train", tmp_path / "text.txt", *TINY_FLAGS, "--out", stopped.path, "--or-resume"]
    for verb in (["resume", stopped.path], command):
        line = hairpin(*verb).refusal
        assert f"`hairpin resume {stopped.path} --restart`" in line and "8 updates" in line
        assert names(stopped) == before
    done = hairpin("resume", stopped.path, "--restart")
    assert (done.code, done.err) == (0, "")
    again = updates_without_times(stopped.record())
    assert again == updates_without_times(whole(tmp_path).record())
    assert list(stopped.path.glob("metrics.discarded-*"))


def test_asked_for_it_a_run_with_whole_checkpoints_begins_again_and_keeps_them_aside(
    stopped: Run, tmp_path: Path
) -> None:
    saved = {p.name for p in stopped.directory.checkpoints.glob("step-*")}
    hairpin.resume(stopped.path, restart=True, watcher=Quiet())
    assert len(of_kind(stopped.record(), "update")) == 12
    aside = {p.name for p in stopped.directory.checkpoints.glob(".bad-*")}
    assert {name.split("-", 1)[1].rpartition("-")[0] for name in aside} == saved
    assert updates_without_times(stopped.record()) == updates_without_times(
        whole(tmp_path).record()
    )
    hairpin.resume(stopped.path, restart=True, watcher=Quiet())  # a finished one too
    assert len(of_kind(stopped.record(), "end")) == 1


def test_to_begin_again_and_to_go_on_are_two_things(hairpin: Hairpin, tmp_path: Path) -> None:
    line = hairpin("resume", tmp_path, "--restart", "--extend", "4").refusal
    assert "give one of them" in line


class KilledError(BaseException):
    """Whatever comes without a warning."""


@pytest.mark.parametrize("moment", ["before the first save", "in it"])
def test_one_that_was_killed_before_anything_was_saved_begins_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killing(Watching):
        def show(self, event: object) -> None:
            if getattr(event, "update", 0) == 2 and moment.startswith("before"):
                raise KilledError
            super().show(event)  # type: ignore[arg-type]

    def kill(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        if moment == "in it":
            patch.setattr("hairpin.checkpoints.store.commit", kill)
        hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Killing())
    run = hairpin.load(tmp_path / "run")
    assert of_kind(run.record(), "update") and not run.directory.witness.exists()
    watcher = Watching()
    hairpin.resume(run.path, watcher=watcher)
    assert any("starts again at update 0" in line for line in watcher.notices)
    assert_same_history(whole(tmp_path), run)
    assert run.directory.witness.exists()
