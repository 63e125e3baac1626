import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hairpin import schedules
from hairpin.errors import ConfigError
from hairpin.schedules.curves import (
    CURVES,
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    linear,
    wsd,
)

KINDS = tuple(CURVES)
DECAYING = tuple(kind for kind, curve in CURVES.items() if curve.decays)
FALLING = ("constant", "linear", "cosine", "wsd", "inverse-sqrt")


def test_the_registry_holds_the_documented_curves() -> None:
    assert KINDS == ("constant", "linear", "cosine", "cosine-restarts", "wsd", "inverse-sqrt")
    assert DECAYING == ("linear", "cosine", "cosine-restarts", "wsd")


# Worked out by hand: 13 updates, 4 of warmup from 0.25 to 1.0, minimum 0.2. The part after warmup
# runs over updates 4 to 12, so its middle is update 8. Warmup climbs by 0.75 / 4 each update.
BY_HAND: dict[str, tuple[Schedule, dict[int, float]]] = {
    "constant": (
        schedules.constant(updates=13, warmup=4, peak_lr=1.0),
        {0: 0.25, 1: 0.4375, 2: 0.625, 3: 0.8125, 4: 1.0, 8: 1.0, 12: 1.0, 13: 1.0, 500: 1.0},
    ),
    "linear": (
        schedules.linear(updates=13, warmup=4, peak_lr=1.0, min_lr=0.2),
        {0: 0.25, 2: 0.625, 4: 1.0, 6: 0.8, 8: 0.6, 11: 0.3, 12: 0.2, 13: 0.2, 500: 0.2},
    ),
    "cosine": (
        # At a third of the way the half cosine is at 3/4, at two thirds at 1/4.
        schedules.cosine(updates=11, warmup=4, peak_lr=1.0, min_lr=0.2),
        {0: 0.25, 4: 1.0, 6: 0.8, 7: 0.6, 8: 0.4, 10: 0.2, 11: 0.2, 500: 0.2},
    ),
    "cosine-restarts": (
        # Updates 4 to 15 in three cycles of 4, each at 1, 3/4, 1/4, 0 of the way up.
        schedules.cosine_restarts(updates=16, warmup=4, peak_lr=1.0, min_lr=0.2, cycles=3),
        {0: 0.25, 3: 0.8125}
        | {4: 1.0, 5: 0.8, 6: 0.4, 7: 0.2, 8: 1.0, 9: 0.8, 10: 0.4, 11: 0.2, 12: 1.0, 15: 0.2}
        | {16: 0.2, 500: 0.2},
    ),
    "wsd": (
        schedules.wsd(updates=13, warmup=4, peak_lr=1.0, min_lr=0.2, decay=4),
        {0: 0.25, 4: 1.0, 7: 1.0, 8: 1.0, 9: 0.8, 10: 0.6, 11: 0.4, 12: 0.2, 13: 0.2, 500: 0.2},
    ),
    "inverse-sqrt": (
        # sqrt(4 / 16) and sqrt(4 / 36): 12 and 32 updates after warmup.
        schedules.inverse_sqrt(updates=13, warmup=4, peak_lr=1.0),
        {0: 0.25, 4: 1.0, 9: 2 / 3, 12: 1 / math.sqrt(3), 16: 0.5, 36: 1 / 3},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_worked_out_by_hand(kind: str) -> None:
    schedule, expected = BY_HAND[kind]
    assert schedule.kind == kind
    assert {u: schedule(u) for u in expected} == pytest.approx(expected, rel=1e-12)


def test_warmup_from_an_initial_lr() -> None:
    # (1.0 − 0.1) / 3 = 0.3 each update
    schedule = linear(updates=10, warmup=3, peak_lr=1.0, initial_lr=0.1)
    assert [schedule(u) for u in range(4)] == pytest.approx([0.1, 0.4, 0.7, 1.0], rel=1e-12)


def test_without_warmup_update_0_is_at_the_peak() -> None:
    schedule = linear(updates=5, warmup=0, peak_lr=0.8, initial_lr=0.1)
    assert [schedule(u) for u in range(5)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-15)


def test_inverse_sqrt_without_warmup() -> None:
    schedule = schedules.inverse_sqrt(updates=100, warmup=0, peak_lr=1.0)
    assert [schedule(u) for u in (0, 3, 8, 99)] == [1.0, 0.5, 1 / 3, 0.1]


def test_restart_cycles_share_what_does_not_divide() -> None:
    # 10 updates after warmup in 3 cycles: they begin at 0, 3 and 6, of 3, 3 and 4 updates.
    schedule = cosine_restarts(updates=12, warmup=2, peak_lr=1.0, min_lr=0.25, cycles=3)
    assert [u for u in range(2, 12) if schedule(u) == 1.0] == [2, 5, 8]
    assert [u for u in range(2, 12) if schedule(u) == 0.25] == [4, 7, 11]


def test_updates_are_not_negative() -> None:
    with pytest.raises(ValueError, match="counted from 0, not -1"):
        constant(updates=10, warmup=2, peak_lr=1.0)(-1)


# The two figures of the book's appendix D: 135 updates, 27 of warmup from 1e-4 to 1e-2.


def _book_lr(update: int, *, decay: bool) -> float:
    """The book's listing, word for word but for names."""
    increment = (0.01 - 0.0001) / 27
    if update < 27:
        return 0.0001 + update * increment
    if not decay:
        return 0.01
    progress = (update - 27) / (135 - 27)
    min_lr = 0.1 * 0.0001
    return min_lr + (0.01 - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def test_figure_d1() -> None:
    schedule = constant(updates=135, warmup=27, peak_lr=1e-2, initial_lr=1e-4)
    ours = [schedule(u) for u in range(135)]
    assert ours == pytest.approx([_book_lr(u, decay=False) for u in range(135)], rel=1e-12)
    assert (ours[0], ours[27], ours[134]) == (1e-4, 1e-2, 1e-2)
    assert ours[26] == pytest.approx(1e-4 + 26 * 9.9e-3 / 27)


def test_figure_d2() -> None:
    schedule = cosine(updates=135, warmup=27, peak_lr=1e-2, initial_lr=1e-4, min_lr=1e-5)
    warmup = [schedule(u) for u in range(28)]
    assert warmup == pytest.approx([_book_lr(u, decay=True) for u in range(28)], rel=1e-12)
    assert schedule(27) == 1e-2
    assert schedule(134) == 1e-5
    # The book divides by 108 where 107 steps remain, and so stops short of its minimum.
    assert _book_lr(134, decay=True) == pytest.approx(1.2113e-5, rel=1e-4)
    # 53 of 107 steps after warmup: 1e-5 + 9.99e-3 · (1 + cos(53π/107)) / 2
    assert schedule(80) == pytest.approx(5.0783e-3, rel=1e-4)


# PyTorch's own schedulers, where they have the same curve.


def _torch_lr(
    make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], updates: int
) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = make(optimizer)
    found = []
    for _ in range(updates):
        found.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return found


def test_warmup_and_cosine_are_those_of_torch() -> None:
    lrs = torch.optim.lr_scheduler

    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        warmup = lrs.LinearLR(optimizer, start_factor=0.1, end_factor=1.0, total_iters=10)
        decay = lrs.CosineAnnealingLR(optimizer, T_max=89, eta_min=1e-4)
        return lrs.SequentialLR(optimizer, [warmup, decay], milestones=[10])

    schedule = cosine(updates=100, warmup=10, peak_lr=0.01, initial_lr=0.001, min_lr=1e-4)
    assert [schedule(u) for u in range(100)] == pytest.approx(_torch_lr(make, 100), rel=1e-9)


def test_linear_is_that_of_torch() -> None:
    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=49)

    schedule = linear(updates=50, warmup=0, peak_lr=0.01, min_lr=0.0005)
    assert [schedule(u) for u in range(50)] == pytest.approx(_torch_lr(make, 50), rel=1e-9)


def test_restarts_are_those_of_torch() -> None:
    """SGDR as PyTorch has it reaches its minimum one update later, so its cycles are of T − 1."""

    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9, eta_min=1e-3)

    schedule = cosine_restarts(updates=30, warmup=0, peak_lr=0.01, min_lr=1e-3, cycles=3)
    expected = 3 * _torch_lr(make, 10)
    assert [schedule(u) for u in range(30)] == pytest.approx(expected, rel=1e-9)


