"""hairpin finetune."""

from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    Verb,
    plugin_option,
    settings_apart,
    start_option,
    track_option,
    with_finetune_settings,
)


@click.command(
    cls=Verb,
    group="start",
    place=2,
    by_several=True,
    short_help="Teach a trained model labels, or to follow instructions.",
)
@click.argument("kind", type=click.Choice(["classify", "instruct"]))
@start_option
@click.option("--data", type=PATH, help="CSV, TSV, JSON, JSONL, Parquet or Arrow.")
@with_finetune_settings
@click.option("--out", type=PATH, help="The run's folder.")
@track_option
@plugin_option
def finetune(kind: str, data: Path | None, **given: Any) -> None:
    """Teach a trained model labels (classify), or to follow instructions (instruct).

    \b
      hairpin finetune classify --from RUN --data spam.csv         columns text, label
      hairpin finetune instruct --from RUN --data tasks.jsonl      instruction, input, response

    A part of the records is kept for validation. Other columns, the prompt's template, which layers
    train: table finetune in docs/config.md.
    """
    from hairpin import api

    api.finetune(kind, data, **settings_apart(given))
