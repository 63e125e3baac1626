"""Threads that sleep without spinning while other programs want this machine's cores.

Spinning pays where nothing else runs, and costs most where something does. GNU's OpenMP library
reads once, as it loads, how long to spin; but where a process has more OpenMP threads than
there are processors, it spins a hundred turns and no more (its manual, GOMP_SPINCOUNT). So while
others take cores from this process, which the system counts as involuntary context switches, a
second team of idle threads is kept. No sum is computed differently, so no bit
changes; with another OpenMP library nothing changes at all.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hairpin.system.spinning import spins_by_default

_POLL_SECONDS = 0.5
# Involuntary switches a second. On two cores training alone showed 10 to 44, with one or two busy
# processes 500 to 1,250, and 5,000 and more with threads that sleep at once.
_BUSY, _QUIET = 150.0, 80.0
_QUIET_POLLS = 6  # before threads spin again
_PARALLEL_NUMBERS = 2**20  # enough for all threads to take part


class OtherPrograms:
    """Monitor that checks for other programs from time to time.

    Args:
        switches: involuntary context switches of this process so far.
        clock: seconds from an arbitrary moment.
    """

    def __init__(
        self,
        switches: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = switches or _involuntary_switches
        self._clock = clock
        self._seen, self._looked = self._count(), clock()
        self._quiet_looks = 0
        self._teams: list[_IdleThreads] = []

    @property
    def are_busy(self) -> bool:
        """True if threads sleep without spinning now."""
        return bool(self._teams)

    def look(self) -> None:
        """Check if others take cores from this process, and have threads sleep or spin."""
        now = self._clock()
        elapsed = now - self._looked
        if elapsed < _POLL_SECONDS:
            return
        count = self._count()
        rate = (count - self._seen) / elapsed
        self._seen, self._looked = count, now
        self._quiet_looks = self._quiet_looks + 1 if rate < _QUIET else 0
        if rate > _BUSY and not self._teams:
            self._teams = [_IdleThreads() for _ in range(_thread_teams_needed())]
        elif self._quiet_looks >= _QUIET_POLLS:
            self.leave()

    def leave(self) -> None:
        """Have threads spin again."""
        for team in self._teams:
            team.end()
        self._teams = []


def may_share_cores(device: str) -> bool:
    """Return True if this applies: several threads on a CPU, and a user who has not set how they
    wait.
    """
    return (
        device == "cpu"
        and sys.platform != "win32"
        and torch.get_num_threads() > 1
        and spins_by_default()
    )


class _IdleThreads:
    """Idle OpenMP threads; they belong to a waiting thread."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        threading.Thread(target=self._hold, daemon=True).start()

    def end(self) -> None:
        self._is_over.set()

    def _hold(self) -> None:
        torch.zeros(_PARALLEL_NUMBERS).add_(1.0)  # which makes its team
        self._is_over.wait()


def _thread_teams_needed() -> int:
    """Return the number of teams needed to have more threads than processors."""
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    in_team = torch.get_num_threads() - 1  # the first thread of each is counted once, for all
    return max(1, (processors - 1) // in_team)


def _involuntary_switches() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@contextmanager
def yielding_to_other_programs(device: str) -> Iterator[Callable[[], None]]:
    """Watch for other programs inside the block; yield the function to call after each update."""
    if not may_share_cores(device):
        yield lambda: None
        return
    neighbours = OtherPrograms()
    try:
        yield neighbours.look
    finally:
        neighbours.leave()
