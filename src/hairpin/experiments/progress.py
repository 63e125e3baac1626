"""Who is shown what an experiment does."""

from dataclasses import dataclass, field
from typing import Protocol

from hairpin.watch import Quiet


class Progress(Protocol):
    """Is shown what an experiment does."""

    def notice(self, line: str) -> None:
        """Something that people should read."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """The whole experiment has come to `done` of `total` updates."""


class NoProgress:
    """Shows nothing."""

    def notice(self, line: str) -> None:
        """Nothing."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Preparing(Quiet):
    """Passes on what preparation says."""

    progress: Progress = field(default_factory=NoProgress)

    def stage(self, name: str, done: int, total: int) -> None:
        self.progress.advance(name, done, total, "")

    def notice(self, line: str) -> None:
        self.progress.notice(line)
