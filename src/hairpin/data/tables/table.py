"""A table: a file whose rows are read one after the other, in bounded memory.

Training takes the texts of one column (`Table.texts`), fine-tuning takes records (`records`). A
format is a subclass that yields its rows; `hairpin.config.formats` lists them all.
"""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from hairpin.config.formats import TABLES
from hairpin.data.reading import TextReader
from hairpin.data.tables.column_kinds import NOTHING, TEXT, ColumnKind, column_kind, first_rows
from hairpin.data.tables.columns import quoted
from hairpin.errors import CorpusError
from hairpin.system.files import shown

# A row is held whole, and an unclosed quote makes one row of all that follows.
MAX_ROW_CHARS = 64 * 1024 * 1024
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_KINDS = {
    str: TEXT,
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_MANY = {"a number": "numbers", "a list": "lists", "an object": "objects"}


class Entry(NamedTuple):
    """A row as it is in its file.

    Args:
        place: its location, for messages: "spam.csv:17" (the line on which it begins), or
            "data.json: record 3" (counted from 1).
        value: a dict of column → value; anything else is not a row, and is refused.
        problem: instead of a value, the reason why the row cannot be read.
    """

    place: str
    value: Any
    problem: str = ""


@dataclass(frozen=True)
class Refused:
    """An exact value that a file's reader accepts and that is ambiguous; the words say why."""

    words: str


class BaseTable(ABC):
    """A file of rows.

    Args:
        path: the file, or a folder that is one table.
        on_bad_bytes: as in `config.data.Data`.
        expected: columns that it may have.
        is_exact: whether values are needed as they are in the file, as of records: numbers as
            their text, and nothing ambiguous. If not, only texts are, and the kinds of the others.

    Attributes:
        name: for messages.
        names: the columns seen so far.
        header: the place of the line that names the columns, and these; None: there is none.
        mended: U+FFFD characters that replaced halves of characters in this pass so far.
    """

    def __init__(
        self,
        path: Path,
        on_bad_bytes: str = "error",
        *,
        expected: Sequence[str] = (TEXT,),
        is_exact: bool = False,
    ) -> None:
        self.name = shown(path)
        self.path = path
        self.on_bad_bytes = on_bad_bytes
        self.expected = expected
        self.is_exact = is_exact
        self.names: dict[str, None] = {}
        self.header: tuple[str, tuple[str, ...]] | None = None
        self.mended = 0

    @abstractmethod
    def rows(self, column: str | None = None) -> Iterator[Entry]:
        """Yield the rows from the beginning.

        Args:
            column: the only one that is needed; None: all.

        Raises:
            CorpusError: the file is damaged, so that what follows cannot be read either.
        """

    @property
    def replaced(self) -> int:
        """U+FFFD characters that replaced bad bytes in this pass so far."""
        return self.mended

    def is_blank(self) -> bool:
        """True if the file holds nothing but white space."""
        return False

    def columns(self) -> Mapping[str, ColumnKind]:
        """Return each column with its kind, from the first rows; none without a row or a header.

        Raises:
            CorpusError: the file cannot be read.
        """
        rows = [row for _, row in first_rows(self._objects(), lambda found: found[1].values())]
        found: dict[str, list[Any]] = {name: [] for name in self.names}
        for row in rows:
            for name, value in row.items():
                found.setdefault(name, []).append(value)
        return {
            name: column_kind(name, self.kind_of(values), values) for name, values in found.items()
        }

    def kind_of(self, values: Sequence[Any]) -> str:
        """Return the kind of a column's values, in a word or a few."""
        kinds = set(map(_kind_of, values)) - {"null"}
        if not kinds:
            return NOTHING
        return _MANY.get(one := min(kinds), one) if len(kinds) == 1 else " and ".join(sorted(kinds))

    def texts(self, column: str) -> Iterator[tuple[str, str | None]]:
        """Yield the place of each row, for messages, and its text; None: it has none.

        Raises:
            CorpusError: the file is damaged, or a row or its value is not what it should be.
        """
        self.mended = 0
        for place, row in self._objects(column):
            for name in row:
                if name not in self.names:
                    self.names[name] = None
            text = row.get(column)
            if text is not None and not isinstance(text, str):
                raise CorpusError(
                    f"{place}: {quoted(column)} is {_kind_of(text)}, not a text; fix the row, or "
                    "name another column with --column"
                )
            yield place, self._whole(place, column, text) if text else text

    def _objects(self, column: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place and the values of each row; raise at the first that is none."""
        for place, row, problem in self.rows(column):
            if problem:
                raise CorpusError(f"{place}: {problem}")
            if not isinstance(row, dict):
                raise CorpusError(
                    f'{place}: should be an object with a text in it, such as {{"text": …}}, and '
                    f"is {'a text' if isinstance(row, str) else _kind_of(row)}"
                )
            yield place, row

    def _whole(self, place: str, column: str, text: str) -> str:
        """Return the text, with halves of characters replaced if they may be."""
        try:
            text.encode()  # quicker than a search
            return text
        except UnicodeEncodeError as error:
            if self.on_bad_bytes == "error":
                raise CorpusError(
                    f"{place}: {quoted(column)} has half a character "
                    f"(\\u{ord(text[error.start]):04x}) at character {error.start}; fix the row, "
                    "or continue without it: --set data.on_bad_bytes=replace"
                ) from None
        return self.mend(text)

    def mend(self, text: str) -> str:
        """Return the text with U+FFFD for each half of a character, and count them."""
        whole, count = _HALF_CHARACTER.subn("\ufffd", text)
        self.mended += count
        return whole


class TextTable(BaseTable):
    """A table in a text file."""

    _reader: TextReader | None = None

    @property
    def replaced(self) -> int:
        return self.mended + (self._reader.replaced if self._reader else 0)

    def is_blank(self) -> bool:
        return all(map(str.isspace, self.blocks()))

    def blocks(self) -> Iterator[str]:
        """Yield the text from its beginning."""
        self._reader = TextReader(self.path, self.on_bad_bytes)
        return self._reader.blocks()

    def lines(self, newline: str, blocks: Iterable[str] | None = None) -> Iterator[str]:
        """Yield the lines of the text, each with its end.

        Args:
            newline: as in `io.StringIO`: "" ends a line at any of three ends, "\\n" at that alone.
            blocks: of the text, if its reading has begun.

        Raises:
            CorpusError: a line is too long to be held in memory.
        """
        waiting: list[str] = []
        waiting_chars = number = 0
        for block in self.blocks() if blocks is None else blocks:
            waiting.append(block)
            waiting_chars += len(block)
            if "\n" in block or "\r" in block:
                lines = io.StringIO("".join(waiting), newline=newline).readlines()
                # After a return the line feed may be in the next block.
                waiting = [] if lines[-1].endswith("\n") else [lines.pop()]
                waiting_chars = len(waiting[0]) if waiting else 0
                number += len(lines)
                yield from lines
            if waiting_chars > MAX_ROW_CHARS:
                raise too_long(f"{self.name}:{number + 1}")
        yield from io.StringIO("".join(waiting), newline=newline)


def open_table(
    path: Path,
    format_: str,
    on_bad_bytes: str,
    *,
    expected: Sequence[str] = (TEXT,),
    is_exact: bool = False,
) -> BaseTable:
    """Open a file whose format is not "text"; the arguments are those of `BaseTable`."""
    reader: type[BaseTable] = resolve_name(TABLES[format_].reader)
    return reader(path, on_bad_bytes, expected=expected, is_exact=is_exact)


def too_long(place: str) -> CorpusError:
    """Return the error for a row too long to be held in memory."""
    return CorpusError(
        f"{place}: a row of more than {MAX_ROW_CHARS // 2**20} million characters, if it is "
        "one row; fix the file, or make a text file of it"
    )


def kind_of_exact(value: Any) -> str:
    """Return the kind of an exact value, for a message."""
    if isinstance(value, Refused):
        return value.words
    kinds = {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a single value")


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")
