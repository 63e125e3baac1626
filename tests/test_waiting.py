"""Threads beside other programs: how long they wait, how many there are, and what is said."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hairpin
from hairpin.config.load import build_config
from hairpin.errors import CorpusError, Interrupted
from hairpin.machine.threads import computing_with, may_use_one_thread
from hairpin.planning.measure import probe
from hairpin.run import Run
from hairpin.runs.events import Event, Update
from hairpin.runs.watcher import Quiet
from hairpin.system import spinning
from hairpin.training.slowdown import Slowdown
from hairpin.training.step import Stepper
from helpers import Watching, assert_same_history, of_kind, text_file, tiny

OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which the user has set nothing of OpenMP's."""
    for name in (*OPENMP, "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- waiting ---


def openmp_says(**environ: str) -> str:
    """What the OpenMP library reports of itself when torch is loaded after hairpin."""
    code = "import sys, hairpin; assert 'torch' not in sys.modules; import torch"
    own = {name: value for name, value in os.environ.items() if name not in OPENMP}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=own | {"OMP_DISPLAY_ENV": "verbose"} | environ,
    )  # fmt: skip
    return done.stderr


def test_the_openmp_library_is_told_before_torch_loads_it() -> None:
    said = openmp_says()
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another OpenMP library than GNU's")
    spins = {"GenuineIntel": 1000, "AuthenticAMD": 3000}.get(spinning._vendor(), 3000)
    assert f"GOMP_SPINCOUNT = '{spins}'" in said


def test_what_the_user_has_set_stays() -> None:
    said = openmp_says(GOMP_SPINCOUNT="777")
    if "GOMP_SPINCOUNT" in said:
        assert "GOMP_SPINCOUNT = '777'" in said
    said = openmp_says(OMP_WAIT_POLICY="PASSIVE")
    if "GOMP_SPINCOUNT" in said:
        assert "GOMP_SPINCOUNT = '0'" in said and "OMP_WAIT_POLICY = 'PASSIVE'" in said


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_any_variable_of_the_user_is_a_decision(
    monkeypatch: pytest.MonkeyPatch, undecided: None, name: str
) -> None:
    monkeypatch.setenv(name, "active")
    spinning.limit_spinning()
    assert [n for n in OPENMP if n in os.environ] == [name]


@pytest.mark.parametrize(("vendor", "spins"), [("GenuineIntel", "1000"), ("Apple", "3000")])
def test_spins_are_as_long_on_every_processor(
    monkeypatch: pytest.MonkeyPatch, undecided: None, vendor: str, spins: str
) -> None:
    monkeypatch.setattr(spinning, "_vendor", lambda: vendor)
    spinning.limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == spins


# --- one thread or all ---


def test_threads_are_what_they_were_after_the_block(two_threads: None) -> None:
    with computing_with("one"):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with computing_with("all"):
        assert torch.get_num_threads() == 2


def test_one_thread_is_no_choice_where_there_is_one_or_the_user_has_decided(
    monkeypatch: pytest.MonkeyPatch, undecided: None, two_threads: None
) -> None:
    assert may_use_one_thread("cpu") and not may_use_one_thread("cuda")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert not may_use_one_thread("cpu")
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    assert not may_use_one_thread("cpu")


class Threads(Quiet):
    """Notes how many threads there are at each update."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def show(self, event: Event) -> None:
        if isinstance(event, Update):
            self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize(("alone", "chosen"), [(0.5, "one"), (0.95, "all"), (2.0, "all")])
def test_the_probe_takes_one_thread_where_that_is_clearly_faster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undecided: None,
    two_threads: None,
    alone: float,
    chosen: str,
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    text, watcher = text_file(tmp_path), Threads()
    with monkeypatch.context() as patched:
        patched.setattr(
            probe, "_time_step", lambda *_: 0.2 * (alone if torch.get_num_threads() == 1 else 1.0)
        )
        run = hairpin.train(text, out=tmp_path / "run", settings=tiny(), watcher=watcher)
    assert run.config.execution.threads == chosen
    assert watcher.seen == {1 if chosen == "one" else 2}
    assert torch.get_num_threads() == 2, "the caller has its threads back"
    again = Threads()
    repeat = hairpin.train(config=run.path / "config.toml", out=tmp_path / "again", watcher=again)
    assert again.seen == watcher.seen
    assert_same_history(run, repeat)


def test_a_run_older_than_the_setting_goes_on_with_all_threads_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undecided: None, two_threads: None
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    with pytest.raises(Interrupted):
        hairpin.train(
            text_file(tmp_path), out=tmp_path / "run", settings=tiny(execution__threads="all"),
            watcher=Watching(6),
        )  # fmt: skip
    for config in tmp_path.glob("run/**/config.toml"):
        lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
        config.write_text("".join(line for line in lines if "threads" not in line), "utf-8")
    for manifest in tmp_path.glob("run/checkpoints/*/manifest.json"):
        reseal(manifest)
    watcher = Watching()
    run = hairpin.resume(tmp_path / "run", watcher=watcher)
    assert run.config.execution.threads == "all"
    assert not [line for line in watcher.notices if "threads" in line]


def reseal(manifest: Path) -> None:
    """Vouch for a checkpoint's files as they are now."""
    import json

    from hairpin.checkpoints.manifest import write_manifest
    from hairpin.checkpoints.tensors import FileFacts
    from hairpin.system.files import sha256_of

    said: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    files = {
        name: FileFacts((manifest.parent / name).stat().st_size, sha256_of(manifest.parent / name))
        for name in said["files"]
    }
    own = ("format", "step", "world_size", "torch", "files", "sha256")
    facts = {key: value for key, value in said.items() if key not in own}
    manifest.unlink()
    write_manifest(manifest.parent, said["step"], files, facts)


