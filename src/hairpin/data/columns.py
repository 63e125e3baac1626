"""Which column of a table holds the text, and what a table is.

A `Table` is one file (or one folder of Hugging Face's `datasets`) whose rows are read one after the
other; of each the text of one column is wanted, and the kind of the others.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from hairpin.data.naming import names_of, nearest, quoted
from hairpin.errors import CorpusError

TEXT, NOTHING = "text", "nothing but null"
LOOKED_AT_ROWS = 100  # of a file that does not say what its columns hold
# A row is held whole, and a quote that is never closed makes one of all that follows.
LONGEST_ROW_CHARS = 64 * 1024 * 1024
_USUAL = "text"


class Table(Protocol):
    """Rows of a file.

    Attributes:
        name: for messages.
    """

    name: str

    @property
    def replaced(self) -> int:
        """U+FFFD characters put in the place of bad bytes so far."""
        ...

    def columns(self) -> Mapping[str, str]:
        """Each column, and what it holds in words; `TEXT` is what can be read. Without a row: none.

        Raises:
            CorpusError: the file cannot be read.
        """
        ...

    def rows(self, column: str) -> Iterator[tuple[str, str | None]]:
        """Where each row is, for messages, and its text; None: it has none.

        Raises:
            CorpusError: the file is damaged, or a value is no text.
        """
        ...


def choose_column(name: str, columns: Mapping[str, str], asked: str | None) -> str:
    """The column to read: the one that is asked for, else `text`, else the only one of texts.

    Raises:
        CorpusError: it is not there or holds no text, or several could be meant.
    """
    there = ", ".join(f"{quoted(column)} ({kind})" for column, kind in columns.items())
    if asked is not None and asked not in columns:
        raise CorpusError(
            f"{name}: no column {quoted(asked)}{nearest((asked,), tuple(columns))}; it has "
            f"{names_of(tuple(columns))}: name one with --column"
        )
    texts = [column for column, kind in columns.items() if kind == TEXT]
    chosen = asked if asked is not None else _USUAL if _USUAL in columns else None
    if chosen is None and len(texts) == 1:
        chosen = texts[0]
    if chosen is None:
        how_many = "several columns hold text" if texts else "no column holds text"
        raise CorpusError(f"{name}: {how_many}; name one with --column: it has {there}")
    if columns[chosen] not in (TEXT, NOTHING):
        raise CorpusError(
            f"{name}: the column {quoted(chosen)} holds {columns[chosen]}, not text; name another "
            f"with --column: it has {there}"
        )
    return chosen


def not_a_text(place: str, column: str, kind: str) -> CorpusError:
    """The error for a row whose value is no text."""
    return CorpusError(
        f"{place}: {quoted(column)} is {kind}, where a text belongs; mend the row, or name another "
        "column with --column"
    )


def too_long(place: str) -> CorpusError:
    """The error for a row that is longer than is held in memory."""
    return CorpusError(
        f"{place}: a row of more than {LONGEST_ROW_CHARS // 2**20} million characters, if it is "
        "one; mend the file, or make a text file of it"
    )
