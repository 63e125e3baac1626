"""float16: the loss's scale, the updates that overflow, and a run that goes on from one."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import hairpin
from hairpin.config.settings import Optimizer
from hairpin.data.batches import Batches
from hairpin.errors import Interrupted, NonFiniteError
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.training import assembly
from hairpin.training import train_run as training_run
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper
from helpers import (
    Ring,
    Watching,
    a_guard,
    assert_same_history,
    last_checkpoint,
    of_kind,
    some_text,
    text_file,
    tiny,
    updates_without_times,
)

# A first scale under which float16's gradients overflow, whatever the model.
TOO_LARGE = 2.0**32
BATCHES = Batches(Ring([ord(character) % 64 for character in some_text(4000)]), 16, seed=2)
FLOAT16 = tiny(execution__precision="float16", model__dropout=0.1, clip__threshold=0.5)


def stepper_of(
    precision: str,
    scaling: LossScale | None,
    *,
    clip: str = "norm",
    optimizer: str = "adamw",
    guard: Guard | None = None,
) -> Stepper:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16), seed=1)
    settings = Optimizer.model_validate({"kind": optimizer})
    return Stepper(
        Spread(model),
        build_optimizer(model, settings),
        Clipper(clip, 0.01),
        Numerics("cpu", precision),
        seed=0,
        micro_batch=4,
        guard=guard or a_guard(),
        scaling=scaling,
    )


def contents(stepper: Stepper) -> list[bytes]:
    """Weights and moments."""
    states = [stepper.optimizer.state[p] for p in stepper.spread.model.parameters()]
    moments = [state[key] for state in states for key in sorted(state)]
    tensors = [*(p.detach() for p in stepper.spread.model.parameters()), *moments]
    return [tensor.numpy().tobytes() for tensor in tensors]


def weights(stepper: Stepper) -> list[Tensor]:
    return [p.detach().clone() for p in stepper.spread.model.parameters()]


def take(stepper: Stepper, update: int) -> Any:
    batch = BATCHES.at(8 * update, 8)
    return stepper.step(batch, update=update, position=8 * update, lr=0.01).read()


# --- the scale ---


def test_the_scale_is_that_of_pytorchs_grad_scaler() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    ours = LossScale("cpu", start=2.0**10, growth_updates=3)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    overflows = [0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    for overflow in overflows:
        theirs.scale(torch.zeros(()))  # it makes its scale at its first use
        weight.grad = torch.full((2,), math.inf if overflow else 1.0)
        theirs.step(optimizer)
        theirs.update()
        found = ours.judge(torch.tensor(1.0), torch.linalg.vector_norm(weight.grad))
        assert bool(found.happened) is bool(overflow) and not bool(found.spent)
        assert float(ours.scale) == theirs.get_scale()
    assert float(ours.scale) != 2.0**10


def test_a_loss_that_is_not_finite_is_no_overflow_and_leaves_the_scale() -> None:
    scaling = LossScale("cpu", growth_updates=2)
    found = scaling.judge(torch.tensor(math.nan), torch.tensor(math.nan))
    assert not bool(found.happened) and float(scaling.scale) == 65_536
    scaling.judge(torch.tensor(1.0), torch.tensor(1.0))
    assert float(scaling.scale) == 65_536
    scaling.judge(torch.tensor(1.0), torch.tensor(1.0))
    assert float(scaling.scale) == 2 * 65_536


def test_the_seventeenth_overflow_in_a_row_has_spent_the_scale() -> None:
    scaling = LossScale("cpu")
    found = [scaling.judge(torch.tensor(1.0), torch.tensor(math.inf)) for _ in range(17)]
    assert [bool(overflow.spent) for overflow in found] == 16 * [False] + [True]
    assert float(scaling.scale) == 1.0


def test_it_goes_on_from_what_was_saved() -> None:
    scaling, other = LossScale("cpu", growth_updates=3), LossScale("cpu", growth_updates=3)
    norms = [1.0, 1.0, 1.0, math.inf, 1.0, 1.0, 1.0, 1.0]
    for norm in norms[:5]:
        scaling.judge(torch.tensor(1.0), torch.tensor(norm))
    other.load(scaling.state_tensors())
    for norm in norms[5:]:
        for each in (scaling, other):
            each.judge(torch.tensor(1.0), torch.tensor(norm))
        assert float(scaling.scale) == float(other.scale)
    other.load({})  # of a run that had no scale
    assert float(scaling.scale) == float(other.scale)


# --- the step ---


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("clip", ["norm", "value", "off"])
def test_a_scaled_update_is_the_unscaled_one_to_the_bit(clip: str, optimizer: str) -> None:
    # In float32 a power of two changes exponents and nothing else.
    plain = stepper_of("float32", None, clip=clip, optimizer=optimizer)
    scaled = stepper_of("float32", LossScale("cpu", 2.0**12), clip=clip, optimizer=optimizer)
    for update in range(5):
        ours, theirs = take(scaled, update), take(plain, update)
        assert (ours.loss, ours.grad_norm, ours.clipped) == (
            theirs.loss, theirs.grad_norm, theirs.clipped,
        )  # fmt: skip
        assert ours.loss_scale == 2.0**12 and theirs.loss_scale is None
    assert contents(scaled) == contents(plain)


def test_an_overflow_changes_no_byte_and_is_nothing_to_the_guard() -> None:
    guard = a_guard(on_non_finite="stop", most_skips=1)
    stepper = stepper_of("float16", LossScale("cpu", TOO_LARGE), guard=guard)
    start, before = weights(stepper), {k: v.clone() for k, v in guard.state_tensors().items()}
    numbers = take(stepper, 0)
    count = 1
    while numbers.overflow:
        assert numbers.skip and not numbers.halted and not numbers.non_finite
        assert math.isfinite(numbers.loss) and not math.isfinite(numbers.grad_norm)
        assert numbers.loss_scale == TOO_LARGE / 2 ** (count - 1)
        assert all(map(torch.equal, weights(stepper), start))
        assert all(
            not moment.any() for s in stepper.optimizer.state.values() for moment in s.values()
        )
        assert all(torch.equal(before[k], v) for k, v in guard.state_tensors().items())
        numbers = take(stepper, count)
        count += 1
    assert 2 < count < 30 and not numbers.skip
    assert not all(map(torch.equal, weights(stepper), start))


def test_in_float16_weights_and_moments_stay_float32_and_losses_are_near() -> None:
    losses = {}
    for precision in ("float32", "float16"):
        stepper = stepper_of(precision, LossScale("cpu") if precision == "float16" else None)
        numbers = [take(stepper, update) for update in range(8)]
        assert not any(each.skip for each in numbers)
        losses[precision] = numbers[-1].loss
        tensors = [*stepper.spread.model.parameters()]
        tensors += [t for state in stepper.optimizer.state.values() for t in state.values()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["float16"] != losses["float32"], "nothing was computed in float16"


# --- whole runs ---


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text; runs begin with a scale that overflows and grows again soon."""
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    scaling = partial(LossScale, start=TOO_LARGE, growth_updates=2)
    monkeypatch.setattr(assembly, "LossScale", scaling)
    return text_file(tmp_path)


