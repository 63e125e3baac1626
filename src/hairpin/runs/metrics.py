"""metrics.jsonl: the record of a run, one strict JSON object a line, append-only.

It is the truth that summaries, plots and comparisons read.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Self

from hairpin.errors import HairpinError, RunError
from hairpin.files import open_own, sync_folder, write_atomically
from hairpin.runs.events import Event

_LONGEST_LINE = 1 << 24


class Record:
    """Appends events to a metrics.jsonl.

    Args:
        path: the file; made if missing. A line that a crash cut short at its end is taken off.

    Raises:
        HairpinError: on opening, writing and `sync`: the disk is full or gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._telling_what_to_do():
            is_new = not path.exists()
            self._file = open_own(path, "ab")
            if is_new:
                sync_folder(path.parent)
            if torn := _torn_bytes(path):
                self._file.truncate(path.stat().st_size - torn)

    def write(self, event: Event) -> None:
        """Append one line and hand it to the operating system."""
        line = json.dumps(event.as_json(), ensure_ascii=False, allow_nan=False)
        # A sample may hold half of a surrogate pair, which UTF-8 has no bytes for.
        with self._telling_what_to_do():
            self._file.write(line.encode("utf-8", errors="replace") + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Make all lines durable; return the record's length in bytes."""
        with self._telling_what_to_do():
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut_back(self, length_bytes: int, discarded: Path, keep: Collection[str]) -> None:
        """Set aside what was written after `length_bytes`, in the file `discarded`.

        Args:
            length_bytes: of the record, a whole number of lines.
            discarded: a new file.
            keep: names of events that stay all the same.
        """
        with self._telling_what_to_do():
            truncate_record(self._path, length_bytes, discarded)
            self._file.seek(0, os.SEEK_END)
            if discarded.exists():
                lines = discarded.read_bytes().split(b"\n")[:-1]
                kept = [line + b"\n" for line in lines if json.loads(line)["event"] in keep]
                self._file.writelines(kept)
                self._file.flush()

    def close(self) -> None:
        """Close the file. What could not be written was said when it was tried."""
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _telling_what_to_do(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HairpinError(
                f"{self._path}: cannot be written ({error.strerror or error}); checkpoints are "
                f"whole: make space, then `hairpin resume {self._path.parent}`"
            ) from error

    def __enter__(self) -> Self:
        """The record itself; it is closed at the end of the block."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self.close()


class NoRecord(Record):
    """Takes what a record takes and writes nothing: of several processes, one has the record."""

    def __init__(self) -> None:
        self._path = Path(os.devnull)

    def write(self, event: Event) -> None:
        pass

    def sync(self) -> int:
        return 0

    def cut_back(self, length_bytes: int, discarded: Path, keep: Collection[str]) -> None:
        pass

    def close(self) -> None:
        pass


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
            event = json.loads(line)
        except (ValueError, RecursionError):
            if number >= len(lines) - 1:
                return
            raise RunError(f"{path}:{number}: not a line of JSON; the record is damaged") from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise RunError(f"{path}:{number}: not an event; the record is damaged")
        yield event


def first_event(path: Path) -> dict[str, Any] | None:
    """What the record begins with; None: there is no record, or no whole line in it."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        is_whole = file.readline().endswith(b"\n")
    return next(read_record(path), None) if is_whole else None


def start_bytes(path: Path) -> int:
    """Length of the first line: what a run keeps that begins again, with no checkpoint to go on
    from.
    """
    with path.open("rb") as file:
        first = file.readline()
    return len(first) if first.endswith(b"\n") else 0


def truncate_record(path: Path, length_bytes: int, discarded: Path) -> None:
    """Cut the record back to `length_bytes`, moving what came after into the file `discarded`;
    both are durable when it returns.
    """
    with open_own(path, "rb+") as file:
        file.seek(length_bytes)
        tail = file.read()
        if tail:
            write_atomically(discarded, tail)
            file.truncate(length_bytes)
            os.fsync(file.fileno())


def _torn_bytes(path: Path) -> int:
    """Bytes after the last line's end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_LINE))
        tail = file.read()
    return len(tail) - (tail.rfind(b"\n") + 1)
