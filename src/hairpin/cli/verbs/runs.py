"""hairpin runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.printing import say_table

if TYPE_CHECKING:
    from hairpin.run import Run


@click.command(cls=Verb, group="care", place=1, short_help="List the runs in a folder.")
@click.argument("folder", required=False, type=PATH)
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER, ./runs if left out: status, size, best validation."""
    from rich.table import Table

    from hairpin import api

    rows = [_row(run) for run in api.runs(folder)]
    left = ("run", "status")
    right = ["parameters", "updates", "best validation", "bits per byte"]
    if any(accuracy for *_, accuracy in rows):
        right.append("accuracy")
    table = Table(box=None, pad_edge=False)
    for heading in (*left, *right):
        table.add_column(heading, justify="left" if heading in left else "right")
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    say_table(table)


def _row(run: "Run") -> tuple[str, ...]:
    """Return the cells of a run's row; the last is a classifier's accuracy."""
    from hairpin.errors import UnreadableError
    from hairpin.reports.formats import safe_name
    from hairpin.runs.watcher import reason_of

    name = safe_name(str(run.path))
    try:
        return (name, *_outcome(run))
    except Exception as error:  # a record may hold anything; the other runs are still listed
        if isinstance(error, UnreadableError):
            words = f"unreadable: {error.path.name} ({error.reason})"
        else:
            words = f"damaged: {reason_of(error)}"
        return (name, safe_name(words), "", "", "", "", "")


def _outcome(run: "Run") -> tuple[str, ...]:
    from hairpin.reports.formats import format_count, format_loss, safe_name

    summary = run.summary()
    best = summary.best
    return (
        safe_name(summary.status),
        format_count(summary.parameters) if summary.parameters else "",
        f"{summary.updates:,}",
        format_loss(best.val_loss) if best else "",
        f"{best.val_bits_per_byte:.3f}" if best and best.val_bits_per_byte else "",
        f"{best.val_accuracy:.1%}" if best and best.val_accuracy is not None else "",
    )
