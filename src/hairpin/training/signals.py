"""Ctrl-C, SIGTERM, a closed terminal: a stop request that the loop checks where it is safe.

Several processes may be signalled at different moments, or only one of them: they agree once in an
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
_FORCE_AFTER = 2  # signals; the next one exits at once


class StopRequest:
    """Request to stop, with the signal that made it."""

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
        """The count of each signal noted here, 0 or 1, to share with other processes."""
        return tuple(int(self.signal_number == number) for number in _SIGNALS)

    def agree(self, noted: Sequence[int]) -> None:
        """Apply the sums of all processes' counts."""
        told = [number for number, count in zip(_SIGNALS, noted, strict=True) if count]
        if told:
            self._agreed = True
            self.signal_number = self.signal_number or told[0]

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Note SIGINT, SIGTERM and SIGHUP inside the block for the loop. A second one changes
        nothing: clusters send two, and the last updates are being saved. A third raises at once.

        An ignored signal stays ignored: `nohup`, and a script's jobs in the background, want that.
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
        if self._received > _FORCE_AFTER:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.signal_number = self.signal_number or number
