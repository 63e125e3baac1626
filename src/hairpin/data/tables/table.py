"""Tables in text files: their shared part, CSV and TSV."""

import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from hairpin.data.cache import shown
from hairpin.data.reading import TextReader
from hairpin.data.tables.column_kinds import TEXT, Held, first_rows, held
from hairpin.data.tables.columns import LONGEST_ROW_CHARS, too_long
from hairpin.data.tables.csv import (
    MisquotedError,
    Numbered,
    csv_delimiter,
    csv_records,
    ragged_row,
    tsv_records,
)
from hairpin.data.tables.naming import quoted
from hairpin.errors import CorpusError


class TextTable:
    """A table in a text file.

    Args:
        path: the file.
        on_bad_bytes: as in `config.data.Data`.
    """

    def __init__(self, path: Path, on_bad_bytes: str) -> None:
        self.name = shown(path)
        self.on_bad_bytes = on_bad_bytes
        self.mended = 0
        self.names: dict[str, None] = {}
        self._path = path
        self._reader = TextReader(path, on_bad_bytes)

    @property
    def replaced(self) -> int:
        """U+FFFD characters that replaced bad bytes in this pass so far."""
        return self._reader.replaced + self.mended

    def blocks(self) -> Iterator[str]:
        """Yield the text from its beginning."""
        self.mended = 0
        self._reader = TextReader(self._path, self.on_bad_bytes)
        return self._reader.blocks()


class _Cells(TextTable):
    """Lines of cells; the first names the columns."""

    def _records(self) -> Iterator[Numbered]:
        raise NotImplementedError

    def columns(self) -> Mapping[str, Held]:
        records = self._checked()
        _, header = next(records)
        rows = [cells for _, cells in first_rows(records, lambda record: record[1])]
        self.names |= dict.fromkeys(header)
        cells_of = {name: [cells[at] for cells in rows] for at, name in enumerate(header)}
        return {name: held(name, _kind_of(cells), cells) for name, cells in cells_of.items()}

    def rows(self, column: str) -> Iterator[tuple[str, str | None]]:
        records = self._checked()
        line, header = next(records)
        if header.count(column) > 1:
            raise CorpusError(
                f"{self.name}:{line}: two columns are called {quoted(column)}; rename one"
            )
        at = header.index(column)
        for line, cells in records:
            yield f"{self.name}:{line}", cells[at]

    def _checked(self) -> Iterator[Numbered]:
        """Yield the header, then the rows, each with the same number of cells."""
        try:
            records = self._records()
            line, header = next(records, (1, []))
            header = [name.strip() for name in header]
            if not any(header):
                raise CorpusError(
                    f"{self.name}: is empty; its first line should name the columns, one of them "
                    '"text"'
                )
            yield line, header
            for line, cells in records:
                if ragged := ragged_row(cells, header):
                    raise CorpusError(f"{self.name}:{line}: {ragged}")
                yield line, cells
        except MisquotedError as error:
            raise CorpusError(f"{self.name}:{error.line}: {error.words}") from None


class Csv(_Cells):
    """RFC 4180: quotes, line breaks in cells; , ; tab or | between them, as the header has it."""

    def _records(self) -> Iterator[Numbered]:
        blocks = self.blocks()
        opening = next(blocks, "")
        delimiter = csv_delimiter(opening, ("text",))
        lines = lines_of(chain((opening,), blocks), self.name, "")
        return csv_records(lines, delimiter, LONGEST_ROW_CHARS)


class Tsv(_Cells):
    """A line is a record, unless a CSV writer made the file; quotes are text except around a whole
    cell.
    """

    def _records(self) -> Iterator[Numbered]:
        return tsv_records(lines_of(self.blocks(), self.name, ""), LONGEST_ROW_CHARS)


def lines_of(blocks: Iterable[str], name: str, newline: str) -> Iterator[str]:
    """Yield the lines of a stream, each with its end.

    Args:
        blocks: the stream.
        name: of the file, for an error.
        newline: as in `io.StringIO`: "" ends a line at any of three ends, "\\n" at that alone.
    """
    waiting: list[str] = []
    waiting_chars = number = 0
    for block in blocks:
        waiting.append(block)
        waiting_chars += len(block)
        if "\n" in block or "\r" in block:
            lines = io.StringIO("".join(waiting), newline=newline).readlines()
            # After a return the line feed may be in the next block.
            waiting = [] if lines[-1].endswith("\n") else [lines.pop()]
            waiting_chars = len(waiting[0]) if waiting else 0
            number += len(lines)
            yield from lines
        if waiting_chars > LONGEST_ROW_CHARS:
            raise too_long(f"{name}:{number + 1}")
    yield from io.StringIO("".join(waiting), newline=newline)


def _kind_of(cells: list[str]) -> str:
    """Return the kind of a column of cells: numbers if each is one."""
    full = [cell for cell in cells if cell.strip()]
    return "numbers" if full and all(map(_is_number, full)) else TEXT


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
