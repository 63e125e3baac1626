"""hairpin report."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.printing import say


@click.command(
    cls=Verb,
    group="after",
    place=4,
    short_help="Write a page about runs as one HTML file.",
)
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=PATH)
@click.option(
    "--out",
    type=PATH,
    help="The file to write; default: RUN/report.html, or report.html for several runs.",
)
@click.option("--full", is_flag=True, help="Include full paths and the command line.")
def report(runs: tuple[Path, ...], out: Path | None, full: bool) -> None:
    """Write a page about RUN, or about several runs; without RUN, about the newest.

    Curves to zoom, samples, settings, data, environment: one HTML file that opens in any browser
    and needs no network. While a run trains, its page is written at each evaluation.
    """
    from hairpin import api

    say(str(api.report(*runs, out=out, full=full)))
