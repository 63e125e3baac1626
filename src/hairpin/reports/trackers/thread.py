"""One tracker in a thread of its own, which a run neither waits for nor fails with.

    follower.tell(Opening(...)) … follower.tell(event) … follower.close()

The tracker receives the content of the record: everything it lacks when it begins, and nothing
twice. A tool that can discard points does so when the record is cut back; for one that cannot, the
points of updates that may be rewound are held back until the next checkpoint.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping

from hairpin.errors import is_secret, one_line
from hairpin.plugins.files import place_of
from hairpin.reports.trackers.feed import Feed, GivenUpError, Kept, Opening
from hairpin.reports.trackers.tracker import Tracker
from hairpin.runs import events

MAX_WAITING = 20_000  # events
MAX_CALL_SECONDS = 60.0
MAX_END_SECONDS = 60.0
_BATCH_SECONDS = 1.0
_MAX_IN_BATCH = 5000
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_LONGEST_REASON = 200


class Follower:
    """Feed one tracker.

    Args:
        tool: the tool's name.
        make: returns the tracker; may fail.
        kept: the state that the run's folder holds about it.
        summary: returns the run's outcome; called at its end.
        notice: called once, with the reason, if the tracker is given up, and with what the tracker
            says.
    """

    def __init__(
        self,
        tool: str,
        make: Callable[[], Tracker],
        kept: Kept,
        summary: Callable[[], Mapping[str, float]],
        notice: Callable[[str], None],
    ) -> None:
        self._tool = tool
        self._kept = kept
        self._notice = notice
        self._waiting: queue.Queue[Opening | events.Event] = queue.Queue(MAX_WAITING)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._failure: str | None = None
        self._is_over = False
        self._feed = Feed(tool, make, kept, summary, lambda: self._is_over)
        self._thread = threading.Thread(target=self._work, name=f"track-{tool}", daemon=True)
        self._thread.start()

    def tell(self, what: Opening | events.Event) -> None:
        """Queue an event; never waits, never raises."""
        self._look()
        if self._is_over:
            return
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            self._give_up(f"it is {MAX_WAITING:,} events behind")

    def say(self, line: str) -> None:
        """Have a line told, from the tracker's thread: it is, when the run next looks."""
        self._said.put(line)

    def close(self) -> None:
        """Wait until the tracker has everything, but not for long. The last event was an `End`."""
        end_time = time.monotonic() + MAX_END_SECONDS
        while not self._is_over and self._thread.is_alive() and time.monotonic() < end_time:
            self._thread.join(0.1)
            self._look()
        self._look()
        if not self._is_over and self._thread.is_alive():
            self._give_up(f"it took more than {MAX_END_SECONDS:g} s at the end")
        self._is_over = True

    def _look(self) -> None:
        """Tell what it said; give the tracker up if it failed, or does not return."""
        while not self._said.empty():
            self._notice(f"{self._tool}: {self._said.get()}")
        since = self._feed.busy_since
        if self._failure is not None:
            self._give_up(self._failure)
        elif since is not None and time.monotonic() - since > MAX_CALL_SECONDS:
            self._give_up(f"a call took more than {MAX_CALL_SECONDS:g} s")

    def _give_up(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._notice(f"{self._tool}: {reason}; the run continues without it")

    def _work(self) -> None:
        """Feed the tracker in its own thread."""
        try:
            while not self._is_over:
                if self._feed.take(self._batch()):
                    return
        except GivenUpError:
            return
        except BaseException as error:  # a tool may even try to exit the process
            self._failure = reason_of(error)

    def _batch(self) -> list[Opening | events.Event]:
        """Collect the events of about a second."""
        batch = [self._waiting.get()]
        end_time = time.monotonic() + _BATCH_SECONDS
        while not isinstance(batch[-1], Opening | events.End) and len(batch) < _MAX_IN_BATCH:
            try:
                batch.append(self._waiting.get(timeout=max(0.0, end_time - time.monotonic())))
            except queue.Empty:
                break
        return batch


def reason_of(error: BaseException) -> str:
    """Return the error's type and its first line, after file and line if a plugin raised it.

    Passwords in addresses and the values of environment variables that hold secrets are left out.
    """
    words = str(error).strip()
    for name, value in os.environ.items():
        if value and is_secret(name):
            words = words.replace(value, f"({name})")
    words = _CREDENTIALS.sub("", words)
    first = words.splitlines()[0][:_LONGEST_REASON] if words else ""
    place = place_of(error)
    parts = [*([place] if place else []), type(error).__name__, *([first] if first else [])]
    return one_line(": ".join(parts))
