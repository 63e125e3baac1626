"""Rows that Python holds -> a file, so that they are read as any other text, as often as needed.

A stream can be gone over once, and training goes over its text several times: for its hash, its
vocabulary, its tokens. So it is written down first, compressed, in the cache, under the hash of its
content: the same rows are the same file.
"""

import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hairpin.data.cache import cache_folder, shown
from hairpin.data.columns import NOTHING, TEXT, choose_column, not_a_text
from hairpin.errors import CorpusError

_LINES_AT_ONCE = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def spool(rows: Iterable[Any], column: str | None, *, cache: Path | None = None) -> Path:
    """Write texts, or dicts with a text in each, to a file in the cache; gives its path.

    Args:
        rows: a list, a generator, a dataset or stream of Hugging Face's `datasets`, …
        column: of dicts, the key of the text; None: `text`, or the only one that has a text.
        cache: in place of the user's cache.

    Raises:
        CorpusError: a row is neither, lacks the column, or the cache cannot be written.
    """
    return write_lines(_name_of(rows), _lines(rows, column), cache)


def write_lines(name: str, lines: Iterator[bytes], cache: Path | None = None) -> Path:
    """Write lines of JSON to a file in the cache, under the hash of what they are; gives its path.

    Args:
        name: of the file, without suffixes.
        lines: each with its end.
        cache: in place of the user's cache.

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
            "HAIRPIN_CACHE to a folder with space that you may write to"
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


def _lines(rows: Iterable[Any], column: str | None) -> Iterator[bytes]:
    chosen = column
    for number, row in enumerate(rows, 1):
        text = row
        if isinstance(row, Mapping):
            chosen = choose_column("row 1", _kinds(row), column) if number == 1 else chosen
            text = row.get(chosen or "text")
        if text is not None and not isinstance(text, str):
            raise not_a_text(f"row {number}", chosen or "the row", f"a {type(text).__name__}")
        if text and number == 1 and isinstance(row, str) and _is_file(text):
            raise CorpusError(
                f"{shown(text)}: a list of texts is given, and the first is the name of a file; "
                "to train on files, name each as an argument: hairpin.train(*names)"
            )
        yield _line({chosen or "text": text})


def _line(row: dict[str, str | None]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character: whoever reads it says what becomes of it
        return json.dumps(row).encode() + b"\n"


def _kinds(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        str(key): TEXT
        if isinstance(value, str)
        else NOTHING
        if value is None
        else f"a {type(value).__name__}"
        for key, value in row.items()
    }


def _name_of(rows: Iterable[Any]) -> str:
    if isinstance(rows, Mapping):
        raise CorpusError(
            f"a dict of {', '.join(map(str, rows))} is no text: pass one of its values, as in "
            'hairpin.train(dataset["train"])'
        )
    if isinstance(rows, bytes) or not isinstance(rows, Iterable):
        raise CorpusError(
            f"a {type(rows).__name__} is no text: name a file, or pass an iterable of texts, or of "
            "dicts with a text in each"
        )
    name = getattr(getattr(rows, "info", None), "dataset_name", None)
    is_one = isinstance(name, str) and _NAME.fullmatch(name) and name != "generator"
    return str(name) if is_one else "stream"


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
