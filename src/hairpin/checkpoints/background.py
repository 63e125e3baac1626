"""Background work: one piece at a time, in a thread of its own."""

import threading
from collections.abc import Callable


class Background:
    """Run work while its owner continues; the owner's next call raises the work's exception."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin work once the work before it is done."""
        self.finish()
        # A daemon: an aborted process does not wait for it, and half a checkpoint does not count.
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the exception of finished work, if any; never wait."""
        if self._thread and not self._thread.is_alive():
            self.finish()

    def finish(self) -> None:
        """Wait until no work is running; raise its exception."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self._failure = failure
