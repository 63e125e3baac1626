"""hairpin book."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.printing import say


@click.command(
    cls=Verb,
    group="care",
    place=4,
    short_help="Run the book's appendix D and compare with its printed results.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1, 135),
    help="Stop after this many of the 135 training steps; their learning rates stay the same.",
)
@click.option(
    "--text",
    type=PATH,
    metavar="FILE",
    help="Train on this file instead of The Verdict, the text of the printed figures.",
)
@click.option(
    "--out",
    type=PATH,
    default="book",
    show_default=True,
    help="The folder for book.md and its plots; an earlier page there is replaced.",
)
@click.option(
    "--beside",
    type=PATH,
    metavar="RUN",
    help="A run of `hairpin train --recipe book`, to show in the same plot.",
)
def book(iterations: int | None, text: Path | None, out: Path, beside: Path | None) -> None:
    """Run the book's appendix D with the plain functions of hairpin.book, and write a page that
    shows each printed figure next to the result.

    This takes five to fifteen minutes on a CPU, and 5 GB of memory.
    """
    from hairpin.book.report.verb import run_book
    from hairpin.reports.terminal.run_display import counting_bar

    with counting_bar("training") as on_iteration:
        page, words = run_book(text, out, iterations, beside, on_iteration)
    say(f"{words}\nwritten: {page}, with its plots next to it")
