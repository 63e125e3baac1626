"""Labelled texts and instructions from a file: CSV, TSV, JSON or JSON Lines -> rows of text.

    .csv              RFC 4180: quotes, line breaks in cells; , ; tab or |, as the header has it
    .tsv              a line is a record, unless a CSV writer made it; any quote is text but those
                      around a whole cell
    .json             a list of objects, or an object with one list among its values
    .jsonl .ndjson    an object a line

Everything that is wrong with a file is said at once, a line each with its place.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.data.naming import counted, names_of, nearest, quoted
from hairpin.data.record_formats import (
    MisquotedError,
    Numbered,
    csv_delimiter,
    csv_records,
    decode_json,
    kind_of,
    ragged_row,
    tsv_records,
)
from hairpin.errors import CorpusError

_MOST_PROBLEMS = 10
# NUL ends strings in other programs; half a surrogate pair is no character and has no UTF-8.
_UNFIT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    Args:
        place: where it is, for messages: "spam.csv:17" (the line on which it begins), or
            "data.json: record 3" (counted from 1).
        fields: the text of each column that was asked for.
    """

    place: str
    fields: Mapping[str, str]


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), advice: str = ""
) -> list[Row]:
    """The records of a file, in its order, with the columns that are asked for and no others.

    A JSON number or boolean becomes the text that the file has for it. A text may be empty.

    Args:
        path: the suffix says what the file holds.
        required: columns that each record has.
        optional: columns whose text is "" where a record does not have them, or has null.
        advice: how other columns can be asked for, in case one is missing.

    Raises:
        CorpusError: the file cannot be read, is of no known kind, is not UTF-8, is empty; or up
            to ten lines, for each record that is malformed or lacks something, and how many more.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise CorpusError(
            f"{path}: its name does not say what it holds; records are read from files that end "
            f"in {', '.join(_PARSERS)}"
        )
    text = _text_of(path)
    if not text.strip():
        raise CorpusError(f"{path}: the file is empty; it should hold {names_of(required)}")
    asked = _Asked(str(path), tuple(required), tuple(optional), advice and f"; {advice}")
    rows = parse(text, asked)
    asked.stop_if_wrong()
    if not rows:
        raise CorpusError(f"{path}: no records in it; add some, with {names_of(required)}")
    return rows


def read_texts(path: Path, column: str) -> list[Row]:
    """The texts of a file without labels: a column of records, or the lines of any other file.

    Raises:
        CorpusError: as `read_rows`.
    """
    if path.suffix.lower() in _PARSERS:
        return read_rows(path, [column])
    lines = enumerate(io.StringIO(_text_of(path), newline=None), 1)  # as editors count them
    return [
        Row(f"{path}:{number}", {column: line.removesuffix("\n")})
        for number, line in lines
        if line.strip()
    ]


def _text_of(path: Path) -> str:
    try:
        if path.is_dir():
            raise CorpusError(f"{path}: is a folder; name a file in it")
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: cannot be read ({reason}); check its permissions") from None
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        hint = " (the file begins like UTF-16)" if is_utf16 else ""
        raise CorpusError(
            f"{path}: byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8"
            f"{hint}; save the file as UTF-8"
        ) from None


@dataclass
class _Asked:
    """What the caller wants of a file, and what stands in the way."""

    file: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    advice: str
    problems: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return self.required + self.optional

    def stop_if_wrong(self) -> None:
        more = len(self.problems) - _MOST_PROBLEMS
        if more > 0:
            self.problems[_MOST_PROBLEMS:] = [f"{self.file}: and {more} more"]
        if self.problems:
            raise CorpusError(self.problems)

    def fit(self, place: str, fields: Mapping[str, str]) -> bool:
        """Whether all the texts can be used; a line for each that cannot."""
        unfit = [(name, found) for name, text in fields.items() if (found := _UNFIT.search(text))]
        for name, found in unfit:
            what = "a NUL" if found[0] == "\0" else f"half a character (\\u{ord(found[0]):04x})"
            self.problems.append(
                f"{place}: {quoted(name)} has {what} at character {found.start()}; take it out"
            )
        return not unfit


def _csv(text: str, asked: _Asked) -> list[Row]:
    return _table(csv_records(_lines(text), csv_delimiter(text, asked.required), len(text)), asked)


def _tsv(text: str, asked: _Asked) -> list[Row]:
    return _table(tsv_records(_lines(text)), asked)


def _lines(text: str) -> Iterator[str]:
    return io.StringIO(text, newline="")


def _table(records: Iterator[Numbered], asked: _Asked) -> list[Row]:
    """Rows from lines of cells, of which the first has the names of the columns."""
    rows: list[Row] = []
    try:
        line, header = next(records, (1, []))
        header = [name.strip() for name in header]
        _check_header(f"{asked.file}:{line}", header, asked)
        asked.stop_if_wrong()
        columns = {name: header.index(name) for name in asked.names if name in header}
        for line, cells in records:
            place = f"{asked.file}:{line}"
            if not (ragged := ragged_row(cells, header)):
                fields = {
                    name: cells[columns[name]] if name in columns else "" for name in asked.names
                }
                if asked.fit(place, fields):
                    rows.append(Row(place, fields))
            else:
                asked.problems.append(f"{place}: {ragged}")
    except MisquotedError as error:
        asked.problems.append(f"{asked.file}:{error.line}: {error.words}")
    return rows


def _check_header(place: str, header: list[str], asked: _Asked) -> None:
    missing = [name for name in asked.required if name not in header]
    if missing:
        add = "; if that is a record, put a line with the columns' names in front"
        asked.problems.append(
            f"{place}: no column {names_of(missing)}; the first line has {names_of(header)}"
            f"{nearest(tuple(missing), tuple(header)) or asked.advice or add}"
        )
    asked.problems += [
        f"{place}: two columns are called {quoted(name)}; rename one"
        for name in asked.names
        if header.count(name) > 1
    ]


def _json(text: str, asked: _Asked) -> list[Row]:
    try:
        whole = decode_json(text)
    except json.JSONDecodeError as error:
        hint = "; name the file .jsonl if each of its lines is a record"
        raise CorpusError(
            f"{asked.file}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
            f"{hint if error.msg == 'Extra data' else ''}"
        ) from None
    except RecursionError:
        raise CorpusError(f"{asked.file}: not records: lists within lists without end") from None
    found = kind_of(whole)
    if isinstance(whole, dict):
        lists = [name for name, value in whole.items() if isinstance(value, list)]
        found = f"an object with {counted(len(lists), 'list')} in it"
        whole = whole[lists[0]] if len(lists) == 1 else None
    if not isinstance(whole, list):
        raise CorpusError(
            f"{asked.file}: should be a list of objects, or an object with one such list, and is "
            f"{found}"
        )
    numbered = ((f"{asked.file}: record {n}", value) for n, value in enumerate(whole, 1))
    return _objects(numbered, asked)


def _jsonl(text: str, asked: _Asked) -> list[Row]:
    return _objects(_lines_of_json(text, asked), asked)


def _lines_of_json(text: str, asked: _Asked) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{asked.file}:{number}"
        if line and not line.isspace():
            try:
                value = decode_json(line)
            except json.JSONDecodeError as error:
                asked.problems.append(
                    f"{place}: not valid JSON: {error.msg} (column {error.colno}); each line "
                    "holds one object"
                )
            except RecursionError:
                asked.problems.append(f"{place}: no record: lists within lists without end")
            else:
                yield place, value


def _objects(values: Iterator[tuple[str, Any]], asked: _Asked) -> list[Row]:
    rows = []
    for place, value in values:
        if not isinstance(value, dict):
            asked.problems.append(
                f"{place}: should be an object with {names_of(asked.required)}, and is "
                f"{kind_of(value)}"
            )
        else:
            fields = _fields(place, value, asked)
            if fields is not None:
                rows.append(Row(place, fields))
    return rows


def _fields(place: str, value: dict[str, Any], asked: _Asked) -> dict[str, str] | None:
    """The text of each column; None, and a line for each, where one cannot be had."""
    before = len(asked.problems)
    missing = [name for name in asked.required if name not in value]
    if missing:
        asked.problems.append(
            f"{place}: no {names_of(missing)}; it has {names_of(tuple(value))}"
            f"{nearest(tuple(missing), tuple(value)) or asked.advice}"
        )
    fields = {}
    for name in asked.names:
        found = value.get(name)
        if isinstance(found, bool):
            found = "true" if found else "false"
        elif found is None and (name in asked.optional or name in missing):
            found = ""
        if isinstance(found, str):
            fields[name] = found
        else:
            asked.problems.append(
                f"{place}: {quoted(name)} should be a text, and is {kind_of(found)}"
            )
    return fields if asked.fit(place, fields) and len(asked.problems) == before else None


_PARSERS: dict[str, Callable[[str, _Asked], list[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
}
SUFFIXES = tuple(_PARSERS)
