"""JSON Lines and arrays of JSON as tables, read in bounded memory.

As records, a number keeps its text, so that none is too large and 1.50 keeps its zero; and values
that Python accepts but that are ambiguous are marked.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hairpin.data.reading import TextReader
from hairpin.data.tables.columns import counted, quoted
from hairpin.data.tables.table import (
    MAX_ROW_CHARS,
    Entry,
    Refused,
    TextTable,
    kind_of_exact,
    too_long,
)
from hairpin.errors import CorpusError

_INNER_LIST = re.compile(r'"([^"\\\n]+)"\s*:\s*\[\s*\{')
_SPACE = re.compile(r"[ \t\r\n]*")
_NEARLY_ALL = 16  # characters before the end of the read text, which may cause an error there
_ENDLESS = "lists nested too deeply; fix the file"


class _JsonTable(TextTable):
    """A table whose rows are objects."""

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """Decode the value that begins at `start`; return it and its end.

        Raises:
            json.JSONDecodeError: it is not JSON.
            RecursionError: it goes too deep.
        """
        return (_EXACT if self.is_exact else _QUICK).raw_decode(text, start)


class JsonLines(_JsonTable):
    """One object per line."""

    def rows(self, column: str | None = None) -> Iterator[Entry]:
        for number, line in enumerate(self.lines("\n"), 1):
            if not line.isspace():
                yield self._row(f"{self.name}:{number}", line, is_first=number == 1)

    def _row(self, place: str, line: str, *, is_first: bool) -> Entry:
        try:
            row, end = self.decode(line, _space(line, 0))
            if _space(line, end) < len(line):
                raise json.JSONDecodeError("Extra data", line, end)
        except json.JSONDecodeError as error:
            is_list = is_first and line.startswith("[")
            return Entry(
                place,
                None,
                f"not valid JSON: {error.msg} (column {error.pos + 1}); each line holds one object"
                f"{'; if the file is one list of objects, name it .json' if is_list else ''}",
            )
        except RecursionError:
            return Entry(place, None, _ENDLESS)
        return Entry(place, row)


class JsonArray(_JsonTable):
    """One list of objects, of which only the part being read is in memory.

    Records may also be in an object with one list among its values.
    """

    def rows(self, column: str | None = None) -> Iterator[Entry]:
        text = _Window(self.name, self.blocks())
        if text.next_char() != "[":
            yield from self._of_an_object(text.rest()) if self.is_exact else _refuse(text)
            return
        text.position += 1
        number = 0
        while text.begins_value(is_first=number == 0):
            number += 1
            place = f"{self.name}: record {number}"
            yield Entry(place, text.decoded(self, place))
            text.drop_read()
        text.position += 1
        if self.is_exact and text.next_char():
            raise CorpusError(
                f"{text.place()}: not valid JSON: {text.words()} after the end of the list; name "
                "the file .jsonl if each of its lines is a record"
            )

    def _of_an_object(self, text: str) -> Iterator[Entry]:
        """Yield the rows of the one list among an object's values."""
        start = _space(text, 0)
        try:
            whole, end = self.decode(text, start)
            if _space(text, end) < len(text):
                raise json.JSONDecodeError("Extra data", text, _space(text, end))
        except json.JSONDecodeError as error:
            hint = "; name the file .jsonl if each of its lines is a record"
            raise CorpusError(
                f"{self.name}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
                f"{hint if error.msg == 'Extra data' else ''}"
            ) from None
        except RecursionError:
            raise CorpusError(f"{self.name}: {_ENDLESS}") from None
        found, lists = kind_of_exact(whole), []
        if isinstance(whole, dict):
            lists = [value for value in whole.values() if isinstance(value, list)]
            found = f"an object with {counted(len(lists), 'list')} in it"
        if len(lists) != 1:
            raise CorpusError(
                f"{self.name}: should be a list of objects, or an object with one such list, and "
                f"is {found}"
            )
        for number, value in enumerate(lists[0], 1):
            yield Entry(f"{self.name}: record {number}", value)


