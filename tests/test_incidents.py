"""Runs in which updates go wrong: skipped, rewound, recorded, stopped."""

import json
import math
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import hairpin
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.settings import Optimizer
from hairpin.data.batches import IGNORED, Batches
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.distributed.world import World
from hairpin.errors import HairpinError, Interrupted, NonFiniteError, SpikeError
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import build_optimizer, step_unless
from hairpin.run import Run
from hairpin.runs.events import Event, Rewind, Update
from hairpin.runs.watcher import Quiet
from hairpin.training import assembly
from hairpin.training import step as training_step
from hairpin.training import train_run as training_run
from hairpin.training.incidents import Evidence, Examiner
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
from hairpin.training.step import Stepper
from hairpin.training.task import Task
from helpers import (
    Watching,
    a_guard,
    evaluations,
    finetune,
    labels_file,
    last_checkpoint,
    of_kind,
    some_text,
    tensor_bytes,
    text_file,
    tiny,
    updates_without_times,
)

NAN = math.nan
SPIKE = 1e6
# Everything on that could depend on history; 4 samples an update, checkpoints at 4, 8, …
SETTINGS = tiny(
    model__dropout=0.1,
    clip__threshold=0.5,
    schedule__kind="cosine",
    train__updates=20,
    guard__spike_window=8,
    evaluate__sample_tokens=0,
)
SKIP = SETTINGS | {"guard.on_non_finite": "skip", "guard.on_spike": "skip"}
REWIND = SETTINGS | {"guard.on_non_finite": "rewind", "guard.on_spike": "rewind"}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return text_file(tmp_path)


def train(text: Path, out: str, settings: dict[str, Any], watcher: Any = None) -> Run:
    out_path = text.parent / out
    return hairpin.train(text, out=out_path, settings=settings, watcher=watcher or Quiet())


@dataclass
class Bad:
    """Multiplies the loss of the samples at some positions, wherever they are met.

    Args:
        positions: of the samples.
        factor: what their loss is multiplied by.
    """

    positions: Iterable[int]
    factor: float
    texts: dict[int, str] = field(default_factory=dict)
    _rows: set[bytes] = field(default_factory=set)

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> "Bad":
        new_state = assembly.new_state

        def planted(task: Task, world: World, *, from_start: bool = True) -> TrainState:
            for position in self.positions:
                (row,) = task.batches.at(position, 1)[0]
                self._rows.add(_unpadded(row))
                self.texts[position] = task.tokenizer.decode(row.tolist())
            state = new_state(task, world, from_start=from_start)
            state.model.register_forward_hook(self._spoil)
            return state

        monkeypatch.setattr(training_run, "new_state", planted)
        return self

    def _spoil(self, _: Any, seen: tuple[Tensor, ...], out: tuple[Tensor, Tensor]) -> Any:
        bad = any(_unpadded(row) in self._rows for row in seen[0])
        return (out[0] * self.factor, out[1]) if bad else out


def _unpadded(row: Tensor) -> bytes:
    return row.contiguous().numpy().tobytes().rstrip(b"\0")


def end_of(run: Run) -> dict[str, bytes]:
    return tensor_bytes(last_checkpoint(run.path))


def steps(run: Run) -> list[int]:
    folders = (run.path / "checkpoints").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in folders)


# --- skipping ---


@pytest.mark.parametrize("factor", [NAN, math.inf, SPIKE])
@pytest.mark.parametrize("bad", [[9], [9, 10, 11], [4, 8, 19]])
def test_a_skipped_update_is_one_whose_optimizer_was_not_called(
    text: Path, monkeypatch: pytest.MonkeyPatch, factor: float, bad: list[int]
) -> None:
    bad = [update for update in bad if factor != SPIKE or update > 4]
    with monkeypatch.context() as patched:
        texts = Bad([4 * update + 2 for update in bad], factor).plant(patched).texts
        run = train(text, "skipped", SKIP)
    calls = iter(range(1000))

    def step_but_not_then(skip: Tensor, optimizer: Any, lr: float, divisor: Tensor) -> None:
        if lr > 0 and next(calls) not in bad:  # what is timed before the run has none
            step_unless(torch.zeros((), dtype=torch.bool), optimizer, lr, divisor)

    with monkeypatch.context() as patched:
        patched.setattr(training_step, "step_unless", step_but_not_then)
        oracle = train(text, "oracle", SETTINGS)
    assert end_of(run) == end_of(oracle)
    record = run.record()
    assert [e["update"] for e in of_kind(record, "update")] == list(range(20))
    assert [e["update"] for e in of_kind(record, "update") if e.get("skipped")] == bad
    skips = of_kind(record, "skip")
    assert [skip["update"] for skip in skips] == bad
    for skip in skips:
        assert skip["reason"] == ("spike" if factor == SPIKE else "non-finite")
        assert (skip["position"], skip["samples"]) == (4 * skip["update"], 4)
        assert skip["excerpt"] == texts[4 * skip["update"] + 2].strip("\ufffd")
        assert "." in skip["parameter"]
    assert run.summary().skipped_updates == len(bad)
    assert any(line.startswith("incidents") for line in run.summary().lines())


