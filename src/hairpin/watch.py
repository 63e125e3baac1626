"""Who is shown what a run does: a terminal, a notebook, a program, or nobody."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hairpin.runs.events import Event


class Watcher(Protocol):
    """Is told of everything that people may want to see."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Preparation has come to `done` of `total` bytes."""

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
