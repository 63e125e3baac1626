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
    short_help="Fine-tune a trained model on labels or instructions.",
)
@click.argument("kind", type=click.Choice(["classify", "instruct"]))
@start_option
@click.option("--data", type=PATH, help="CSV, TSV, JSON, JSONL, Parquet or Arrow.")
@with_finetune_settings
@click.option("--out", type=PATH, help="The run's folder.")
@track_option
@plugin_option
def finetune(kind: str, data: Path | None, **given: Any) -> None:
    """Fine-tune a trained model on labels (classify) or on instructions (instruct).

    \b
      hairpin finetune classify --from RUN --data spam.csv         columns text, label
      hairpin finetune instruct --from RUN --data tasks.jsonl      instruction, input, response

    A part of the records is kept for validation. For other columns, the prompt's template, and the
    layers to train see table finetune in docs/config.md.
    """
    from hairpin import api

    api.finetune(kind, data, **settings_apart(given))
