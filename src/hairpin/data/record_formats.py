r"""How files hold labelled data: lines of cells, and JSON.

A .tsv has a record a line, and its quotes are text: people and corpora write them as they come. But
a cell that stands in quotes as a whole, as CSV writers put one with a quote in it, loses them; and
where all quotes are a CSV writer's, cells may have line breaks: what Python's csv writes is read
back.

In JSON a number stays the text that it is written as, so that none is too large and 1.50 keeps its
zero; and what Python reads but has no one meaning is marked.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from hairpin.data.naming import counted

DELIMITERS = (",", ";", "\t", "|")
Numbered = tuple[int, list[str]]

_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\Z)|([^\t]*)')
# A cell as CSV writers make it, with what ends it; and one that goes on.
_WRITTEN_CELL = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)(\t|\r\n|\r|\n|\Z)')
_OPEN_CELL = re.compile(r'"[^"]*(?:""[^"]*)*"?\Z')
_LOOKED_AT_CHARS = 1 << 20
_LONGEST_CHARS = 2**31 - 1  # as large as csv takes on every machine
_NAMED_DELIMITER = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n|\Z)', re.I)  # as Excel has it


class MisquotedError(ValueError):
    """The quotes of the record that begins in `line` do not match."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line

    @property
    def words(self) -> str:
        """What is wrong, and what to do."""
        return (
            f"the quotes of the record that begins here do not match ({self}); inside a quoted "
            "cell, write a quote twice"
        )


def csv_records(
    lines: Iterable[str], delimiter: str, longest_chars: int, first_line: int = 1
) -> Iterator[Numbered]:
    """The number of each record's first line, and its cells; blank lines are no records, and
    neither is a first one that names the delimiter.

    Args:
        lines: each with its end.
        delimiter: between cells.
        longest_chars: of a cell; a quote that is never closed makes a cell of all that follows.
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
    # The limit is the process's, and shorter than a long text: raised for each record read.
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
    """The delimiter that the first line names, or under which most of the columns stand in it, else
    the one that makes most cells of it; the first of equals.
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
    """The number of each record's first line, and its cells; blank lines are no records.

    Args:
        lines: each with its end, as the file has it.
        longest_chars: of a cell with line breaks in it.

    Raises:
        MisquotedError: as `csv_records`, where a CSV writer made the file.
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
    """What is wrong with a row that has not as many cells as the header."""
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
    """Tell whether all quotes are a CSV writer's, and one is of a cell with line breaks; None: the
    quotes are, and no cell has line breaks so far, so that it is the same to read it by lines.

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
        assert found  # its second alternative takes anything, and nothing
        quoted, plain = found.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        position = found.end() + 1
    return cells


@dataclass(frozen=True)
class Refused:
    """What Python's reader takes for a value, and is none: in words."""

    words: str


def decode_json(text: str) -> Any:
    """The value that a text stands for: dict, list, str, bool, None or `Refused`.

    Raises:
        json.JSONDecodeError: it is not JSON.
        RecursionError: it goes too deep.
    """
    return _DECODER.decode(text)


def decode_row(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at `start`, with numbers as floats, and where it ends.

    Raises:
        json.JSONDecodeError: it is not JSON.
        RecursionError: it goes too deep.
    """
    return _ROWS.raw_decode(text, start)


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
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

# Faster: of a row one text is wanted, and of the others nothing but their kind.
_ROWS = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=float)
