"""hairpin evaluate."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import (
    PATH,
    Verb,
    column_option,
    json_option,
    plugin_option,
    run_and_rest,
    weights_option,
)
from hairpin.cli.printing import say

if TYPE_CHECKING:
    from hairpin.reports.terminal.tables import MeasurementLike


@click.command(cls=Verb, group="after", place=2, short_help="Measure a run's model on any text.")
@click.argument("run_and_texts", nargs=-1, metavar="[RUN] [TEXT]...", type=PATH)
@column_option
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="How to read TEXT, if not as the run read its own: data.separator, "
    "data.format, data.on_bad_bytes; of a fine-tuned run finetune.text_column and the like.",
)
@json_option
@weights_option
@plugin_option
def evaluate(
    run_and_texts: tuple[Path, ...],
    column: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    weights: str,
    plugin: tuple[Path, ...],
) -> None:
    """Measure loss, perplexity and bits per byte of RUN's model on TEXT.

    TEXT is read as the run read its own: with its separator, its column, its format. Without TEXT:
    on the run's own validation text, all of it. Without RUN: the newest in ./runs.
    For a fine-tuned run TEXT is a file of records; for a classifier the accuracy is measured too.
    """
    from hairpin.plugins.files import load_plugins
    from hairpin.reports.terminal.run_display import counting_bar
    from hairpin.reports.terminal.tables import measured_lines

    load_plugins(plugin)
    run, texts = run_and_rest(run_and_texts)
    trained = run.trained(weights=weights)
    notices: list[str] = []
    with counting_bar("evaluating") as on_progress:
        measured = trained.measure(texts, on_progress, notices.append, column, None, overrides)
    for notice in notices:
        say(notice, err=True)
    labels = run.config.finetune.labels
    if as_json:
        facts = {
            "run": str(run.path),
            "weights": trained.weights,
            "text": [str(text) for text in texts] or "validation",
            "examples" if labels else "tokens": measured.tokens,
            "loss": measured.loss,
            **(
                {
                    "accuracy": measured.accuracy,
                    "labels": list(labels),
                    "confusion": measured.confusion,
                }
                if labels
                else {"perplexity": measured.perplexity, "bits_per_byte": measured.bits_per_byte}
            ),
            **_sources_as_json(measured.sources),
        }
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in facts.items()
        }
        click.echo(json.dumps(finite, allow_nan=False))
        return
    say("\n".join([trained.weights, *measured_lines(measured, labels)]))


def _sources_as_json(sources: "Mapping[str, MeasurementLike] | None") -> dict[str, object]:
    if sources is None:
        return {}
    values = {
        name: {
            "tokens": found.tokens,
            "val_loss": found.loss,
            "val_bits_per_byte": found.bits_per_byte,
        }
        for name, found in sources.items()
    }
    finite = {
        name: {key: n if n is not None and math.isfinite(n) else None for key, n in each.items()}
        for name, each in values.items()
    }
    return {"sources": finite}
