r"""Formats of labelled data: lines of cells, and JSON.

A .tsv has one record per line, and its quotes are text: people and corpora write them unescaped.
But a cell that is quoted as a whole, as CSV writers do for one with a quote in it, loses its
quotes; and if all quotes are a CSV writer's, cells may have line breaks, so that the output of
Python's csv is read back.

In JSON a number keeps its text, so that none is too large and 1.50 keeps its zero; and values that
Python accepts but that are ambiguous are marked.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hairpin.data.tables.naming import counted

DELIMITERS = (",", ";", "\t", "|")
Numbered = tuple[int, list[str]]

_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\Z)|([^\t]*)')
# A cell as CSV writers make it, with its end; and one that continues.
_WRITTEN_CELL = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)(\t|\r\n|\r|\n|\Z)')
_OPEN_CELL = re.compile(r'"[^"]*(?:""[^"]*)*"?\Z')
_LOOKED_AT_CHARS = 1 << 20
_LONGEST_CHARS = 2**31 - 1  # the most that csv allows on every machine
_NAMED_DELIMITER = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n|\Z)', re.I)  # as Excel writes it


class MisquotedError(ValueError):
    """The quotes of the record that begins in `line` do not match."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line

    @property
    def words(self) -> str:
        """The problem and its remedy."""
        return (
            f"the quotes of the record that begins here do not match ({self}); inside a quoted "
            "cell, write a quote twice"
        )


def csv_records(
    lines: Iterable[str], delimiter: str, longest_chars: int, first_line: int = 1
) -> Iterator[Numbered]:
    """Yield the number of each record's first line, and its cells; skip blank lines, and a first
    line that names the delimiter.

    Args:
        lines: each with its end.
        delimiter: between cells.
        longest_chars: of a cell; an unclosed quote makes a cell of all that follows.
        first_line: the number of the first line.

    Raises:
        MisquotedError: a quote inside a quoted cell is not doubled, or a cell has no end.
    """
    lines = iter(lines)
    opening = next(lines, "")
    if first_line == 1 and _NAMED_DELIMITER.fullmatch(opening):
        opening, first_line = next(lines, ""), 2
    reader = csv.reader(chain((opening,), lines), delimiter=delimiter, strict=True)
    line = first_line
    # The limit is process-wide, and shorter than a long text: raised for each record read.
    usual = csv.field_size_limit()
    while True:
        csv.field_size_limit(max(usual, longest_chars))
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise MisquotedError(line, str(error)) from None
        finally:
            csv.field_size_limit(usual)
        if cells is None:
            return
        if cells:
            yield line, cells
        line = first_line + reader.line_num


def csv_delimiter(text: str, columns: Sequence[str], choices: Sequence[str] = DELIMITERS) -> str:
    """Return the delimiter that the first line names, or with which it has most of the columns,
    else the one that gives most cells; the first of equals.
    """
    if named := _NAMED_DELIMITER.match(text):
        return named[1]

    def found(delimiter: str) -> tuple[int, int]:
        try:
            _, cells = next(
                csv_records(io.StringIO(text, newline=""), delimiter, len(text)), (0, [])
            )
        except MisquotedError:
            return 0, 0
        names = [cell.strip() for cell in cells]
        return sum(column in names for column in columns), len(names)

    return max(choices, key=found)


def tsv_records(lines: Iterable[str], longest_chars: int = _LONGEST_CHARS) -> Iterator[Numbered]:
    """Yield the number of each record's first line, and its cells; skip blank lines.

    Args:
        lines: each with its end, unchanged.
        longest_chars: of a cell with line breaks in it.

    Raises:
        MisquotedError: as `csv_records`, if a CSV writer made the file.
    """
    lines = iter(lines)
    number, width, is_open = 0, 0, True
    for line in lines:
        if number == 0 and _NAMED_DELIMITER.fullmatch(line):
            number = 1
            continue
        ahead = [line]
        if is_open and '"' in line:
            ahead += _some(lines)
            written = _as_a_csv_writer_does("".join(ahead), width, ended=not _is_full(ahead))
            if written is True:
                yield from csv_records(chain(ahead, lines), "\t", longest_chars, number + 1)
                return
            is_open = written is None
        for each in ahead:
            number += 1
            if cells := each.rstrip("\r\n"):
                row = _tsv_cells(cells)
                width = width or len(row)
                yield number, row


