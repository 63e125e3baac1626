"""hairpin export."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb, weights_option


@click.command(
    cls=Verb, group="share", place=1, short_help="Write a run for transformers, or for llama.cpp."
)
@click.argument("run_and_out", nargs=-1, required=True, metavar="[RUN] OUT", type=PATH)
@click.option(
    "--to",
    type=click.Choice(["huggingface", "gguf"]),
    default="huggingface",
    show_default=True,
    help="huggingface: a folder for transformers and what reads its format. gguf: a file for "
    "llama.cpp.",
)
@weights_option
def export(run_and_out: tuple[Path, ...], to: str, weights: str) -> None:
    """Write RUN's model to OUT, which is new: a folder, or a file for gguf.

    Without RUN: the newest in ./runs. docs/huggingface.md says what becomes of each network.
    """
    from hairpin.reports.formats import harmless_name
    from hairpin.weights.convert import verbs

    if len(run_and_out) > 2:
        raise click.UsageError("export takes a run and one place to write it to")
    if len(run_and_out) == 1 and (run_and_out[0] / "config.toml").is_file():
        raise click.UsageError(f"{run_and_out[0]} is a run; say where to write it, too")
    run = run_and_out[0] if len(run_and_out) == 2 else None
    click.echo(harmless_name(verbs.export(run, run_and_out[-1], to=to, weights=weights).words))
