"""hairpin sample, hairpin evaluate, hairpin predict."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from hairpin.cli.options import (
    PATH,
    column_option,
    json_option,
    plugin_option,
    run_argument,
    weights_option,
)
from hairpin.cli.shown import say, write

if TYPE_CHECKING:
    from hairpin.data.tables.records import Row
    from hairpin.model.products import Precision
    from hairpin.reports.terminal.measured import Measurement
    from hairpin.run import Run

Named = TypeVar("Named", str, Path)

_run_and_texts = click.argument("run_and_texts", nargs=-1, metavar="[RUN] [TEXT]...", type=PATH)


@click.command(short_help="Let a run's model write.")
@run_argument
@click.option("--prompt", help="Text to go on from.")
@click.option("--tokens", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option(
    "--temperature",
    type=float,
    default=0.8,
    show_default=True,
    help="From 0 up; 0: always the likeliest token.",
)
@click.option("--top-k", type=int, default=50, show_default=True, help="0: all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Above 0; 1: all.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="What weights are read in on a CPU: float32 is exact; float16 and bfloat16 halve what is "
    "read, int8 quarters it, and each rounds more than the one before. docs/generation.md says "
    "what each costs.",
)
@weights_option
@plugin_option
def sample(
    run: Path | None,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    precision: "Precision",
    weights: str,
    plugin: tuple[Path, ...],
) -> None:
    """Let RUN's model write; without RUN, the newest in ./runs.

    On a terminal and without --prompt it asks for prompts until Ctrl-D.
    """
    from hairpin import api
    from hairpin.errors import ConfigError, CorpusError
    from hairpin.model.generate import Sampling
    from hairpin.plugins.files import load_plugins

    load_plugins(plugin)
    try:
        sampling = Sampling(temperature, top_k, top_p)
    except ConfigError as error:  # its lines begin with the names of the options
        raise ConfigError(f"--{line}" for line in error.problems) from None
    trained = api.load(run).writer(weights=weights, precision=precision)
    rounded = "" if precision == "float32" else f", read in {precision}"
    click.echo(trained.weights + rounded, err=True)

    def go_on(prompt: str) -> None:
        # A continuation follows its prompt directly, a response is below its instruction.
        before = prompt + "\n" * trained.follows_instructions
        written = trained.write(
            prompt, sampling, tokens=tokens, seed=seed, on_notice=partial(say, err=True)
        )
        write(chain([before], written))

    if prompt is not None or not sys.stdin.isatty():
        go_on(prompt or "")
        return
    click.echo("type a prompt; Ctrl-D ends", err=True)
    while True:
        try:
            go_on(input("> "))
        except EOFError:
            click.echo()
            return
        except UnicodeDecodeError:
            say("what was typed is not UTF-8 text; type it again", err=True)
        except CorpusError as error:
            say("\n".join(error.problems), err=True)
        seed += 1


@click.command(short_help="Measure a run's model on any text.")
@_run_and_texts
@column_option
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="How TEXT is read, where that is not as the run read its own: data.separator, "
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
    """Loss, perplexity and bits per byte of RUN's model on TEXT.

    TEXT is read as the run read its own: with its separator, its column, its format. Without TEXT:
    on the run's own validation text, all of it. Without RUN: the newest in ./runs.
    Of a fine-tuned run TEXT is a file of records, and of a classifier the accuracy is measured.
    """
    from hairpin.plugins.files import load_plugins
    from hairpin.reports.terminal.measured import measured_lines
    from hairpin.reports.terminal.run_display import counting_bar

    load_plugins(plugin)
    run, texts = _divided(run_and_texts)
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


@click.command(short_help="Tell the labels of texts.")
@click.argument("run_and_texts", nargs=-1, metavar="[RUN] TEXT|FILE...", required=True)
@json_option
@weights_option
def predict(run_and_texts: tuple[str, ...], as_json: bool, weights: str) -> None:
    """Labels and probabilities that the classifier RUN gives each TEXT.

    FILE: records with a column of texts (CSV, TSV, JSON, JSONL, Parquet), or any other file with a
    text in each line; -: standard input, with a text in each line. Without RUN: the newest in
    ./runs.
    """
    from hairpin.reports.terminal.measured import prediction_lines

    run, found = _divided(run_and_texts)
    classifier = run.classifier(weights=weights)
    texts, places = _texts_to_classify(found, run.config.finetune.text_column)
    predictions = classifier.predict(texts, places)
    if cut := sum(prediction.cut for prediction in predictions):
        click.echo(f"{cut:,} of {len(texts):,} texts were longer than the context: cut", err=True)
    if as_json:
        rows = [
            {"text": text, "label": p.label, "probabilities": p.probabilities}
            for text, p in zip(texts, predictions, strict=True)
        ]
        facts = {"run": str(run.path), "weights": classifier.weights, "predictions": rows}
        click.echo(json.dumps(facts, allow_nan=False))
        return
    click.echo(classifier.weights, err=True)
    click.echo("\n".join(prediction_lines(texts, predictions)))


def _sources_as_json(sources: "Mapping[str, Measurement] | None") -> dict[str, object]:
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


def _divided(arguments: Sequence[Named]) -> "tuple[Run, Sequence[Named]]":
    """Return the run named first, or the newest, and the arguments after it."""
    from hairpin import api

    names_run = bool(arguments) and _names_run(Path(arguments[0]))
    return api.load(arguments[0] if names_run else None), arguments[names_run:]


def _texts_to_classify(named: Sequence[str], column: str) -> tuple[list[str], list[str]]:
    """Return texts and the place of each: a path that is a file is read, - is standard input, and
    anything else is a text.
    """
    from hairpin.data.tables.records import Row, read_texts
    from hairpin.errors import CorpusError

    rows: list[Row] = []
    for number, text in enumerate(named, 1):
        path = Path(text)
        if text == "-":
            rows += _rows_of_standard_input(column)
        elif _is_file(path) or _is_table(path):
            rows += read_texts(path, column)
        elif _is_name(text):
            raise CorpusError(f"{text}: no such file; check the path, or add a blank to a text")
        else:
            rows.append(Row(f"text {number}", {column: text}))
    texts, places = [row.fields[column] for row in rows], [row.place for row in rows]
    if not texts:
        raise CorpusError("no text to classify: give a text in quotes, or a file")
    return texts, places


def _is_name(text: str) -> bool:
    """True if a text looks like the name of a readable file."""
    from hairpin.data.tables.records import has_records

    path = Path(text)
    is_one_word = not any(map(str.isspace, text))
    return is_one_word and (has_records(path) or path.suffix.lower() == ".txt")


def _rows_of_standard_input(column: str) -> "list[Row]":
    from hairpin.data.tables.records import rows_of_lines
    from hairpin.errors import CorpusError

    content = sys.stdin.buffer.read()
    try:
        return rows_of_lines(content.decode().removeprefix("\ufeff"), "standard input", column)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"standard input:{line}: byte 0x{content[error.start]:02x} is not UTF-8; mend the text"
        ) from None


def _names_run(path: Path) -> bool:
    """True for a run, or for a missing path among runs: the mistyped name of one."""
    from hairpin import api

    if _is_file(path / "config.toml"):
        return True
    try:
        return path.parent != Path() and not path.exists() and bool(api.runs(path.parent))
    except (OSError, ValueError):  # a text too long for a name, or with a NUL in it
        return False


def _is_table(path: Path) -> bool:
    """True for a folder that is one table."""
    from hairpin.data.tables.arrow import is_saved_dataset

    try:
        return is_saved_dataset(path)
    except (OSError, ValueError):  # as below
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a name, or with a NUL in it
        return False
