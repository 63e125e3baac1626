"""hairpin import."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.shown import say


@click.command(
    "import", cls=Verb, group="share", place=2, short_help="Make a run of a model of transformers."
)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--out", type=PATH, help="The run's folder.")
def import_(folder: Path, out: Path | None) -> None:
    """Make a run of the model in DIR: config.json, safetensors, tokenizer.

    GPT-2's, and what hairpin exported. The run can write, be measured and be fine-tuned, and
    `hairpin train TEXT --from` goes on from it. Pickles are never read.
    """
    from hairpin.reports.formats import harmless_name
    from hairpin.weights.convert.verbs import import_model

    run = import_model(folder, out=out, on_notice=lambda line: say(line, err=True))
    count = run.summary().parameters or 0
    click.echo(harmless_name(f"{run.path}: {count:,} parameters, from {folder}"))
