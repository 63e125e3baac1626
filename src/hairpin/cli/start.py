"""hairpin train, hairpin resume, hairpin finetune."""

import time
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import (
    PATH,
    corpus_option,
    plugin_option,
    run_argument,
    settings_of,
    track_option,
    with_finetune_settings,
    with_settings,
)

_start_option = click.option(
    "--from",
    "start",
    type=PATH,
    metavar="RUN|DIR",
    help="A run, or a folder with a model in safetensors (GPT-2, or an export), to go on from.",
)


@click.command(short_help="Train on text files or folders.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_settings
@click.option("--out", type=PATH, help="The run's folder.")
@_start_option
@click.option("--budget", metavar="10m", help="Wall time; chooses size and length to fit.")
@corpus_option
@click.option("--or-resume", is_flag=True, help="Go on with the run in --out if it is there.")
@track_option
@plugin_option
def train(
    texts: tuple[Path, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    start: Path | None,
    budget: str | None,
    corpus: str | None,
    or_resume: bool,
    track: tuple[str, ...],
    plugin: tuple[Path, ...],
    **flags: Any,
) -> None:
    """Train on text files or folders, on tables (JSONL, CSV, Parquet), or on a mixture.

    \b
      hairpin train book.txt
      hairpin train 'data/**/*.jsonl.gz' --column body
      hairpin train --source wiki=wiki.jsonl:0.7 --source code=src/:0.3

    Without TEXT it trains on the recipe's corpus, or on the Python standard library's own source.
    Without --budget, a size or a length it takes three minutes.
    """
    from hairpin import api

    api.train(
        *texts,
        corpus=corpus,
        config=config,
        start=start,
        out=out,
        budget=budget,
        settings=settings_of(flags),
        overrides=overrides,
        or_resume=or_resume,
        track=track,
        plugin=plugin,
        started=_process_start(),
    )


@click.command(short_help="Go on with a run where it stopped.")
@run_argument
@click.option("--extend", metavar="10m|UPDATES", help="Make it longer by so much.")
@click.option(
    "--policy",
    type=click.Choice(["rewarm", "constant", "cooldown"]),
    help="How the learning rate of a finished run goes on.",
)
@click.option("--restart", is_flag=True, help="Begin again at update 0; set aside what was saved.")
@track_option
@plugin_option
@click.option("--accept-plugin", is_flag=True, help="Go on although a plugin has changed.")
def resume(
    run: Path | None,
    extend: str | None,
    policy: str | None,
    restart: bool,
    track: tuple[str, ...],
    plugin: tuple[Path, ...],
    accept_plugin: bool,
) -> None:
    """Go on with RUN where it stopped; without RUN, with the newest in ./runs.

    With --extend it becomes longer, and the new learning rate is drawn first. After the end of a
    finished run there is no curve left, so that --policy says what follows: back up to the peak and
    down again (rewarm), the last rate (constant), or from there straight down to zero (cooldown).

    Where checkpoints were saved and none is there any more, it does not begin at update 0 by
    itself: put them back, or ask for it with --restart.
    """
    from hairpin import api

    if restart and (extend is not None or policy is not None):
        raise click.UsageError("--restart begins again, and --extend goes on: name one of them")
    api.resume(
        run,
        extend=extend,
        policy=policy,
        restart=restart,
        track=track,
        plugin=plugin,
        accept_plugin=accept_plugin,
    )


@click.command(short_help="Teach a trained model labels, or to follow instructions.")
@click.argument("kind", type=click.Choice(["classify", "instruct"]))
@_start_option
@click.option("--data", type=PATH, help="CSV, TSV, JSON, JSONL, Parquet or Arrow.")
@with_finetune_settings
@click.option("--out", type=PATH, help="The run's folder.")
@track_option
@plugin_option
def finetune(
    kind: str,
    start: Path | None,
    data: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    track: tuple[str, ...],
    plugin: tuple[Path, ...],
    **flags: Any,
) -> None:
    """Teach a trained model labels (classify), or to follow instructions (instruct).

    \b
      hairpin finetune classify --from RUN --data spam.csv         columns text, label
      hairpin finetune instruct --from RUN --data tasks.jsonl      instruction, input, response

    A part of the records is kept for validation. Other columns, the prompt's template, which layers
    train: table finetune in docs/config.md.
    """
    from hairpin import api

    api.finetune(
        kind,
        data,
        start=start,
        config=config,
        out=out,
        settings=settings_of(flags),
        overrides=overrides,
        track=track,
        plugin=plugin,
    )


def _process_start() -> float:
    """Return the start of this process on `time.monotonic`, where a budget begins."""
    import psutil

    age_seconds: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age_seconds)
