"""Labelled texts and instructions: the rows of a table -> records of text.

All problems of a file are reported at once, a line each with its place.
"""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.config.formats import SUFFIXES, format_of
from hairpin.data.reading import TextReader
from hairpin.data.tables.arrow import is_saved_dataset
from hairpin.data.tables.columns import names_of, nearest, quoted
from hairpin.data.tables.table import BaseTable, Entry, kind_of_exact, open_table
from hairpin.errors import CorpusError

_MAX_PROBLEMS = 10
# NUL ends strings in other programs; a lone surrogate is not a character and has no UTF-8.
_UNSUPPORTED = re.compile("[\0\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
# Keys that distinguish a chat message from other objects: the speaker and the text.
_SPEAKERS, _SPOKEN = ("role", "from"), ("content", "value")
_CHAT_IN_CELL = re.compile(r"""\s*\[\s*\{\s*["'](?:role|from|content|value)["']\s*:""")


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    Args:
        place: its location, for messages: "spam.csv:17" (the line on which it begins), or
            "data.json: record 3" (counted from 1).
        fields: the text of each requested column.
    """

    place: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """The columns to read from a file.

    Args:
        required: those that each record must have.
        optional: those whose text is "" if a record lacks them, or has null.
        advice: the way to name other columns, in case one is missing.
        example: a well-formed record, shown for a file that holds something else.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    advice: str = ""
    example: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return self.required + self.optional

    @property
    def advised(self) -> str:
        """The advice as the end of a line."""
        return f"; {self.advice}" if self.advice else ""


class Records:
    """A file's records, of which any columns can be taken.

    Args:
        file: its name, for messages.
        table: the file, opened to be read exactly.

    Attributes:
        columns: each column, and the number of records with a value in it.
    """

    def __init__(self, file: str, table: BaseTable) -> None:
        self._file = file
        self._table = table
        self._entries = list(table.rows())
        self._header = table.header
        self.columns: dict[str, int] = dict.fromkeys(self._header[1] if self._header else (), 0)
        for entry in self._entries:
            if isinstance(entry.value, dict):
                for name, value in entry.value.items():
                    self.columns[name] = self.columns.get(name, 0) + _has_text(value)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def replaced(self) -> int:
        """U+FFFD characters that replaced bad bytes so far."""
        return self._table.replaced

    def unused(self, used: Collection[str]) -> dict[str, int]:
        """Return the columns with values that are not used, and the number of records with a
        value.
        """
        return {name: n for name, n in self.columns.items() if n and name not in used}

    def rows(self, wanted: Wanted) -> list[Row]:
        """Return the texts of some columns. A JSON number or boolean is its text in the file. Texts
        may be empty.

        Raises:
            CorpusError: there are no records; or up to ten lines, for each record that is
                malformed or lacks something, and the number of others.
        """
        reader = _RecordReader(self._file, self._table, wanted)
        self._require_columns(reader)
        rows = [row for entry in self._entries if (row := reader.row(entry))]
        reader.stop_if_wrong()
        if not rows:
            raise CorpusError(
                f"{self._file}: no records in it; add some, with {names_of(wanted.required)}"
            )
        return rows

    def _require_columns(self, reader: "_RecordReader") -> None:
        """Raise if no record can have the required columns."""
        wanted = reader.wanted
        missing = tuple(name for name in wanted.required if name not in self.columns)
        if self._header:
            place, names = self._header
            reader.problems += [
                f"{place}: two columns are called {quoted(name)}; rename one"
                for name in wanted.names
                if names.count(name) > 1
            ]
        if missing or any(self._is_of_chats(name) for name in wanted.names):
            self._refuse_chats(wanted)
        if missing and self._header:
            place, names = self._header
            add = "; if that is a record, put a line with the columns' names first"
            more = nearest(missing, names) + wanted.advised or add
            line = f"{place}: no column {names_of(missing)}; the first line has {names_of(names)}"
            reader.problems.insert(0, line + more)
        elif missing and self.columns and len(self._entries) > 1:
            there = tuple(self.columns)
            reader.problems.append(
                f"{self._file}: no record has {names_of(missing)}; they have {names_of(there)}"
                f"{nearest(missing, there)}{wanted.advised}"
            )
            reader.problems += [f"{e.place}: {e.problem}" for e in self._entries if e.problem]
        if self._header or (missing and reader.problems):
            reader.stop_if_wrong()

    def _refuse_chats(self, wanted: Wanted) -> None:
        values = [entry.value for entry in self._entries if not entry.problem]
        chats = next((name for name in self.columns if self._is_of_chats(name)), None)
        if chats is not None:
            what = f"chats, lists of messages in {quoted(chats)}"
        elif values and _has_text(values[0]) and _is_chat(values[0]):
            what = "chats, lists of messages"
        elif values and _is_message(values[0]):
            what = "messages of a chat"
        else:
            return
        example = wanted.example or f"{names_of(wanted.required)} in each"
        raise CorpusError(
            f"{self._file}: its records are {what}, which fine-tuning does not read; write each "
            f"question with its answer as one record: {example}"
        )

    def _is_of_chats(self, name: str) -> bool:
        """True if a column holds chats: its first value is one."""
        for entry in self._entries:
            value = entry.value.get(name) if isinstance(entry.value, dict) else None
            if _has_text(value):
                return _is_chat(value)
        return False


@dataclass
class _RecordReader:
    """Takes the requested columns of records, and collects problems."""

    file: str
    table: BaseTable
    wanted: Wanted
    problems: list[str] = field(default_factory=list)

    def stop_if_wrong(self) -> None:
        more = len(self.problems) - _MAX_PROBLEMS
        if more > 0:
            self.problems[_MAX_PROBLEMS:] = [f"{self.file}: and {more} more"]
        if self.problems:
            raise CorpusError(self.problems)

    def row(self, entry: Entry) -> Row | None:
        """Return the record's row; None, after adding a line for each problem, if there is none."""
        before = len(self.problems)
        if entry.problem:
            self.problems.append(f"{entry.place}: {entry.problem}")
            return None
        if not isinstance(entry.value, dict):
            names = names_of(self.wanted.required)
            self.problems.append(
                f"{entry.place}: should be an object with {names}, and is "
                f"{kind_of_exact(entry.value)}"
            )
            return None
        fields = self._fields(entry.place, entry.value)
        self._require_fit(entry.place, fields)
        return Row(entry.place, fields) if len(self.problems) == before else None

    def _fields(self, place: str, value: Mapping[str, Any]) -> dict[str, str]:
        wanted, fields = self.wanted, {}
        missing = tuple(name for name in wanted.required if name not in value)
        if missing:
            there = tuple(value)
            self.problems.append(
                f"{place}: no {names_of(missing)}; it has {names_of(there)}"
                f"{nearest(missing, there)}{wanted.advised}"
            )
        for name in wanted.names:
            found = value.get(name)
            if isinstance(found, bool):
                found = "true" if found else "false"
            elif found is None and (name in wanted.optional or name in missing):
                found = ""
            if isinstance(found, str):
                may_mend = self.table.on_bad_bytes == "replace"
                fields[name] = self.table.mend(found) if may_mend else found
            else:
                self.problems.append(
                    f"{place}: {quoted(name)} should be a text, but is {kind_of_exact(found)}"
                )
        return fields

    def _require_fit(self, place: str, fields: Mapping[str, str]) -> None:
        unfit = [
            (name, found) for name, text in fields.items() if (found := _UNSUPPORTED.search(text))
        ]
        for name, found in unfit:
            what = "a NUL" if found[0] == "\0" else f"half a character (\\u{ord(found[0]):04x})"
            self.problems.append(
                f"{place}: {quoted(name)} has {what} at character {found.start()}; remove it"
            )


def read_records(path: Path, expected: Sequence[str], on_bad_bytes: str = "error") -> Records:
    """Read the records of a file, or of a folder that is one table.

    Args:
        path: its name decides the format.
        expected: columns that it may have, used to recognise a CSV file's delimiter.
        on_bad_bytes: as in `config.data.Data`.

    Raises:
        CorpusError: the file cannot be read, is of no known kind, or is empty.
    """
    format_ = _format_of(path)
    if format_ == "text":
        raise CorpusError(
            f"{path}: its name does not tell its format; records are read from files that end in "
            f"{', '.join(SUFFIXES)}, and from compressed ones"
        )
    table = open_table(path, format_, on_bad_bytes, expected=expected, is_exact=True)
    if table.is_blank():
        names = ", ".join(f'"{name}"' for name in expected)
        raise CorpusError(f"{path}: the file is empty; it should hold {names}")
    return Records(str(path), table)


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """Read some columns of a file's records.

    Raises:
        CorpusError: as `read_records` and `Records.rows`.
    """
    return read_records(path, required).rows(Wanted(tuple(required), tuple(optional)))


def read_texts(path: Path, column: str) -> list[Row]:
    """Read the texts of a file without labels: a column of records, or the lines of any other file.

    Raises:
        CorpusError: as `read_rows`; classifying has no setting for bad bytes, so none is
            advised.
    """
    try:
        if _format_of(path) != "text":
            return read_rows(path, [column])
        text = "".join(TextReader(path, "error").blocks())
        return rows_of_lines(text, str(path), column)
    except CorpusError as error:
        lines = [line.partition(", or continue without")[0] for line in error.problems]
        raise CorpusError(lines) from None


def has_records(path: Path) -> bool:
    """True if a file's name is that of a file of records."""
    return format_of(path) != "text"


def rows_of_lines(text: str, name: str, column: str) -> list[Row]:
    """Return a row for each line that is not blank.

    Args:
        text: the lines.
        name: of their file, for messages.
        column: the name of the one field.
    """
    lines = enumerate(io.StringIO(text, newline=None), 1)  # as editors count them
    return [
        Row(f"{name}:{number}", {column: line.removesuffix("\n")})
        for number, line in lines
        if line.strip()
    ]


def require_characters(text: str, place: str) -> None:
    """Check that a text has no lone surrogate. Python represents bytes of an argument that are not
    UTF-8 by such surrogates.

    Raises:
        CorpusError: it has one; the line names the first.
    """
    if found := _HALF.search(text):
        half = ord(found[0])
        is_byte = 0xDC80 <= half <= 0xDCFF
        what = f"byte 0x{half - 0xDC00:02x}" if is_byte else f"half a character (\\u{half:04x})"
        raise CorpusError(
            f"{place}: {what} at character {found.start()} is not UTF-8 text; type it again, or "
            "put it in a file"
        )


def _format_of(path: Path) -> str:
    """Return the format of a file, or of a folder that is one table.

    Raises:
        CorpusError: there is none, or it cannot be read.
    """
    try:
        path.stat()
        if is_saved_dataset(path):
            return "dataset"
        if path.is_dir():
            raise CorpusError(f"{path}: is a folder; name a file in it")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: cannot be read ({reason}); check its permissions") from None
    return format_of(path)


def _has_text(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def _is_chat(value: Any) -> bool:
    """True if a value is a list of messages, the text of one, or a tree of them."""
    if isinstance(value, str):
        return _CHAT_IN_CELL.match(value) is not None
    if isinstance(value, dict):  # as ChatGPT exports them
        nodes = value.values()
        return bool(nodes) and all(isinstance(node, dict) and "message" in node for node in nodes)
    return isinstance(value, list) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and any(name in value for name in _SPEAKERS)
        and any(name in value for name in _SPOKEN)
    )