# --- a probe that ends ---


class Clock:
    """A clock that moves only where somebody computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@settings(max_examples=60, deadline=None)
@given(sequence_seconds=st.floats(1e-5, 3.0), factor=st.floats(0.1, 500.0))
def test_measuring_the_machine_ends_in_time_however_slow_it_is(
    sequence_seconds: float, factor: float
) -> None:
    """A pass of one sequence takes so long in float32, and `factor` times that in bfloat16."""
    clock = Clock()

    def passes(model: Any, ids: torch.Tensor, numerics: Any) -> float:
        slower = factor if numerics.precision == "bfloat16" else 1.0
        return clock.advance(sequence_seconds * slower * len(ids))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(probe, "_time_pass", passes)
        patched.setattr(probe, "time", clock)
        probe.measure_flops("cpu", "auto")
    one_pass_each = sequence_seconds * (1 + factor)
    assert clock.now <= 1.0 + one_pass_each


@settings(max_examples=60, deadline=None)
@given(
    micro_step=st.floats(1e-3, 2.0), optimizer=st.floats(0.0, 1.0), steps=st.integers(1, 64),
    seconds=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_timing_an_update_ends_in_time_and_is_near_however_long_it_takes(
    micro_step: float, optimizer: float, steps: int, seconds: float
) -> None:
    clock = Clock()

    def step(stepper: Any, batches: Any, samples: int) -> float:
        return clock.advance(optimizer * micro_step + micro_step * samples / 2)

    stepper: Stepper = type("Stepper", (), {"micro_batch": 2})()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(probe, "_time_step", step)
        found = probe._time_updates(stepper, None, 2 * steps, seconds, float("inf"))  # type: ignore[arg-type]
    whole = optimizer * micro_step + micro_step * steps
    one = (1 + optimizer) * micro_step
    assert clock.now <= seconds + 5.0 * max(1.0, one)
    by_sequences = 2 * steps * (0.5 + optimizer) * micro_step
    assert whole * 0.99 <= found <= max(whole, steps * one, by_sequences) * 1.01


# --- a text too short ---


@pytest.mark.parametrize("budget", ["1m", None])
@pytest.mark.parametrize("flag", [{}, {"model.context": 64}])
def test_the_text_is_looked_at_before_the_machine_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None, flag: dict[str, Any]
) -> None:
    def measured(*rest: Any, **named: Any) -> float:
        raise AssertionError("the machine was measured for a text of five bytes")

    monkeypatch.setattr(probe, "measure_flops", measured)
    text = tmp_path / "short.txt"
    text.write_text("abcd\n", encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"too little training text: \d tokens found, (65|129) needed"
    ):
        hairpin.train(text, out=tmp_path / "run", budget=budget, settings=flag, watcher=Quiet())
    assert not (tmp_path / "run").exists()


# --- a word where it becomes slow ---


def test_far_below_the_speed_that_was_seen_is_said_once_and_after_a_while() -> None:
    said, clock = list[str](), Clock()
    slowdown = Slowdown(said.append, clock=clock.perf_counter)
    for _ in range(60):
        clock.advance(0.1)
        slowdown.took(30_000.0)
    for _ in range(25):  # 2.5 s: a program that starts
        clock.advance(0.1)
        slowdown.took(2_000.0)
    for _ in range(60):
        clock.advance(0.1)
        slowdown.took(30_000.0)
    assert not said
    for _ in range(300):
        clock.advance(0.1)
        slowdown.took(2_000.0)
    (line,) = said
    assert "slowed to 2,000 tokens/s from 30,000" in line and "execution.threads=one" in line
    assert build_config(overrides=["execution.threads=one"]).execution.threads == "one"


def test_a_run_that_is_slow_from_its_start_is_held_against_the_probe() -> None:
    said, clock = list[str](), Clock()
    slowdown = Slowdown(said.append, 30_000.0, clock.perf_counter)
    for _ in range(300):
        clock.advance(0.1)
        slowdown.took(2_000.0)
    assert len(said) == 1 and "slowed to 2,000 tokens/s from 30,000" in said[0]


@settings(max_examples=50, deadline=None)
@given(speeds=st.lists(st.floats(13_000.0, 30_000.0), max_size=400))
def test_ordinary_swings_say_nothing(speeds: list[float]) -> None:
    said, clock = list[str](), Clock()
    slowdown = Slowdown(said.append, clock=clock.perf_counter)
    for speed in speeds:
        clock.advance(1.0)
        slowdown.took(speed)
    assert not said


def test_a_run_that_becomes_slow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    monkeypatch.setattr("hairpin.training.slowdown._PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("hairpin.training.slowdown._UPDATES", 3)
    step = Stepper.step

    def slower(self: Stepper, *batch: Any, **rest: Any) -> Any:
        if rest["update"] >= 10 and rest.get("tokens"):  # not in the probe
            import time

            time.sleep(0.15)
        return step(self, *batch, **rest)

    monkeypatch.setattr(Stepper, "step", slower)
    watcher = Watching()
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run",
        settings=tiny(train__updates=20, train__epochs=None), watcher=watcher,
    )  # fmt: skip
    assert len(of_kind(run.record(), "update")) == 20
    assert len([line for line in watcher.notices if "slowed" in line]) == 1
