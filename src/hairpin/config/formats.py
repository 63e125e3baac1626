"""The formats of tables: each one's name, the suffixes of its files, and the class that reads it.

A new format is a file in `data/tables/` and a line here.
"""

from dataclasses import dataclass
from pathlib import Path

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")


@dataclass(frozen=True)
class TableFormat:
    """A format of tables.

    Args:
        name: as in `data.format`.
        suffixes: of its files' names.
        reader: its subclass of `hairpin.data.tables.table.BaseTable`, which is imported when such a
            file is read.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str


_TABLES = (
    TableFormat("jsonl", (".jsonl", ".ndjson"), "hairpin.data.tables.json:JsonLines"),
    TableFormat("json", (".json",), "hairpin.data.tables.json:JsonArray"),
    TableFormat("csv", (".csv", ".psv"), "hairpin.data.tables.csv:Csv"),
    TableFormat("tsv", (".tsv",), "hairpin.data.tables.csv:Tsv"),
    TableFormat("parquet", (".parquet", ".pq"), "hairpin.data.tables.arrow:Parquet"),
    TableFormat("arrow", (".arrow", ".feather"), "hairpin.data.tables.arrow:ArrowFile"),
    TableFormat("dataset", (), "hairpin.data.tables.arrow:SavedDataset"),  # a folder
)
TABLES = {table.name: table for table in _TABLES}
FORMATS = ("text", *TABLES)
SUFFIXES = {suffix: table.name for table in _TABLES for suffix in table.suffixes}


def format_of(path: Path) -> str:
    """Return the format that a file's name stands for; text by default."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1], "text") if suffixes else "text"
