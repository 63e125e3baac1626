"""Parquet, Arrow and Feather files, and folders that Hugging Face's `datasets` saved, as tables of
Arrow's columns.
"""

import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hairpin.data.tables.column_kinds import NOTHING, TEXT, ColumnKind, column_kind, first_rows
from hairpin.data.tables.columns import names_of, quoted
from hairpin.data.tables.table import BaseTable, Entry
from hairpin.errors import CorpusError
from hairpin.system.files import shown

_ROWS_AT_ONCE, _LOOKED_AT_ONCE = 256, 16
_BUFFER_BYTES = 1 << 20


class _ArrowTable(BaseTable):
    """Table of Arrow columns, read a few rows at a time."""

    kind = "Arrow"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn the library's errors into one line."""
        pyarrow, _ = _pyarrow(self.name)
        try:
            yield
        except (pyarrow.ArrowException, OSError) as error:
            if self.path.is_file() and self.path.stat().st_size == 0:
                what = "the file is empty; make it again, or leave it out"
            else:
                what = (
                    f"is not {self.kind}, or is damaged ({_first_line(error)}); make the file "
                    "again, or leave it out"
                )
            raise CorpusError(f"{self.name}: {what}") from None

    @abstractmethod
    def _schema(self) -> Any:
        """Return the file's schema, as pyarrow has it."""

    @abstractmethod
    def _batches(self, columns: Sequence[str], at_once: int = _ROWS_AT_ONCE) -> Iterator[Any]:
        """Yield record batches with these columns."""

    def columns(self) -> Mapping[str, ColumnKind]:
        fields = {field.name: field.type for field in self._schema()}
        self.names |= dict.fromkeys(fields)
        # Numbers and pictures are of no use here, and may be large.
        looked_at = [name for name, type_ in fields.items() if _has_texts(type_)]
        rows = list(first_rows(self._first(looked_at), dict.values)) if looked_at else []
        return {
            name: column_kind(
                name, _kind(type_), [row[name] for row in rows] if name in looked_at else ()
            )
            for name, type_ in fields.items()
        }

    def _first(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the first rows, read a few at a time, since they may be long."""
        for batch in self._batches(columns, _LOOKED_AT_ONCE):
            values = [_values(batch.column(name)) for name in columns]
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))

    def rows(self, column: str | None = None) -> Iterator[Entry]:
        names = [field.name for field in self._schema()] if column is None else [column]
        number = 0
        for batch in self._batches(names):
            places = [f"{self.name} (row {number + n})" for n in range(1, batch.num_rows + 1)]
            number += batch.num_rows
            columns = [self._decoded(array, places) for array in batch.columns]
            for place, *values in zip(places, *columns, strict=True):
                yield Entry(place, dict(zip(batch.schema.names, values, strict=True)))

    def _decoded(self, array: Any, places: Sequence[str]) -> Iterator[Any]:
        """Yield the values of a column."""
        if _kind(array.type) in (TEXT, NOTHING):
            for place, value in zip(places, _as_bytes(array), strict=True):
                yield None if value is None else self._text(place, value)
            return
        try:
            values = array.to_pylist()
        except UnicodeDecodeError:
            raise CorpusError(
                f"{places[0]}: a text in it or in the rows after it is not UTF-8; make the file "
                "again"
            ) from None
        yield from map(_exact, values)

    def _text(self, place: str, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            if self.on_bad_bytes == "error":
                raise CorpusError(
                    f"{place}: byte 0x{value[error.start]:02x} at offset {error.start} of the text "
                    "is not UTF-8; fix the row, or continue without such bytes: "
                    "--set data.on_bad_bytes=replace"
                ) from None
        text = value.decode(errors="replace")
        self.mended += text.count("\ufffd") - value.count(b"\xef\xbf\xbd")
        return text


class Parquet(_ArrowTable):
    """One Parquet file, of any number of row groups."""

    kind = "Parquet"

    def _open(self) -> Any:
        _, parquet = _pyarrow(self.name)
        # Row groups may be larger than memory: buffered, not read ahead.
        return parquet.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def _schema(self) -> Any:
        with self._reading(), self._open() as file:
            return file.schema_arrow

    def _batches(self, columns: Sequence[str], at_once: int = _ROWS_AT_ONCE) -> Iterator[Any]:
        with self._reading(), self._open() as file:
            yield from file.iter_batches(at_once, columns=list(columns), use_threads=False)


class ArrowFile(_ArrowTable):
    """One file of Arrow's record batches: Feather, an IPC file, or a stream, such as Hugging Face
    `datasets` caches.
    """

    kind = "Arrow or Feather"

    def _open(self) -> Any:
        pyarrow, _ = _pyarrow(self.name)
        from pyarrow import feather, ipc

        source = pyarrow.OSFile(str(self.path))
        opening = bytes(source.read(6))
        source.seek(0)
        if opening == b"ARROW1":
            return ipc.open_file(source)
        if opening[:4] == b"FEA1":  # Feather from before 2020, which has no batches
            source.close()
            return feather.read_table(self.path, use_threads=False).to_reader(_ROWS_AT_ONCE)
        return ipc.open_stream(source)

    def _schema(self) -> Any:
        with self._reading(), self._open() as reader:
            return reader.schema

    def _batches(self, columns: Sequence[str], at_once: int = _ROWS_AT_ONCE) -> Iterator[Any]:
        with self._reading(), self._open() as reader:
            count = getattr(reader, "num_record_batches", None)
            batches = iter(reader) if count is None else map(reader.get_batch, range(count))
            for batch in batches:
                for start in range(0, batch.num_rows, at_once):
                    yield batch.slice(start, at_once).select(list(columns))


class SavedDataset(_ArrowTable):
    """A folder that `save_to_disk` wrote; of several splits `train`, or the only one."""

    def _open(self) -> Any:
        folder = split_folder(self.path)
        if _is_without_rows(folder):
            raise CorpusError(f"{self.name}: the saved dataset has no rows; save one that has some")
        _pyarrow(self.name)
        try:
            import datasets
        except ImportError:
            raise CorpusError(
                f"{self.name}: a folder that Hugging Face's datasets saved is read by that "
                "package; type: pip install 'hairpin[datasets]'"
            ) from None
        try:
            return datasets.Dataset.load_from_disk(str(folder)).with_format("arrow")
        except Exception as error:  # whatever it raises for missing or truncated files
            raise CorpusError(
                f"{self.name}: the saved dataset cannot be read ({_first_line(error)}); save it "
                "again"
            ) from None

    def _schema(self) -> Any:
        return self._open().features.arrow_schema

    def _batches(self, columns: Sequence[str], at_once: int = _ROWS_AT_ONCE) -> Iterator[Any]:
        for rows in self._open().select_columns(list(columns)).iter(at_once):
            yield from rows.to_batches()


def is_saved_dataset(folder: Path) -> bool:
    """True if `save_to_disk` wrote the folder."""
    names = ("dataset_info.json", "state.json")
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in names
    )


def split_folder(folder: Path) -> Path:
    """Return the folder of the split to read: `train`, or the only one.

    Raises:
        CorpusError: there are several, none of them `train`.
    """
    listing = folder / "dataset_dict.json"
    if not listing.is_file():
        return folder
    try:
        splits = [str(split) for split in json.loads(listing.read_bytes())["splits"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise CorpusError(f"{shown(listing)}: is damaged ({error}); save it again") from None
    if not splits:
        raise CorpusError(f"{shown(folder)}: the saved dataset has no split; save it again")
    if "train" in splits or len(splits) == 1:
        return folder / ("train" if "train" in splits else splits[0])
    raise CorpusError(
        f"{shown(folder)}: no split is called train; name one of {names_of(splits)} as "
        f"{shown(folder)}/SPLIT"
    )


def files_of_split(folder: Path) -> list[Path]:
    """Return the files of the split to read, in a fixed order."""
    return sorted(path for path in split_folder(folder).rglob("*") if path.is_file())


def _is_without_rows(folder: Path) -> bool:
    """Tell whether `save_to_disk` had nothing to write, which `datasets` cannot read back."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and state.get("_data_files") == []


def _pyarrow(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise CorpusError(
            f"{name}: reading it needs pyarrow; type: pip install 'hairpin[parquet]'"
        ) from None
    return pyarrow, parquet


def _kind(type_: Any) -> str:
    """Return the kind of column that an Arrow type makes."""
    from pyarrow import types

    if types.is_dictionary(type_):
        type_ = type_.value_type
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return TEXT
    if types.is_null(type_):
        return NOTHING
    is_number = types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)
    return "numbers" if is_number else str(type_)


def _has_texts(type_: Any) -> bool:
    """True if an Arrow type is text, or lists or objects that may hold text."""
    from pyarrow import types

    return _kind(type_) == TEXT or types.is_nested(type_)


def _values(array: Any) -> list[Any]:
    """Return the values of some rows, for recognising the column's kind."""
    from pyarrow import types

    if not types.is_nested(array.type):
        texts = _as_bytes(array)
        return [None if text is None else text.decode(errors="replace") for text in texts]
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:  # nested, and only used for recognition
        return [None] * len(array)
    return values


def _as_bytes(array: Any) -> list[bytes | None]:
    """Return the stored bytes of the values, which may not be UTF-8."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_null(array.type):
        return [None] * len(array)
    if types.is_string_view(array.type):
        array = array.cast(pyarrow.binary_view())
    else:
        array = array.cast(pyarrow.large_binary())
    values: list[bytes | None] = array.to_pylist()
    return values


def _exact(value: Any) -> Any:
    """Return a value as JSON has it: a number or a date as its text, NaN as None."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str | bool | list | dict | bytes | None):
        return value
    return str(value)


def _first_line(error: Exception) -> str:
    return quoted(" ".join(str(error).split()) or type(error).__name__)[1:-1]