def train(text: Path, out: str, settings: dict[str, Any], watcher: Any = None) -> Run:
    out_path = text.parent / out
    return hairpin.train(text, out=out_path, settings=settings, watcher=watcher or Quiet())


def test_overflows_are_recorded_apart_from_what_the_guard_skips(text: Path) -> None:
    run = train(text, "run", FLOAT16 | {"train.updates": 30})
    updates = of_kind(run.record(), "update")
    overflows = [update for update in updates if update.get("overflow")]
    assert overflows[0]["update"] == 0 and overflows[0]["loss_scale"] == TOO_LARGE
    assert overflows[0]["grad_norm"] is None and overflows[0]["non_finite"] in ("inf", "nan")
    assert not any(update.get("skipped") for update in updates)
    assert not of_kind(run.record(), "skip")
    # What each scale comes from: halved after an overflow, doubled after two sound updates.
    scale, sound = TOO_LARGE, 0
    for update in updates:
        assert update["loss_scale"] == scale
        sound = 0 if update.get("overflow") else sound + 1
        scale = scale / 2 if update.get("overflow") else scale * 2 if sound == 2 else scale
        sound %= 2
    summary = run.summary()
    assert summary.overflows == len(overflows) and summary.skipped_updates == 0
    assert f"incidents   float16 overflows: {len(overflows)}" in summary.lines()


@pytest.mark.parametrize("update", [1, 5, 9, 21])
def test_stopped_and_resumed_it_has_the_same_bits_and_the_same_scale(
    text: Path, update: int
) -> None:
    settings = FLOAT16 | {"train.updates": 26}
    whole = train(text, "whole", settings)
    with pytest.raises(Interrupted):
        train(text, "stopped", settings, Watching(update))
    resumed = hairpin.resume(text.parent / "stopped", watcher=Quiet())
    assert_same_history(whole, resumed)
    scales = [u["loss_scale"] for u in updates_without_times(resumed.record())]
    assert len(set(scales)) > 3
    saved = load_file(last_checkpoint(resumed.path) / "guard.safetensors")
    other = load_file(last_checkpoint(whole.path) / "guard.safetensors")
    assert float(saved["loss_scale"]) == float(other["loss_scale"]) < TOO_LARGE


def test_gradients_that_overflow_under_any_scale_stop_the_run(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "LossScale", partial(LossScale, start=4.0))
    new_state = assembly.new_state

    def spoilt(task: Any, world: Any, *, from_start: bool = True) -> Any:
        state = new_state(task, world, from_start=from_start)
        norm = state.model.get_parameter("final_norm.weight")
        norm.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
        return state

    monkeypatch.setattr(training_run, "new_state", spoilt)
    with pytest.raises(NonFiniteError) as raised:
        train(text, "run", FLOAT16 | {"guard.on_non_finite": "rewind"})
    (line,) = raised.value.problems
    assert line.startswith("update 2: gradients overflow float16 even with a loss scale of 1")
    assert "--precision bfloat16 or float32" in line
    lines = (text.parent / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    updates = [event for event in map(json.loads, lines) if event["event"] == "update"]
    assert [update["loss_scale"] for update in updates] == [4.0, 2.0, 1.0]


def test_a_run_may_go_on_in_float16_that_was_not_in_it(text: Path) -> None:
    with pytest.raises(Interrupted):
        train(text, "run", FLOAT16 | {"execution.precision": "float32"}, Watching(5))
    config = text.parent / "run" / "config.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"float32"', '"float16"'), encoding="utf-8"
    )
    watcher = Watching()
    run = hairpin.resume(text.parent / "run", watcher=watcher)
    (line,) = watcher.notices
    assert "execution.precision was float32" in line
    scales = [update.get("loss_scale") for update in of_kind(run.record(), "update")]
    begun = scales.index(TOO_LARGE)
    assert begun == 7 and scales[:begun] == [None] * begun and None not in scales[begun:]
