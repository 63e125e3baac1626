"""hairpin find-lr."""

import json
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    Verb,
    corpus_option,
    json_option,
    settings_apart,
    with_settings,
)
from hairpin.cli.printing import say


@click.command(
    cls=Verb, group="before", place=4, short_help="Find a peak learning rate with short runs."
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_settings
@corpus_option
@click.option("--budget", metavar="5m", help="Wall time for the search; default: 5 minutes.")
@click.option("--workers", type=int, help="Runs at the same time; default: one per core.")
@click.option("--out", type=PATH, help="The page to write; default: find-lr-TEXT.html.")
@json_option
def find_lr(texts: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Find a peak learning rate: train short runs, each with the whole schedule, at rates a factor
    of two apart.

    \b
      hairpin find-lr book.txt --size tiny
      hairpin find-lr book.txt --recipe gpt2 --updates 2000 --budget 10m

    It keeps only a page with the plot and the reason for the suggested rate.
    """
    from hairpin.experiments import api
    from hairpin.reports.terminal.experiment import ExperimentBar

    with ExperimentBar() as progress:
        found = api.find_lr(*texts, **settings_apart(given), progress=progress)
    if as_json:
        click.echo(json.dumps(found.as_json(), allow_nan=False))
        return
    say("\n".join(found.lines()))
