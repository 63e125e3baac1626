"""What may change between a run's checkpoint and its resume, and what may not."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import hairpin
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.config.load import read_toml
from hairpin.data.tokenizers import train_bpe
from hairpin.errors import HairpinError, Interrupted
from hairpin.run import Run
from hairpin.runs.events import Event, Update
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from helpers import (
    Watching,
    assert_same_history,
    last_checkpoint,
    of_kind,
    some_text,
    text_file,
    tiny,
)

VERSION = str(torch.__version__)
SETTINGS = tiny(model__dropout=0.1, schedule__kind="constant")


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A run that a signal stopped between its fifth and eighth update."""
    with pytest.raises(Interrupted):
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=SETTINGS, watcher=Watching(5)
        )
    return hairpin.load(tmp_path / "run")


def edit(run: Run, key: str, value: Any) -> None:
    """Change config.toml as a text editor would."""
    import tomli_w

    table, name = key.split(".")
    tree = read_toml(run.directory.config)
    tree[table][name] = value
    run.directory.config.write_text(tomli_w.dumps(tree), encoding="utf-8")


def resume(run: Run) -> list[str]:
    watcher = Watching()
    hairpin.resume(run.path, watcher=watcher)
    return watcher.notices


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schedule.peak_lr", 0.02),
        ("schedule.warmup_updates", 4),
        ("train.seed", 6),
        ("train.tokens_per_update", 32),
        ("model.dropout", 0.2),
        ("model.width", 32),
        ("optimizer.beta2", 0.99),
        ("clip.threshold", 0.5),
        ("evaluate.tokens", 64),
        ("data.validation_fraction", 0.2),
    ],
)
def test_what_would_make_it_another_run_is_refused(stopped: Run, key: str, value: Any) -> None:
    whole = stopped.directory.config.read_bytes()
    checkpoints = sorted(stopped.directory.checkpoints.rglob("*"))
    edit(stopped, key, value)
    edited = stopped.directory.config.read_bytes()
    with pytest.raises(HairpinError) as refused:
        resume(stopped)
    assert "hash" in str(refused.value) or "start another run" in str(refused.value)
    assert stopped.directory.config.read_bytes() == edited, "the user's edit is not lost"
    assert sorted(stopped.directory.checkpoints.rglob("*")) == checkpoints
    stopped.directory.config.write_bytes(whole)
    assert resume(stopped) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("evaluate.every_updates", 3),
        ("evaluate.sample_tokens", 0),
        ("checkpoint.keep", 1),
        ("train.updates", 15),
    ],
)
def test_what_is_still_to_come_may_change(
    stopped: Run, tmp_path: Path, key: str, value: Any
) -> None:
    edit(stopped, key, value)
    assert resume(stopped) == []
    whole = hairpin.train(
        tmp_path / "text.txt",
        out=tmp_path / "whole",
        settings=SETTINGS | {key: value},
        watcher=Quiet(),
    )
    ours, theirs = (of_kind(run.record(), "update") for run in (stopped, whole))
    assert [event["loss"] for event in ours] == [event["loss"] for event in theirs]
    assert len(ours) == (15 if key == "train.updates" else 12)


def test_another_way_to_compute_is_allowed_and_said(stopped: Run) -> None:
    edit(stopped, "execution.micro_batch", 1)
    (notice,) = resume(stopped)
    assert "execution.micro_batch was 2 until update" in notice and "is 1 from here" in notice


