"""Who is shown what a run does: a terminal, a notebook, a program, or nobody."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hairpin.errors import HairpinError, one_line
from hairpin.runs.events import Event


class Watcher(Protocol):
    """Is told of everything that people may want to see."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Preparation has come to `done` of `total` bytes; a total of 0 is not known, and 0 of 0
        is something that has no size.
        """

    def notice(self, line: str) -> None:
        """Something that people should read."""

    def begin(self, path: Path) -> None:
        """The run at `path` begins or goes on."""

    def show(self, event: Event) -> None:
        """The next event of the run."""

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """The run at `path` is finished; its summary in lines."""

    def close(self) -> None:
        """Whatever is live comes off the screen."""


class Quiet:
    """A watcher that shows nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def notice(self, line: str) -> None:
        """Nothing."""

    def begin(self, path: Path) -> None:
        """Nothing."""

    def show(self, event: Event) -> None:
        """Nothing."""

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Guarded:
    """A watcher that does not end what it watches: where it fails, it is closed and never called
    again, a line on standard error says so, and `failure` says why.

    What is raised to stop a run still does:

    - What is no `Exception`: KeyboardInterrupt, SystemExit.
    - All but OSError from a watcher that somebody wrote: to stop a run is its right (an experiment
      stops one that diverges so), and a mistake in it is its author's to see. An OSError is output
      that has gone, and stops nothing.

    From hairpin's own displays, whose `only_shows` is true, no `Exception` comes through.

    Args:
        watcher: what is told.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._fatal = () if getattr(watcher, "only_shows", False) else (Exception,)
        self.failure: str | None = None

    def stage(self, name: str, done: int, total: int) -> None:
        self._tell(lambda: self._watcher.stage(name, done, total))

    def notice(self, line: str) -> None:
        self._tell(lambda: self._watcher.notice(line))

    def begin(self, path: Path) -> None:
        self._tell(lambda: self._watcher.begin(path))

    def show(self, event: Event) -> None:
        self._tell(lambda: self._watcher.show(event))

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        self._tell(lambda: self._watcher.finish(path, summary))

    def close(self) -> None:
        self._tell(self._watcher.close)

    def _tell(self, call: Callable[[], None]) -> None:
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
        with suppress(Exception):  # it may be gone as well, or never have been there
            sys.stderr.write(f"hairpin: {self.failure}; going on without it\n")
            sys.stderr.flush()


def guarded(watcher: Watcher) -> Guarded:
    """The watcher, so that it cannot end what it watches."""
    return watcher if isinstance(watcher, Guarded) else Guarded(watcher)


def reason_of(error: Exception) -> str:
    """An error in a line: an error of ours or of the system by its words, another by its kind."""
    if isinstance(error, HairpinError):
        return "; ".join(error.problems)
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return one_line(f"{type(error).__name__}: {error}")
