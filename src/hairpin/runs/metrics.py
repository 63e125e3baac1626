"""metrics.jsonl: the record of a run, one strict JSON object a line, append-only.

It is the truth that summaries, plots and comparisons read.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from hairpin.errors import RunError
from hairpin.runs.events import Event


class Record:
    """Appends events to a metrics.jsonl.

    Args:
        path: the file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def write(self, event: Event) -> None:
        """Append one line and hand it to the operating system."""
        line = json.dumps(event.as_json(), ensure_ascii=False, allow_nan=False)
        # A sample may hold half of a surrogate pair, which UTF-8 has no bytes for.
        self._file.write(line.encode("utf-8", errors="replace") + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Make all lines durable; return the record's length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """The record itself; it is closed at the end of the block."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self.close()


def read_record(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a record, oldest first; a line that a crash cut short at the end is left out.

    Raises:
        RunError: the file is missing, or a line in the middle is not JSON.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise RunError(f"{path}: no such record; is its folder a run?") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            if number >= len(lines) - 1:
                return
            raise RunError(f"{path}:{number}: not a line of JSON; the record is damaged") from None


def start_bytes(path: Path) -> int:
    """Length of the first line: what a run keeps that begins again, with no checkpoint to go on
    from.
    """
    with path.open("rb") as file:
        first = file.readline()
    return len(first) if first.endswith(b"\n") else 0


def truncate_record(path: Path, length_bytes: int, discarded: Path) -> None:
    """Cut the record back to `length_bytes`, moving what came after into the file `discarded`."""
    tail = path.read_bytes()[length_bytes:]
    if tail:
        discarded.write_bytes(tail)
        os.truncate(path, length_bytes)
