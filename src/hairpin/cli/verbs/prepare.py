"""hairpin prepare."""

from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import PATH, Verb, corpus_option, settings_apart, with_text_settings
from hairpin.cli.printing import say


@click.command(
    cls=Verb,
    group="before",
    place=2,
    short_help="Prepare text: a tokenizer and token shards.",
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@click.option("--out", type=PATH, required=True, help="The folder to create.")
@corpus_option
@with_text_settings
def prepare(texts: tuple[Path, ...], **given: Any) -> None:
    """Prepare text as a tokenizer and token shards, in bounded memory."""
    from hairpin import api

    say(api.prepare(*texts, **settings_apart(given)))
