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
    short_help="Estimate the cost of a run, and check its text.",
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_plan_settings
@click.option("--tokens", metavar="1B", help="Length of the run in tokens.")
@click.option("--budget", metavar="10m", help="Wall time; chooses size and length to fit.")
@corpus_option
@click.option("--out", type=PATH, help="The run's folder, to check its disk.")
@click.option("--no-probe", is_flag=True, help="Measure nothing; do not import PyTorch.")
@click.option("--no-text-check", is_flag=True, help="Skip the check of the text.")
@json_option
@click.option("--parameters", metavar="7B", help="On paper: pick a network of this size.")
@click.option("--gpus", metavar="8,16", help="On paper: train on this many GPUs.")
@click.option("--gpu", help="T4, RTX4090, A100, H100 or H200.")
@click.option("--context", type=int, help="With --parameters: length of the context.")
@click.option("--micro-batch", type=int, help="With --gpus: micro-batch of each GPU.")
@plugin_option
def plan(
    texts: tuple[Path, ...], no_probe: bool, no_text_check: bool, as_json: bool, **given: Any
) -> None:
    """Estimate the cost of a run before any training, and check its text.

    Without TEXT, give a size and a length. On paper, for GPUs that you do not have:

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