class _Window:
    """The part of a text that is being read.

    Args:
        name: of the file, for messages.
        blocks: of its text.

    Attributes:
        text: the part.
        position: the index in it up to which it has been read.
    """

    def __init__(self, name: str, blocks: Iterator[str]) -> None:
        self.text, self.position = "", 0
        self.name, self._blocks = name, blocks
        self._line = 1  # the number of the part's first

    def place(self, index: int | None = None) -> str:
        """Return the place of an index in the text, by default of the position."""
        end = self.position if index is None else index
        return f"{self.name}:{self._line + self.text.count(chr(10), 0, end)}"

    def words(self) -> str:
        """Return the next few characters in quotes."""
        return quoted(self.text[self.position : self.position + 10])

    def rest(self) -> str:
        """Return all that has not been read."""
        return self.text[self.position :] + "".join(self._blocks)

    def drop_read(self) -> None:
        """Give the memory of what has been read back, now and then."""
        if self.position > len(self.text) // 2 or self.position > MAX_ROW_CHARS:
            self._line += self.text.count("\n", 0, self.position)
            self.text, self.position = self.text[self.position :], 0

    def next_char(self) -> str:
        """Go on to the next character that is not white space, and return it; "" at the end."""
        while (position := _space(self.text, self.position)) == len(self.text):
            block = next(self._blocks, "")
            if not block:
                self.position = position
                return ""
            self._line += self.text.count("\n")
            self.text, self.position = block, 0
        self.position = position
        return self.text[position]

    def begins_value(self, *, is_first: bool) -> bool:
        """Go on to the next value of a list; False where the list ends."""
        has_comma = is_first
        while (char := self.next_char()) != "]":
            if not char:
                raise CorpusError(
                    f"{self.name}: the list has no end: the file is cut short; make it again"
                )
            if has_comma:
                return True
            if char != ",":
                raise CorpusError(
                    f"{self.place()}: not valid JSON: {self.words()} instead of a comma or the "
                    "end of the list"
                )
            has_comma = True
            self.position += 1
        return False

    def decoded(self, table: _JsonTable, place: str) -> Any:
        """Return the value that begins here, and go on to its end."""
        wanted = len(self.text)
        while True:
            try:
                value, self.position = table.decode(self.text, self.position)
                return value
            except RecursionError:
                raise CorpusError(f"{place}: {_ENDLESS}") from None
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self.text) - _NEARLY_ALL
                unfinished = near_end or error.msg.startswith("Unterminated")
                more = "".join(islice(self._blocks, max(1, wanted // 2**18))) if unfinished else ""
                if not more:
                    raise CorpusError(
                        f"{self.place(error.pos)}: not valid JSON: {error.msg} "
                        f"({place.rpartition(': ')[2]}); fix the file"
                    ) from None
                if len(self.text) - self.position > MAX_ROW_CHARS:
                    raise too_long(place) from None
                self.text += more  # doubled, so that a long row is not decoded over and over
                wanted = len(self.text)


def begins_like_rows(path: Path) -> bool:
    """True if a .json that was not named is a list of objects, not settings or the like."""
    try:
        opening = next(TextReader(path, "replace").blocks(), "")
    except CorpusError:
        return False
    return re.match(r"\s*\[\s*\{", opening[:1000]) is not None


def _refuse(window: _Window) -> Iterator[Entry]:
    """Refuse a file that is no list, with the reason and what to do."""
    text = window.text
    what = "is empty" if not text.strip() else "is not a list"
    line = f"{what}; a .json holds a list of objects: [{{…}}, {{…}}]. "
    first, _, rest = text.lstrip().partition("\n")
    are_lines = bool(rest.strip()) and _is_object(first)
    if (inner := _INNER_LIST.search(text)) and not are_lines:
        advice = f"Save the list {quoted(inner[1])} inside it as a separate file"
    else:
        advice = (
            "If each line is an object, use --set data.format=jsonl, otherwise data.format=text"
        )
    raise CorpusError(f"{window.name}: {line}{advice}")


def _is_object(line: str) -> bool:
    """True if a line is a whole object, as in JSON Lines."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _space(text: str, position: int) -> int:
    """Return the first index from `position` on that is not JSON white space."""
    found = _SPACE.match(text, position)
    assert found
    return found.end()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Refused:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    return Refused(f'an object in which "{twice}" stands twice')


def _constant(name: str) -> Refused:
    return Refused(f"{name}, which is not valid JSON")


_EXACT = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=_constant
)
# Faster: of a row only one text is needed, and of the others only their kind.
_QUICK = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=float)
