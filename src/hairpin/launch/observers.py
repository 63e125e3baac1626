"""The observers of a run: the watcher, its page, the trackers, and in the end the plots.

None of them changes the run, and its failure does not end the run. The record lists those given up.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from hairpin.reports.page.write import LivePage
from hairpin.reports.trackers.follow import Trackers
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.watcher import Guarded, reason_of
from hairpin.system import output

Made = TypeVar("Made")


class Observers:
    """Everything that follows a run during training.

    Args:
        run: the run.
        watcher: shows its progress.
        tools: the trackers that follow it.
        pictures: it gets a page and plots.
    """

    def __init__(self, run: Run, watcher: Guarded, tools: Sequence[str], *, pictures: bool) -> None:
        self._run = run
        self._watcher = watcher
        self._pictures = pictures
        self._trackers = Trackers(run.directory, tools, watcher.notice)
        self._page = LivePage(run.directory, watcher.notice) if pictures else None
        self._noted: set[str] = set()
        self._given_up: list[events.Unwatched] = []
        if pictures:
            watcher.begin(run.path)

    def show(self, event: events.Event, update: int, *, is_shown: bool = True) -> None:
        """Show the run's next event, which is in its record already.

        Args:
            event: the event.
            update: number of updates completed.
            is_shown: show it to people too; False: a user's mistake, reported in one line, ended a
                run that will be discarded, so only the trackers get the event.
        """
        self._trackers.follow(event)
        if not is_shown:
            return
        self._watcher.show(event)
        if self._page:
            if isinstance(event, events.End):
                self._watcher.stage("writing the page", 0, 0)
            self._page.follow(event)
        self._note(update)

    def given_up(self, update: int) -> list[events.Unwatched]:
        """Return events for the record on observers given up since the last call."""
        self._note(update)
        found, self._given_up = self._given_up, []
        return found

    def close(self) -> None:
        """Wait until the trackers have everything, and remove live displays from the screen."""
        self._attempt("trackers", self._trackers.close)
        self._watcher.close()

    def finish(self) -> None:
        """Draw the plots of a finished run, and show its summary."""
        if self._pictures:
            self._watcher.stage("drawing the plots", 0, 0)
            self._attempt("plots", self._run.write_plots)
        lines: Sequence[str] = self._attempt("summary", self._run.lines) or ()
        self._watcher.finish(self._run.path, lines)

    def _attempt(self, what: str, make: Callable[[], Made]) -> Made | None:
        """Do something that must not end a run; None: it failed, which was reported."""
        try:
            return make()
        except Exception as error:
            self._watcher.notice(f"{what}: {reason_of(error)}; the run itself is intact")
            return None

    def _note(self, update: int) -> None:
        display = [self._watcher.failure] if self._watcher.failure else []
        for reason in (*display, *output.failures()):
            if reason not in self._noted:
                self._noted.add(reason)
                self._given_up.append(events.Unwatched(update, reason))
