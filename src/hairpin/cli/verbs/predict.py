"""hairpin predict."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import Verb, is_file, json_option, run_and_rest, weights_option

if TYPE_CHECKING:
    from hairpin.data.tables.records import Row


@click.command(cls=Verb, group="after", place=3, short_help="Predict the labels of texts.")
@click.argument("run_and_texts", nargs=-1, metavar="[RUN] TEXT|FILE...", required=True)
@json_option
@weights_option
def predict(run_and_texts: tuple[str, ...], as_json: bool, weights: str) -> None:
    """Predict the label of each TEXT, with probabilities, by the classifier RUN.

    FILE: records with a column of texts (CSV, TSV, JSON, JSONL, Parquet), or any other file with a
    text in each line; -: standard input, with a text in each line. Without RUN: the newest in
    ./runs.
    """
    from hairpin.reports.terminal.tables import prediction_lines

    run, found = run_and_rest(run_and_texts)
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
        elif is_file(path) or _is_table(path):
            rows += read_texts(path, column)
        elif _is_name(text):
            raise CorpusError(
                f"{text}: no such file; check the path, or add a space if this is a text"
            )
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
            f"standard input:{line}: byte 0x{content[error.start]:02x} is not UTF-8; fix the text"
        ) from None


def _is_table(path: Path) -> bool:
    """True for a folder that is one table."""
    from hairpin.data.tables.arrow import is_saved_dataset

    try:
        return is_saved_dataset(path)
    except (OSError, ValueError):  # a text too long for a name, or with a NUL in it
        return False