def test_another_torch_is_said_and_stands_in_the_record(
    stopped: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    (notice,) = resume(stopped)
    assert notice.startswith(f"torch was {VERSION} until update 7 and is 9.9.0 from here")
    (event,) = of_kind(stopped.record(), "resume")
    assert event["changes"] == [notice]


def test_another_number_of_threads_is_said_and_stands_in_the_record(stopped: Run) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        (notice,) = resume(stopped)
    finally:
        torch.set_num_threads(before)
    assert notice == (
        f"the number of threads was {before} until update 7 and is {before + 1} from here: bits "
        "will differ"
    )
    (event,) = of_kind(stopped.record(), "resume")
    assert event["changes"] == [notice]


def test_a_resume_of_the_same_says_nothing(stopped: Run) -> None:
    assert resume(stopped) == []
    (event,) = of_kind(stopped.record(), "resume")
    assert "changes" not in event


@pytest.mark.parametrize("left", ["half", "nothing", "no file", "another"])
def test_a_record_that_lacks_lines_is_said_and_gone_on_with(stopped: Run, left: str) -> None:
    path, whole = stopped.directory.metrics, stopped.directory.metrics.read_bytes()
    if left == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif left == "nothing":
        path.write_bytes(b"")
    elif left == "another":
        other = whole.replace(b'"seed"', b'"deed"').replace(b'"loss": ', b'"loss": 1')
        path.write_bytes(other)
    else:
        path.unlink()
    (notice,) = resume(stopped)
    assert "metrics.jsonl" in notice and "the run continues" in notice
    if left != "another":
        assert "lines are missing" in notice
    after = path.read_bytes()
    assert b"\0" not in after
    events = [json.loads(line) for line in after.splitlines()]
    (event,) = [event for event in events if event["event"] == "resume"]
    assert event["changes"] == [notice]
    updates = [event["update"] for event in events if event["event"] == "update"]
    assert updates[-4:] == [8, 9, 10, 11] and len(set(updates)) == len(updates)
    assert open_checkpoint(last_checkpoint(stopped.path)).step == 12


def test_another_text_is_refused(stopped: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(some_text(seed=2), encoding="utf-8")
    with pytest.raises(HairpinError, match=r"data\.hash"):
        resume(stopped)
    text_file(tmp_path)
    assert resume(stopped) == []


def test_another_tokenizer_is_refused(stopped: Run, tmp_path: Path) -> None:
    whole = hairpin.train(
        tmp_path / "text.txt", out=tmp_path / "whole", settings=SETTINGS, watcher=Quiet()
    )
    folder = RunDirectory(stopped.path).tokenizer
    shutil.move(folder, tmp_path / "kept")
    train_bpe([some_text()], 257).save(folder)
    with pytest.raises(HairpinError, match="tokenizer"):
        resume(stopped)
    shutil.rmtree(folder)
    shutil.move(tmp_path / "kept", folder)
    resume(stopped)
    assert_same_history(whole, stopped)


def test_a_damaged_config_says_where_a_copy_is(stopped: Run) -> None:
    stopped.directory.config.write_bytes(b"[train\n\x00")
    with pytest.raises(HairpinError) as refused:
        resume(stopped)
    copy = last_checkpoint(stopped.path) / "config.toml"
    assert f"put it back from {copy}" in str(refused.value)
    shutil.copyfile(copy, stopped.directory.config)
    assert resume(stopped) == []


@dataclass
class Editing(Watching):
    """Edits config.toml while the run trains."""

    run: Run = field(kw_only=True)
    whole: bytes = b""

    def show(self, event: Event) -> None:
        if isinstance(event, Update) and event.update == 1:
            config = self.run.directory.config
            self.whole = config.read_bytes()
            config.write_bytes(self.whole.replace(b"seed = 5", b"seed = 6"))
        super().show(event)


def test_an_edit_while_it_trains_is_refused_at_the_resume(tmp_path: Path) -> None:
    watcher = Editing(5, run=Run(RunDirectory(tmp_path / "run")))
    with pytest.raises(Interrupted):
        hairpin.train(text_file(tmp_path), out=tmp_path / "run", settings=SETTINGS, watcher=watcher)
    with pytest.raises(HairpinError, match=r"train\.seed is 6 but was 5"):
        resume(watcher.run)
    watcher.run.directory.config.write_bytes(watcher.whole)
    assert resume(watcher.run) == []


def test_an_evaluation_made_up_for_at_the_end_stays_when_the_run_becomes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | {"train.updates": 13, "schedule.kind": "cosine"}
    with pytest.raises(Interrupted):  # after the last update, before its evaluation
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=settings, watcher=Watching(11)
        )
    run = hairpin.load(tmp_path / "run")
    hairpin.resume(run.path, watcher=Quiet())
    hairpin.resume(run.path, extend=6, policy="rewarm", watcher=Quiet())
    assert [e["update"] for e in of_kind(run.record(), "evaluation")] == [0, 4, 8, 12, 13, 16, 19]


def test_what_a_run_killed_at_its_last_left_half_written_is_removed(tmp_path: Path) -> None:
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=SETTINGS, watcher=Quiet()
    )
    left = run.path / ".tmp-report.html-1-2"  # the page is written once more after the end
    left.touch()

    hairpin.resume(run.path, watcher=Quiet())

    assert not left.exists()
