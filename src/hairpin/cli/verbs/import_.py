"""hairpin import."""

from pathlib import Path

import click

from hairpin.cli.options import PATH, Verb
from hairpin.cli.printing import say


@click.command(
    "import",
    cls=Verb,
    group="share",
    place=2,
    short_help="Import a transformers model as a run.",
)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--out", type=PATH, help="The run's folder.")
def import_(folder: Path, out: Path | None) -> None:
    """Import the model in DIR as a run: config.json, safetensors, tokenizer.

    DIR has GPT-2, or a model that hairpin exported. The run can generate, be evaluated and be
    fine-tuned, and `hairpin train TEXT --from` trains it further. Pickles are never read.
    """
    from hairpin.reports.formats import safe_name
    from hairpin.weights.convert.verbs import import_model

    run = import_model(folder, out=out, on_notice=lambda line: say(line, err=True))
    count = run.summary().parameters or 0
    click.echo(safe_name(f"{run.path}: {count:,} parameters, from {folder}"))
