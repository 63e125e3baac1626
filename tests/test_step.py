import hashlib
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from hairpin.config.settings import Optimizer
from hairpin.data.batches import IGNORED, Batches, Windows
from hairpin.machine.numerics import Numerics
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import build_optimizer
from hairpin.schedules.curves import cosine
from hairpin.training.evaluate import Evaluator, TextTally
from hairpin.training.spread import Spread
from hairpin.training.step import Stepper, StepResult
from helpers import Ring, a_guard, some_text

Batch = tuple[Tensor, Tensor]
CPU = Numerics("cpu")
UPDATES = 30
SCHEDULE = cosine(updates=UPDATES, warmup=5, peak_lr=0.01, min_lr=0.001)


def stream() -> Ring:
    return Ring([ord(character) % 64 for character in some_text(4000)])


def stepper_of(
    model: GPT, micro_batch: int, *, clip: float = 1.0, seed: int = 0, numerics: Numerics = CPU
) -> Stepper:
    optimizer = build_optimizer(model, Optimizer())
    return Stepper(
        Spread(model), optimizer, Clipper("norm", clip), numerics, seed, micro_batch, a_guard()
    )


def gradient_vector(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def some_targets_missing(batch: Batch, update: int) -> Batch:
    """Very different numbers of targets in each sequence, one of them with none."""
    inputs, targets = batch
    targets = targets.clone()
    for row in range(len(targets)):
        targets[row, (row * 5 + update) % (targets.size(1) + 1) :] = IGNORED
    targets[3] = IGNORED
    return inputs, targets


@dataclass
class Trace:
    results: list[StepResult]
    lrs: list[float]
    ids: list[str]
    first_gradient: Tensor
    val_loss: float


def trained(micro_batch: int, *, uneven: bool, clip: float = 1.0) -> Trace:
    tokens = stream()
    model = GPT(Shape(64, 16, layers=2, heads=2, width=16), seed=1)
    stepper = stepper_of(model, micro_batch, clip=clip)
    batches = Batches(tokens, 16, seed=2)
    ids: list[bytes] = []
    model.register_forward_pre_hook(lambda _, seen: ids.append(seen[0].numpy().tobytes()))
    results, first_gradient = [], torch.empty(0)
    hashes = []
    for update in range(UPDATES):
        batch = batches.at(update * 32, 32)
        batch = some_targets_missing(batch, update) if uneven else batch
        ids.clear()
        results.append(
            stepper.step(batch, update=update, position=update * 32, lr=SCHEDULE(update))
        )
        hashes.append(hashlib.sha256(b"".join(ids)).hexdigest())
        if update == 0:
            first_gradient = gradient_vector(model).clone()
    evaluator = Evaluator(model, lambda: TextTally(np.ones(64, np.int32), "cpu"), CPU, 8)
    measured = evaluator.measure(Windows(tokens, 16, 512))
    assert measured
    return Trace(results, [r.lr for r in results], hashes, first_gradient, measured.loss)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("micro_batch", [4, 5])
def test_32_at_once_is_what_8_times_4_are(uneven: bool, micro_batch: int) -> None:
    once = trained(32, uneven=uneven)
    often = trained(micro_batch, uneven=uneven)
    assert once.lrs == often.lrs
    assert once.ids == often.ids and len(set(once.ids)) == UPDATES
    difference = (once.first_gradient - often.first_gradient).norm()
    assert float(difference) < 1e-6 * float(once.first_gradient.norm())
    for one, other in zip(once.results[:20], often.results[:20], strict=True):
        assert abs(float(one.loss) - float(other.loss)) < 1e-5
        assert one.tokens == other.tokens
        assert float(one.clipped.norm) == pytest.approx(float(other.clipped.norm), rel=1e-4)
    assert often.val_loss == pytest.approx(once.val_loss, rel=0.01)
    assert once.val_loss < float(once.results[0].loss) - 0.3, "learned nothing: shows little"


def test_the_loss_is_the_mean_over_all_targets_of_the_update() -> None:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    batch = some_targets_missing(Batches(stream(), 16, seed=2).at(0, 8), 3)
    logits = model.logits(batch[0]).detach().double().log_softmax(-1).numpy()
    losses = [
        -logits[row, place, target]
        for row, targets in enumerate(batch[1].tolist())
        for place, target in enumerate(targets)
        if target != IGNORED
    ]
    result = stepper_of(model, 3).step(batch, update=0, position=0, lr=0.0)
    assert result.tokens == len(losses)
    assert float(result.loss) == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    batch = some_targets_missing(Batches(stream(), 16, seed=2).at(0, 8), 3)
    plain = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    loss = torch.nn.functional.cross_entropy(
        plain.logits(batch[0]).flatten(0, 1), batch[1].flatten()
    )
    torch.autograd.backward(loss)
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    result = stepper_of(model, 3, clip=1e9).step(batch, update=0, position=0, lr=0.0)
    expected = gradient_vector(plain)
    assert float((gradient_vector(model) - expected).norm()) < 1e-6 * float(expected.norm())
    assert float(result.clipped.norm) == pytest.approx(float(expected.norm()), rel=1e-6)


def test_clipping_comes_after_accumulation_and_before_the_update() -> None:
    batch = Batches(stream(), 16, seed=2).at(0, 8)
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    result = stepper_of(model, 2, clip=0.01).step(batch, update=0, position=0, lr=0.01)
    assert bool(result.clipped.clipped) and float(result.clipped.norm) > 0.1
    assert float(gradient_vector(model).norm()) == pytest.approx(0.01, rel=1e-5)


def test_gradients_of_the_update_before_are_gone() -> None:
    batch = Batches(stream(), 16, seed=2).at(0, 8)
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    stepper = stepper_of(model, 4)
    first = stepper.step(batch, update=0, position=0, lr=0.0)
    second = stepper.step(batch, update=1, position=0, lr=0.0)
    assert float(first.clipped.norm) == float(second.clipped.norm)


# --- dropout: its stream is a function of seed, update and micro-step ---


def dropped_losses(seed: int, updates: list[int], disturbance: int = 0) -> list[float]:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16, dropout=0.3))
    stepper = stepper_of(model, 4, seed=seed)
    batch = Batches(stream(), 16, seed=2).at(0, 8)
    losses = []
    for update in updates:
        torch.rand(disturbance)
        losses.append(float(stepper.step(batch, update=update, position=0, lr=0.0).loss))
    return losses


