"""Ctrl-C, SIGTERM, a closed terminal: a wish to stop that the loop looks at where it is safe.

Of several processes each may be told at another moment, or one alone: they agree on it once in an
update, and none stops before that.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed, or the connection to it. Windows has none.
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_PATIENCE = 2  # signals; the next one leaves at once


class StopRequest:
    """Whether somebody asked for the end, and by which signal."""

    def __init__(self, *, alone: bool = True) -> None:
        self.signal_number: int | None = None
        self._received = 0
        self._agreed = False
        self._alone = alone

    @property
    def requested(self) -> bool:
        """True from the first signal on; with others, from when they agreed on it."""
        return self._agreed or (self._alone and self.signal_number is not None)

    def noted(self) -> tuple[int, ...]:
        """How often each signal was noted here, 0 or 1: what the others are told."""
        return tuple(int(self.signal_number == number) for number in _SIGNALS)

    def agree(self, noted: Sequence[int]) -> None:
        """Take in the sums of what all have noted."""
        told = [number for number, count in zip(_SIGNALS, noted, strict=True) if count]
        if told:
            self._agreed = True
            self.signal_number = self.signal_number or told[0]

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Inside, SIGINT, SIGTERM and SIGHUP are noted for the loop to see. A second one changes
        nothing: clusters send two, and the last updates are being saved. A third raises at once.

        One that is ignored stays so: `nohup`, and a script's jobs in the background, want that.
        Only the main thread may set handlers; in any other the signals are left as they are.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received += 1
        if self._received > _PATIENCE:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.signal_number = self.signal_number or number
