"""What a run looks like in a notebook: one output that is kept up with it, and its plots below.

IPython is imported only where it is there already: in the notebook's own process.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

from hairpin.analysis.formats import (
    format_duration,
    format_loss,
    format_updates,
    harmless,
)
from hairpin.runs import events
from hairpin.runs.directory import RunDirectory
from hairpin.terminal.display import incident_text
from hairpin.terminal.live import stage_words
from hairpin.terminal.progress import Progress
from hairpin.terminal.watcher import plan_line

_SECONDS_BETWEEN = 0.5
_MOST_LINES = 12  # of evaluations and notices; the run's page has all
_PRE = '<pre style="white-space:pre-wrap;margin:0.3em 0">'


class _Output(Protocol):
    """A place in the notebook whose content can be replaced."""

    def update(self, content: Any) -> None: ...


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, not a terminal's IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """A watcher of runs: a bar with figures, the evaluations, the last sample, in one output.

    Args:
        clock: seconds from an arbitrary moment.
        show: puts HTML into a new output; None: IPython's display.
    """

    only_shows = True

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[str], Callable[[str], None]] | None = None,
    ) -> None:
        self._clock = clock
        self._show = show or _display
        self._replace: Callable[[str], None] | None = None
        self._progress = Progress(clock)
        self._updates: int | None = None
        self._stage_name = self._stage = self._sample = ""
        self._lines: list[str] = []
        self._shown_time = -math.inf

    def stage(self, name: str, done: int, total: int) -> None:
        """Preparation has come to `done` of `total` bytes."""
        is_new = name != self._stage_name
        self._stage_name, self._stage = name, stage_words(name, done, total)
        self._draw(at_once=is_new)  # one that has no size says nothing more

    def notice(self, line: str) -> None:
        """A line that people should read."""
        self._add(line)

    def begin(self, path: Path) -> None:
        """The run at `path` begins or goes on."""
        self._progress = Progress(self._clock)
        if self._lines:  # else there is a stage at most, whose output the run takes
            self._replace = None
        self._lines, self._sample, self._stage, self._stage_name = [], "", "", ""
        self._add(f"page: {RunDirectory(path).report}")

    def show(self, event: events.Event) -> None:
        """The next event of the run."""
        self._stage = self._stage_name = ""
        match event:
            case events.Update():
                self._progress.add(event)
                self._draw()
            case events.Plan():
                self._updates = event.updates
                self._progress.counted = "examples" if event.labels else "tok"
                self._add(plan_line(event))
            case events.Resume():
                self._updates = event.updates or self._updates
                self._progress.done = event.update
                self._add(f"going on after {format_updates(event.update)}")
            case events.Correction() | events.Extend():
                self._updates = event.updates
                self._add(f"the run is now {format_updates(event.updates)} long")
            case events.Evaluation():
                self._add(_evaluation_line(event))
            case events.Sample():
                self._sample = event.prompt + event.text
            case events.Incident():
                self._add(incident_text(event, "utf-8").plain)
            case events.End():
                why = f": {event.reason}" if event.reason else ""
                took = f"{format_updates(event.update)}, {format_duration(event.seconds)}"
                self._add(f"{event.status} after {took}{why}")

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """The run at `path` is finished: its summary and its plots in an output of their own."""
        from hairpin.analysis.pictures import Pictures, page_of

        if self._stage:
            self._stage = self._stage_name = ""
            self._draw(at_once=True)
        plots = RunDirectory(path).plots.glob("*.png")
        files = sorted(plots, key=lambda file: (file.stem != "loss", file.stem))
        pictures = Pictures({file.stem: file.read_bytes() for file in files})
        self._show(page_of(str(path), summary, pictures))

    def close(self) -> None:
        """The output stays as it is at last."""
        self._draw(at_once=True)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if not at_once and now - self._shown_time < _SECONDS_BETWEEN:
            return
        self._shown_time = now
        if self._replace is None:
            self._replace = self._show(self._html())
        else:
            self._replace(self._html())

    def _html(self) -> str:
        parts = []
        lines = self._lines
        if len(lines) > _MOST_LINES:  # the first are what is going to happen
            lines = [*lines[:2], "…", *lines[-(_MOST_LINES - 3) :]]
        if lines:
            parts.append(f"{_PRE}{_text(chr(10).join(lines))}</pre>")
        if self._stage:
            parts.append(f"{_PRE}{_text(self._stage)}</pre>")
        if self._updates and (self._progress.update or self._progress.done):
            done = self._progress.done
            parts.append(
                f'<progress value="{done}" max="{self._updates}" style="width:100%"></progress>'
                f"{_PRE}{_text(self._progress.line(self._updates))}</pre>"
            )
        if self._sample:
            parts.append(f"{_PRE}<em>{_text(self._sample)}</em></pre>")
        return f"<div>{''.join(parts)}</div>"


def _text(text: str) -> str:
    """Text of unknown origin as it is, inside HTML."""
    return escape(harmless(text))


def _evaluation_line(event: events.Evaluation) -> str:
    line = (
        f"evaluation after {format_updates(event.update)}  train {format_loss(event.train_loss)}  "
        f"validation {format_loss(event.val_loss)}"
    )
    if event.val_bits_per_byte is not None:
        line += f"  {event.val_bits_per_byte:.3f} bits per byte"
    if event.val_accuracy is not None:
        line += f"  {event.val_accuracy:.1%} right"
    return line


def _display(html: str) -> Callable[[str], None]:
    """Show HTML in a new output; what is returned replaces it."""
    from IPython.display import HTML, display

    output: _Output = display(HTML(html), display_id=True)
    return lambda changed: output.update(HTML(changed))
