import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hairpin
from hairpin.config.load import build_config, read_toml, with_values
from hairpin.config.recipes import SIZES
from hairpin.config.settings import Config
from hairpin.data.batches import Batches
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.choose import (
    CLOSING_SECONDS,
    LADDER,
    Rung,
    default_peak_lr,
    fill_length,
    fill_shape,
    rung_for,
    rung_of,
)
from hairpin.planning.fill import TextSize, fill_config
from hairpin.planning.measure import fill_run as filling
from hairpin.planning.measure import probe
from hairpin.planning.measure.fill_run import PretrainingMeasurements, fill_speed
from hairpin.planning.measure.probe import Speed
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.schedules.curves import CURVES, Schedule
from hairpin.training import budget as budget_module
from hairpin.training.budget import Budget, Pace
from helpers import Watching, of_kind, text_file, tiny


def pace_of(budget: Budget, free_updates: int, milestones: int) -> Pace:
    return Pace(
        budget, free_updates, milestones, CLOSING_SECONDS, config_for=lambda updates: Config()
    )


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()

    class FakeTime:
        monotonic = fake

    monkeypatch.setattr(budget_module, "time", FakeTime)
    yield fake


# --- the budget and its one correction ---


def test_time_left_counts_from_the_start(clock: Clock) -> None:
    budget = Budget(seconds=60, started=995.0)
    assert budget.left == 55.0
    clock.now = 1100.0
    assert budget.left == -45.0


def test_the_corrected_length_by_hand(clock: Clock) -> None:
    pace = pace_of(Budget(seconds=300, started=990.0), free_updates=100, milestones=10)
    pace.paused(1.0, milestones=1)  # the evaluation before the first update
    pace.paused(0.6, milestones=1)  # the next one
    pace.paused(0.2, milestones=0)  # and its checkpoint
    for seconds in (0.9, 0.4, 0.3, 0.4, 0.5):
        pace.took(seconds)
    clock.now = 1050.0
    # 240 s left; 4 s for the end and 9 · 0.9 s for the milestones to come; 4% kept back:
    # 227.9 · 0.96 = 218.8 s at 0.5 s an update.
    assert CLOSING_SECONDS == 4.0
    assert pace.updates_that_fit(done=5) == 5 + 437


def test_with_one_update_measured_it_goes_by_that(clock: Clock) -> None:
    pace = pace_of(Budget(seconds=104, started=1000.0), free_updates=100, milestones=10)
    pace.took(2.0)
    assert pace.updates_that_fit(done=1) == 1 + 48


def test_without_time_left_there_is_still_room_for_a_schedule(clock: Clock) -> None:
    pace = pace_of(Budget(seconds=10, started=900.0), free_updates=100, milestones=10)
    pace.took(1.0)
    assert pace.updates_that_fit(done=7) == 9


def test_it_corrects_after_a_third_of_the_time(clock: Clock) -> None:
    pace = pace_of(Budget(seconds=100, started=1000.0), free_updates=1000, milestones=10)
    clock.now = 1034.0
    assert not pace.correction_due(done=50)
    clock.now = 1036.0
    assert pace.correction_due(done=51)
    assert not pace.correction_due(done=0), "there is no speed yet to go by"


def test_it_corrects_while_the_schedule_is_free_of_the_length(clock: Clock) -> None:
    pace = pace_of(Budget(seconds=100, started=1000.0), free_updates=100, milestones=10)
    assert not pace.correction_due(done=79)
    assert pace.correction_due(done=80)


