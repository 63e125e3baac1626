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
    for heading in ("run", "status", "parameters", "updates", "best validation", "quality"):
        table.add_column(heading, justify="left" if heading in ("run", "status") else "right")
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
            _quality(best.val_bits_per_byte, best.val_accuracy) if best else "",
        )
    standard_console().print(table)


def _quality(bits_per_byte: float | None, accuracy: float | None) -> str:
    if accuracy is not None:
        return f"{accuracy:.1%} right"
    return "" if bits_per_byte is None else f"{bits_per_byte:.3f} bits per byte"
