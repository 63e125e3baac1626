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

from hairpin.reports.formats import (
    format_duration,
    format_loss,
    format_norm,
    format_updates,
    harmless,
    harmless_name,
)
from hairpin.reports.terminal.live import (
    SECONDS_BEFORE_STAGES,
    SECONDS_BETWEEN_LINES,
    Bar,
    Shown,
    amount_of,
    row,
    stage_words,
    standard_console,
)
from hairpin.reports.terminal.progress import Progress
from hairpin.runs import events

__all__ = ["Display", "Stages", "incident_text", "standard_console"]


class Display(Shown):
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
        self._require_whole()
        self._begin_stage("")
        match event:
            case events.Update():
                self._progress.add(event)
                self._show_progress_line()
            case events.Evaluation():
                self._print(_evaluation_text(event))
            case events.Sample():
                self._show_sample(event)
            case events.Plan():
                self._updates = event.updates
                self._count(event.labels)
            case events.Correction():
                self._updates = event.updates
                self._print(_correction_text(event))
            case events.Extend():
                self._updates = event.updates
                self._print(_extend_text(event))
            case events.Incident():
                self._print(incident_text(event, self._console.encoding))
            case events.Resume():
                self._updates = event.updates or self._updates
                self._progress.done = event.update
                self._count(event.labels)
                self._print(Text(f"going on after {format_updates(event.update)}", "bold"))
            case events.End():
                self._show_end(event)

    def _count(self, labels: tuple[str, ...] | None) -> None:
        """Set the unit of speed: examples for a classifier, which has one target per example."""
        self._progress.counted = "examples" if labels else "tok"

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

    def _show_sample(self, event: events.Sample) -> None:
        encoding = self._console.encoding
        prompt, text = harmless(event.prompt, encoding), harmless(event.text, encoding)
        words = Text.assemble((prompt, "dim"), text)
        words.rstrip()
        if self._live is not None:
            self._console.print(Padding(words, (0, 2, 0, 4)))
            return
        for line in words.split("\n", allow_blank=True):
            self._print(Text("    ") + line)

    def _show_end(self, event: events.End) -> None:
        took = (
            f"{event.status} after {format_updates(event.update)}, {format_duration(event.seconds)}"
        )
        style = "bold green" if event.status == "finished" else "bold red"
        if event.reason is not None:
            took += f": {harmless(event.reason, self._console.encoding)}"
        self._print(Text(took, style))


class Stages(Shown):
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
        self._require_whole()
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


def _evaluation_text(event: events.Evaluation) -> Text:
    text = Text.assemble(
        (f"evaluation after {format_updates(event.update)}", "bold"),
        f"  train {format_loss(event.train_loss)}  ",
        (f"validation {format_loss(event.val_loss)}", "bold"),
    )
    if event.val_bits_per_byte is not None:
        text.append(f"  {event.val_bits_per_byte:.3f} bits per byte")
    if event.val_accuracy is not None and event.train_accuracy is not None:
        text.append(f"  {event.val_accuracy:.1%} right ({event.train_accuracy:.1%} in training)")
    if event.sources:
        losses = [
            f"{harmless(name)} {format_loss(each['val_loss'])}"
            for name, each in event.sources.items()
        ]
        text.append(f"  ({', '.join(losses)})")
    return text


def incident_text(event: events.Incident, encoding: str) -> Text:
    """Return a line on what went wrong in an update and what was done about it."""
    reason = event.reason if isinstance(event, events.Skip | events.Rewind) else ""
    match event:
        case events.Rewind():
            done = (
                f"{reason}, back to the checkpoint after {format_updates(event.to_update)} and on "
                f"past {event.skipped_samples:,} samples"
            )
        case events.Skip():
            done = f"{reason}, skipped"
        case _:
            done = "spike"
    last = event.position + event.samples - 1
    return Text(
        f"update {event.update:,}: {done}  loss {format_loss(event.loss)}  "
        f"grad {format_norm(event.grad_norm)}, most in {event.parameter}; samples "
        f"{event.position:,} to {last:,}: {harmless(harmless_name(event.excerpt), encoding)}",
        "yellow",
    )


def _correction_text(event: events.Correction) -> Text:
    return Text(
        f"after {format_updates(event.update)}: the run is now {event.updates:,} updates long, not "
        f"{event.planned_updates:,}, to end inside its time budget"
    )


def _extend_text(event: events.Extend) -> Text:
    policy = f" ({event.policy})" if event.policy else ""
    return Text(
        f"after {format_updates(event.update)}: the run is now {event.updates:,} updates long, not "
        f"{event.planned_updates:,}{policy}"
    )
