"""Rows held by Python, one after the other: lists, generators, data frames and datasets.

Data frames are recognised by their methods, so that none of their libraries is imported. Iterating
them directly would give the names of their columns, which are words too.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hairpin.system.arguments import plain_number


def rows_of(given: Iterable[Any]) -> Iterator[Any]:
    """Yield each row: a text, or a dict with names as keys; anything else as it is."""
    table = _table_rows(given)
    for row in given if table is None else table:
        # datasets' with_format("arrow" or "pandas") gives tables of one row.
        inner = None if isinstance(row, str) else _table_rows(row)
        yield from map(_named, (row,) if inner is None else inner)


def is_table(given: Any) -> bool:
    """True for a table of pandas, polars or pyarrow, which may not be an iterable."""
    return _table_rows(given) is not None


def _table_rows(given: Any) -> Iterable[Any] | None:
    """Return the rows of a table of pandas, polars or pyarrow; None for anything else."""
    if hasattr(given, "itertuples") and hasattr(given, "columns"):  # pandas
        names = list(given.columns)
        return (
            dict(zip(names, row, strict=True)) for row in given.itertuples(index=False, name=None)
        )
    if hasattr(given, "iter_rows") and hasattr(given, "columns"):  # polars
        rows: Iterable[Any] = given.iter_rows(named=True)
        return rows
    if hasattr(given, "to_batches") and hasattr(given, "schema"):  # a table of pyarrow
        return (row for batch in given.to_batches() for row in batch.to_pylist())
    # A batch of such a table's rows, or one of its columns.
    if hasattr(given, "to_pylist") and (hasattr(given, "schema") or hasattr(given, "type")):
        return _listed(given)
    return None


def _listed(given: Any) -> Iterator[Any]:
    yield from given.to_pylist()


def _named(row: Any) -> Any:
    """Return a row with texts as keys: a data frame may number its columns."""
    if not isinstance(row, Mapping):
        return row
    return {str(key): plain_number(value) for key, value in row.items()}
