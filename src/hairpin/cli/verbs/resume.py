"""hairpin resume."""

from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import Verb, plugin_option, run_argument, track_option


@click.command(
    cls=Verb,
    group="start",
    place=3,
    by_several=True,
    short_help="Go on with a run where it stopped.",
)
@run_argument
@click.option("--extend", metavar="10m|UPDATES", help="Make it longer by so much.")
@click.option(
    "--policy",
    type=click.Choice(["rewarm", "constant", "cooldown"]),
    help="How the learning rate of a finished run goes on.",
)
@click.option("--restart", is_flag=True, help="Begin again at update 0; set aside what was saved.")
@track_option
@plugin_option
@click.option("--accept-plugin", is_flag=True, help="Go on although a plugin has changed.")
def resume(run: Path | None, **given: Any) -> None:
    """Go on with RUN where it stopped; without RUN, with the newest in ./runs.

    With --extend it becomes longer, and the new learning rate is drawn first. After the end of a
    finished run there is no curve left, so that --policy says what follows: back up to the peak and
    down again (rewarm), the last rate (constant), or from there straight down to zero (cooldown).

    Where checkpoints were saved and none is there any more, it does not begin at update 0 by
    itself: put them back, or ask for it with --restart.
    """
    from hairpin import api

    if given["restart"] and (given["extend"] is not None or given["policy"] is not None):
        raise click.UsageError("--restart begins again, and --extend goes on: name one of them")
    api.resume(run, **given)
