"""The choice of a table's column that holds the text.

It is the one named by the user, else the one called `text`, else the only candidate: ids, links,
dates, labels and the like are words too, and chats are lists; none of them is chosen for lack of
another.
"""

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from hairpin.data.tables.column_kinds import CHATS, NOTHING, TEXT, ColumnKind, is_one_side_of_pair
from hairpin.errors import CorpusError

_USUAL = "text"
_SHOWN_CHARS, _SHOWN_NAMES = 40, 8
_MAX_SHOWN = 8
_LONGEST_NAME_CHARS, _MOST_WORDS = 80, 6  # of a name; more make it a record
_AS_ONE_TEXT = 'write each as one text into a column "text"'


def choose_column(
    name: str, columns: Mapping[str, ColumnKind], asked: str | None, option: str = "--column"
) -> str:
    """Return the column to read: the requested one, else `text`, else the only one that can be the
    text.

    Args:
        name: of the table, for a message.
        columns: of the table.
        asked: the column that the user names.
        option: the option that names one.

    Raises:
        CorpusError: it is missing or holds no text, or there are several candidates, or none.
    """
    if asked is not None and asked not in columns:
        raise CorpusError(
            f"{name}: no column {quoted(asked)}{nearest((asked,), tuple(columns))}; it has "
            f"{names_of(tuple(columns))}: name one with {option}"
        )
    chosen = asked if asked is not None else _USUAL if _USUAL in columns else None
    if chosen is None:
        chosen = _only_one(columns)
    if chosen is None:
        raise CorpusError(f"{name}: {_reason_for_none(columns, option)}")
    if columns[chosen].kind not in (TEXT, NOTHING):
        raise CorpusError(f"{name}: {_wrong_column_error(chosen, columns, option)}")
    if asked is None and (len(chosen) > _LONGEST_NAME_CHARS or len(chosen.split()) > _MOST_WORDS):
        raise CorpusError(
            f"{name}: the column is called {quoted(chosen)}, which looks like a record, not a "
            f"name; put a line with the columns' names first, or name it with {option}"
        )
    return chosen


def column_words(column: str, unused: Sequence[str]) -> str:
    """Return a line about the column that is read and those that are not."""
    if not unused:
        return f"column {quoted(column)} is read"
    return f"column {quoted(column)} of {1 + len(unused)} is read; not used: {names_of(unused)}"


def table_words(column: str | None, unused: Sequence[str], rows: int, empty: int) -> str | None:
    """Return a line about the columns that are read and left out; None: no tables.

    Args:
        column: that is read, if there are rows; None: several, of several sources.
        unused: the others.
        rows, empty: the number of rows, and of those without text.
    """
    parts = []
    if column and not rows:
        return f"none of the texts is a table with rows: column {quoted(column)} is not read"
    if column:
        parts.append(column_words(column, unused))
    elif unused:
        parts.append(f"columns that are not used: {names_of(unused)}")
    if empty:
        which = "has no text and was" if empty == 1 else "have no text and were"
        parts.append(f"{empty:,} of {rows:,} rows {which} left out")
    return "; ".join(parts) or None


def _only_one(columns: Mapping[str, ColumnKind]) -> str | None:
    """Return the column that is the text because no other can be; None: ambiguous."""
    can_be = _candidates(columns)
    if len(can_be) != 1:
        return None
    (name,) = can_be
    if is_one_side_of_pair(name) and any(map(is_one_side_of_pair, columns.keys() - {name})):
        return None
    return None if _clear_favourite(columns, name) else name


def _candidates(columns: Mapping[str, ColumnKind]) -> list[str]:
    """Return the columns that could be the text; a table's only column could, whatever it holds."""
    texts = [name for name, column in columns.items() if column.kind == TEXT]
    if len(columns) == 1:
        return [name for name in texts if columns[name].looks_like != CHATS]
    can_be = [name for name in texts if columns[name].looks_like is None]
    return [name for name in can_be if columns[name].chars] or can_be


def _clear_favourite(columns: Mapping[str, ColumnKind], name: str) -> str | None:
    """Return a column of chats, or of lists or objects with about as much text, if there is one."""
    for other, column in columns.items():
        nested = column.kind not in (TEXT, NOTHING) and column.chars * 2 > columns[name].chars
        if other != name and (nested or column.words == CHATS):
            return other
    return None


def _reason_for_none(columns: Mapping[str, ColumnKind], option: str) -> str:
    """Explain why no column is chosen, and what to do."""
    there = _described(columns)
    can_be = _candidates(columns)
    nested = _clear_favourite(columns, can_be[0]) if len(can_be) == 1 else None
    written = any(column.kind == TEXT and column.looks_like == CHATS for column in columns.values())
    or_name = f", or name a column with {option}" if can_be or written else ""
    pairs = sum(map(is_one_side_of_pair, columns)) > 1
    how = "; `hairpin finetune instruct` trains on instructions and answers" if pairs else ""
    if chats := [name for name, column in columns.items() if column.words == CHATS]:
        return (
            f"{quoted(chats[0])} holds chats, not text; {_AS_ONE_TEXT}, such as "
            f'"User: … Assistant: …"{or_name}: it has {there}'
        )
    if nested:
        return (
            f"the text may be in {quoted(nested)} ({columns[nested].words}); {_AS_ONE_TEXT}"
            f"{or_name}: it has {there}{how}"
        )
    if can_be:
        return f"several columns hold text; name one with {option}: it has {there}{how}"
    if any(column.kind == TEXT for column in columns.values()):
        return f"no column is clearly the text; name one with {option}: it has {there}"
    return f'no column holds text; write a text for each row into a column "text": it has {there}'


def _wrong_column_error(chosen: str, columns: Mapping[str, ColumnKind], option: str) -> str:
    """Explain why the chosen column cannot be read, and what to do."""
    column = columns[chosen]
    others = any(other.kind == TEXT for other in columns.values())
    do = f"name another with {option}" if others else _AS_ONE_TEXT
    if column.kind == CHATS and others:
        do = f"{_AS_ONE_TEXT}, or {do}"
    return (
        f"the column {quoted(chosen)} holds {column.words}, not text; {do}: it has "
        f"{_described(columns)}"
    )


def _described(columns: Mapping[str, ColumnKind]) -> str:
    """List the columns with their kinds, the first of many."""
    shown = [f"{quoted(name)} ({column.words})" for name, column in columns.items()]
    if len(shown) > _MAX_SHOWN:
        shown[_MAX_SHOWN:] = [f"and {len(shown) - _MAX_SHOWN} more"]
    return ", ".join(shown)


# --- names of columns in messages ---


@lru_cache(maxsize=100)  # every record of a file may lack the same name
def nearest(missing: tuple[str, ...], there: tuple[str, ...]) -> str:
    """Return ` (did you mean "text" for "txet"?)`, or "" if no name is near."""
    plain = {name.lower(): name for name in there}
    pairs = ((name, difflib.get_close_matches(name.lower(), plain, n=1)) for name in missing)
    close = [f"{quoted(plain[near[0]])} for {quoted(name)}" for name, near in pairs if near]
    return f" (did you mean {', '.join(close)}?)" if close else ""


def names_of(names: Sequence[str]) -> str:
    """Return some names, quoted, and the number of others."""
    shown = [quoted(name) for name in names]
    if len(shown) > _SHOWN_NAMES:
        shown[_SHOWN_NAMES:] = [f"and {len(shown) - _SHOWN_NAMES} more"]
    return ", ".join(shown) or "nothing"


def quoted(name: str) -> str:
    """Return a name in quotes, cut if it is long."""
    return f'"{name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"}"'


def counted(number: int, noun: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
