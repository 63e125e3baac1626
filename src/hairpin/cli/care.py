"""hairpin runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hairpin.run import Run


@click.command(short_help="List the runs in a folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER, ./runs if left out: status, size, best validation."""
    from rich.table import Table

    from hairpin import api
    from hairpin.terminal.display import standard_console

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
    standard_console().print(table)


def _row(run: "Run") -> tuple[str, ...]:
    """What came of a run; the last is a classifier's accuracy."""
    from hairpin.analysis.formats import format_count, format_loss, harmless_name
    from hairpin.errors import RunError

    name = harmless_name(str(run.path))
    try:
        summary = run.summary()
    except RunError:
        return (name, "damaged", "", "", "", "", "")
    best = summary.best
    return (
        name,
        summary.status,
        format_count(summary.parameters) if summary.parameters else "",
        f"{summary.updates:,}",
        format_loss(best.val_loss) if best else "",
        f"{best.val_bits_per_byte:.3f}" if best and best.val_bits_per_byte else "",
        f"{best.val_accuracy:.1%}" if best and best.val_accuracy is not None else "",
    )
