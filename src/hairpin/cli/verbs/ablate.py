"""hairpin ablate."""

from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import PATH, Verb, with_settings
from hairpin.cli.verbs.compare import show_experiment, with_experiment_options


@click.command(
    cls=Verb,
    group="after",
    place=6,
    short_help="Measure which parts of a recipe help on a text.",
)
@click.argument("texts", nargs=-1, metavar="[TEXT|CONFIG]...", type=PATH)
@with_settings
@click.option(
    "--factors",
    default="warmup,decay,clip",
    show_default=True,
    help="Parts to turn on and off, in every combination.",
)
@click.option("--vary", multiple=True, metavar="KEY=OFF,ON", help="Any other key as a factor.")
@with_experiment_options
def ablate(texts: tuple[Path, ...], factors: str, vary: tuple[str, ...], **given: Any) -> None:
    """Measure which parts of a recipe help on this text: warmup, decay, clipping, or any key.

    \b
      hairpin ablate book.txt --budget 40m
      hairpin ablate book.txt --factors clip --vary optimizer.weight_decay=0.0,0.1

    Every combination of the factors is trained, each at its own best learning rate.
    """
    from hairpin.experiments import api

    names = [name.strip() for name in factors.split(",") if name.strip()]
    show_experiment(given, lambda options: api.ablate(*texts, factors=names, vary=vary, **options))