def test_dropout_depends_on_seed_and_update_and_on_nothing_before() -> None:
    base = dropped_losses(1, [0, 1, 2])
    assert len(set(base)) == 3
    assert dropped_losses(1, [2, 1, 0], disturbance=17) == base[::-1]
    assert not set(dropped_losses(2, [0, 1, 2])) & set(base)


def test_dropout_differs_among_the_micro_steps() -> None:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16, dropout=0.3))
    inputs, targets = Batches(stream(), 16, seed=2).at(0, 1)
    same_twice = inputs.repeat(2, 1), targets.repeat(2, 1)
    sums: list[float] = []
    model.register_forward_hook(lambda _, __, out: sums.append(float(out[0].detach())))
    stepper_of(model, 1).step(same_twice, update=0, position=0, lr=0.0)
    assert len(sums) == 2 and sums[0] != sums[1]


# --- the guard ---


def contents(stepper: Stepper) -> list[bytes]:
    states = [stepper.optimizer.state[p] for p in stepper.spread.model.parameters()]
    moments = [state[key] for state in states for key in sorted(state)]
    tensors = [*(p.detach() for p in stepper.spread.model.parameters()), *moments]
    return [tensor.numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_once_something_is_not_finite_no_step_changes_anything(bad: float, where: str) -> None:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    stepper = stepper_of(model, 4)
    batch = Batches(stream(), 16, seed=2).at(0, 8)
    assert not bool(stepper.step(batch, update=0, position=0, lr=0.01).verdict.halted)
    before = contents(stepper)
    if where == "gradient":
        handle = model.get_parameter("final_norm.weight").register_hook(  # type: ignore[no-untyped-call]
            lambda g: g * bad
        )
    else:
        handle = model.register_forward_hook(lambda _, __, out: (out[0] * bad, out[1]))
    spoilt = stepper.step(batch, update=1, position=8, lr=0.01)
    handle.remove()
    after = stepper.step(batch, update=2, position=16, lr=0.01)
    assert bool(spoilt.verdict.halted) and bool(after.verdict.halted)
    assert math.isfinite(float(after.loss)), "the step after is sound, and still held back"
    assert math.isfinite(float(spoilt.loss)) is (where == "gradient")
    assert contents(stepper) == before


def test_an_update_without_any_target_halts() -> None:
    model = GPT(Shape(64, 16, layers=1, heads=2, width=16))
    inputs, targets = Batches(stream(), 16, seed=2).at(0, 4)
    nothing = torch.full_like(targets, IGNORED)
    result = stepper_of(model, 4).step((inputs, nothing), update=0, position=0, lr=0.01)
    assert result.tokens == 0 and bool(result.verdict.halted)


# --- bfloat16 ---


def test_in_bfloat16_weights_gradients_and_moments_stay_float32() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = GPT(Shape(64, 16, layers=1, heads=2, width=16), seed=1)
        stepper = stepper_of(model, 4, numerics=Numerics("cpu", precision))
        batches = Batches(stream(), 16, seed=2)
        for update in range(8):
            batch = batches.at(update * 8, 8)
            result = stepper.step(batch, update=update, position=0, lr=0.01)
        losses[precision] = float(result.loss)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert gradient_vector(model).dtype == torch.float32
        moments = [t for state in stepper.optimizer.state.values() for t in state.values()]
        assert {moment.dtype for moment in moments} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"], "nothing was computed in bfloat16"
