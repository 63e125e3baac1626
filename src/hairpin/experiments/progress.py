"""Display protocol of an experiment."""

from dataclasses import dataclass, field
from typing import Protocol

from hairpin.runs.watcher import Quiet


class Progress(Protocol):
    """Display of an experiment."""

    def notice(self, line: str) -> None:
        """Show a line that users should read."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Show that `done` of `total` updates of the experiment are done."""


class NoProgress:
    """Shows nothing."""

    def notice(self, line: str) -> None:
        """Ignore it."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class Preparing(Quiet):
    """Forwards the messages of preparation."""

    progress: Progress = field(default_factory=NoProgress)

    def stage(self, name: str, done: int, total: int) -> None:
        self.progress.advance(name, done, total, "")

    def notice(self, line: str) -> None:
        self.progress.notice(line)
