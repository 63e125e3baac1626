"""Writes the page about runs, at once or as one of them goes on.

What pages are made with (NumPy) is imported only when one is written.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hairpin.errors import RunError, UserError
from hairpin.files import write_atomically
from hairpin.run import Run
from hairpin.runs import events

NAME = "report.html"
# Of the time of a run, at most this share goes into its page.
_SHARE = 0.01


def write_report(runs: Sequence[Run], out: Path | None = None, *, full: bool = False) -> Path:
    """Write the page about one or several runs, whole or not at all.

    Args:
        runs: at least one.
        out: the file; None: `report.html` in the run's folder, of several in this one.
        full: whether the page of one run says where it was made, and by which command.

    Returns:
        The file.

    Raises:
        UserError: a run is damaged, or the file cannot be written.
    """
    from hairpin.pages.run_page import run_page
    from hairpin.pages.several import several_page

    if out is None:
        out = runs[0].directory.report if len(runs) == 1 else Path(NAME)
    now = time.time()
    try:
        html = run_page(runs[0], now, full=full) if len(runs) == 1 else several_page(runs, now)
    except (KeyError, TypeError) as error:  # lines of JSON that no run wrote
        names = ", ".join(str(run.path) for run in runs)
        raise RunError(f"{names}: a line of metrics.jsonl lacks what it needs: {error}") from None
    try:
        write_atomically(out, html.encode())
    except (OSError, ValueError) as error:  # a ValueError: there is a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{out}: cannot be written ({reason}); name another file with --out"
        ) from None
    return out


class LivePage:
    """The page of a run that is training: written anew at each evaluation.

    It takes at most a hundredth of the run's time: where records are long and evaluations close to
    each other, some are passed over. What goes wrong with it is said once, and stops nothing.

    Args:
        run: whose page.
        notice: is told what went wrong.
        clock: seconds from an arbitrary moment.
    """

    def __init__(
        self,
        run: Run,
        notice: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._notice = notice
        self._clock = clock
        self._due = self._failed = False
        self._next_time = clock()

    def follow(self, event: events.Event) -> None:
        """Take note of the run's next event, which is in its record already."""
        if isinstance(event, events.Plan | events.Resume | events.End):
            self._write()
        elif isinstance(event, events.Evaluation):
            self._due = True
        # Sample and checkpoint come between an evaluation and the next update.
        elif self._due and isinstance(event, events.Update) and self._clock() >= self._next_time:
            self._write()

    def _write(self) -> None:
        """Write the page as the record is now."""
        began = self._clock()
        self._due = False
        try:
            write_report([self._run])
        except Exception as error:  # a page is not worth a run
            if not self._failed:
                self._notice(f"{self._run.directory.report}: not written: {error}")
            self._failed = True
        self._next_time = self._clock() + (self._clock() - began) / _SHARE
