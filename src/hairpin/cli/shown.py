"""Printing for verbs: names and words of unknown origin cannot touch a terminal."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 10_000  # characters of a row in a pipe or a file, where nothing is wrapped


def say(text: str, *, err: bool = False) -> None:
    """Print lines, with all that could act on a terminal as escapes."""
    from hairpin.analysis.formats import harmless

    click.echo(harmless(text), err=err)


def say_table(table: "Table") -> None:
    """Print a table, whose cells are harmless already."""
    from hairpin.terminal.display import standard_console

    console = standard_console()
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(table)


def write(pieces: Iterable[str]) -> None:
    """Write a text piece by piece, and a line break: in a pipe or a file its very bytes in UTF-8,
    on a terminal nothing that acts on it.
    """
    from hairpin.analysis.formats import harmless_pieces

    binary = None if sys.stdout.isatty() else getattr(sys.stdout, "buffer", None)
    if binary is None:
        for piece in harmless_pieces(pieces):
            click.echo(piece, nl=False)
        click.echo()
        return
    sys.stdout.flush()
    for piece in pieces:
        # An argument may hold half of a character, which UTF-8 has no bytes for.
        binary.write(piece.encode("utf-8", errors="backslashreplace"))
        binary.flush()
    binary.write(b"\n")
    binary.flush()
