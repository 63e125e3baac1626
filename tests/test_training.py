"""Whole runs through `hairpin.train` and `hairpin.resume`, tiny ones."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hairpin
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.checkpoints.tensors import FileFacts, write_tensors
from hairpin.config.settings import Config
from hairpin.data.batches import Batches
from hairpin.distributed.world import World
from hairpin.errors import HairpinError, Interrupted, NonFiniteError
from hairpin.run import Run
from hairpin.runs.events import Event, Update
from hairpin.runs.watcher import Quiet
from hairpin.training import assembly
from hairpin.training import train_run as train_run_module
from hairpin.training.checkpoint import load_state
from hairpin.training.job import Job
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
from hairpin.training.task import Task
from helpers import (
    Watching,
    a_guard,
    assert_same_end,
    assert_same_history,
    evaluations,
    last_checkpoint,
    of_kind,
    tensor_bytes,
    tensor_bytes_of_best,
    text_file,
    tiny,
    updates_without_times,
)

# Everything on that could depend on history: dropout, accumulation, warmup, decay, clipping.
ALL_ON = tiny(model__dropout=0.1, clip__threshold=0.5, schedule__kind="cosine")
MODERN = tiny(recipe="modern", clip__threshold=0.5, schedule__kind="cosine")


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def train(text: Path, out: str, settings: dict[str, Any]) -> Run:
    return hairpin.train(text, out=text.parent / out, settings=settings, watcher=Quiet())


# --- the record of a run ---


def test_a_run_leaves_its_record_and_its_folder(text: Path) -> None:
    run = train(text, "run", ALL_ON)
    record = run.record()
    assert [event["event"] for event in record][:4] == ["start", "plan", "evaluation", "sample"]
    assert record[-1]["event"] == "end" and record[-1]["status"] == "finished"
    updates = of_kind(record, "update")
    assert [event["update"] for event in updates] == list(range(12))
    # Peak 0.01 after 3 updates of warmup from a third of it; the last is a tenth of it.
    lrs = [event["lr"] for event in updates]
    assert lrs[:4] == pytest.approx([0.01 / 3, 0.02 * 5 / 9 / 2, 0.07 / 9, 0.01], rel=1e-12)
    assert lrs[7] == pytest.approx(0.001 + 0.009 * 0.5, rel=1e-12)
    assert lrs[11] == 0.001
    assert all(event["tokens"] == 64 for event in updates)
    assert [event["update"] for event in of_kind(record, "evaluation")] == [0, 4, 8, 12]
    assert [event["tokens"] for event in of_kind(record, "evaluation")] == [0, 256, 512, 768]
    assert [event["update"] for event in of_kind(record, "sample")] == [0, 4, 8, 12]
    assert [event["update"] for event in of_kind(record, "checkpoint")] == [4, 8, 12]
    losses = [event["val_loss"] for event in of_kind(record, "evaluation")]
    assert losses[0] == pytest.approx(math.log(257), abs=0.05)
    assert losses[-1] < losses[0] - 0.5
    kinds = {path.name for path in run.path.iterdir()}
    assert kinds >= {"config.toml", "environment.json", "metrics.jsonl", "tokenizer", "best"}
    assert not [p for p in run.path.rglob("*") if p.name.startswith((".tmp", ".old", ".bad"))]
    best = json.loads((run.path / "best" / "manifest.json").read_text(encoding="utf-8"))
    assert best["step"] == 4 * losses.index(min(losses))
    open_checkpoint(run.path / "best")


@pytest.mark.parametrize(("kind", "threshold"), [("norm", 0.5), ("value", 0.001), ("off", 0.001)])
def test_clipping_is_recorded_from_update_0(text: Path, kind: str, threshold: float) -> None:
    settings = tiny(clip__kind=kind, clip__threshold=threshold)
    updates = of_kind(train(text, "run", settings).record(), "update")
    assert updates[0]["grad_norm"] > 0.5
    for event in updates:
        expected = {"norm": event["grad_norm"] > 0.5, "value": True, "off": False}[kind]
        assert event["clipped"] is expected


def test_each_checkpoint_knows_the_length_of_the_record_it_belongs_to(text: Path) -> None:
    run = train(text, "run", ALL_ON)
    whole = (run.path / "metrics.jsonl").read_bytes()
    for step in (4, 8, 12):
        folder = run.path / "checkpoints" / f"step-{step:08d}"
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        last = json.loads(whole[: state["record_bytes"]].splitlines()[-1])
        assert last["event"] == "checkpoint" and last["update"] == step
        assert (state["update"], state["position"], state["tokens"]) == (step, 4 * step, 64 * step)


def checkpoints_of(run: Run) -> list[int]:
    return [event["update"] for event in of_kind(run.record(), "checkpoint")]


def test_what_was_not_saved_for_long_is_saved_between_milestones(text: Path) -> None:
    """Every update is later than a nanosecond after the last checkpoint, and none than an hour."""
    hourly = train(text, "hourly", ALL_ON | {"checkpoint.every_seconds": 3600.0})
    never = train(text, "never", ALL_ON | {"checkpoint.every_seconds": 0.0})
    always = train(text, "always", ALL_ON | {"checkpoint.every_seconds": 1e-9})
    assert checkpoints_of(hourly) == checkpoints_of(never) == [4, 8, 12]
    assert checkpoints_of(always) == list(range(1, 13))
    assert tensor_bytes(last_checkpoint(always.path)) == tensor_bytes(last_checkpoint(never.path))
    assert updates_without_times(always.record()) == updates_without_times(never.record())


def test_a_crash_costs_no_more_than_the_time_between_checkpoints(text: Path, whole: Run) -> None:
    out, settings = text.parent / "crashed", ALL_ON | {"checkpoint.every_seconds": 1e-9}
    with pytest.raises(ZeroDivisionError):
        hairpin.train(text, out=out, settings=settings, watcher=Failing(fail_after_update=2))
    run = hairpin.resume(out, watcher=Quiet())
    assert of_kind(run.record(), "resume")[0]["update"] >= 2
    assert_same_history_but_checkpoints(whole, run)


# --- what does not change a run ---


def test_a_run_repeats_from_its_own_config(text: Path) -> None:
    first = train(text, "first", ALL_ON)
    torch.manual_seed(999)
    torch.rand(7)
    again = hairpin.train(
        config=first.path / "config.toml", out=text.parent / "again", watcher=Quiet()
    )
    assert again.config == first.config
    for step in (4, 8, 12):
        folders = [r.path / "checkpoints" / f"step-{step:08d}" for r in (first, again)]
        assert tensor_bytes(folders[0]) == tensor_bytes(folders[1])
    assert updates_without_times(first.record()) == updates_without_times(again.record())
    assert evaluations(first) == evaluations(again)
    other = train(text, "other", ALL_ON | {"train.seed": 6})
    assert tensor_bytes(last_checkpoint(other.path)) != tensor_bytes(last_checkpoint(first.path))


def test_evaluating_and_sampling_more_often_changes_no_weight_by_a_bit(text: Path) -> None:
    runs = [
        train(text, "seldom", ALL_ON),
        train(text, "often", ALL_ON | {"evaluate.every_updates": 2}),
        train(text, "none", ALL_ON | {"evaluate.every_updates": 1, "evaluate.sample_tokens": 30}),
        train(text, "larger", ALL_ON | {"evaluate.tokens": 400, "evaluate.sample_tokens": 0}),
    ]
    expected = tensor_bytes(last_checkpoint(runs[0].path))
    assert len(evaluations(runs[1])) == 7 and len(evaluations(runs[2])) == 13
    for run in runs[1:]:
        assert tensor_bytes(last_checkpoint(run.path)) == expected
        assert updates_without_times(run.record()) == updates_without_times(runs[0].record())


def test_1_times_32_sequences_are_8_times_4(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    at = Batches.at

    def noted(self: Batches, position: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = at(self, position, count)
        seen.append(batch[0].numpy().tobytes())
        return batch

    monkeypatch.setattr(Batches, "at", noted)
    settings = tiny(train__updates=24, train__tokens_per_update=512)
    runs, ids = [], []
    for micro_batch in (32, 4):
        seen.clear()
        runs.append(
            train(text, f"run{micro_batch}", settings | {"execution.micro_batch": micro_batch})
        )
        ids.append(seen[-24:])
    assert ids[0] == ids[1] and len(set(ids[0])) == 24
    one, many = (of_kind(run.record(), "update") for run in runs)
    assert [event["lr"] for event in one] == [event["lr"] for event in many]
    assert [event["tokens"] for event in one] == [event["tokens"] for event in many]
    for left, right in zip(one[:20], many[:20], strict=True):
        assert abs(left["loss"] - right["loss"]) < 1e-5
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
    assert one[0]["grad_norm"] == pytest.approx(many[0]["grad_norm"], rel=1e-6)
    last = [evaluations(run)[-1]["val_loss"] for run in runs]
    assert last[1] == pytest.approx(last[0], rel=0.01)


# --- stopping and going on ---


def interrupt(text: Path, out: str, settings: dict[str, Any], watcher: Watching) -> Run:
    with pytest.raises(Interrupted) as stopped:
        hairpin.train(text, out=text.parent / out, settings=settings, watcher=watcher)
    assert stopped.value.exit_code == 128 + watcher.signal_number
    assert "resume" in str(stopped.value)
    return hairpin.load(text.parent / out)


@pytest.fixture
def whole(text: Path) -> Run:
    return train(text, "whole", ALL_ON)


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 10])
def test_stopped_and_resumed_is_as_if_never_stopped(text: Path, whole: Run, after: int) -> None:
    run = interrupt(text, "stopped", ALL_ON, Watching(after))
    assert run.record()[-1]["status"] == "interrupted"
    # An update is read one behind, and a stop is looked at after the step that is under way.
    stopped_at = int(last_checkpoint(run.path).name.removeprefix("step-"))
    assert after < stopped_at <= after + 3
    hairpin.resume(run.path, watcher=Quiet())
    assert_same_history(whole, run)
    assert len(of_kind(run.record(), "resume")) == 1
    assert of_kind(run.record(), "end")[-1]["status"] == "finished"
    discarded = list(run.path.glob("metrics.discarded-*.jsonl"))
    assert len(discarded) == 1


@pytest.mark.parametrize("recipe", ["modern", "qwen3"])
def test_a_modern_run_stopped_and_resumed_is_as_if_never_stopped(text: Path, recipe: str) -> None:
    settings = MODERN | {"recipe": recipe}
    whole = train(text, "modern", settings)
    run = interrupt(text, "stopped", settings, Watching(5))
    hairpin.resume(run.path, watcher=Quiet())
    assert_same_history(whole, run)
    losses = [event["val_loss"] for event in of_kind(whole.record(), "evaluation")]
    assert losses[-1] < losses[0] - 0.5
    kept = load_file(last_checkpoint(whole.path) / "optimizer.safetensors")
    assert "momentum.blocks.0.mlp.expand.weight" in kept and "exp_avg.head.weight" in kept


def test_stopped_many_times_by_both_signals(text: Path, whole: Run) -> None:
    run = interrupt(text, "stopped", ALL_ON, Watching(1, signal.SIGTERM))
    for after, number in ((4, signal.SIGINT), (6, signal.SIGTERM), (9, signal.SIGINT)):
        with pytest.raises(Interrupted) as stopped:
            hairpin.resume(run.path, watcher=Watching(after, number))
        assert stopped.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    hairpin.resume(run.path, watcher=Quiet())
    assert_same_history(whole, run)


@pytest.mark.parametrize("after", [2, 9, 13])
def test_resuming_in_a_later_epoch_neither_repeats_nor_skips_text(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 33 samples of 16 tokens in 540 bytes, 4 an update: an epoch ends inside update 8.
    text = text_file(tmp_path, 600)
    settings = ALL_ON | {"train.updates": 20, "evaluate.every_updates": 10}
    order: list[tuple[int, int]] = []
    step = Job.step

    def noted(self: Job) -> Any:
        assert isinstance(self.batches, Batches)
        order.extend(
            (self.state.update, start)
            for start in self.batches.starts(self.state.position, self.samples_per_update).tolist()
        )
        return step(self)

    monkeypatch.setattr(Job, "step", noted)
    whole = train(text, "whole", settings)
    expected = list(order)
    assert len(expected) == 80
    assert whole.record()[1]["epochs"] > 2
    order.clear()
    run = interrupt(text, "stopped", settings, Watching(after))
    hairpin.resume(run.path, watcher=Quiet())
    assert order == expected
    assert_same_history(whole, run)


@dataclass
class Failing(Watching):
    """Breaks after some update, as a bug or a kill would, without any checkpoint of it."""

    fail_after_update: int = 0
    seen: list[Event] = field(default_factory=list)

    def show(self, event: Event) -> None:
        if isinstance(event, Update) and event.update == self.fail_after_update:
            raise ZeroDivisionError("planted")


@pytest.mark.parametrize("after", [1, 6, 10])
def test_after_a_crash_updates_since_the_checkpoint_are_done_again(
    text: Path, whole: Run, after: int
) -> None:
    out = text.parent / "crashed"
    with pytest.raises(ZeroDivisionError):
        hairpin.train(text, out=out, settings=ALL_ON, watcher=Failing(fail_after_update=after))
    run = hairpin.resume(out, watcher=Quiet())
    assert_same_history(whole, run)
    assert len(of_kind(run.record(), "start")) == 1
    assert len(list(run.path.glob("metrics.discarded-*"))) == 1


def test_a_record_torn_by_a_kill_before_the_first_checkpoint_is_no_hindrance(
    text: Path, whole: Run
) -> None:
    out = text.parent / "crashed"
    with pytest.raises(ZeroDivisionError):
        hairpin.train(text, out=out, settings=ALL_ON, watcher=Failing(fail_after_update=1))
    record = out / "metrics.jsonl"
    record.write_bytes(record.read_bytes()[:-30])
    assert_same_history(whole, hairpin.resume(out, watcher=Quiet()))


def test_resuming_falls_back_over_a_damaged_checkpoint(text: Path, whole: Run) -> None:
    run = interrupt(text, "stopped", ALL_ON, Watching(9))
    newest = last_checkpoint(run.path)
    (newest / "model.safetensors").write_bytes(b"not what was written")
    watcher = Watching()
    hairpin.resume(run.path, watcher=watcher)
    assert any("model.safetensors" in notice for notice in watcher.notices)
    assert_same_history(whole, run)


def test_a_finished_run_is_left_as_it_is(whole: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")}
    watcher = Watching()
    assert hairpin.resume(whole.path, watcher=watcher).path == whole.path
    assert watcher.notices and "finished after 12 updates" in watcher.notices[0]
    assert {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")} == before


def test_the_signal_handlers_of_the_caller_come_back(text: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(text, "run", tiny(train__updates=5))
    interrupt(text, "stopped", ALL_ON, Watching(3))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# --- what is not finite ---


@dataclass
class Planted:
    """Spoils one update of a run that is otherwise as usual."""

    update: int | None
    where: str
    now: int = -1
    state: TrainState | None = None

    def spoil(self, value: torch.Tensor) -> torch.Tensor:
        return value * math.nan if self.now == self.update else value

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        step, new_state = Job.step, assembly.new_state

        def stepping(job: Job) -> Any:
            self.now = job.state.update
            try:
                return step(job)
            finally:
                self.now = -1

        def planted(task: Task, world: World, *, from_start: bool = True) -> TrainState:
            self.state = new_state(task, world, from_start=from_start)
            model = self.state.model
            if self.where == "loss":
                model.register_forward_hook(lambda _, __, out: (self.spoil(out[0]), out[1]))
            else:
                model.get_parameter(self.where).register_hook(self.spoil)  # type: ignore[no-untyped-call]
            return self.state

        monkeypatch.setattr(Job, "step", stepping)
        monkeypatch.setattr(train_run_module, "new_state", planted)


def state_bytes(state: TrainState) -> dict[str, bytes]:
    tensors = {**state.model_tensors(), **state.optimizer_tensors()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("update", [0, 4, 6, 11])
@pytest.mark.parametrize("where", ["loss", "blocks.0.mlp.expand.weight"])
def test_what_is_not_finite_touches_neither_weights_nor_checkpoints(
    text: Path, monkeypatch: pytest.MonkeyPatch, update: int, where: str
) -> None:
    every = ALL_ON | {"checkpoint.every_updates": 1}
    clean = train(text, "clean", every)
    planted = Planted(update, where)
    planted.plant(monkeypatch)
    with pytest.raises(NonFiniteError) as raised:
        train(text, "spoilt", ALL_ON)
    line = str(raised.value)
    assert line.startswith(f"update {update}: ")
    assert f"samples {4 * update} to {4 * update + 3}" in line
    if where == "loss":
        assert "loss nan" in line
    else:
        assert f"the gradient of {where} is not finite" in line
    assert raised.value.exit_code == 1

    run = hairpin.load(text.parent / "spoilt")
    steps = sorted(path.name for path in (run.path / "checkpoints").glob("*"))
    assert steps == [f"step-{step:08d}" for step in (4, 8, 12) if step <= update]
    assert planted.state
    if update:
        # The weights and moments that are left are those of the sound run before that update.
        saved = TrainState(*fresh(clean.config, planted.state))
        load_state(open_checkpoint(clean.path / "checkpoints" / f"step-{update:08d}"), saved)
        assert state_bytes(planted.state) == state_bytes(saved)
    record = run.record()
    last = of_kind(record, "update")[-1]
    assert last["update"] == update
    norm_or_loss = "loss" if where == "loss" else "grad_norm"
    assert last[norm_or_loss] is None and last["non_finite"] == "nan"
    assert record[-1]["status"] == "failed" and record[-1]["reason"] == line

    planted.update = None  # the cause is gone
    assert_same_history_but_checkpoints(clean, hairpin.resume(run.path, watcher=Quiet()))


def fresh(config: Config, like: TrainState) -> tuple[Any, Any, Any]:
    """A model and an optimizer of the same shape, with nothing in them, and a guard."""
    from hairpin.model.gpt import GPT
    from hairpin.optim.optimizers import build_optimizer

    model = GPT(like.model.shape)
    return Spread(model), build_optimizer(model, config.optimizer), a_guard()


def assert_same_history_but_checkpoints(whole: Run, resumed: Run) -> None:
    assert tensor_bytes(last_checkpoint(whole.path)) == tensor_bytes(last_checkpoint(resumed.path))
    assert updates_without_times(whole.record()) == updates_without_times(resumed.record())
    assert evaluations(whole) == evaluations(resumed)


def test_a_full_disk_ends_the_run_with_its_last_checkpoint_whole(
    text: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, tensors: Any) -> FileFacts:
        if "step-00000008" in str(path):
            raise OSError(28, "No space left on device")
        return write_tensors(path, tensors)

    monkeypatch.setattr("hairpin.checkpoints.writing.write_tensors", full)
    with pytest.raises((OSError, HairpinError)):
        train(text, "full", ALL_ON)
    run = hairpin.load(text.parent / "full")
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000004"]
    monkeypatch.setattr("hairpin.checkpoints.writing.write_tensors", write_tensors)
    assert_same_history(whole, hairpin.resume(run.path, watcher=Quiet()))


# --- a signal where no update is under way; which weights are the best ---


def signalled_in(
    monkeypatch: pytest.MonkeyPatch, text: Path, verb: str, update: int
) -> tuple[Run, str]:
    """A run stopped by a signal that comes as `verb` begins after `update` updates."""
    original: Callable[[Job], Any] = getattr(Job, verb)

    def signalled(job: Job) -> Any:
        if job.state.update == update:
            signal.raise_signal(signal.SIGINT)
        return original(job)

    with monkeypatch.context() as patched:
        patched.setattr(Job, verb, signalled)
        run = interrupt(text, "stopped", ALL_ON, Watching())
    before = (run.path / "metrics.jsonl").read_text(encoding="utf-8")
    return hairpin.resume(run.path, watcher=Quiet()), before


@pytest.mark.parametrize("update", [0, 4, 8, 12])
def test_an_evaluation_that_a_signal_stops_is_made_up_for(
    text: Path, whole: Run, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    run, before = signalled_in(monkeypatch, text, "evaluate", update)
    assert f'"evaluation", "update": {update},' not in before
    assert_same_history(whole, run)


@pytest.mark.parametrize("update", [0, 4, 8])
def test_a_sample_that_a_signal_stops_costs_that_sample_at_most(
    text: Path, whole: Run, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    run, _ = signalled_in(monkeypatch, text, "sample", update)
    assert_same_end(whole, run)
    there = of_kind(run.record(), "sample")
    assert [e for e in of_kind(whole.record(), "sample") if e not in there] in (
        [],
        [e for e in of_kind(whole.record(), "sample") if e["update"] == update],
    )


def test_a_sample_cut_short_is_not_recorded(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hairpin.tasks.samples import SampleWriter

    write = SampleWriter.__call__

    def cut(self: SampleWriter) -> tuple[str, str]:
        written = write(self)
        signal.raise_signal(signal.SIGINT)
        return written

    monkeypatch.setattr(SampleWriter, "__call__", cut)
    run = interrupt(text, "stopped", ALL_ON, Watching())
    assert of_kind(run.record(), "sample") == []
    assert len(evaluations(run)) == 1


@pytest.mark.parametrize("best", [3, 4, 6, 9, 12])
def test_the_best_weights_are_those_of_the_best_evaluation_wherever_checkpoints_fall(
    text: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    settings = ALL_ON | {"checkpoint.every_updates": 5}
    settings["evaluate.every_updates"] = 4 if best == 4 else 3
    clean = train(text, "clean", settings | {"checkpoint.every_updates": 1})
    evaluated = Job._evaluated

    def scripted(job: Job, train: Any, val: Any) -> Any:
        loss = 5.0 if job.state.update == 0 else 1.0 + abs(job.state.update - best)
        return evaluated(job, train, replace(val, loss=loss))

    monkeypatch.setattr(Job, "_evaluated", scripted)
    run = train(text, "run", settings)
    manifest = json.loads((run.path / "best" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["step"] == best
    expected = clean.path / "checkpoints" / f"step-{best:08d}" / "model.safetensors"
    assert tensor_bytes_of_best(run) == expected.read_bytes()
    assert run.trained().weights == f"best weights, update {best}"


def test_a_prompt_for_samples_that_is_not_all_seen_is_told(tmp_path: Path) -> None:
    watcher = Watching()
    for prompt in ("the cat", "the cat " * 10):
        settings = tiny(evaluate__sample_prompt=prompt)
        out = tmp_path / str(len(prompt))
        hairpin.train(text_file(tmp_path), out=out, settings=settings, watcher=watcher)
    (line,) = (line for line in watcher.notices if "sample_prompt" in line)
    assert line.endswith("prompt has 80 tokens, and the model sees 16: its first 71 were cut")
