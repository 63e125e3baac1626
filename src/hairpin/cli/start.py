"""hairpin train, hairpin resume."""

import time
from pathlib import Path
from typing import Any

import click

from hairpin.cli.options import run_argument, settings_of, with_settings


@click.command(short_help="Train on text files or folders.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=click.Path(path_type=Path))
@with_settings
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--budget", metavar="10m", help="Wall time; chooses size and length to fit.")
@click.option("--corpus", help="stdlib, python-docs or verdict, in place of TEXT.")
def train(
    texts: tuple[Path, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    budget: str | None,
    corpus: str | None,
    **flags: Any,
) -> None:
    """Train on text files or folders.

    Without TEXT it trains on the Python standard library's own source. Without --budget, a size or
    a length it takes three minutes.
    """
    from hairpin import api

    api.train(
        *texts,
        corpus=corpus,
        config=config,
        out=out,
        budget=budget,
        settings=settings_of(flags),
        overrides=overrides,
        started=_process_start(),
    )


@click.command(short_help="Go on with a run where it stopped.")
@run_argument
def resume(run: Path | None) -> None:
    """Go on with RUN where it stopped; without RUN, with the newest in ./runs."""
    from hairpin import api

    api.resume(run)


def _process_start() -> float:
    """When this process began, on `time.monotonic`: a budget counts from there."""
    import psutil

    age_seconds: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age_seconds)
