"""Display of a running run: a live bar on a terminal, plain lines anywhere else.

    Display     the events of a run
    Stages      the preparation before it

Generated text is shown as text whatever it contains: markup, escape sequences and characters that
change the direction of writing cannot affect the terminal.
"""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from hairpin.reports.event_text import (
    end_text,
    evaluation_fields,
    incident_text,
    new_length_text,
    resume_text,
)
from hairpin.reports.formats import format_updates, safe_text
from hairpin.reports.terminal.live import (
    SECONDS_BEFORE_STAGES,
    SECONDS_BETWEEN_LINES,
    Bar,
    LiveDisplay,
    Progress,
    amount_of,
    row,
    stage_words,
    standard_console,
)
from hairpin.runs import events

__all__ = ["Display", "Stages", "standard_console"]


class Display(LiveDisplay):
    """Show the events of one process of a run.

        with Display(updates=2400) as display:
            for event in loop:
                display.show(event)

    Args:
        updates: updates of the whole run; None: unknown until an event tells.
        quiet: show nothing at all.
        console: the console to print to; None: standard output.
        clock: returns seconds since an arbitrary moment.
    """

    def __init__(
        self,
        updates: int | None = None,
        *,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(quiet, console, clock)
        self._updates = updates
        self._progress = Progress(clock)

    def __enter__(self) -> Self:
        """Start the clock, and the bar if the console is a terminal."""
        self._progress.start_time = self._clock()
        if self._console.is_interactive and not self._quiet:
            self._show_live(Bar(self._progress, lambda: self._updates, lambda: self._stage))
        return self

    def stage(self, name: str) -> None:
        """Show that the run is doing something other than updates, until its next event."""
        self._begin_stage(name)

    def show(self, event: events.Event) -> None:
        """Show an event according to its kind; kinds that need no words show nothing."""
        self._raise_failure()
        self._begin_stage("")
        match event:
            case events.Update():
                self._progress.add(event)
                self._show_progress_line()
            case events.Evaluation():
                self._show_evaluation(event)
            case events.Sample():
                self._show_sample(event)
            case events.Plan():
                self._updates = event.updates
                self._count(event.labels)
            case events.Correction() | events.Extend():
                self._updates = event.updates
                words = new_length_text(event)
                self._line(f"after {format_updates(event.update)}: {words}")
            case events.Incident():
                self._line(f"update {event.update:,}: {incident_text(event)}", "yellow")
            case events.Resume():
                self._updates = event.updates or self._updates
                self._progress.done = event.update
                self._count(event.labels)
                self._line(resume_text(event), "bold")
            case events.End():
                is_good = event.status == "finished"
                self._line(end_text(event), "bold green" if is_good else "bold red")

    def _count(self, labels: tuple[str, ...] | None) -> None:
        """Set the unit of speed: examples for a classifier, which has one target per example."""
        self._progress.counted = "examples" if labels else "tok"

    def _line(self, words: str, style: str = "") -> None:
        """Print a line, of which nothing can act on the terminal."""
        self._print(Text(safe_text(words, self._console.encoding), style))

    def _print(self, text: Text) -> None:
        if not self._quiet:
            # Without soft_wrap, rich would break the lines of a log at 80 columns.
            self._console.print(text, soft_wrap=True)

    def _show_progress_line(self) -> None:
        """Print a line if the console is not a terminal and the last line was long enough ago."""
        now = self._clock()
        if self._live is None and now - self._last_line_time >= SECONDS_BETWEEN_LINES:
            self._last_line_time = now
            self._print(Text(self._progress.line(self._updates)))

    def _show_evaluation(self, event: events.Evaluation) -> None:
        """Print the results, with the place and the validation loss in bold."""
        text = Text("  ").join(
            Text(safe_text(words, self._console.encoding), "bold" if at in (0, 2) else "")
            for at, words in enumerate(evaluation_fields(event))
        )
        self._print(text)

    def _show_sample(self, event: events.Sample) -> None:
        encoding = self._console.encoding
        prompt, text = safe_text(event.prompt, encoding), safe_text(event.text, encoding)
        words = Text.assemble((prompt, "dim"), text)
        words.rstrip()
        if self._live is not None:
            self._console.print(Padding(words, (0, 2, 0, 4)))
            return
        for line in words.split("\n", allow_blank=True):
            self._print(Text("    ") + line)


class Stages(LiveDisplay):
    """Show the progress of preparation, as an `on_progress(stage, done_bytes, total_bytes)`.

    Stages that take less than half a second are not shown.

        with Stages() as on_progress:
            prepare(texts, on_progress)

    Args:
        quiet: show nothing at all.
        console: the console to print to; None: standard output.
        clock: returns seconds since an arbitrary moment.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(quiet, console, clock)
        self._start_time = clock()

    def __enter__(self) -> Self:
        """Start the clock."""
        self._start_time = self._clock()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of `stage` are done; a total of 0 means unknown."""
        self._raise_failure()
        self._begin_stage(stage)
        now = self._clock()
        if self._quiet or now - self._start_time < SECONDS_BEFORE_STAGES:
            return
        with self._lock:
            if self._console.is_interactive:
                self._show_bar(stage, done, total)
            elif (done or total) and now - self._last_line_time >= SECONDS_BETWEEN_LINES:
                self._last_line_time = now
                self._console.print(Text(stage_words(stage, done, total)), soft_wrap=True)

    def _show_late(self, stage: str) -> None:
        super()._show_late(stage)
        if self._console.is_interactive and self._live is None:
            self._show_bar(stage, 0, 0)

    def _show_bar(self, stage: str, done: int, total: int) -> None:
        amount = f" {amount_of(done, total)}" if done or total else " …"
        self._show_live(row(f"{stage} ", ProgressBar(total or None, done), amount))
