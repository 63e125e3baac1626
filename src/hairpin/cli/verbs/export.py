"""hairpin export."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb, weights_option


@click.command(
    cls=Verb, group="share", place=1, short_help="Export a run to transformers or llama.cpp."
)
@click.argument("run_and_out", nargs=-1, required=True, metavar="[RUN] OUT", type=PATH)
@click.option(
    "--to",
    type=click.Choice(["huggingface", "gguf"]),
    default="huggingface",
    show_default=True,
    help="huggingface: a folder for transformers and compatible programs. gguf: a file for "
    "llama.cpp.",
)
@weights_option
def export(run_and_out: tuple[Path, ...], to: str, weights: str) -> None:
    """Write RUN's model to OUT, a new folder, or a new file for gguf.

    Without RUN: the newest in ./runs. See docs/huggingface.md for the formats.
    """
    from hairpin.reports.formats import safe_name
    from hairpin.weights.convert import verbs

    if len(run_and_out) > 2:
        raise click.UsageError("export takes a run and one place to write to")
    if len(run_and_out) == 1 and (run_and_out[0] / "config.toml").is_file():
        raise click.UsageError(f"{run_and_out[0]} is a run; also name a place to write to")
    run = run_and_out[0] if len(run_and_out) == 2 else None
    click.echo(safe_name(verbs.export(run, run_and_out[-1], to=to, weights=weights).words))
