"""Records held by Python -> a file of records, so that they are read like any other.

They are written to the cache, where they stay: a resumed run reads them again.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hairpin.data.tables.spool import write_lines
from hairpin.errors import CorpusError

Records = str | Path | Iterable[Mapping[str, Any]] | None
_ADVICE = 'give a list of dicts, such as [{"text": "…", "label": "…"}], or name a file'


def paths_of_records(data: Records) -> tuple[Path, ...]:
    """Return the paths of records: of a file, or of the one that they are written to.

    Raises:
        CorpusError: they are not records, or cannot be written.
    """
    if isinstance(data, str | os.PathLike):
        return (Path(data),) if str(data) else ()
    return () if data is None else (spool_records(data),)


def spool_records(rows: Iterable[Any], *, cache: Path | None = None) -> Path:
    """Write records to a file in the cache; return its path.

    Args:
        rows: dicts with the same columns that a file would have: a list, a generator, a dataset.
        cache: instead of the user's cache.

    Raises:
        CorpusError: they are not dicts, there are none, or the cache cannot be written.
    """
    if isinstance(rows, Mapping | bytes) or not isinstance(rows, Iterable):
        raise CorpusError(f"a {type(rows).__name__} is no list of records; {_ADVICE}")
    return write_lines("records", _lines(rows), cache)


def _lines(rows: Iterable[Any]) -> Iterator[bytes]:
    number = 0
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            frame = "; of a data frame give frame.to_dict('records')" * hasattr(rows, "to_dict")
            raise CorpusError(
                f"row {number}: a {type(row).__name__} is no record; {_ADVICE}{frame}"
            )
        yield _line(number, {str(key): _plain(value) for key, value in row.items()})
    if not number:
        raise CorpusError(f"no records in it; {_ADVICE}")


def _line(number: int, row: dict[str, Any]) -> bytes:
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
    """Return a NumPy value as a Python one; NaN, which data frames have for missing values, as
    None.
    """
    if not isinstance(value, str | bytes | bool | int | float) and hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value
