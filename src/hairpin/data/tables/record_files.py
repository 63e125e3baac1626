"""Files of records: CSV, TSV, JSON, JSON Lines or Parquet -> a mapping of values for each record.

    .csv              RFC 4180: quotes, line breaks in cells; , or ; or tab, as the header has it
    .tsv              a line is a record; quotes are text except around a whole cell
    .json             a list of objects, or an object with one list among its values
    .jsonl .ndjson    one object per line
    .parquet          one table

Text is decompressed and decoded by the reader that training uses.
"""

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.config.data import Format
from hairpin.data.kinds import format_of
from hairpin.data.reading import TextReader
from hairpin.data.tables.csv import (
    MisquotedError,
    Numbered,
    csv_delimiter,
    csv_records,
    decode_json,
    kind_of,
    ragged_row,
    tsv_records,
)
from hairpin.data.tables.naming import counted
from hairpin.errors import CorpusError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it is in its file.

    Args:
        place: "spam.csv:17" (the line on which it begins), or "data.json: record 3" (from 1).
        value: a dict of column → a cell's text, or a value of JSON's with numbers as text; it may
            be something else, which is not a record.
        problem: instead of a value, the reason why it cannot be read.
    """

    place: str
    value: Any
    problem: str = ""


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Args:
        entries: its records, in order.
        header: the place of a table's first line, and the columns that it names.
        replaced: U+FFFD characters that replaced bad bytes.
    """

    entries: list[Entry] = field(default_factory=list)
    header: tuple[str, tuple[str, ...]] | None = None
    replaced: int = 0


def read_contents(path: Path, expected: Sequence[str], on_bad_bytes: str) -> Contents:
    """Read the records of a file.

    Args:
        path: its suffix decides the format.
        expected: columns that it may have, used to recognise a CSV file's delimiter.
        on_bad_bytes: as in `config.data.Data`.

    Raises:
        CorpusError: the file cannot be read, is of no known kind, or holds something else.
    """
    _require_file(path)
    if not has_records(path):
        raise CorpusError(
            f"{path}: its name does not say what it holds; records are read from files that end "
            f"in {', '.join(SUFFIXES)}, and from compressed ones"
        )
    format_ = format_of(path)
    if format_ == "parquet":
        rows = enumerate(_parquet_rows(path), 1)
        return Contents([Entry(f"{path} (row {number})", row) for number, row in rows])
    text, replaced = text_of(path, on_bad_bytes)
    if not text.strip():
        names = ", ".join(f'"{name}"' for name in expected)
        raise CorpusError(f"{path}: the file is empty; it should hold {names}")
    found = _PARSERS[format_](str(path), text, expected)
    return Contents(found.entries, found.header, replaced)


def has_records(path: Path) -> bool:
    """True if a file's name is that of a file of records."""
    return format_of(path) in (*_PARSERS, "parquet")


def text_of(path: Path, on_bad_bytes: str) -> tuple[str, int]:
    """Return the text of a file, and the number of its characters that replace bad bytes.

    Raises:
        CorpusError: the file cannot be read, or is not text.
    """
    _require_file(path)
    reader = TextReader(path, on_bad_bytes)
    return "".join(reader.blocks()), reader.replaced


def _require_file(path: Path) -> None:
    try:
        path.stat()
        if path.is_dir():
            raise CorpusError(f"{path}: is a folder; name a file in it")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: cannot be read ({reason}); check its permissions") from None


def _csv(file: str, text: str, expected: Sequence[str]) -> Contents:
    lines = io.StringIO(text, newline="")
    return _table(file, csv_records(lines, csv_delimiter(text, expected), len(text)))


def _tsv(file: str, text: str, expected: Sequence[str]) -> Contents:
    return _table(file, tsv_records(io.StringIO(text, newline="")))


def _table(file: str, records: Iterator[Numbered]) -> Contents:
    """Read lines of cells; the first names the columns."""
    entries: list[Entry] = []
    header: tuple[str, tuple[str, ...]] | None = None
    try:
        line, names = next(records, (1, []))
        header = f"{file}:{line}", tuple(name.strip() for name in names)
        columns = {name: header[1].index(name) for name in header[1]}
        for line, cells in records:
            place = f"{file}:{line}"
            if ragged := ragged_row(cells, header[1]):
                entries.append(Entry(place, None, ragged))
            else:
                entries.append(Entry(place, {name: cells[at] for name, at in columns.items()}))
    except MisquotedError as error:
        entries.append(Entry(f"{file}:{error.line}", None, error.words))
    return Contents(entries, header)


def _json(file: str, text: str, expected: Sequence[str]) -> Contents:
    try:
        whole = decode_json(text)
    except json.JSONDecodeError as error:
        hint = "; name the file .jsonl if each of its lines is a record"
        raise CorpusError(
            f"{file}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
            f"{hint if error.msg == 'Extra data' else ''}"
        ) from None
    except RecursionError:
        raise CorpusError(f"{file}: not records: lists within lists without end") from None
    found = kind_of(whole)
    if isinstance(whole, dict):
        lists = [name for name, value in whole.items() if isinstance(value, list)]
        found = f"an object with {counted(len(lists), 'list')} in it"
        whole = whole[lists[0]] if len(lists) == 1 else None
    if not isinstance(whole, list):
        raise CorpusError(
            f"{file}: should be a list of objects, or an object with one such list, and is {found}"
        )
    return Contents([Entry(f"{file}: record {n}", value) for n, value in enumerate(whole, 1)])


def _jsonl(file: str, text: str, expected: Sequence[str]) -> Contents:
    lines = enumerate(text.split("\n"), 1)
    return Contents(
        [_line_of_json(f"{file}:{n}", line) for n, line in lines if line and not line.isspace()]
    )


def _line_of_json(place: str, line: str) -> Entry:
    try:
        return Entry(place, decode_json(line))
    except json.JSONDecodeError as error:
        problem = f"not valid JSON: {error.msg} (column {error.colno}); each line holds one object"
    except RecursionError:
        problem = "no record: lists within lists without end"
    return Entry(place, None, problem)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a whole table, numbers as text."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise CorpusError(
            f"{path}: reading it needs pyarrow; type: pip install 'hairpin[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            rows = file.read().to_pylist()
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: a text in it is not UTF-8; make the file again") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise CorpusError(
            f"{path}: is not Parquet, or is damaged ({reason}); make the file again"
        ) from None
    for row in rows:
        yield {name: _as_in_json(value) for name, value in row.items()}


def _as_in_json(value: Any) -> Any:
    """Return an Arrow value as `decode_json` would: a number as its text, NaN as None."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str | bool | list | dict | bytes | None):
        return value
    return str(value)


_PARSERS: dict[Format, Callable[[str, str, Sequence[str]], Contents]] = {
    "csv": _csv,
    "tsv": _tsv,
    "json": _json,
    "jsonl": _jsonl,
}
