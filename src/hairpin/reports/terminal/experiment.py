"""One progress bar for a whole experiment, on standard error."""

from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hairpin.reports.formats import safe_text
from hairpin.reports.terminal.live import standard_console


class ExperimentBar:
    """A bar with the finished runs and the time left; without a terminal, only the notices."""

    def __init__(self) -> None:
        self._console = standard_console(on_stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[runs]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, runs="")

    def notice(self, line: str) -> None:
        """Print a line that people should read, above the bar."""
        self._console.print(safe_text(line), soft_wrap=True)

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Show that `done` of `total` of the whole experiment is done."""
        self._bar.update(
            self._task,
            description=safe_text(stage),
            completed=done,
            total=total or None,
            runs=safe_text(runs),
        )

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        """Remove the bar from the screen."""
        self._bar.__exit__(None, None, None)
