"""Rows held by Python -> a file, so that they are read like any other table, as often as needed.

spool             texts, or rows with a text in each, for training
spool_records     records for fine-tuning

A stream can be read only once, and training reads its text several times: for its hash, its
vocabulary, its tokens. So it is first written, compressed, to the cache, under the hash of its
content: the same rows give the same file. It stays there: a resumed run reads it again.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hairpin.data.tables.column_kinds import (
    FILES,
    NOTHING,
    TEXT,
    column_kind,
    first_rows,
    is_missing,
    kind_word,
)
from hairpin.data.tables.columns import choose_column, column_words, quoted
from hairpin.errors import CorpusError
from hairpin.system.arguments import plain_number
from hairpin.system.files import cache_folder, shown

Records = str | Path | Iterable[Mapping[str, Any]] | None

_LINES_AT_ONCE = 1000
_RECORDS_ADVICE = 'give a list of dicts, such as [{"text": "…", "label": "…"}], or name a file'
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def spool(
    rows: Iterable[Any],
    column: str | None,
    *,
    cache: Path | None = None,
    on_notice: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write texts, or dicts with a text in each, to a file in the cache; return its path.

    Args:
        rows: a list, a generator, a data frame, a dataset or stream of Hugging Face's `datasets`, …
        column: of dicts, the key of the text; None: `text`, or the only one that can be the text.
        cache: instead of the user's cache.
        on_notice: receives a line about the column that is read and the others.

    Raises:
        CorpusError: there is no row, one is neither a text nor a dict, lacks a text, or the cache
            cannot be written.
    """
    return write_lines(_name_of(rows), _lines(rows, column, on_notice), cache)


def paths_of_records(data: Records) -> tuple[Path, ...]:
    """Return the paths of records: of a file, or of the one that they are written to.

    Raises:
        CorpusError: they are not records, or cannot be written.
    """
    if isinstance(data, str | os.PathLike):
        return (Path(data),) if str(data) else ()
    return () if data is None else (spool_records(data),)


def spool_records(rows: Any, *, cache: Path | None = None) -> Path:
    """Write records to a file in the cache; return its path.

    Args:
        rows: with the same columns that a file would have: a list of dicts, a generator, a data
            frame, a dataset, …
        cache: instead of the user's cache.

    Raises:
        CorpusError: they are not dicts, there are none, or the cache cannot be written.
    """
    is_many = isinstance(rows, Iterable) or is_table(rows)
    if isinstance(rows, Mapping | bytes) or not is_many:
        raise CorpusError(f"a {type(rows).__name__} is not a list of records; {_RECORDS_ADVICE}")
    return write_lines("records", _record_lines(rows), cache)


