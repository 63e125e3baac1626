r"""How files hold labelled data: lines of cells, and JSON.

A .tsv has no line breaks in its cells, and its quotes are text: people and corpora write them as
they come. But a cell that stands in quotes as a whole, as CSV writers put one with a quote in it,
loses them: what Python's csv writes is read back, as long as no cell has a line break.

In JSON a number stays the text that it is written as, so that none is too large and 1.50 keeps its
zero; and what Python reads but has no one meaning is marked.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.data.naming import counted

DELIMITERS = (",", ";", "\t")
Numbered = tuple[int, list[str]]

_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\Z)|([^\t]*)')


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


def csv_records(lines: Iterable[str], delimiter: str, longest_chars: int) -> Iterator[Numbered]:
    """The number of each record's first line, and its cells; blank lines are no records.

    Args:
        lines: each with its end.
        delimiter: between cells.
        longest_chars: of a cell; a quote that is never closed makes a cell of all that follows.

    Raises:
        MisquotedError: a quote inside a quoted cell is not doubled, or a cell has no end.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
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
        line = reader.line_num + 1


def csv_delimiter(text: str, columns: Sequence[str], choices: Sequence[str] = DELIMITERS) -> str:
    """The delimiter under which most of the columns stand in the first line, else the one that
    makes most cells of it; the first of equals.
    """

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


def tsv_records(lines: Iterable[str]) -> Iterator[Numbered]:
    """The number and the cells of each line that is not blank."""
    for number, line in enumerate(lines, 1):
        if cells := line.rstrip("\r\n"):
            yield number, _tsv_cells(cells)


def ragged_row(cells: Sequence[str], header: Sequence[str]) -> str | None:
    """What is wrong with a row that has not as many cells as the header."""
    if len(cells) == len(header):
        return None
    return (
        f"{counted(len(cells), 'cell')}, and the header has {len(header)}; put a cell that holds "
        "the delimiter or a line break in quotes"
    )


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
