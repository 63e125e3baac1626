"""Other programs on the same machine: noticed, and no bit of the run depends on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hairpin.system.spinning
from hairpin.machine import other_programs as module
from hairpin.machine.other_programs import (
    OtherPrograms,
    may_share_cores,
    yielding_to_other_programs,
)
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from helpers import assert_same_end, text_file, tiny


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads that wait as hairpin has said, whatever this machine and its user have."""
    for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    hairpin.system.spinning.limit_spinning()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Machine:
    """A clock, and a count of involuntary switches, that a test moves."""

    def __init__(self) -> None:
        self.now, self.switches = 0.0, 0

    def watch(self) -> OtherPrograms:
        return OtherPrograms(lambda: self.switches, lambda: self.now)

    def pass_(self, neighbours: OtherPrograms, seconds: float, rate: float) -> None:
        """Let updates of 50 ms go by at a rate of switches a second."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.switches += round(rate * 0.05)
            neighbours.look()


def test_threads_sleep_while_others_take_cores_and_spin_again_after_a_while(
    two_threads: None,
) -> None:
    machine = Machine()
    neighbours = machine.watch()
    machine.pass_(neighbours, 5.0, 0)
    assert not neighbours.are_busy
    seen = []
    for seconds, rate in ((1.1, 400), (2.0, 0), (3.0, 0)):
        machine.pass_(neighbours, seconds, rate)
        seen.append(neighbours.are_busy)
    assert seen == [True, True, False], "a pause of the other program is no end of it"


@settings(max_examples=40, deadline=None)
@given(rates=st.lists(st.sampled_from([0, 100, 400]), max_size=30))
def test_every_team_that_is_held_is_let_go(rates: list[int]) -> None:
    held: list[object] = []

    class Team:
        def __init__(self) -> None:
            held.append(self)

        def end(self) -> None:
            held.remove(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_IdleThreads", Team)
        patched.setattr(module, "_thread_teams_needed", lambda: 3)
        machine = Machine()
        neighbours = machine.watch()
        for rate in rates:
            machine.pass_(neighbours, 1.0, rate)
            assert len(held) == (3 if neighbours.are_busy else 0)
        neighbours.leave()
    assert not held


@pytest.mark.parametrize("processors", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("threads", [2, 3, 8, 64])
def test_with_its_teams_a_process_has_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(processors)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    teams = module._thread_teams_needed()
    assert 1 + (threads - 1) * (1 + teams) > processors


def test_the_users_way_of_waiting_stays(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_share_cores("cpu") and not may_share_cores("cuda")
    monkeypatch.setenv("GOMP_SPINCOUNT", "12345")
    assert not may_share_cores("cpu")
    monkeypatch.undo()
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert not may_share_cores("cpu")
    with yielding_to_other_programs("cpu") as look:
        look()


def test_neighbours_change_no_bit_of_a_run(
    two_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    text, asked = text_file(tmp_path), tiny(execution__threads="all")
    alone = hairpin.train(text, out=tmp_path / "alone", settings=asked, watcher=Quiet())
    counted: list[int] = []

    def switches() -> int:
        counted.append(1)
        return 10_000 * len(counted)

    monkeypatch.setattr(module, "_involuntary_switches", switches)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.0)
    beside = hairpin.train(text, out=tmp_path / "beside", settings=asked, watcher=Quiet())
    assert len(counted) > 10, "nobody looked"
    assert_same_end(alone, beside)