def write_lines(name: str, lines: Iterator[bytes], cache: Path | None = None) -> Path:
    """Write lines of JSON to a file in the cache, under their hash; return its path.

    Args:
        name: of the file, without suffixes.
        lines: each with its end.
        cache: instead of the user's cache.

    Raises:
        CorpusError: the cache cannot be written.
    """
    folder = (cache or cache_folder()) / "streams"
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=folder, prefix=".stream-")
        os.close(handle)
        temporary = Path(made)
        digest = _write(temporary, lines)
        path = folder / digest / f"{name}.jsonl.zst"
        path.parent.mkdir(exist_ok=True)
        temporary.replace(path)
    except OSError as error:
        raise CorpusError(
            f"{shown(folder)}: the cache cannot be written ({error.strerror or error}); set "
            "HAIRPIN_CACHE to a writable folder with free space"
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
    return path


def _write(path: Path, lines: Iterator[bytes]) -> str:
    import zstandard

    digest = hashlib.sha256()
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        while block := b"".join(itertools.islice(lines, _LINES_AT_ONCE)):
            digest.update(block)
            packed.write(block)
    return digest.hexdigest()


def _lines(
    given: Iterable[Any], column: str | None, on_notice: Callable[[str], None]
) -> Iterator[bytes]:
    rows = rows_of(given)
    opening = list(first_rows(rows, _values))
    if not opening:
        raise CorpusError(
            f"no rows in it (a {type(given).__name__}); a generator can be read only once: create "
            "it again, or give a list"
        )
    chosen = _chosen(opening, column, on_notice) if isinstance(opening[0], Mapping) else None
    if chosen is None and _are_files(opening):
        raise _files(opening[0])
    for number, row in enumerate(itertools.chain(opening, rows), 1):
        if isinstance(row, Mapping) and chosen is None:
            raise _not_a_text(number, None, row)
        text = row.get(chosen) if isinstance(row, Mapping) else row
        if chosen is not None and not isinstance(row, Mapping):
            raise CorpusError(
                f"row {number}: is {_a(row)}, but the first is a dict; make all the same type"
            )
        text = None if is_missing(text) else text
        if text is not None and not isinstance(text, str):
            raise _not_a_text(number, chosen, text)
        yield _line(number, {chosen or "text": text})


def _values(row: Any) -> Iterable[Any]:
    return row.values() if isinstance(row, Mapping) else (row,)


def _chosen(opening: Sequence[Any], column: str | None, on_notice: Callable[[str], None]) -> str:
    """Return the column of the first rows that holds the text."""
    rows = [row for row in opening if isinstance(row, Mapping)]
    values = {name: [row[name] for row in rows if name in row] for row in rows for name in row}
    columns = {name: column_kind(name, _kind(found), found) for name, found in values.items()}
    chosen = choose_column("row 1", columns, column, "column=…")
    on_notice(column_words(chosen, tuple(name for name in columns if name != chosen)))
    return chosen


def _kind(values: Sequence[Any]) -> str:
    """Return the kind of some values; for texts mixed with others the row gives the error."""
    kinds = dict.fromkeys(map(kind_word, values))
    there = [kind for kind in kinds if kind != NOTHING]
    return TEXT if TEXT in there else " and ".join(there) or NOTHING


def _not_a_text(number: int, chosen: str | None, value: Any) -> CorpusError:
    if isinstance(value, os.PathLike):
        return _files(value)
    what = "the row" if chosen is None else chosen
    other = "" if chosen is None else ", or name another column with column=…"
    return CorpusError(
        f"row {number}: {quoted(what)} is {_a(value)}, not a text; fix the row{other}"
    )


def _files(name: Any) -> CorpusError:
    return CorpusError(
        f"{shown(os.fspath(name))}: got a list of texts, but the first is the name of a file; to "
        "train on files, give each as an argument: hairpin.train(*names)"
    )


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"


def _record_lines(rows: Iterable[Any]) -> Iterator[bytes]:
    number = 0
    for number, row in enumerate(rows_of(rows), 1):
        if not isinstance(row, Mapping):
            frame = "; of a data frame give frame.to_dict('records')" * hasattr(rows, "to_dict")
            raise CorpusError(
                f"row {number}: a {type(row).__name__} is not a record; {_RECORDS_ADVICE}{frame}"
            )
        yield _line(number, {key: _plain(value) for key, value in row.items()})
    if not number:
        raise CorpusError(f"no records in it; {_RECORDS_ADVICE}")


def _line(number: int, row: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, default=_as_in_json)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorpusError(
            f"row {number}: cannot be written as JSON ({error}); give texts and numbers"
        ) from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: its reader decides what to do
        return json.dumps(row, default=_as_in_json).encode() + b"\n"


def _as_in_json(value: Any) -> Any:
    """Return the JSON form of a nested value that JSON does not know."""
    plain = _plain(value)
    if plain is value:
        raise TypeError(f"a {type(value).__name__} is neither text nor number")
    return plain


def _plain(value: Any) -> Any:
    """Return a NumPy value as a Python one, and what data frames have for a missing one as None."""
    if not isinstance(value, str | bytes | bool | int | float) and hasattr(value, "tolist"):
        value = value.tolist()
    return None if is_missing(value) else value


def _name_of(rows: Any) -> str:
    if isinstance(rows, Mapping):
        raise CorpusError(_no_rows(rows))
    if isinstance(rows, bytes) or not (isinstance(rows, Iterable) or is_table(rows)):
        raise CorpusError(
            f"a {type(rows).__name__} is not a text: name a file, or pass an iterable of texts, "
            "or of dicts with a text in each"
        )
    name = getattr(getattr(rows, "info", None), "dataset_name", None)
    is_one = isinstance(name, str) and _NAME.fullmatch(name) and name != "generator"
    return str(name) if is_one else "stream"


def _no_rows(given: Mapping[Any, Any]) -> str:
    names = list(map(str, given))
    what = f"a dict of {', '.join(names[:8])}{', …' * (len(names) > 8)} is not a text"
    if any(isinstance(value, str) for value in given.values()):
        return f"{what}: put the one row into a list, as in hairpin.train([row])"
    name = next((name for name in ("train", "text") if name in names), "NAME")
    return f'{what}: pass one of its values, as in hairpin.train(dataset["{name}"])'


def _are_files(rows: Sequence[Any]) -> bool:
    """True if texts are file names: the first is a file, or all of them look like one."""
    if not isinstance(rows[0], str):
        return False
    with contextlib.suppress(OSError, ValueError):  # too long for a name, or with a NUL in it
        if rows[0] and Path(rows[0]).is_file():
            return True
    return column_kind("", TEXT, rows).looks_like == FILES


# --- rows of lists, generators, data frames and datasets ---


def rows_of(given: Iterable[Any]) -> Iterator[Any]:
    """Yield each row: a text, or a dict with names as keys; anything else as it is.

    Data frames are recognised by their methods, so that none of their libraries is imported.
    Iterating them directly would give the names of their columns, which are words too.
    """
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
