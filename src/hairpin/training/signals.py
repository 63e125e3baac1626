"""Ctrl-C and SIGTERM: a wish to stop that the loop looks at where stopping is safe."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PATIENCE = 2  # signals; the next one leaves at once


class StopRequest:
    """Whether somebody asked for the end, and by which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._received = 0

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.signal_number is not None

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM are noted for the loop to see. A second one changes nothing:
        clusters send both, and the last updates are being saved. A third raises at once.

        Only the main thread may set handlers; in any other the signals are left as they are.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._note) for number in numbers}
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
