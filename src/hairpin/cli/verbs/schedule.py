"""hairpin prepare, hairpin schedule."""

import sys
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    corpus_option,
    plugin_option,
    settings_of,
    with_curve_settings,
    with_text_settings,
)
from hairpin.cli.shown import say


@click.command(short_help="Turn text into a tokenizer and token shards.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@click.option("--out", type=PATH, required=True, help="The folder to make.")
@corpus_option
@with_text_settings
def prepare(
    texts: tuple[Path, ...],
    out: Path,
    corpus: str | None,
    overrides: tuple[str, ...],
    **flags: Any,
) -> None:
    """Turn text into a tokenizer and token shards, in bounded memory."""
    from hairpin import api

    settings = settings_of(flags)
    say(api.prepare(*texts, out=out, corpus=corpus, settings=settings, overrides=overrides))


@click.command(short_help="Draw the learning-rate curve of a config.")
@with_curve_settings
@click.option("--png", type=PATH, help="Where to write the picture as well.")
@plugin_option
def schedule(
    config: Path | None,
    overrides: tuple[str, ...],
    png: Path | None,
    plugin: tuple[Path, ...],
    **flags: Any,
) -> None:
    """Draw the learning-rate curve of a config before any training.

    The length must be known: --updates, or --tokens with train.tokens_per_update. Example:

    \b
      hairpin schedule --updates 135 --lr 0.01 --set schedule.warmup_updates=27
    """
    from hairpin import api
    from hairpin.reports.curves import draw_schedule

    curve = api.schedule(
        config=config, overrides=overrides, settings=settings_of(flags), plugin=plugin
    )
    click.echo(draw_schedule(curve, color=sys.stdout.isatty()))
    given = config or flags["lr"] or any(o.startswith("schedule.peak_lr") for o in overrides)
    if not given:
        click.echo(f"  no --lr given: the peak of {curve.peak_lr:g} is an example")
    if png:
        from hairpin.reports.plots import write_schedule_plot

        png.parent.mkdir(parents=True, exist_ok=True)
        write_schedule_plot(curve, png)
        say(f"written: {png}")
