"""hairpin schedule."""

import sys
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import PATH, Verb, plugin_option, settings_apart, with_curve_settings
from hairpin.cli.printing import say


@click.command(
    cls=Verb,
    group="before",
    place=3,
    short_help="Draw the learning-rate curve of a config.",
)
@with_curve_settings
@click.option("--png", type=PATH, help="Also write the plot to this file.")
@plugin_option
def schedule(png: Path | None, **given: Any) -> None:
    """Draw the learning-rate curve of a config before any training.

    The length must be known: --updates, or --tokens with train.tokens_per_update. Example:

    \b
      hairpin schedule --updates 135 --lr 0.01 --set schedule.warmup_updates=27
    """
    from hairpin import api
    from hairpin.reports.schedule_drawing import draw_schedule

    lr, overrides = given["lr"], given["overrides"]
    has_peak = given["config"] or lr or any(o.startswith("schedule.peak_lr") for o in overrides)
    curve = api.schedule(**settings_apart(given))
    click.echo(draw_schedule(curve, color=sys.stdout.isatty()))
    if not has_peak:
        click.echo(f"  no --lr given: the peak of {curve.peak_lr:g} is an example")
    if png:
        from hairpin.reports.plots import write_schedule_plot

        png.parent.mkdir(parents=True, exist_ok=True)
        write_schedule_plot(curve, png)
        say(f"written: {png}")
