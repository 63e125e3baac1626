"""Writing of the page about runs, once or repeatedly during training.

NumPy and jinja2, which pages need, are imported only when one is written.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hairpin.errors import RunError, UserError
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from hairpin.system.files import write_atomically

NAME = "report.html"
# The page may take at most this share of the run's time.
_SHARE = 0.01


def write_report(
    runs: Sequence[RunDirectory], out: Path | None = None, *, full: bool = False
) -> Path:
    """Write the page about one or several runs, completely or not at all.

    Args:
        runs: one or more.
        out: the file; None: `report.html` in the run's folder, or in the working folder for several
            runs.
        full: include the run's location and its command, if there is one run.

    Returns:
        The file.

    Raises:
        UserError: a run is damaged, or the file cannot be written.
    """
    from hairpin.reports.page.compare_page import compare_page
    from hairpin.reports.page.run_page import run_page

    if out is None:
        out = runs[0].report if len(runs) == 1 else Path(NAME)
    now = time.time()
    try:
        html = run_page(runs[0], now, full=full) if len(runs) == 1 else compare_page(runs, now)
    except (KeyError, TypeError) as error:  # JSON lines that no run wrote
        names = ", ".join(str(run.path) for run in runs)
        raise RunError(f"{names}: a line of metrics.jsonl is incomplete: {error}") from None
    try:
        write_atomically(out, html.encode())
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{out}: cannot be written ({reason}); name another file with --out"
        ) from None
    return out


class LivePage:
    """The page of a run that is training, rewritten after each evaluation.

    It takes at most a hundredth of the run's time: with long records and frequent evaluations, some
    are skipped. An error is reported once, and stops nothing.

    Args:
        run: the run.
        notice: called with the error.
        clock: returns seconds since an arbitrary moment.
    """

    def __init__(
        self,
        run: RunDirectory,
        notice: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._notice = notice
        self._clock = clock
        self._due = self._failed = False
        self._next_time = clock()

    def follow(self, event: events.Event) -> None:
        """Handle the run's next event, which is in its record already."""
        if isinstance(event, events.Plan | events.Resume | events.End):
            self._write()
        elif isinstance(event, events.Evaluation):
            self._due = True
        # The sample and the checkpoint of an evaluation come before the next update.
        elif self._due and isinstance(event, events.Update) and self._clock() >= self._next_time:
            self._write()

    def _write(self) -> None:
        """Write the page from the current record."""
        began = self._clock()
        self._due = False
        try:
            write_report([self._run])
        except Exception as error:  # a page must not stop a run
            if not self._failed:
                self._notice(f"{self._run.report}: not written: {error}")
            self._failed = True
        self._next_time = self._clock() + (self._clock() - began) / _SHARE