def ragged_row(cells: Sequence[str], header: Sequence[str]) -> str | None:
    """Describe the problem of a row whose number of cells differs from the header's."""
    if len(cells) == len(header):
        return None
    found = f"{counted(len(cells), 'cell')}, and the header has {len(header)}"
    if len(header) == 1:
        return (
            f"{found}; cells are divided by a comma, a semicolon, | or a tab, the same in all "
            "lines: write the file so, or a first line such as sep=^"
        )
    return f"{found}; put a cell that holds the delimiter or a line break in quotes"


def _some(lines: Iterator[str]) -> Iterator[str]:
    """Yield the next lines, up to about `_LOOKED_AT_CHARS` characters."""
    count = 0
    while count < _LOOKED_AT_CHARS and (line := next(lines, "")):
        count += len(line)
        yield line


def _is_full(lines: Sequence[str]) -> bool:
    return sum(map(len, lines[1:])) >= _LOOKED_AT_CHARS


def _as_a_csv_writer_does(text: str, width: int, *, ended: bool) -> bool | None:
    """True if all quotes are a CSV writer's, and one is of a cell with line breaks; None: the
    quotes are, but no cell has line breaks so far, so that reading by lines gives the same.

    Args:
        text: whole lines.
        width: cells in each record; 0: as many as in the first.
        ended: whether nothing follows.
    """
    position = cells = 0
    breaks = False
    while position < len(text):
        found = _WRITTEN_CELL.match(text, position)
        if not found:
            going_on = not ended and _OPEN_CELL.match(text, position) is not None
            return (breaks or None) if going_on else False
        cell = text[position : found.start(1)]
        breaks = breaks or "\n" in cell or "\r" in cell
        position, cells = found.end(), cells + 1
        if found[1] != "\t":
            is_blank = cells == 1 and not cell
            width = width or (0 if is_blank else cells)
            if not is_blank and cells != width:
                return False
            cells = 0
    return breaks or None


def _tsv_cells(line: str) -> list[str]:
    if '"' not in line:
        return line.split("\t")
    cells, position = [], 0
    while position <= len(line):
        found = _CELL.match(line, position)
        assert found  # its second alternative matches anything, even nothing
        quoted, plain = found.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        position = found.end() + 1
    return cells


@dataclass(frozen=True)
class Refused:
    """Description of something that Python's reader accepts and that is not a JSON value."""

    words: str


def decode_json(text: str) -> Any:
    """Decode a text: dict, list, str, bool, None or `Refused`.

    Raises:
        json.JSONDecodeError: it is not JSON.
        RecursionError: it goes too deep.
    """
    return _DECODER.decode(text)


def decode_row(text: str, start: int = 0) -> tuple[Any, int]:
    """Decode the value that begins at `start`, with numbers as floats; return it and its end.

    Raises:
        json.JSONDecodeError: it is not JSON.
        RecursionError: it goes too deep.
    """
    return _ROWS.raw_decode(text, start)


def kind_of(value: Any) -> str:
    """Return the kind of a value, for a message."""
    if isinstance(value, Refused):
        return value.words
    kinds = {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a single value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Refused:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    return Refused(f'an object in which "{twice}" stands twice')


def _constant(name: str) -> Refused:
    return Refused(f"{name}, which JSON does not have")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=_constant
)

# Faster: of a row only one text is needed, and of the others only their kind.
_ROWS = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=float)
