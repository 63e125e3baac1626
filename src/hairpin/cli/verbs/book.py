"""hairpin book."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.shown import say


@click.command(
    cls=Verb, group="care", place=4, short_help="Run the book's appendix D beside what it prints."
)
@click.option(
    "--iterations",
    type=click.IntRange(1, 135),
    help="End after so many of the 135 training steps, whose learning rates stay the same.",
)
@click.option(
    "--text",
    type=PATH,
    metavar="FILE",
    help="Train on it, not on The Verdict, which the printed figures are about.",
)
@click.option(
    "--out",
    type=PATH,
    default="book",
    show_default=True,
    help="The folder of book.md and its pictures; an earlier page there is replaced.",
)
@click.option(
    "--beside",
    type=PATH,
    metavar="RUN",
    help="A run of `hairpin train --recipe book`, to be shown in the same picture.",
)
def book(iterations: int | None, text: Path | None, out: Path, beside: Path | None) -> None:
    """Run the book's appendix D with the plain functions of hairpin.book, and write a page with
    every figure that it prints beside what came out.

    All of it takes five to fifteen minutes on a CPU and 5 GB of memory.
    """
    from hairpin.book.report.verb import run_book
    from hairpin.reports.terminal.run_display import counting_bar

    with counting_bar("training") as on_iteration:
        page, words = run_book(text, out, iterations, beside, on_iteration)
    say(f"{words}\nwritten: {page}, and its pictures beside it")
