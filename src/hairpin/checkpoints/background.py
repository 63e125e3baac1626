"""One piece of work at a time in a thread of its own."""

import threading
from collections.abc import Callable


class Background:
    """Does work while its owner goes on; what the work raises, the owner's next call raises."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin, once what was begun before is done."""
        self.finish()
        # A daemon: who leaves in a hurry does not wait for it, and half a checkpoint is none.
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if something has; never wait."""
        if self._thread and not self._thread.is_alive():
            self.finish()

    def finish(self) -> None:
        """Wait until nothing is under way; raise what went wrong."""
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
