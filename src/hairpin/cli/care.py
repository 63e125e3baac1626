"""hairpin runs."""

from pathlib import Path

import click


@click.command(short_help="List the runs in a folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER, ./runs if left out: status, size, best validation."""
    from rich.table import Table

    from hairpin import api
    from hairpin.analysis.formats import format_count, format_loss
    from hairpin.errors import RunError
    from hairpin.terminal.display import standard_console

    table = Table(box=None, pad_edge=False)
    left = ("run", "status")
    right = ("parameters", "updates", "best validation", "bits per byte", "accuracy")
    for heading in (*left, *right):
        table.add_column(heading, justify="left" if heading in left else "right")
    for run in api.runs(folder):
        try:
            summary = run.summary()
        except RunError:
            table.add_row(str(run.path), "damaged")
            continue
        best = summary.best
        table.add_row(
            str(run.path),
            summary.status,
            format_count(summary.parameters) if summary.parameters else "",
            f"{summary.updates:,}",
            format_loss(best.val_loss) if best else "",
            f"{best.val_bits_per_byte:.3f}" if best and best.val_bits_per_byte else "",
            f"{best.val_accuracy:.1%}" if best and best.val_accuracy is not None else "",
        )
    standard_console().print(table)
