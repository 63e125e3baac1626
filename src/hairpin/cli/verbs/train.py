"""hairpin train."""

import time
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    Verb,
    corpus_option,
    plugin_option,
    settings_apart,
    start_option,
    track_option,
    with_settings,
)


@click.command(
    cls=Verb,
    group="start",
    place=1,
    by_several=True,
    short_help="Train on text files or folders.",
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_settings
@click.option("--out", type=PATH, help="The run's folder.")
@start_option
@click.option("--budget", metavar="10m", help="Wall time; chooses size and length to fit.")
@corpus_option
@click.option("--or-resume", is_flag=True, help="Resume the run in --out if it exists.")
@track_option
@plugin_option
def train(texts: tuple[Path, ...], **given: Any) -> None:
    """Train on text files or folders, on tables (JSONL, CSV, Parquet), or on a mixture.

    \b
      hairpin train book.txt
      hairpin train 'data/**/*.jsonl.gz' --column body
      hairpin train --source wiki=wiki.jsonl:0.7 --source code=src/:0.3

    Without TEXT it trains on the recipe's corpus, or on the source of the Python standard library.
    Without --budget, a size or a length it takes three minutes.
    """
    from hairpin import api

    api.train(*texts, **settings_apart(given), started=_process_start())


def _process_start() -> float:
    """Return the start of this process on `time.monotonic`, where a budget begins."""
    import psutil

    age_seconds: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age_seconds)
