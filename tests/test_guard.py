"""The guard alone: what it says of losses and norms, and what a model is after it."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hairpin.config.settings import Optimizer
from hairpin.model.shape import Shape
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard, Verdict
from hairpin.optim.optimizers import build_optimizer, optimizer_tensors, step_unless
from helpers import a_guard, lively_model

NAN, INF = math.nan, math.inf
SMALL: dict[str, Any] = {"spike_window": 8}


def judge(guard: Guard, loss: float, norm: float = 1.0) -> Verdict:
    return guard.judge(torch.tensor(loss), torch.tensor(norm))


def judged(guard: Guard, losses: Sequence[float]) -> list[tuple[bool, bool, bool]]:
    """Whether each update is skipped, halted, a spike."""
    verdicts = [judge(guard, loss) for loss in losses]
    return [(bool(v.skip), bool(v.halted), bool(v.spike)) for v in verdicts]


def content(guard: Guard) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in guard.state_tensors().items()}


# --- what is not finite ---


@pytest.mark.parametrize("action", ["stop", "rewind"])
@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (1.0, INF), (-INF, 1.0), (1.0, NAN)])
def test_what_is_not_finite_halts_until_the_guard_is_loaded(
    action: str, loss: float, norm: float
) -> None:
    guard = a_guard(on_non_finite=action)
    assert not bool(judge(guard, 1.0).skip)
    before = {name: tensor.clone() for name, tensor in guard.state_tensors().items()}
    bad = judge(guard, loss, norm)
    assert all(map(bool, (bad.skip, bad.halted, bad.non_finite))) and not bool(bad.spike)
    after = judge(guard, 1.0)
    assert bool(after.skip) and bool(after.halted) and not bool(after.non_finite)
    guard.load(before)
    assert judged(guard, [1.0]) == [(False, False, False)]


@pytest.mark.parametrize("most", [1, 3])
def test_k_updates_in_a_row_are_skipped_and_one_more_halts(most: int) -> None:
    guard = a_guard(on_non_finite="skip", most_skips=most)
    skipped, sound, halted = (True, False, False), (False, False, False), (True, True, False)
    twice = [*[NAN] * most, 1.0] * 2
    assert judged(guard, twice) == [*[skipped] * most, sound] * 2
    assert judged(guard, [NAN] * (most + 1)) == [*[skipped] * most, halted]
    assert judged(guard, [1.0]) == [halted]


def test_spikes_and_what_is_not_finite_count_in_one_row() -> None:
    guard = a_guard(on_non_finite="skip", on_spike="skip", most_skips=3, **SMALL)
    judged(guard, [1.0] * 8)
    assert [halted for _, halted, _ in judged(guard, [NAN, 9.0, NAN, 9.0])] == [False] * 3 + [True]


# --- spikes ---


def test_a_spike_is_what_the_standard_library_says_is_far_above_the_mean() -> None:
    draw = torch.Generator().manual_seed(1)
    seen = (3 + torch.randn(300, generator=draw)).tolist()
    guard = a_guard(on_spike="skip", spike_deviations=1.5, spike_window=16, most_skips=10**6)
    kept: list[float] = []
    spikes = 0
    for value in seen:
        last = kept[-16:]
        limit = INF
        if len(last) >= 8:
            limit = statistics.fmean(last) + 1.5 * statistics.pstdev(last)
        verdict = judge(guard, 1.0, value)
        assert bool(verdict.spike) is bool(verdict.skip) is (value > limit), (value, limit)
        spikes += value > limit
        kept += [value] if value <= limit else []
    assert 20 < spikes < 200


@pytest.mark.parametrize("where", ["loss", "norm"])
def test_nothing_is_a_spike_until_half_of_the_window_was_seen(where: str) -> None:
    for seen, expected in ((3, False), (4, True)):
        guard = a_guard(**SMALL)
        judged(guard, [1.0] * seen)
        verdict = judge(guard, *((1e6, 1.0) if where == "loss" else (1.0, 1e6)))
        assert bool(verdict.spike) is expected


def test_noise_on_a_loss_that_hardly_moves_is_no_spike() -> None:
    guard = a_guard(spike_deviations=6.0, **SMALL)
    judged(guard, [2.0] * 8)
    # 1% of the mean is the smallest deviation: 6 of them above 2 is 2.12.
    assert judged(guard, [2.1199]) == [(False, False, False)]
    guard = a_guard(spike_deviations=6.0, **SMALL)
    judged(guard, [2.0] * 8)
    assert judged(guard, [2.1201]) == [(False, False, True)]


@pytest.mark.parametrize(
    ("action", "bad", "after"),
    [
        ("off", (False, False, False), (False, False, False)),
        ("record", (False, False, True), (False, False, False)),
        ("skip", (True, False, True), (False, False, False)),
        ("stop", (True, True, True), (True, True, False)),
        ("rewind", (True, True, True), (True, True, False)),
    ],
)
def test_each_action_on_a_spike(
    action: str, bad: tuple[bool, ...], after: tuple[bool, ...]
) -> None:
    guard = a_guard(on_spike=action, **SMALL)
    judged(guard, [1.0] * 8)
    assert judged(guard, [1e6, 1.0]) == [bad, after]


@pytest.mark.parametrize("bad", [NAN, INF, 1e6])
def test_the_window_takes_in_nothing_that_was_skipped(bad: float) -> None:
    losses = [1.0, 1.1, 0.9, 1.05, 1.0, 1.1]
    guards = [a_guard(on_non_finite="skip", on_spike="skip", **SMALL) for _ in range(2)]
    judged(guards[0], [*losses, bad, 1.02])
    judged(guards[1], [*losses, 1.02])
    assert content(guards[0]) == content(guards[1])


def test_a_recorded_spike_hides_no_later_one_and_a_rise_that_stays_becomes_usual() -> None:
    guard = a_guard(**SMALL)
    judged(guard, [1.0] * 8)
    assert [spike for *_, spike in judged(guard, [1e6, 1.0, 1e6])] == [True, False, True]
    rise = [spike for *_, spike in judged(guard, [5.0] * 40)]
    assert rise[0] and not any(rise[16:])


def test_extreme_but_finite_numbers_never_poison_the_window() -> None:
    guard = a_guard(**SMALL)
    judged(guard, [1e38, 3e38, 1e30, 2e38, 1.0, 1.0] * 4)
    assert torch.isfinite(guard.state_tensors()["window"]).all()
    judged(guard, [1.0] * 8)
    assert judged(guard, [1e6]) == [(False, False, True)]


@pytest.mark.parametrize("resumed_after", range(1, 12))
def test_a_guard_that_goes_on_from_its_tensors_decides_the_same(resumed_after: int) -> None:
    losses = [1.0, 1.1, 0.9, 1.0, NAN, 1.2, 1e6, 1e6, 1.0, 30.0, NAN, NAN, NAN]
    asked = {"on_non_finite": "skip", "on_spike": "skip", **SMALL}
    whole = a_guard(**asked)
    expected = judged(whole, losses)
    assert expected[6] == (True, False, True) and expected[-1] == (True, True, False)
    first, second = a_guard(**asked), a_guard(**asked)
    begun = judged(first, losses[:resumed_after])
    second.load(first.state_tensors())
    assert begun + judged(second, losses[resumed_after:]) == expected
    assert content(second) == content(whole)


def test_a_window_of_another_size_is_refused() -> None:
    with pytest.raises(RuntimeError, match="spike_window"):
        a_guard(spike_window=16).load(a_guard(**SMALL).state_tensors())


# --- in a loop of one's own ---


def trained(asked: dict[str, Any], bad: dict[int, float], updates: Sequence[int]) -> list[Tensor]:
    """Weights, moments and step counters after these updates, some gradients spoilt."""
    model: nn.Module = lively_model(Shape(64, 8, layers=1, heads=2, width=8))
    optimizer = build_optimizer(model, Optimizer())
    guard, clipper = a_guard(**asked), Clipper("norm", 1.0)
    for update in updates:
        generator = torch.Generator().manual_seed(update)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            parameter.grad *= bad.get(update, 1.0)
        clipped = clipper([p.grad for p in model.parameters() if p.grad is not None])
        verdict = guard.judge(torch.tensor(2.0), clipped.norm)
        step_unless(verdict.skip, optimizer, 0.01 / (update + 1))
    return [*model.parameters(), *optimizer_tensors(model, optimizer).values()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(map(torch.equal, left, right))


@pytest.mark.parametrize("factor", [NAN, INF, -INF, 1e6])
@pytest.mark.parametrize("count", [1, 3])
def test_skipped_updates_are_as_if_they_had_not_been(factor: float, count: int) -> None:
    asked = {"on_non_finite": "skip", "on_spike": "skip", "most_skips": 3, **SMALL}
    bad = {6 + number: factor for number in range(count)}
    skipped = trained(asked, bad, range(12))
    assert same(skipped, trained(asked, {}, [u for u in range(12) if u not in bad]))
    assert not same(skipped, trained(asked, {}, range(12)))


def test_after_one_more_than_k_nothing_moves_any_more() -> None:
    asked = {"on_non_finite": "skip", "most_skips": 3}
    halted = trained(asked, {6: NAN, 7: INF, 8: NAN, 9: NAN}, range(14))
    assert same(halted, trained(asked, {}, range(6)))


def test_recording_changes_no_bit() -> None:
    recorded = trained({"on_spike": "record", **SMALL}, {7: 1e6}, range(12))
    assert same(recorded, trained({"on_spike": "off"}, {7: 1e6}, range(12)))
