r"""CSV and TSV: lines of cells, of which the first names the columns.

A .csv follows RFC 4180: quotes, line breaks in cells; , or ; or tab or | between them, as its
header has it.

A .tsv has one record per line, and its quotes are text: people and corpora write them unescaped.
But a cell that is quoted as a whole, as CSV writers do for one with a quote in it, loses its
quotes; and if all quotes are a CSV writer's, cells may have line breaks, so that the output of
Python's csv is read back.
"""

import csv
import io
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from hairpin.data.tables.column_kinds import TEXT
from hairpin.data.tables.columns import counted, quoted
from hairpin.data.tables.table import MAX_ROW_CHARS, Entry, TextTable
from hairpin.errors import CorpusError

DELIMITERS = (",", ";", "\t", "|")
Numbered = tuple[int, list[str]]

_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\Z)|([^\t]*)')
# A cell as CSV writers make it, with its end; and one that continues.
_WRITTEN_CELL = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^"\t\r\n]*)(\t|\r\n|\r|\n|\Z)')
_OPEN_CELL = re.compile(r'"[^"]*(?:""[^"]*)*"?\Z')
_SAMPLE_CHARS = 1 << 20
_NAMED_DELIMITER = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n|\Z)', re.I)  # as Excel writes it


class _Cells(TextTable):
    """Lines of cells; the first names the columns."""

    @abstractmethod
    def records(self) -> Iterator[Numbered]:
        """Yield the number of each record's first line, and its cells.

        Raises:
            MisquotedError: the quotes do not match.
        """

    def rows(self, column: str | None = None) -> Iterator[Entry]:
        try:
            records = self.records()
            line, names = next(records, (1, []))
            header = [name.strip() for name in names]
            self._begin(line, header, column)
            places = {name: header.index(name) for name in header}
            wanted = places if column is None else {column: places[column]}
            for line, cells in records:
                place = f"{self.name}:{line}"
                if len(cells) != len(header):
                    yield Entry(place, None, _ragged(cells, header))
                else:
                    yield Entry(place, {name: cells[at] for name, at in wanted.items()})
        except MisquotedError as error:
            yield Entry(f"{self.name}:{error.line}", None, error.words)

    def _begin(self, line: int, header: Sequence[str], column: str | None) -> None:
        if not any(header) and not self.is_exact:
            raise CorpusError(
                f'{self.name}: is empty; its first line should name the columns, one of them "text"'
            )
        self.header = f"{self.name}:{line}", tuple(header)
        self.names |= dict.fromkeys(header)
        if column is not None and header.count(column) > 1:
            raise CorpusError(
                f"{self.name}:{line}: two columns are called {quoted(column)}; rename one"
            )

    def kind_of(self, values: Sequence[Any]) -> str:
        full = [cell for cell in values if cell.strip()]
        return "numbers" if full and all(map(_is_number, full)) else TEXT


class Csv(_Cells):
    """Cells divided by what the header has most of; a quoted cell may have line breaks."""

    def records(self) -> Iterator[Numbered]:
        blocks = self.blocks()
        opening = next(blocks, "")
        delimiter = csv_delimiter(opening, self.expected)
        return csv_records(self.lines("", chain((opening,), blocks)), delimiter, MAX_ROW_CHARS)


class Tsv(_Cells):
    """A line is a record, unless a CSV writer made the file; quotes are text except around a whole
    cell.
    """

    def records(self) -> Iterator[Numbered]:
        return tsv_records(self.lines(""), MAX_ROW_CHARS)


class MisquotedError(ValueError):
    """The quotes of the record that begins in `line` do not match."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line

    @property
    def words(self) -> str:
        """The problem and its remedy."""
        return f"unbalanced quotes in this record ({self}); inside a quoted cell, double each quote"


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


def csv_delimiter(text: str, columns: Sequence[str]) -> str:
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

    return max(DELIMITERS, key=found)


def tsv_records(lines: Iterable[str], longest_chars: int) -> Iterator[Numbered]:
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
            written = _is_csv_quoting("".join(ahead), width, ended=not _is_full(ahead))
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


def _ragged(cells: Sequence[str], header: Sequence[str]) -> str:
    """Describe the problem of a row whose number of cells differs from the header's."""
    found = f"{counted(len(cells), 'cell')}, and the header has {len(header)}"
    if len(header) == 1:
        return (
            f"{found}; cells are separated by commas, semicolons, | or tabs, the same in all "
            "lines: change the file, or add a first line such as sep=^"
        )
    return f"{found}; put a cell that holds the delimiter or a line break in quotes"


def _some(lines: Iterator[str]) -> Iterator[str]:
    """Yield the next lines, up to about `_SAMPLE_CHARS` characters."""
    count = 0
    while count < _SAMPLE_CHARS and (line := next(lines, "")):
        count += len(line)
        yield line


def _is_full(lines: Sequence[str]) -> bool:
    return sum(map(len, lines[1:])) >= _SAMPLE_CHARS


def _is_csv_quoting(text: str, width: int, *, ended: bool) -> bool | None:
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


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
