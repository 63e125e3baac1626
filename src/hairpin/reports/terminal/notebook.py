"""Display of a run in a notebook: one output that is updated, and the plots below it.

IPython is imported only if it is loaded already, that is, in the notebook's own process.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

from hairpin.reports.event_text import (
    end_text,
    evaluation_fields,
    incident_text,
    new_length_text,
    plan_text,
    resume_text,
)
from hairpin.reports.formats import format_updates, safe_text
from hairpin.reports.terminal.live import Progress, stage_words
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory

_SECONDS_BETWEEN = 0.5
_MAX_LINES = 12  # of evaluations and notices; the run's page has them all
_PRE = '<pre style="white-space:pre-wrap;margin:0.3em 0">'


class _Output(Protocol):
    """An output in the notebook whose content can be replaced."""

    def update(self, content: Any) -> None: ...


def in_notebook() -> bool:
    """Return True if this process is a notebook's kernel, not IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """A watcher of runs: a bar with figures, the evaluations and the last sample, in one output.

    Args:
        clock: returns seconds since an arbitrary moment.
        show: puts HTML into a new output and returns a function that replaces it; None: IPython's
            display.
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
        """Show that `done` of `total` bytes of a stage of preparation are done."""
        is_new = name != self._stage_name
        self._stage_name, self._stage = name, stage_words(name, done, total)
        self._draw(at_once=is_new)  # a stage without a size reports nothing more

    def notice(self, line: str) -> None:
        """Show a line that people should read."""
        self._add(line)

    def begin(self, path: Path) -> None:
        """Show that the run at `path` begins or resumes."""
        self._progress = Progress(self._clock)
        if self._lines:  # otherwise reuse the output, which shows a stage at most
            self._replace = None
        self._lines, self._sample, self._stage, self._stage_name = [], "", "", ""
        self._add(f"page: {RunDirectory(path).report}")

    def show(self, event: events.Event) -> None:
        """Show the next event of the run."""
        self._stage = self._stage_name = ""
        match event:
            case events.Update():
                self._progress.add(event)
                self._draw()
            case events.Plan():
                self._updates = event.updates
                self._progress.counted = "examples" if event.labels else "tok"
                self._add(plan_text(event))
            case events.Resume():
                self._updates = event.updates or self._updates
                self._progress.done = event.update
                self._add(resume_text(event))
            case events.Correction() | events.Extend():
                self._updates = event.updates
                self._add(f"after {format_updates(event.update)}: {new_length_text(event)}")
            case events.Evaluation():
                self._add("  ".join(evaluation_fields(event)))
            case events.Sample():
                self._sample = event.prompt + event.text
            case events.Incident():
                self._add(f"update {event.update:,}: {incident_text(event)}")
            case events.End():
                self._add(end_text(event))

    def finish(self, path: Path, summary: Sequence[str]) -> None:
        """Show the summary and the plots of the finished run at `path` in a new output."""
        from hairpin.reports.plots import Pictures, page_of

        if self._stage:
            self._stage = self._stage_name = ""
            self._draw(at_once=True)
        plots = RunDirectory(path).plots.glob("*.png")
        files = sorted(plots, key=lambda file: (file.stem != "loss", file.stem))
        pictures = Pictures({file.stem: file.read_bytes() for file in files})
        self._show(page_of(str(path), summary, pictures))

    def close(self) -> None:
        """Draw the final state of the output."""
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
        if len(lines) > _MAX_LINES:  # the first lines describe the plan
            lines = [*lines[:2], "…", *lines[-(_MAX_LINES - 3) :]]
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
    """Escape text of unknown origin for HTML."""
    return escape(safe_text(text))


def _display(html: str) -> Callable[[str], None]:
    """Show HTML in a new output; the returned function replaces it."""
    from IPython.display import HTML, display

    output: _Output = display(HTML(html), display_id=True)
    return lambda changed: output.update(HTML(changed))
