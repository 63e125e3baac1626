"""hairpin report."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.shown import say


@click.command(
    cls=Verb, group="after", place=4, short_help="Write a page about runs, in one HTML file."
)
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=PATH)
@click.option(
    "--out",
    type=PATH,
    help="The file; RUN/report.html if left out, or report.html of several runs.",
)
@click.option("--full", is_flag=True, help="With whole paths and the command line.")
def report(runs: tuple[Path, ...], out: Path | None, full: bool) -> None:
    """Write a page about RUN, or one that compares several; without RUN, about the newest.

    Curves to look into, samples, settings, data, environment: one HTML file that opens in any
    browser and needs no network. While a run trains, its page is written at each evaluation.
    """
    from hairpin import api

    say(str(api.report(*runs, out=out, full=full)))
