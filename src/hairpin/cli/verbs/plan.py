"""hairpin plan."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    Verb,
    corpus_option,
    json_option,
    plugin_option,
    settings_apart,
    with_plan_settings,
)


@click.command(
    cls=Verb,
    group="before",
    place=1,
    short_help="Say what a run will cost, and what its text is like.",
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_plan_settings
@click.option("--tokens", metavar="1B", help="Length of the run in tokens.")
@click.option("--budget", metavar="10m", help="Wall time; chooses size and length to fit.")
@corpus_option
@click.option("--out", type=PATH, help="The run's folder: for its disk.")
@click.option("--no-probe", is_flag=True, help="Measure nothing here, and do not import PyTorch.")
@click.option("--no-text-check", is_flag=True, help="Do not look for what is wrong with the text.")
@json_option
@click.option("--parameters", metavar="7B", help="On paper: a network of so many is picked.")
@click.option("--gpus", metavar="8,16", help="On paper: training on so many cards.")
@click.option("--gpu", help="T4, RTX4090, A100, H100 or H200.")
@click.option("--context", type=int, help="With --parameters: tokens seen at once.")
@click.option("--micro-batch", type=int, help="With --gpus: sequences a card takes at once.")
@plugin_option
def plan(
    texts: tuple[Path, ...], no_probe: bool, no_text_check: bool, as_json: bool, **given: Any
) -> None:
    """What a run will cost, before any training, and what its text is like.

    Without TEXT, a size and a length say enough. On GPUs that are not here, on paper:

    \b
      hairpin plan book.txt --size small
      hairpin plan --size gpt2 --tokens 1B --no-probe
      hairpin plan --parameters 7B --tokens 140B --gpus 8,16,32,64
    """
    from hairpin import api

    tokens = given.pop("tokens")  # not the flag of that name: this one may be "140B"
    arguments = settings_apart(given) | {"tokens": tokens}
    found = api.plan(*texts, **arguments, probe=not no_probe, check_text=not no_text_check)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        click.echo("\n".join(found.lines(color=sys.stdout.isatty())))