@given(
    st.sampled_from(sorted(CURVES)),
    st.integers(0, 30),
    st.integers(40, 200),
    st.integers(40, 200),
    st.data(),
)
def test_free_updates_are_free_of_the_length(
    kind: str, warmup: int, one: int, other: int, data: st.DataObject
) -> None:
    short, long = (
        Schedule(kind, updates, warmup, 1.0, decay=max(1, updates // 5), cycles=2)
        for updates in sorted((one, other))
    )
    update = data.draw(st.integers(0, CURVES[kind].length_independent_updates(short) - 1))
    assert short(update) == long(update)


# --- what is chosen ---


@given(st.floats(0, 1e22), st.floats(0, 1e22))
def test_more_operations_never_choose_a_smaller_model(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert LADDER.index(rung_for(small)) <= LADDER.index(rung_for(large))


def test_the_ladder_is_whole() -> None:
    assert [rung.from_flops for rung in LADDER] == sorted({rung.from_flops for rung in LADDER})
    assert rung_for(0.0) == LADDER[0] and rung_for(1e30) == LADDER[-1]
    for rung in LADDER:
        assert rung.tokens_per_update % SIZES[rung.size]["context"] == 0
        assert rung_of(rung.size) is rung
    assert rung_of("gpt2-xl") is LADDER[-1]
    reached = {rung_for(2.0**exponent).size for exponent in range(80)}
    assert reached == {rung.size for rung in LADDER}


def test_the_noise_of_a_measurement_seldom_changes_the_size() -> None:
    powers = [4.0**exponent for exponent in range(15, 32)]
    for power in powers:
        assert rung_for(power * 0.6) == rung_for(power) == rung_for(power * 1.7)


def config_of(**changes: Any) -> Config:
    settings = tiny(**changes)
    return build_config(flags={key: value for key, value in settings.items() if value is not None})


UNSET = {
    "train__updates": None,
    "schedule__warmup_updates": None,
    "evaluate__every_updates": None,
    "evaluate__tokens": None,
}


@pytest.mark.parametrize(
    ("asked", "budgeted", "updates"),
    [
        ({"train__tokens": 64 * 20}, None, 20),
        ({"train__tokens": 64 * 20 + 1}, None, 21),
        ({"train__epochs": 1.0}, None, 157),  # 10,001 tokens in updates of 64: 156.3
        ({"train__epochs": 2.5}, None, 391),  # 25,002.5 tokens: 390.7
        ({"train__updates": 33}, 99, 33),
        ({}, 99, 99),
        ({"train__tokens": 64 * 20}, 99, 20),
    ],
)
def test_the_length_by_hand(asked: dict[str, Any], budgeted: int | None, updates: int) -> None:
    config = fill_length(config_of(**(UNSET | asked)), 10_001, budgeted)
    assert config.train.updates == updates
    assert config.train.tokens is None and config.train.epochs is None


def test_what_follows_from_the_length_by_hand() -> None:
    config = fill_length(config_of(**(UNSET | {"train__updates": 1001})), 10_001, None)
    assert config.schedule.warmup_updates == 50  # 5%
    assert config.schedule.min_lr == pytest.approx(0.001)  # a tenth of the peak
    assert config.evaluate.every_updates == config.checkpoint.every_updates == 101
    # Half a percent of 1001 · 64 tokens, and at least 16 contexts of 16.
    assert config.evaluate.tokens == 320
    assert config.evaluate.train_tokens == 80
    short = fill_length(config_of(**(UNSET | {"train__updates": 100})), 10_001, None)
    assert short.evaluate.tokens == 256


def test_what_was_asked_for_is_left_alone() -> None:
    asked = config_of(checkpoint__every_updates=7, schedule__min_lr=0.0)
    filled = fill_length(asked, 10_001, 5000)
    assert filled.train.updates == 12
    assert (filled.schedule.warmup_updates, filled.schedule.min_lr) == (3, 0.0)
    assert (filled.evaluate.every_updates, filled.checkpoint.every_updates) == (4, 7)
    assert filled.evaluate.tokens == 128
    assert fill_length(filled, 10_001, 5000) == filled


def test_a_shape_is_filled_from_the_rung_or_the_size() -> None:
    open_config = build_config(flags={"data.texts": ["/x"]})
    filled = fill_shape(open_config, Rung("mini", 0.0, 512, 4096))
    model = filled.model
    assert (model.layers, model.heads, model.width, model.context) == (4, 4, 192, 128)
    assert filled.train.tokens_per_update == 4096
    sized = build_config(flags={"model.size": "nano", "model.context": 100})
    filled = fill_shape(sized, Rung("mini", 0.0, 512, 2048))
    assert (filled.model.layers, filled.model.context) == (2, 100)
    assert filled.train.tokens_per_update == 2000  # the nearest below 2048 that 100 divides


def test_wider_models_learn_at_a_lower_rate() -> None:
    assert default_peak_lr(768) == 4.2e-4  # 0.32 / 768, to two digits
    assert default_peak_lr(1600) == 2e-4
    rates = [default_peak_lr(width) for width in range(1, 4000)]
    assert rates == sorted(rates, reverse=True) and rates[0] == 3e-3


class Told:
    """Measurements that are told, and note what they are asked for."""

    def __init__(self, *, left: float | None = None, train_tokens: int = 10_001) -> None:
        self.seconds_left = (lambda: left) if left else None
        self.train_tokens = train_tokens
        self.asked: list[str] = []

    def fill_start(self, config: Config) -> Config:
        return with_values(config, {"execution.device": "cpu"})

    def flops_per_second(self, config: Config) -> float:
        self.asked.append("speed of the machine")
        return 1e10

    def train_bytes(self, config: Config) -> int:
        self.asked.append("size of the text")
        return 10**9

    def text(self, config: Config) -> TextSize:
        vocabulary = config.tokenizer.vocabulary or 257
        return TextSize({"tokenizer.vocabulary": vocabulary}, self.train_tokens, 100)

    def usable_gigabytes(self, config: Config) -> float:
        self.asked.append("memory")
        return 3.0

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float]:
        return with_values(config, {"execution.precision": "float32"}), 0.1


def test_a_complete_config_stays_as_it_is_and_nothing_is_measured_for_it() -> None:
    complete = fill_config(config_of(), Told()).config
    again = Told(left=60.0)
    filled = fill_config(complete, again)
    assert filled.config == complete and filled.without_length is None
    assert not again.asked


def test_an_open_config_is_filled_for_machine_and_text() -> None:
    measured = Told(train_tokens=1000)
    filled = fill_config(build_config(flags={"data.texts": ["/x"]}), measured)
    assert measured.asked == ["size of the text", "speed of the machine", "memory"]
    # 1e10 operations a second in three minutes are 1.8e12, and rounded 4^20 = 1.1e12.
    assert filled.config.model.size == "tiny" and filled.config.tokenizer.vocabulary == 4096
    # Four passes over 1,000 tokens, in updates of 2,048.
    assert filled.config.train.updates == 2 and filled.epochs == 4.096
    assert filled.config.execution.precision == "float32"


@pytest.mark.parametrize(("train_tokens", "updates"), [(1000, 600), (10**9, 601)])
def test_a_budget_sets_the_length_and_a_small_text_ends_it_early(
    train_tokens: int, updates: int
) -> None:
    # 68 s less 4 s for the end, less 6% for evaluations, at 0.1 s an update: 601.6.
    measured = Told(left=68.0, train_tokens=train_tokens)
    filled = fill_config(config_of(**UNSET), measured)
    assert filled.config.train.updates == updates
    assert bool(filled.notices) == (updates == 600) == (filled.without_length is None)
    if filled.without_length:
        corrected = filled.with_updates(500)
        assert corrected.train.updates == 500
        assert corrected.schedule.warmup_updates == filled.config.schedule.warmup_updates


# --- a budgeted run, with a clock that is told ---


@pytest.fixture
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that finds a tenth of a second an update, and no drawing."""

    def measured(config: Config, shape: Shape, batches: Batches, seconds: float, **_: Any) -> Speed:
        return Speed("float32", 0.1, config.execution.micro_batch or 1)

    monkeypatch.setattr(probe, "measure_update", measured)
    monkeypatch.setattr(Run, "write_plots", lambda self: [])


@pytest.mark.parametrize(
    ("kind", "fits"), [("cosine", 30), ("cosine", 150), ("linear", 30), ("wsd", 90), ("wsd", 150)]
)
def test_the_correction_changes_no_learning_rate_that_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_speed: None, kind: str, fits: int
) -> None:
    monkeypatch.setattr(Pace, "updates_that_fit", lambda self, done: fits)
    settings = {
        key: value
        for key, value in tiny(**UNSET, schedule__kind=kind, evaluate__sample_tokens=0).items()
        if value is not None
    }
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=settings, budget="15s", watcher=Quiet()
    )
    record = run.record()
    plan, (correction,) = of_kind(record, "plan")[0], of_kind(record, "correction")
    # Nearly 15 s less 4 s for the end, less 6% for evaluations, at 0.1 s an update.
    assert 80 <= plan["updates"] <= 103
    warmup = plan["warmup"]
    assert warmup == round(0.05 * plan["updates"])
    # After four fifths of the updates that no change of the length can touch.
    decay = round(0.2 * plan["updates"])
    free = plan["updates"] - decay if kind == "wsd" else warmup + 1
    assert correction == {
        "event": "correction",
        "update": int(0.8 * free),
        "planned_updates": plan["updates"],
        "updates": fits,
    }

    config = run.config
    assert config.train.updates == fits
    assert read_toml(run.path / "config.toml")["train"]["updates"] == fits
    assert config.schedule.warmup_updates == warmup
    updates = of_kind(record, "update")
    assert len(updates) == fits
    lrs = [event["lr"] for event in updates]
    initial = 0.01 / warmup
    climb = [initial + update * (0.01 - initial) / warmup for update in range(warmup)]
    assert lrs[: warmup + 1] == pytest.approx([*climb, 0.01])
    assert lrs[-1] == pytest.approx(0.001)
    places = [event["update"] for event in of_kind(record, "evaluation")]
    assert places[0] == 0 and places[-1] == fits and 9 <= len(places) <= 13

    again = hairpin.train(config=run.path / "config.toml", out=tmp_path / "again", watcher=Quiet())
    assert [event["lr"] for event in of_kind(again.record(), "update")] == lrs
    assert not of_kind(again.record(), "correction")
    last = f"checkpoints/step-{fits:08d}/model.safetensors"
    assert (again.path / last).read_bytes() == (run.path / last).read_bytes()


def test_a_length_that_was_asked_for_is_not_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_speed: None
) -> None:
    monkeypatch.setattr(Pace, "updates_that_fit", lambda self, done: 50)
    watcher = Watching()
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=tiny(), budget="15s", watcher=watcher
    )
    assert not of_kind(run.record(), "correction")
    assert run.config.train.updates == 12


def test_text_that_would_be_memorised_is_said_before_training(
    tmp_path: Path, fixed_speed: None
) -> None:
    watcher = Watching()
    settings = tiny(train__updates=200, evaluate__every_updates=200, evaluate__sample_tokens=0)
    hairpin.train(
        text_file(tmp_path, 600), out=tmp_path / "run", settings=settings, watcher=watcher
    )
    # 200 · 64 tokens over 558 of training text.
    (line,) = watcher.notices
    assert "will memorise them" in line and " 23 times" in line


def test_default_tokens_are_twenty_a_parameter_and_at_most_four_passes() -> None:
    shape = Shape(257, 16, layers=1, heads=2, width=16)
    # 257 · 16 + 16 · 16 + 12 · 256 + 13 · 16 + 32 = 7,680 parameters.
    assert choose.default_tokens(shape, 10**9) == 153_600
    assert choose.default_tokens(shape, 1000) == 4000


def test_a_speed_is_measured_on_this_machine(tmp_path: Path) -> None:
    started = time.perf_counter()
    flops = probe.measure_flops("cpu", "float32")
    assert flops > 1e6
    assert time.perf_counter() > started


def test_a_length_that_would_change_used_rates_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_speed: None
) -> None:
    monkeypatch.setattr(Pace, "updates_that_fit", lambda self, done: done + 2)
    settings = {
        key: value
        for key, value in tiny(**UNSET, schedule__kind="wsd", evaluate__sample_tokens=0).items()
        if value is not None
    }
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=settings, budget="15s", watcher=Quiet()
    )
    assert not of_kind(run.record(), "correction")
    assert len(of_kind(run.record(), "update")) == of_kind(run.record(), "plan")[0]["updates"]


def test_little_text_ends_a_budgeted_run_early_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_speed: None
) -> None:
    monkeypatch.setattr(choose, "_MIN_UPDATES", 5)
    settings = {
        key: value
        for key, value in tiny(**UNSET, evaluate__sample_tokens=0).items()
        if value is not None
    }
    watching = Watching()
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=settings, budget="1h", watcher=watching
    )
    plan = of_kind(run.record(), "plan")[0]
    ten_passes = 10 * plan["train_tokens"] // plan["tokens_per_update"]
    assert plan["updates"] == len(of_kind(run.record(), "update")) == ten_passes > 5
    assert not of_kind(run.record(), "correction")
    assert any("the run ends early" in line for line in watching.notices)
    lrs = [event["lr"] for event in of_kind(run.record(), "update")]
    assert lrs[-1] == pytest.approx(0.1 * max(lrs)), "its decay is whole all the same"


def test_a_large_model_to_start_from_takes_a_batch_that_the_budget_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpt2 = {"layers": 12, "heads": 12, "width": 768, "context": 1024}
    asked = build_config(
        flags={
            "start.path": "/gpt2",
            "tokenizer.kind": "gpt2",
            "tokenizer.vocabulary": 50_257,
            "execution.device": "cpu",
            **{f"model.{key}": value for key, value in gpt2.items()},
        }
    )
    monkeypatch.setattr(probe, "measure_flops", lambda *_: 3e11)

    def sized(budget: Budget | None) -> Config:
        measured = PretrainingMeasurements(budget, Quiet(), None)
        return choose.fill_size(
            asked,
            seconds_left=measured.seconds_left,
            flops_per_second=lambda: measured.flops_per_second(asked),
            train_bytes=lambda: measured.train_bytes(asked),
        )

    without = sized(None)
    assert without.train.tokens_per_update == 65_536
    # 3e11 operations a second for three minutes are 5.4e13, the rung of 2,048 tokens an update.
    three_minutes = sized(Budget(180.0, time.monotonic()))
    assert three_minutes.train.tokens_per_update == 2048
    assert three_minutes.schedule.peak_lr == pytest.approx(0.25 * 0.32 / 768, rel=0.05)


# --- what timing decides ---


def settled_with(
    monkeypatch: pytest.MonkeyPatch, found: Speed, **settings: Any
) -> tuple[Config, tuple[bool, ...], list[str]]:
    """The config after a probe that finds what is said, what it was to try, and the notices."""
    tried: list[tuple[bool, ...]] = []

    def measured(config: Config, *_: Any, compiling: tuple[bool, ...], **named: Any) -> Speed:
        tried.append(compiling)
        how = config.execution
        precision = found.precision if how.precision == "auto" else how.precision
        threads = found.threads if how.threads == "auto" else how.threads
        return replace(found, precision=precision, threads=threads)

    monkeypatch.setattr(probe, "measure_update", measured)
    monkeypatch.setattr(filling, "may_use_one_thread", lambda device: True)
    notices: list[str] = []
    flags = {"data.texts": ["/x"], "execution.device": "cpu", "model.size": "nano"} | settings
    nothing: Any = None
    budget = Budget(3600.0, 0.0)  # long enough for compiling to be tried
    config, _ = fill_speed(build_config(flags=flags), nothing, nothing, budget, notices.append)
    return config, tried[0], notices


ONE_DAY = Speed("bfloat16", 0.1, 4, compiled=True, threads="one")
ANOTHER = Speed("float32", 0.1, 4, compiled=False, threads="all")


def test_what_was_timed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config, tried, (line,) = settled_with(monkeypatch, ONE_DAY)
    assert tried == (False, True)
    assert (config.execution.precision, config.execution.compile) == ("bfloat16", "on")
    assert "bfloat16, one thread, compiled" in line and "execution.deterministic=true" in line
    asked = {"precision": "float32", "threads": "all", "compile": "off"}
    asked = {f"execution.{key}": value for key, value in asked.items()}
    assert settled_with(monkeypatch, ONE_DAY, **asked)[2] == []


def test_deterministic_leaves_nothing_to_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        settled_with(monkeypatch, speed, **{"execution.deterministic": True})
        for speed in (ONE_DAY, ANOTHER)
    ]
    how = found[0][0].execution
    assert (how.precision, how.threads) == ("float32", "all")
    assert found[0][1] == (False,) and found[0][2] == [] and found[1][2] == []
    typed = {"execution.deterministic": True, "execution.precision": "bfloat16"}
    config, *_ = settled_with(monkeypatch, ONE_DAY, **typed)
    assert config.execution.precision == "bfloat16", "what is typed stays"
