"""Console that prints text verbatim, a run's progress in numbers, and what is live on a terminal: a
bar, and stages that take long.
"""

import math
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hairpin.reports.formats import (
    format_bytes,
    format_duration,
    format_loss,
    format_lr,
    format_norm,
)
from hairpin.runs import events

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BEFORE_STAGES = 0.5
_SECONDS_BEFORE_A_LINE = 0.9  # of a stage that reports no progress
# The loss of the last update has a weight of 5%: the average covers about 20 updates.
_SMOOTHING = 0.95


class _PlainConsole(Console):
    """A console that parses no markup, highlights or emoji: names and paths come from elsewhere."""

    def __init__(self, *, on_stderr: bool, interactive: bool | None) -> None:
        super().__init__(
            stderr=on_stderr,
            force_interactive=interactive,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def on_broken_pipe(self) -> None:
        """Raise the error, where rich would exit the program."""
        raise  # noqa: PLE0704 - rich calls this where it has caught it


def standard_console(*, on_stderr: bool = False) -> Console:
    """Return a console on standard output or standard error. FORCE_COLOR never makes it treat a
    pipe or a file as a terminal.

    NO_COLOR is honoured.
    """
    stream = sys.stderr if on_stderr else sys.stdout
    return _PlainConsole(on_stderr=on_stderr, interactive=None if is_terminal(stream) else False)


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if the stream is an open terminal; None stands for a missing stream."""
    with suppress(OSError, ValueError, AttributeError):  # a program's own stream may lack these
        return stream is not None and stream.isatty()
    return False


class LiveDisplay:
    """Base of displays that may have a live bar on a console, removed when their block is left."""

    def __init__(self, quiet: bool, console: Console | None, clock: Callable[[], float]) -> None:
        self._quiet = quiet
        self._console = console or standard_console()
        self._clock = clock
        self._live: SteadyLive | None = None
        self._last_line_time = -math.inf
        self._lock = threading.RLock()
        self._stage = ""
        self._timer: threading.Timer | None = None
        self._failure: Exception | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar; what was printed above it stays."""
        self._begin_stage("")
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def _raise_failure(self) -> None:
        """Raise an error that occurred in the thread that draws the bar."""
        failure = self._failure or (self._live.failure if self._live else None)
        if failure:
            raise failure

    def _begin_stage(self, stage: str) -> None:
        """Begin another stage; if it lasts longer than a moment, `_show_late` is called."""
        with self._lock:
            if stage == self._stage:
                return
            self._stage = stage
            if self._timer:
                self._timer.cancel()
                self._timer = None
            if stage and not self._quiet:
                seconds = SECONDS_BEFORE_STAGES
                seconds = seconds if self._console.is_interactive else _SECONDS_BEFORE_A_LINE
                self._timer = threading.Timer(seconds, self._late, (stage,))
                self._timer.daemon = True
                self._timer.start()

    def _late(self, stage: str) -> None:
        with self._lock:
            if stage != self._stage:
                return
            try:
                self._show_late(stage)
            except Exception as error:
                self._failure = error

    def _show_late(self, stage: str) -> None:
        """Show a stage that has reported no progress for a while."""
        if not self._console.is_interactive:
            self._last_line_time = self._clock()
            self._console.print(Text(stage_words(stage, 0, 0)), soft_wrap=True)

    def _show_live(self, renderable: RenderableType) -> None:
        if self._live is None:
            self._live = SteadyLive(renderable, self._console)
            self._live.start(refresh=True)
        else:
            self._live.update(renderable)


class SteadyLive(Live):
    """A live display on a terminal. If drawing fails in its thread, the error is kept in `failure`
    and no traceback is printed.
    """

    def __init__(self, renderable: RenderableType, console: Console) -> None:
        # Other output appears above the bar, but is left alone if it is redirected to a file.
        super().__init__(
            renderable,
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=is_terminal(sys.stderr),
        )
        self.failure: Exception | None = None

    def refresh(self) -> None:
        """Draw the display."""
        try:
            super().refresh()
        except Exception as error:
            if threading.current_thread() is not self._refresh_thread:
                raise
            self.failure = error


class Progress:
    """Progress of the whole run, computed from the updates of this process.

    Args:
        clock: returns seconds since an arbitrary moment.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._loss_sum = self._loss_weight = 0.0
        self.start_time = clock()
        self._update_time = self.start_time
        self._seconds_each = math.nan
        self.update: events.Update | None = None
        self.done = 0  # updates of the whole run
        self.counted = "tok"  # the unit that the tokens of an update are counted in

    def add(self, update: events.Update) -> None:
        """Record an update that has just been made."""
        now = self._clock()
        if self._first is None or update.update < self._first[0]:
            self._first = (update.update, now)
        # Time left is computed from this process alone: an earlier process says nothing about this
        # machine. The time of evaluations and checkpoints between updates is included.
        made = update.update - self._first[0]
        self._seconds_each = (now - self._first[1]) / made if made else math.nan
        if math.isfinite(update.loss) and not update.skipped:
            self._loss_sum = _SMOOTHING * self._loss_sum + (1 - _SMOOTHING) * update.loss
            self._loss_weight = _SMOOTHING * self._loss_weight + (1 - _SMOOTHING)
        self._update_time = now
        self.update = update
        self.done = update.update + 1

    @property
    def elapsed_seconds(self) -> float:
        """The time since the display began."""
        return self._clock() - self.start_time

    def seconds_left(self, updates: int | None) -> float:
        """Return the time until `updates` are done, counting down between updates; NaN: unknown."""
        if self.update is None or updates is None or math.isnan(self._seconds_each):
            return math.nan
        to_go = max(0, updates - self.done)
        since_seconds = self._clock() - self._update_time
        return max(0.0, to_go * self._seconds_each - since_seconds)

    def figures(self) -> list[str]:
        """Return the smoothed loss, lr, gradient norm and speed as texts."""
        if self.update is None:
            return []
        loss = self.update.loss
        if math.isfinite(loss) and self._loss_weight:  # none counted yet, if all were skipped
            loss = self._loss_sum / self._loss_weight
        clipped = " (clipped)" if self.update.clipped else ""
        return [
            f"loss {format_loss(loss)}",
            f"lr {format_lr(self.update.lr)}",
            f"grad {format_norm(self.update.grad_norm)}{clipped}",
            f"{self.update.tokens_per_second:,.0f} {self.counted}/s",
        ]

    def position(self, updates: int | None) -> str:
        """Describe how many updates are done, and of how many."""
        return f"update {self.done:,}" + ("" if updates is None else f"/{updates:,}")

    def line(self, updates: int | None) -> str:
        """Describe the progress in one line, for a log."""
        left = self.seconds_left(updates)
        time_left = [f"{format_duration(left)} left"] if math.isfinite(left) else []
        return "  ".join([self.position(updates), *self.figures(), *time_left])


class Bar:
    """The live bar: position and time left above, the figures of the last update below.

    Args:
        progress: the run's progress.
        updates: returns the run's length, or None if unknown.
        doing: returns what the run does other than updates; empty: nothing.
    """

    def __init__(
        self, progress: Progress, updates: Callable[[], int | None], doing: Callable[[], str]
    ) -> None:
        self._progress = progress
        self._updates = updates
        self._doing = doing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress, updates = self._progress, self._updates()
        left = progress.seconds_left(updates)
        time_left = f" {format_duration(left)} left" if math.isfinite(left) else " starting"
        time_left = f" {self._doing()} …" if self._doing() else time_left
        bar = ProgressBar(updates, progress.done) if updates else ProgressBar(None, pulse=True)
        yield row(f"{progress.position(updates)} ", bar, time_left)
        elapsed = f"{format_duration(progress.elapsed_seconds)} elapsed"
        figures = "   ".join([*progress.figures(), elapsed])
        yield Text(figures, "dim", no_wrap=True, overflow="crop")


def row(before: str, bar: ProgressBar, after: str) -> Table:
    """Lay out a bar between two texts."""
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    table.add_row(Text(before), bar, Text(after))
    return table


def stage_words(stage: str, done: int, total: int) -> str:
    """Describe a stage in a line, with the amount done and the total if it has a size."""
    if not done and not total:
        return f"{stage} …"
    return f"{stage}: {amount_of(done, total)}"


def amount_of(done: int, total: int) -> str:
    """Describe the bytes done and their total in words; a total of 0 means unknown."""
    return format_bytes(done) + (f" of {format_bytes(total)}" if total else "")
