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
    short_help="Resume a run where it stopped.",
)
@run_argument
@click.option("--extend", metavar="10m|UPDATES", help="Make the run longer by this much.")
@click.option(
    "--policy",
    type=click.Choice(["rewarm", "constant", "cooldown"]),
    help="How the learning rate continues in a finished run.",
)
@click.option("--restart", is_flag=True, help="Start again at update 0; set saved files aside.")
@track_option
@plugin_option
@click.option("--accept-plugin", is_flag=True, help="Resume even if a plugin has changed.")
def resume(run: Path | None, **given: Any) -> None:
    """Resume RUN where it stopped; without RUN, the newest in ./runs.

    --extend makes it longer; the new learning rate is drawn first. The curve of a finished run has
    ended, so --policy sets what follows: back up to the peak and down again (rewarm), the last rate
    (constant), or straight down to zero (cooldown).

    If checkpoints were saved and are missing now, it does not start again at update 0: restore
    them, or use --restart.
    """
    from hairpin import api

    if given["restart"] and (given["extend"] is not None or given["policy"] is not None):
        raise click.UsageError("--restart starts again, and --extend continues: give one of them")
    api.resume(run, **given)
