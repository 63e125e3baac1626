"""The format of a file, by its name, and its table."""

from collections.abc import Callable
from pathlib import Path

from hairpin.config.data import Format
from hairpin.data.tables.arrow import ArrowFile, Parquet, SavedDataset
from hairpin.data.tables.columns import Table
from hairpin.data.tables.json import JsonArray, JsonLines
from hairpin.data.tables.table import Csv, Tsv

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".psv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_TABLES: dict[Format, Callable[[Path, str], Table]] = {
    "jsonl": JsonLines,
    "json": JsonArray,
    "csv": Csv,
    "tsv": Tsv,
    "parquet": Parquet,
    "arrow": ArrowFile,
    "dataset": SavedDataset,
}


def format_of(path: Path) -> Format:
    """Return the format that a file's name stands for; text by default."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1], "text") if suffixes else "text"


def table_of(path: Path, format_: Format, on_bad_bytes: str) -> Table:
    """Return the table of a file whose format is not "text"."""
    return _TABLES[format_](path, on_bad_bytes)
