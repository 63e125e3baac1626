"""JSON Lines, arrays of JSON, CSV and TSV as tables, read in bounded memory."""

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hairpin.data.cache import shown
from hairpin.data.columns import (
    LONGEST_ROW_CHARS,
    LOOKED_AT_ROWS,
    NOTHING,
    TEXT,
    not_a_text,
    too_long,
)
from hairpin.data.naming import quoted
from hairpin.data.reading import TextReader
from hairpin.data.record_formats import (
    MisquotedError,
    Numbered,
    csv_delimiter,
    csv_records,
    decode_row,
    ragged_row,
    tsv_records,
)
from hairpin.errors import CorpusError

_KINDS = {
    str: TEXT,
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_MANY = {"a number": "numbers", "a list": "lists", "an object": "objects"}
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")
_NEARLY_ALL = 16  # characters before the end of what was read, where an error may be its fault


class _TextTable:
    """A table in a file of text."""

    def __init__(self, path: Path, on_bad_bytes: str) -> None:
        self.name = shown(path)
        self._path = path
        self._on_bad_bytes = on_bad_bytes
        self._mended = 0
        self._reader = TextReader(path, on_bad_bytes)

    @property
    def replaced(self) -> int:
        """U+FFFD characters put in the place of bad bytes in this pass so far."""
        return self._reader.replaced + self._mended

    def _blocks(self) -> Iterator[str]:
        self._mended = 0
        self._reader = TextReader(self._path, self._on_bad_bytes)
        return self._reader.blocks()


class _JsonTable(_TextTable):
    """Rows that are objects."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """Where each is, the object, and whether it may have half a character in it."""
        raise NotImplementedError

    def columns(self) -> Mapping[str, str]:
        found: dict[str, set[str]] = {}
        for _, row, _ in islice(self._objects(), LOOKED_AT_ROWS):
            for name, value in row.items():
                found.setdefault(name, set()).add(_KINDS[type(value)])
        return {name: _in_a_word(kinds) for name, kinds in found.items()}

    def rows(self, column: str) -> Iterator[tuple[str, str | None]]:
        for place, row, is_doubtful in self._objects():
            value = row.get(column)
            if value is not None and not isinstance(value, str):
                raise not_a_text(place, column, _KINDS[type(value)])
            if value and is_doubtful and (half := _HALF_CHARACTER.search(value)):
                value = self._mend(place, column, value, half)
            yield place, value

    def _mend(self, place: str, column: str, value: str, half: re.Match[str]) -> str:
        if self._on_bad_bytes == "error":
            raise CorpusError(
                f"{place}: {quoted(column)} has half a character (\\u{ord(half[0]):04x}) at "
                f"character {half.start()}; mend the row, or go on without such: "
                "--set data.on_bad_bytes=replace"
            )
        value, count = _HALF_CHARACTER.subn("\ufffd", value)
        self._mended += count
        return value


class JsonLines(_JsonTable):
    """An object a line."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        for number, line in enumerate(lines_of(self._blocks(), self.name, "\n"), 1):
            if line.isspace():
                continue
            place = f"{self.name}:{number}"
            try:
                row, end = decode_row(line, _space(line, 0))
                if _space(line, end) < len(line):
                    raise json.JSONDecodeError("Extra data", line, end)
            except json.JSONDecodeError as error:
                hint = "; if the file is one list of objects, name it .json" * (
                    number == 1 and line.startswith("[")
                )
                raise CorpusError(
                    f"{place}: not valid JSON: {error.msg} (column {error.pos + 1}); each line "
                    f"holds one object{hint}"
                ) from None
            except RecursionError:
                raise _endless(place) from None
            yield place, _as_object(place, row), "\\u" in line


class JsonArray(_JsonTable):
    """One list of objects, of which only the part that is being read is held."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        text, position, number, line = "", 0, 0, 1
        blocks = self._blocks()
        text = next(blocks, "")
        while (position := _space(text, 0)) == len(text) and (block := next(blocks, "")):
            text += block
        if text[position : position + 1] != "[":
            what = "is empty" if not text.strip() else "is not a list"
            raise CorpusError(
                f"{self.name}: {what}; a .json holds a list of objects: [{{…}}, {{…}}]. Of an "
                "object a line say --set data.format=jsonl, of anything else data.format=text"
            )
        position += 1
        closed = False
        while True:
            text, position, closed = self._next(text, position, blocks, first=number == 0)
            if closed:
                break
            number += 1
            place = f"{self.name}: record {number}"
            row, end, text = self._decoded(text, position, blocks, place, line)
            yield place, _as_object(place, row), "\\u" in text[position:end]
            position = end
            if position > len(text) // 2 or position > LONGEST_ROW_CHARS:
                line += text.count("\n", 0, position)
                text, position = text[position:], 0

    def _next(
        self, text: str, position: int, blocks: Iterator[str], *, first: bool
    ) -> tuple[str, int, bool]:
        """The text and the place where the next value begins, or True where the list ends."""
        comma = first
        while True:
            position = _space(text, position)
            char = text[position : position + 1]
            if not char:
                block = next(blocks, None)
                if block is None:
                    raise CorpusError(
                        f"{self.name}: the list has no end: the file is cut short; make it again"
                    )
                text, position = text[position:] + block, 0
            elif char == "]":
                return text, position, True
            elif comma:
                return text, position, False
            elif char == ",":
                comma, position = True, position + 1
            else:
                raise CorpusError(
                    f"{self.name}: not valid JSON: {quoted(text[position : position + 10])} where "
                    "a comma or the end of the list belongs"
                )

    def _decoded(
        self, text: str, position: int, blocks: Iterator[str], place: str, line: int
    ) -> tuple[Any, int, str]:
        wanted = len(text)
        while True:
            try:
                value, end = decode_row(text, position)
                return value, end, text
            except RecursionError:
                raise _endless(place) from None
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(text) - _NEARLY_ALL
                unfinished = near_end or error.msg.startswith("Unterminated")
                more = "".join(islice(blocks, max(1, wanted // 2**18))) if unfinished else ""
                if not more:
                    raise CorpusError(
                        f"{self.name}:{line + text.count(chr(10), 0, error.pos)}: not valid JSON: "
                        f"{error.msg} ({place.rpartition(': ')[2]}); mend the file"
                    ) from None
                if len(text) - position > LONGEST_ROW_CHARS:
                    raise too_long(place) from None
                text += more  # as much again: a long row is not decoded over and over
                wanted = len(text)


class _Cells(_TextTable):
    """Lines of cells, of which the first names the columns."""

    def _records(self) -> Iterator[Numbered]:
        raise NotImplementedError

    def columns(self) -> Mapping[str, str]:
        records = self._checked()
        _, header = next(records)
        rows = [cells for _, cells in islice(records, LOOKED_AT_ROWS)]
        return {name: _kind_of([cells[at] for cells in rows]) for at, name in enumerate(header)}

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
        """The header, then the rows, each with as many cells."""
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
    """RFC 4180: quotes, line breaks in cells; , or ; or tab between them, as the header has it."""

    def _records(self) -> Iterator[Numbered]:
        blocks = self._blocks()
        opening = next(blocks, "")
        delimiter = csv_delimiter(opening, ("text",))
        lines = lines_of(chain((opening,), blocks), self.name, "")
        return csv_records(lines, delimiter, LONGEST_ROW_CHARS)


class Tsv(_Cells):
    """A line is a record; any quote is text but those around a whole cell."""

    def _records(self) -> Iterator[Numbered]:
        return tsv_records(lines_of(self._blocks(), self.name, ""))


def lines_of(blocks: Iterable[str], name: str, newline: str) -> Iterator[str]:
    """The lines of a stream, each with its end.

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
            # Behind a return the line feed may be in the next block.
            waiting = [] if lines[-1].endswith("\n") else [lines.pop()]
            waiting_chars = len(waiting[0]) if waiting else 0
            number += len(lines)
            yield from lines
        if waiting_chars > LONGEST_ROW_CHARS:
            raise too_long(f"{name}:{number + 1}")
    if rest := "".join(waiting):
        yield rest


def begins_like_rows(path: Path) -> bool:
    """Whether a .json that nobody named is a list of objects, and not settings or the like."""
    try:
        opening = next(TextReader(path, "replace").blocks(), "")
    except CorpusError:
        return False
    return re.match(r"\s*\[\s*\{", opening[:1000]) is not None


def _in_a_word(kinds: set[str]) -> str:
    """What a column holds, by the kinds of its values."""
    kinds = kinds - {"null"}
    if not kinds:
        return NOTHING
    return _MANY.get(kind := min(kinds), kind) if len(kinds) == 1 else " and ".join(sorted(kinds))


def _kind_of(cells: list[str]) -> str:
    """What a column of cells holds: numbers if each is one."""
    full = [cell for cell in cells if cell.strip()]
    return "numbers" if full and all(map(_is_number, full)) else TEXT


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_object(place: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise CorpusError(
            f'{place}: should be an object with a text in it, such as {{"text": …}}, and is '
            f"{'a text' if isinstance(row, str) else _KINDS[type(row)]}"
        )
    return row


def _endless(place: str) -> CorpusError:
    return CorpusError(f"{place}: lists within lists without end; mend the file")


def _space(text: str, position: int) -> int:
    """The first place from `position` on that is no white space of JSON."""
    found = _SPACE.match(text, position)
    assert found
    return found.end()
