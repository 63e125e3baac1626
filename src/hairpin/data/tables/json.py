"""JSON Lines and arrays of JSON as tables, read in bounded memory."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hairpin.data.reading import TextReader
from hairpin.data.tables.column_kinds import NOTHING, TEXT, Held, first_rows, held
from hairpin.data.tables.columns import LONGEST_ROW_CHARS, not_a_text, too_long
from hairpin.data.tables.csv import decode_row
from hairpin.data.tables.naming import quoted
from hairpin.data.tables.table import TextTable, lines_of
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
_INNER_LIST = re.compile(r'"([^"\\\n]+)"\s*:\s*\[\s*\{')
_SPACE = re.compile(r"[ \t\r\n]*")
_NEARLY_ALL = 16  # characters before the end of the read text, which may cause an error there


class _JsonTable(TextTable):
    """A table whose rows are objects."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """Yield place, object, and True if it may contain a lone surrogate."""
        raise NotImplementedError

    def columns(self) -> Mapping[str, Held]:
        found: dict[str, list[Any]] = {}
        for _, row, _ in first_rows(self._objects(), lambda found: found[1].values()):
            for name, value in row.items():
                found.setdefault(name, []).append(value)
        return {name: held(name, _in_a_word(values), values) for name, values in found.items()}

    def rows(self, column: str) -> Iterator[tuple[str, str | None]]:
        for place, row, is_doubtful in self._objects():
            if not row.keys() <= self.names.keys():
                self.names |= dict.fromkeys(row)
            value = row.get(column)
            if value is not None and not isinstance(value, str):
                raise not_a_text(place, column, _KINDS[type(value)])
            if value and is_doubtful and (half := _HALF_CHARACTER.search(value)):
                value = self._mend(place, column, value, half)
            yield place, value

    def _mend(self, place: str, column: str, value: str, half: re.Match[str]) -> str:
        if self.on_bad_bytes == "error":
            raise CorpusError(
                f"{place}: {quoted(column)} has half a character (\\u{ord(half[0]):04x}) at "
                f"character {half.start()}; mend the row, or go on without such: "
                "--set data.on_bad_bytes=replace"
            )
        value, count = _HALF_CHARACTER.subn("\ufffd", value)
        self.mended += count
        return value


class JsonLines(_JsonTable):
    """One object per line."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        for number, line in enumerate(lines_of(self.blocks(), self.name, "\n"), 1):
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
    """One list of objects, of which only the part being read is in memory."""

    def _objects(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        text, position, number, line = "", 0, 0, 1
        blocks = self.blocks()
        text = next(blocks, "")
        while (position := _space(text, 0)) == len(text) and (block := next(blocks, "")):
            text += block
        if text[position : position + 1] != "[":
            raise CorpusError(f"{self.name}: {_no_list(text)}")
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
        """Return the text and the index of the next value, and True if the list ends."""
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
                text += more  # doubled, so that a long row is not decoded over and over
                wanted = len(text)


def begins_like_rows(path: Path) -> bool:
    """True if a .json that was not named is a list of objects, not settings or the like."""
    try:
        opening = next(TextReader(path, "replace").blocks(), "")
    except CorpusError:
        return False
    return re.match(r"\s*\[\s*\{", opening[:1000]) is not None


def _no_list(text: str) -> str:
    """Explain why a file is not a table, and what to do."""
    what = "is empty" if not text.strip() else "is not a list"
    line = f"{what}; a .json holds a list of objects: [{{…}}, {{…}}]. "
    first, _, rest = text.lstrip().partition("\n")
    are_lines = bool(rest.strip()) and _is_object(first)
    if (inner := _INNER_LIST.search(text)) and not are_lines:
        return f"{line}Save the list {quoted(inner[1])} that is in it as a file of its own"
    return (
        f"{line}Of an object a line say --set data.format=jsonl, of anything else data.format=text"
    )


def _is_object(line: str) -> bool:
    """True if a line is a whole object, as in JSON Lines."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _in_a_word(values: list[Any]) -> str:
    """Return the kind of a column, from the kinds of its values."""
    kinds = {_KINDS[type(value)] for value in values} - {"null"}
    if not kinds:
        return NOTHING
    return _MANY.get(kind := min(kinds), kind) if len(kinds) == 1 else " and ".join(sorted(kinds))


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
    """Return the first index from `position` on that is not JSON white space."""
    found = _SPACE.match(text, position)
    assert found
    return found.end()
