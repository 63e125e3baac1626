"""Choice of the text column of a corpus's tables, and of the found tables that have it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from hairpin.config.settings import Data, Format
from hairpin.data.finding import TextSource
from hairpin.data.folders import LeftOut
from hairpin.data.recognising import Kind
from hairpin.data.tables.column_kinds import ColumnKind
from hairpin.data.tables.columns import choose_column, quoted
from hairpin.data.tables.table import open_table
from hairpin.errors import CorpusError

# Beyond this the first table with a row decides; a column that others lack is noticed on reading.
_MAX_CHECKED = 1000
_MAX_PROBLEMS = 10
_USUAL = "text"

Columns = Mapping[str, ColumnKind]


def choose_tables(
    data: Data, sources: Sequence[TextSource], left_out: LeftOut
) -> tuple[Data, list[TextSource]]:
    """Return the settings with the column and format of tables filled in, and the sources without
    the found tables that lack the column.

    Args:
        data: the settings, with a column or without.
        sources: files, in order.
        left_out: counts the tables that are not used.

    Raises:
        CorpusError: a line for each table that cannot be read; no table has the column, or the
            text column is ambiguous.
    """
    tables = [source for source in sources if source.format != "text"]
    if not tables:
        return data, list(sources)
    is_known = data.column is not None and not any(source.is_found for source in tables)
    if is_known or len(tables) > _MAX_CHECKED:
        column = data.column or _first_choice(tables, data)
        dropped: set[Path | None] = set()
    else:
        column, dropped = _ColumnChoice(tables, data).choose(left_out)
    kept = [source for source in sources if source.path not in dropped]
    formats = {source.format for source in kept}
    one = formats.pop() if len(formats) == 1 else data.format
    return data.model_copy(update={"column": column, "format": one}), kept


def _first_choice(tables: Sequence[TextSource], data: Data) -> str | None:
    for source in tables:
        if columns := _columns_of(source, data):
            return choose_column(source.name, columns, None)
    return None


def _columns_of(source: TextSource, data: Data) -> Columns:
    assert source.path
    try:
        status = source.path.stat()
    except OSError:
        stamp = (0, 0)
    else:
        stamp = (status.st_mtime_ns, status.st_size)
    return _columns(source.path, source.format, data.on_bad_bytes, stamp)


@lru_cache(maxsize=_MAX_CHECKED)  # a run opens its corpus several times
def _columns(path: Path, format_: Format, on_bad_bytes: str, stamp: tuple[int, int]) -> Columns:
    return open_table(path, format_, on_bad_bytes).columns()


class _ColumnChoice:
    """The columns of each table. Empty tables have none, and are kept."""

    def __init__(self, tables: Sequence[TextSource], data: Data) -> None:
        self._asked = data.column
        self._seen: list[tuple[TextSource, Columns]] = []
        self._broken: list[tuple[TextSource, CorpusError]] = []
        for source in tables:
            try:
                if columns := _columns_of(source, data):
                    self._seen.append((source, columns))
            except CorpusError as error:
                self._broken.append((source, error))

    def choose(self, left_out: LeftOut) -> tuple[str | None, set[Path | None]]:
        """Return the column, and the paths of tables that are left out."""
        problems = [
            line
            for source, error in self._broken
            if not source.is_beside_texts
            for line in error.problems
        ]
        column, open_choices = self._column()
        dropped = []
        if column is None:
            problems += open_choices
        else:
            lacking, wrong = self._without(column)
            problems += wrong
            dropped += lacking
        if problems:  # then all that is wrong with any table is said
            problems += [
                line
                for source, error in self._broken
                if source.is_beside_texts
                for line in error.problems
            ]
            more = len(problems) - _MAX_PROBLEMS
            problems[_MAX_PROBLEMS:] = [f"and {more:,} more tables like these"] if more > 0 else []
            raise CorpusError(problems)
        broken = [(source, error) for source, error in self._broken if source.is_beside_texts]
        for _, error in broken:
            left_out.add(_UNREADABLE, error.problems[0])
        for source in dropped:
            left_out.add(_lacks(column or ""), source.name)
        return column, {source.path for source in (*dropped, *(one for one, _ in broken))}

    def _column(self) -> tuple[str | None, list[str]]:
        """Return the requested column, else `text` if a table has it, else the first that a table
        would choose; or None and the reason of each table.
        """
        if self._asked is not None:
            return self._asked, []
        chosen: list[str] = []
        problems: list[str] = []
        for source, columns in self._seen:
            try:
                chosen.append(choose_column(source.name, columns, None))
            except CorpusError as error:
                problems += error.problems
        if chosen:
            return _USUAL if _USUAL in chosen else chosen[0], []
        return None, problems

    def _without(self, column: str) -> tuple[list[TextSource], list[str]]:
        """Return the found tables that lack the column, and lines about problems with others."""
        lacking: list[TextSource] = []
        wrong: list[str] = []
        lines: list[str] = []
        for source, columns in self._seen:
            try:
                choose_column(source.name, columns, column)
            except CorpusError as error:
                if source.is_found and column not in columns and not self._has_another(columns):
                    lacking.append(source)
                    lines += error.problems
                else:
                    wrong += error.problems
        has_none = self._seen and len(lacking) == len(self._seen)
        return lacking, lines if has_none else wrong

    def _has_another(self, columns: Columns) -> bool:
        """True if a table has one text column of its own and no column was requested."""
        if self._asked is not None:
            return False
        try:
            choose_column("", columns, None)
        except CorpusError:
            return False
        return True


def _lacks(column: str) -> Kind:
    name = f"without the column {quoted(column)}"
    return Kind(f"table {name}", "", "name another with --column", many=f"tables {name}")


_UNREADABLE = Kind(
    "table that cannot be read", "", "repair it, or ignore it", many="tables that cannot be read"
)
