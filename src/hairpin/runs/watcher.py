"""Display protocol of a run: a terminal, a notebook, a program, or none."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hairpin.errors import HairpinError, one_line
from hairpin.runs.events import Event


class Watcher(Protocol):
    """Receives everything that people may want to see."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of a stage of preparation are done; a total of 0 means
        unknown, and 0 of 0 a stage without a size.
        """

    def notice(self, line: str) -> None:
        """Show a line that people should read."""

    def begin(self, path: Path) -> None:
        """Show that the run at `path` begins or resumes."""

    def show(self, event: Event) -> None:
        """Show the next event of the run."""

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Show the summary of the finished run at `path`, in lines."""

    def close(self) -> None:
        """Remove everything live from the screen."""


class Quiet:
    """A watcher that shows nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Do nothing."""

    def notice(self, line: str) -> None:
        """Do nothing."""

    def begin(self, path: Path) -> None:
        """Do nothing."""

    def show(self, event: Event) -> None:
        """Do nothing."""

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Guarded:
    """A watcher whose failure does not end the run: if it fails, it is closed and never called
    again, a line on standard error reports it, and `failure` holds the reason.

    Exceptions that are meant to stop a run still pass through:

    - Those that are not an `Exception`: KeyboardInterrupt, SystemExit.
    - All but OSError from a user's own watcher: it may stop a run (an experiment stops a diverging
      one this way), and its author should see its bugs. An OSError means that output was lost, and
      stops nothing.

    From hairpin's own displays, whose `only_shows` is true, no `Exception` passes through.

    Args:
        watcher: the watcher to call.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._fatal = () if getattr(watcher, "only_shows", False) else (Exception,)
        self.failure: str | None = None

    def stage(self, name: str, done: int, total: int) -> None:
        self._call(lambda: self._watcher.stage(name, done, total))

    def notice(self, line: str) -> None:
        self._call(lambda: self._watcher.notice(line))

    def begin(self, path: Path) -> None:
        self._call(lambda: self._watcher.begin(path))

    def show(self, event: Event) -> None:
        self._call(lambda: self._watcher.show(event))

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        self._call(lambda: self._watcher.finish(path, summary))

    def close(self) -> None:
        self._call(self._watcher.close)

    def _call(self, call: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            call()
        except OSError as error:
            self._give_up(error)
        except self._fatal:
            raise
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.failure = f"display: {reason_of(error)}"
        with suppress(Exception):
            self._watcher.close()
        with suppress(Exception):  # standard error may be closed too, or may never have existed
            sys.stderr.write(f"hairpin: {self.failure}; continuing without it\n")
            sys.stderr.flush()


def guarded(watcher: Watcher) -> Guarded:
    """Wrap the watcher so that it cannot end the run."""
    return watcher if isinstance(watcher, Guarded) else Guarded(watcher)


def reason_of(error: Exception) -> str:
    """Describe an error in a line: ours and the system's by message, others with their type."""
    if isinstance(error, HairpinError):
        return "; ".join(error.problems)
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return one_line(f"{type(error).__name__}: {error}")
