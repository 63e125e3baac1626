"""A tracker that appends what a run measures to a CSV file in the run's folder, for a spreadsheet.

    hairpin train book.txt --plugin examples/plugins/csv_tracker.py --track csv

A resumed run goes on in the same file, and no row is there twice.
"""

import csv
from collections.abc import Sequence

from hairpin.plugins import register_tracker
from hairpin.reports.trackers.tracker import Point, Tracked, Tracker, Written


class CsvTracker(Tracker):
    """A row for each number: update, tokens trained on, name, value."""

    def open(self, run: Tracked) -> tuple[str, Written]:
        """Create the file, unless it exists."""
        self.path = run.path / "points.csv"
        if run.written is None:
            self._append([("update", "tokens", "name", "value")], "w")
        return self.path.name, run.written or Written()

    def write(self, points: Sequence[Point]) -> None:
        """Append the points that have numbers; a sample has a text."""
        self._append(
            [(p.update, p.tokens, name, value) for p in points for name, value in p.values.items()]
        )

    def _append(self, rows: Sequence[tuple[object, ...]], mode: str = "a") -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


register_tracker("csv", CsvTracker)
