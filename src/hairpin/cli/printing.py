"""Printing for verbs: text of unknown origin cannot control the terminal."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 10_000  # characters of a row in a pipe or a file, where lines are not wrapped


def say(text: str, *, err: bool = False) -> None:
    """Print lines, escaping everything that could control a terminal."""
    from hairpin.reports.formats import safe_text

    click.echo(safe_text(text), err=err)


def say_table(table: "Table") -> None:
    """Print a table, whose cells are already escaped."""
    from hairpin.reports.terminal.display import standard_console

    console = standard_console()
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(table)


def write(pieces: Iterable[str]) -> None:
    """Write a text piece by piece, and a line break: to a pipe or a file its exact bytes in UTF-8,
    to a terminal with control characters escaped.
    """
    from hairpin.reports.formats import safe_pieces

    binary = None if sys.stdout.isatty() else getattr(sys.stdout, "buffer", None)
    if binary is None:
        for piece in safe_pieces(pieces):
            click.echo(piece, nl=False)
        click.echo()
        return
    sys.stdout.flush()
    for piece in pieces:
        # An argument may hold a lone surrogate, which UTF-8 cannot encode.
        binary.write(piece.encode("utf-8", errors="backslashreplace"))
        binary.flush()
    binary.write(b"\n")
    binary.flush()
