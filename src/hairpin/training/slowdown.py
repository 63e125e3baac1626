"""Notice, given once, that training has become far slower than this process has seen it."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median

_UPDATES = 20  # median speed over these; evaluations and checkpoints do not count
_FAR_BELOW = 0.4
_PATIENCE_SECONDS = 10.0  # a starting program, or a short backup, is not reported


class Slowdown:
    """Monitor of the speed of updates.

    Args:
        notice: called once, with a line that says that it fell, and what to do about it.
        measured: tokens a second measured before the start.
        clock: seconds from an arbitrary moment.
    """

    def __init__(
        self,
        notice: Callable[[str], None],
        measured: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notice = notice
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=_UPDATES)
        self._best = measured
        self._slow_since: float | None = None
        self._has_said = False

    def took(self, tokens_per_second: float) -> None:
        """Count the speed of the next update."""
        self._recent.append(tokens_per_second)
        if self._has_said or len(self._recent) < _UPDATES:
            return
        speed = median(self._recent)
        self._best = max(self._best, speed)
        if speed > _FAR_BELOW * self._best:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = self._clock()
        elif self._clock() - self._slow_since >= _PATIENCE_SECONDS:
            self._has_said = True
            self._notice(
                f"training has slowed to {speed:,.0f} tokens/s from {self._best:,.0f}: other "
                "programs use this machine's cores; stop them, or stop this run and resume it "
                "later (to run next to other programs from the start: --set execution.threads=one)"
            )