# Properties over all lengths and kinds.

rates = st.floats(1e-12, 10.0)


@st.composite
def settings(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> dict[str, object]:
    """Settings of which only the lengths may contradict each other."""
    peak = draw(rates)
    kind = draw(st.sampled_from(kinds))
    below_peak = st.one_of(st.just(0.0), st.just(peak), st.floats(0.0, peak))
    return {
        "kind": kind,
        "updates": draw(st.integers(1, 300)),
        "warmup": draw(st.integers(0, 310)),
        "peak_lr": peak,
        "initial_lr": draw(st.one_of(st.none(), below_peak)),
        "min_lr": draw(below_peak) if kind in DECAYING else 0.0,
        "decay": draw(st.integers(1, 310)) if kind == "wsd" else 0,
        "cycles": draw(st.integers(1, 20)) if kind == "cosine-restarts" else 1,
    }


def _needed_after_warmup(given_settings: dict[str, object]) -> int:
    """The fewest updates from the end of warmup on: the peak, and where it decays the minimum."""
    match given_settings:
        case {"kind": "cosine-restarts", "cycles": int(cycles)}:
            return 2 * cycles
        case {"kind": "wsd", "decay": int(decay)}:
            return decay + 1
        case {"kind": "linear" | "cosine"}:
            return 2
        case _:
            return 1


def _make(given_settings: dict[str, object]) -> Schedule | None:
    """The schedule; None where its lengths are impossible, which must be what is refused."""
    updates, warmup = given_settings["updates"], given_settings["warmup"]
    assert isinstance(updates, int)
    assert isinstance(warmup, int)
    possible = updates - warmup >= _needed_after_warmup(given_settings)
    try:
        schedule = Schedule(**given_settings)  # type: ignore[arg-type]
    except ConfigError:
        assert not possible
        return None
    assert possible
    return schedule


@given(settings())
def test_every_schedule_is_refused_or_exact_at_its_corners(drawn: dict[str, object]) -> None:
    schedule = _make(drawn)
    if schedule is None:
        return
    peak, last = schedule.peak_lr, schedule.updates - 1
    assert schedule(schedule.warmup) == peak
    if schedule.warmup:
        initial = schedule.initial_lr
        assert schedule(0) == (peak / schedule.warmup if initial is None else initial)
    if schedule.kind in DECAYING:
        assert schedule(last) == schedule(last + 1) == schedule(10 * last + 7) == schedule.min_lr


@given(settings())
def test_every_lr_is_finite_and_between_its_bounds(drawn: dict[str, object]) -> None:
    schedule = _make(drawn)
    if schedule is None:
        return
    peak = schedule.peak_lr
    lr = [schedule(u) for u in range(schedule.updates)]
    assert all(math.isfinite(value) for value in lr)
    assert max(lr) == peak
    initial = schedule.initial_lr
    floors = [peak / schedule.warmup if initial is None else initial] if schedule.warmup else [peak]
    if schedule.kind in DECAYING:
        floors.append(schedule.min_lr)
    else:
        floors.append(schedule(schedule.updates - 1))
    assert min(lr) == min(floors)
    if initial != 0.0 and (schedule.min_lr > 0 or schedule.kind not in DECAYING):
        assert min(lr) > 0


@given(settings())
def test_up_through_warmup(drawn: dict[str, object]) -> None:
    schedule = _make(drawn)
    if schedule is None:
        return
    lr = [schedule(u) for u in range(schedule.warmup + 1)]
    assert lr == sorted(lr)


@given(settings(FALLING))
def test_down_after_warmup(drawn: dict[str, object]) -> None:
    schedule = _make(drawn)
    if schedule is None:
        return
    lr = [schedule(u) for u in range(schedule.warmup, schedule.updates + 3)]
    assert lr == sorted(lr, reverse=True)


@given(settings(("cosine-restarts",)))
def test_each_cycle_runs_from_the_peak_to_the_minimum(drawn: dict[str, object]) -> None:
    drawn["min_lr"] = 0.5 * float(str(drawn["peak_lr"]))  # so that the two can be told apart
    schedule = _make(drawn)
    if schedule is None:
        return
    lr = [schedule(u) for u in range(schedule.warmup, schedule.updates)]
    starts = [0] + [i for i in range(1, len(lr)) if lr[i] > lr[i - 1]]
    assert len(starts) == schedule.cycles
    assert all(lr[start] == schedule.peak_lr for start in starts)
    assert all(lr[start - 1] == schedule.min_lr for start in [*starts[1:], len(lr)])
    lengths = [b - a for a, b in zip(starts, [*starts[1:], len(lr)], strict=True)]
    assert max(lengths) - min(lengths) <= 1


@given(settings())
def test_the_lr_depends_on_nothing_but_the_update(drawn: dict[str, object]) -> None:
    schedule = _make(drawn)
    if schedule is None:
        return
    forwards = [schedule(u) for u in range(schedule.updates)]
    backwards = [schedule(u) for u in reversed(range(schedule.updates))]
    assert forwards == backwards[::-1]


# What cannot be is refused, all of it at once.


def test_all_problems_are_listed() -> None:
    with pytest.raises(ConfigError) as refused:
        Schedule("wsd", 0, -3, math.nan, -1.0, math.inf, decay=0, cycles=0)
    names = [problem.split(":")[0] for problem in refused.value.problems]
    assert names == [
        "updates", "warmup", "peak_lr", "initial_lr", "min_lr", "decay", "cycles"
    ]  # fmt: skip


def test_an_unknown_kind_names_the_known() -> None:
    with pytest.raises(ConfigError) as refused:
        Schedule("cosin", 10, 1, 1.0)
    (problem,) = refused.value.problems
    assert "'cosin'" in problem
    assert all(kind in problem for kind in KINDS)


@pytest.mark.parametrize("value", [0.0, -1e-3, math.inf, math.nan])
def test_a_peak_is_positive_and_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^peak_lr: must be above 0 and finite"):
        constant(updates=10, warmup=1, peak_lr=value)


@pytest.mark.parametrize("value", [-1e-9, 1.1, math.nan])
def test_no_lr_is_above_the_peak_or_negative(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^initial_lr: must be from 0 to the peak 1\.0"):
        cosine(updates=10, warmup=1, peak_lr=1.0, initial_lr=value)
    with pytest.raises(ConfigError, match=r"^min_lr: must be from 0 to the peak 1\.0"):
        cosine(updates=10, warmup=1, peak_lr=1.0, min_lr=value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine(updates=10, warmup=9, peak_lr=1.0), "needs 2 updates or more .* leave 1:"),
        (lambda: cosine(updates=10, warmup=10, peak_lr=1.0), "leave 0:"),
        (lambda: linear(updates=1, warmup=0, peak_lr=1.0), "1 updates with 0 of warmup leave 1:"),
        (lambda: constant(updates=9, warmup=9, peak_lr=1.0), "needs 1 update or more"),
        (lambda: wsd(updates=10, warmup=6, decay=4, peak_lr=1.0), "wsd needs 5 updates or more"),
        (
            lambda: cosine_restarts(updates=10, warmup=5, cycles=3, peak_lr=1.0),
            "cosine-restarts needs 6 updates or more",
        ),
    ],
)
def test_too_little_after_warmup(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_shortest_schedules() -> None:
    assert [cosine(updates=3, warmup=1, peak_lr=1.0, min_lr=0.5)(u) for u in range(3)] == [
        1.0, 1.0, 0.5
    ]  # fmt: skip
    assert constant(updates=1, warmup=0, peak_lr=0.3)(0) == 0.3
    assert [wsd(updates=2, warmup=0, decay=1, peak_lr=1.0)(u) for u in range(2)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("warmup", "warning"),
    [(0, "no warmup"), (1, None), (200, None), (201, "20.10% of the run")],
)
def test_warnings_of_an_unusual_warmup(warmup: int, warning: str | None) -> None:
    found = cosine(updates=1000, warmup=warmup, peak_lr=1.0).warnings
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


def test_a_warmup_below_a_thousandth_is_unusual() -> None:
    assert "0.05% of the run" in cosine(updates=2000, warmup=1, peak_lr=1.0).warnings[0]