@pytest.mark.parametrize("factor", [NAN, SPIKE])
def test_one_more_than_k_in_a_row_stops_the_run_without_saving(
    text: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    Bad([4 * update for update in (9, 10, 11, 12)], factor).plant(monkeypatch)
    with pytest.raises((NonFiniteError, SpikeError), match=r"^update 12: .*most_skips=3") as raised:
        train(text, "run", SKIP | {"checkpoint.every_updates": 1})
    assert isinstance(raised.value, SpikeError if factor == SPIKE else NonFiniteError)
    run = hairpin.load(text.parent / "run")
    assert steps(run)[-1] == 12
    saved = [tensor_bytes(run.path / "checkpoints" / f"step-{n:08d}") for n in (9, 12)]
    assert saved[0] == saved[1]


# --- stopping and recording ---


@pytest.mark.parametrize("factor", [NAN, SPIKE])
def test_a_stop_names_update_parameter_batch_and_text_in_a_line(
    text: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    settings = SETTINGS | {"guard.on_spike": "stop"}
    texts = Bad([38], factor).plant(monkeypatch).texts
    with pytest.raises((NonFiniteError, SpikeError)) as raised:
        train(text, "run", settings)
    (line,) = raised.value.problems
    assert line.startswith("update 9: ") and "samples 36 to 39, training tokens" in line
    assert repr(texts[38].strip("\ufffd"))[1:-1] in line and "token_embedding.weight" in line
    key = "guard.on_spike" if factor == SPIKE else "guard.on_non_finite"
    assert f"{key}=skip or rewind" in line
    assert isinstance(raised.value, SpikeError if factor == SPIKE else NonFiniteError)
    assert steps(hairpin.load(text.parent / "run")) == [4, 8]


def test_recording_a_spike_changes_no_bit(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = Bad([38], SPIKE).plant(monkeypatch).texts
    runs = [train(text, name, SETTINGS | {"guard.on_spike": name}) for name in ("off", "record")]
    assert end_of(runs[0]) == end_of(runs[1])
    assert updates_without_times(runs[0].record()) == updates_without_times(runs[1].record())
    assert evaluations(runs[0]) == evaluations(runs[1])
    assert of_kind(runs[0].record(), "spike") == []
    (spike,) = of_kind(runs[1].record(), "spike")
    assert spike["update"] == 9 and spike["excerpt"] == texts[38].strip("\ufffd")
    assert runs[1].summary().spikes == 1


# --- going back ---


def skipping_samples(
    text: Path, monkeypatch: pytest.MonkeyPatch, gaps: dict[int, int], **changes: Any
) -> Run:
    """A sound run that never sees some samples: position → how many are left out there."""
    at = Batches.at

    def shifted(self: Batches, position: int, count: int) -> tuple[Tensor, Tensor]:
        for gap in sorted(gaps):
            position += gaps[gap] if position >= gap else 0
        return at(self, position, count)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "at", shifted)
        return train(text, "oracle", SETTINGS | changes)


def assert_same_but_positions(run: Run, oracle: Run) -> None:
    assert end_of(run) == end_of(oracle)
    assert updates_without_times(run.record()) == updates_without_times(oracle.record())
    assert evaluations(run) == evaluations(oracle)


@pytest.mark.parametrize("factor", [NAN, SPIKE])
@pytest.mark.parametrize(("update", "to_update"), [(9, 8), (11, 8), (7, 4), (8, 8), (19, 16)])
def test_a_rewound_run_is_one_that_never_saw_those_samples(
    text: Path, monkeypatch: pytest.MonkeyPatch, factor: float, update: int, to_update: int
) -> None:
    with monkeypatch.context() as patched:
        texts = Bad([4 * update + 1], factor).plant(patched).texts
        run = train(text, "rewound", REWIND)
    skipped = 4 * (update + 1 - to_update)
    oracle = skipping_samples(text, monkeypatch, {4 * to_update: skipped})
    assert_same_but_positions(run, oracle)
    (rewind,) = of_kind(run.record(), "rewind")
    assert (rewind["update"], rewind["to_update"]) == (update, to_update)
    assert (rewind["position"], rewind["skipped_samples"]) == (4 * update, skipped)
    assert rewind["excerpt"] == texts[4 * update + 1].strip("\ufffd")
    assert rewind["reason"] == ("spike" if factor == SPIKE else "non-finite")
    assert run.summary().rewinds == 1 and run.summary().updates == 20
    (discarded,) = run.path.glob("metrics.discarded-*.jsonl")
    lines = [json.loads(line) for line in discarded.read_text(encoding="utf-8").splitlines()]
    made = [line["update"] for line in of_kind(lines, "update")]
    assert made == list(range(to_update, update + 1))


def test_before_the_first_checkpoint_it_goes_back_to_the_start(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        Bad([9], NAN).plant(patched)
        run = train(text, "rewound", REWIND)
    assert_same_but_positions(run, skipping_samples(text, monkeypatch, {0: 12}))


def test_two_rewinds_to_one_checkpoint_are_both_in_the_record(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Back from update 9 to 8; then update 8 takes samples 40 to 43, and 9 is bad again.
    with monkeypatch.context() as patched:
        Bad([36, 44], NAN).plant(patched)
        run = train(text, "rewound", REWIND)
    assert_same_but_positions(run, skipping_samples(text, monkeypatch, {32: 16}))
    rewinds = of_kind(run.record(), "rewind")
    assert [(r["update"], r["skipped_samples"]) for r in rewinds] == [(9, 8), (9, 16)]
    state = json.loads((last_checkpoint(run.path) / "state.json").read_text(encoding="utf-8"))
    assert state["rewinds"] == 2


def test_one_rewind_more_than_allowed_stops_the_run_without_saving(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bad([36, 60], NAN).plant(monkeypatch)
    with pytest.raises(NonFiniteError, match="most_rewinds=1"):
        train(text, "run", REWIND | {"guard.most_rewinds": 1})
    run = hairpin.load(text.parent / "run")
    assert steps(run)[-1] == 12
    assert len(of_kind(run.record(), "rewind")) == 1


# --- killed and resumed around it ---


@dataclass
class Killed(Watching):
    """Breaks at the nth event of a kind, with nothing saved."""

    kind: type[Event] = Update
    update: int = 0

    def show(self, event: Event) -> None:
        if isinstance(event, self.kind) and getattr(event, "update", None) == self.update:
            raise ZeroDivisionError("planted")


def killed_and_resumed(text: Path, settings: dict[str, Any], watcher: Killed) -> Run:
    with pytest.raises(ZeroDivisionError):
        train(text, "killed", settings, watcher)
    return hairpin.resume(text.parent / "killed", watcher=Quiet())


@pytest.mark.parametrize("settings", [SKIP, REWIND], ids=["skip", "rewind"])
@pytest.mark.parametrize("update", [3, 8, 9, 10, 13])
def test_killed_around_a_spike_it_decides_as_if_it_had_not_been(
    text: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], update: int
) -> None:
    Bad([36, 37], SPIKE).plant(monkeypatch)
    whole = train(text, "whole", settings)
    run = killed_and_resumed(text, settings, Killed(update=update))
    assert_same_but_positions(run, whole)
    for kind in ("skip", "rewind", "spike"):
        assert of_kind(run.record(), kind) == of_kind(whole.record(), kind)
    assert of_kind(whole.record(), "skip") or of_kind(whole.record(), "rewind")


def test_killed_at_the_rewind_itself(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad([36, 44], NAN).plant(monkeypatch)
    whole = train(text, "whole", REWIND)
    run = killed_and_resumed(text, REWIND, Killed(kind=Rewind, update=9))
    assert_same_but_positions(run, whole)
    assert of_kind(run.record(), "rewind") == of_kind(whole.record(), "rewind")


@pytest.mark.parametrize("after", [5, 7, 8, 9])
def test_stopped_by_a_signal_just_before_a_spike_it_skips_the_same(
    text: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    Bad([40], SPIKE).plant(monkeypatch)
    whole = train(text, "whole", SKIP)
    with pytest.raises(Interrupted):
        train(text, "stopped", SKIP, Watching(after, signal.SIGTERM))
    run = hairpin.resume(text.parent / "stopped", watcher=Quiet())
    assert_same_but_positions(run, whole)
    assert of_kind(run.record(), "skip") == of_kind(whole.record(), "skip")


def test_without_a_checkpoint_to_go_back_to_the_run_stops(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bad([9], NAN).plant(monkeypatch)
    monkeypatch.setattr(CheckpointStore, "newest", lambda *_: None)
    with pytest.raises(HairpinError, match="no checkpoint"):
        train(text, "run", REWIND)


# --- what is found out about it ---


class Wrong:
    """Samples in which one token, and it alone, is never expected."""

    def __init__(self, bad: tuple[int, int] | None, targets: Callable[[Tensor], Tensor]) -> None:
        self.inputs = torch.tensor(list(some_text(1000).encode())[:800]).view(4, 200)
        if bad:
            self.inputs[bad] = ord("#")
        self.targets = targets(self.inputs)

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        return self.inputs[position:][:count], self.targets[position:][:count]

    def where(self, position: int, count: int) -> str:
        return ""


def next_tokens(inputs: Tensor) -> Tensor:
    return inputs.roll(-1, dims=1)


def examined(model: nn.Module, batches: Wrong) -> Evidence:
    stepper = Stepper(
        Spread(cast(GPT, model)),
        build_optimizer(model, Optimizer()),
        Clipper("off"),
        Numerics("cpu"),
        seed=0,
        micro_batch=4,
        guard=a_guard(),
    )
    result = stepper.step(batches.at(0, 4), update=7, position=0, lr=0.0)
    decode = ByteTokenizer().decode
    return Examiner(model, Numerics("cpu"), batches, decode).examine(result)


class Surprised(nn.Module):
    """Expects every token alike but one, whose loss it multiplies."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.calm = nn.Parameter(torch.ones(3))
        self.loud = nn.Parameter(torch.ones(3))
        self.factor = factor

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled() or self.training
        counted = targets != IGNORED
        bad = (targets == ord("#")).sum()
        loss = self.calm.sum() * (counted.sum() - bad) + self.loud.sum()
        if bad:
            loss = loss + self.loud.sum() * bad * self.factor
        return loss, counted.sum()


@pytest.mark.parametrize("factor", [NAN, math.inf, SPIKE])
@pytest.mark.parametrize("bad", [(0, 1), (2, 130), (3, 199), (1, 64)])
def test_the_excerpt_begins_just_before_what_stands_out(
    factor: float, bad: tuple[int, int]
) -> None:
    model, batches = Surprised(factor), Wrong(bad, next_tokens)
    evidence = examined(model, batches)
    assert evidence.parameter == "loud" and evidence.update == 7
    assert 0 <= evidence.excerpt.index("#") <= 32
    row = bytes(batches.inputs[bad[0]].tolist()).decode(errors="replace")
    assert evidence.excerpt in row and len(evidence.excerpt) <= 200
    assert model.training


def test_samples_without_a_target_are_not_suspected() -> None:
    def last_row_only(inputs: Tensor) -> Tensor:
        targets = torch.full_like(inputs, IGNORED)
        targets[3, 5] = 1
        return targets

    evidence = examined(Surprised(1.0), Wrong(None, last_row_only))
    assert evidence.excerpt == some_text(1000).encode()[600:606].decode(errors="replace")
    evidence = examined(
        Surprised(1.0), Wrong(None, lambda inputs: torch.full_like(inputs, IGNORED))
    )
    assert evidence.excerpt == "" and not math.isfinite(evidence.loss)


def test_a_label_that_goes_wrong_is_found_in_its_row(
    tmp_path: Path, base: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = Bad([25], NAN).plant(monkeypatch).texts
    run = hairpin.finetune(
        "classify",
        labels_file(tmp_path),
        start=base.path,
        out=tmp_path / "run",
        settings=finetune(guard__on_non_finite="skip"),
        watcher=Quiet(),
    )
    (skip,) = of_kind(run.record(), "skip")
    assert skip["update"] == 3 and skip["excerpt"] == texts[25]
