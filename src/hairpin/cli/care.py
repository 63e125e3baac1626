"""hairpin runs."""

from pathlib import Path

import click


@click.command(short_help="List the runs in a folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER, ./runs if left out: status, size, best validation."""
    from hairpin import api
    from hairpin.cli.terminal import print_runs

    print_runs(api.runs(folder))
