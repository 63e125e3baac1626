"""hairpin export, hairpin import."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, weights_option


@click.command(short_help="Write a run for transformers, or for llama.cpp.")
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


@click.command("import", short_help="Make a run of a model of transformers.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--out", type=PATH, help="The run's folder.")
def import_(folder: Path, out: Path | None) -> None:
    """Make a run of the model in DIR: config.json, safetensors, tokenizer.

    GPT-2's, and what hairpin exported. The run can write, be measured and be fine-tuned, and
    `hairpin train TEXT --from` goes on from it. Pickles are never read.
    """
    from hairpin.cli.shown import say
    from hairpin.reports.formats import harmless_name
    from hairpin.weights.convert.verbs import import_model

    run = import_model(folder, out=out, on_notice=lambda line: say(line, err=True))
    count = run.summary().parameters or 0
    click.echo(harmless_name(f"{run.path}: {count:,} parameters, from {folder}"))
