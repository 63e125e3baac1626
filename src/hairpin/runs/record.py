"""metrics.jsonl: the record of a run, one strict JSON object a line, append-only.

Summaries, plots and comparisons read nothing else.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from hairpin.errors import HairpinError, RunError
from hairpin.runs.events import Event
from hairpin.system.access import reading
from hairpin.system.files import move, open_own, sync_folder
from hairpin.system.shell import command

_MAX_LINE_LENGTH = 1 << 24


class Record:
    """Append events to a metrics.jsonl.

    Args:
        path: the file; created if missing. A last line that a crash cut short is removed.

    Raises:
        HairpinError: on opening, writing and `sync`: the disk is full or gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._with_remedy():
            is_new = not path.exists()
            self._file = open_own(path, "ab")
            if is_new:
                sync_folder(path.parent)
            if torn := _torn_bytes(path):
                self._file.truncate(path.stat().st_size - torn)

    def write(self, event: Event) -> None:
        """Append one line and hand it to the operating system."""
        line = json.dumps(event.as_json(), ensure_ascii=False, allow_nan=False)
        # A sample may contain half of a surrogate pair, which UTF-8 cannot encode.
        with self._with_remedy():
            self._file.write(line.encode("utf-8", errors="replace") + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Make all lines durable; return the record's length in bytes."""
        with self._with_remedy():
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut_back(self, length_bytes: int, discarded: Path, keep: Collection[str]) -> None:
        """Move the lines written after `length_bytes` into the file `discarded`.

        Args:
            length_bytes: length to keep, a whole number of lines.
            discarded: a new file.
            keep: names of events that are kept in the record too.
        """
        with self._with_remedy():
            truncate_record(self._path, length_bytes, discarded)
            self._file.seek(0, os.SEEK_END)
            if discarded.exists():
                with discarded.open("rb") as lines:
                    self._file.writelines(
                        line
                        for line in lines
                        if line.endswith(b"\n") and json.loads(line)["event"] in keep
                    )
                self._file.flush()

    def close(self) -> None:
        """Close the file. Errors were reported when writing failed."""
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _with_remedy(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HairpinError(
                f"{self._path}: cannot be written ({error.strerror or error}); checkpoints are "
                f"intact: make space, then `{command('resume', self._path.parent)}`"
            ) from error

    def __enter__(self) -> Self:
        """Return the record, which is closed at the end of the block."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self.close()


class NoRecord(Record):
    """A record that writes nothing: of several processes, only one writes the record."""

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
    """Yield the events of a record, oldest first, with one line in memory at a time; a last line
    that a crash cut short is ignored.

    Raises:
        RunError: the file is missing, or a line in the middle is not JSON.
        UnreadableError: it cannot be read now.
    """
    try:
        with reading(path), path.open("rb") as file:
            for number, line in enumerate(_lines(file), 1):
                if line == b"\n":
                    continue
                event = _event(line)
                if event is None:
                    if not file.readline(_MAX_LINE_LENGTH).endswith(b"\n"):
                        return
                    raise RunError(f"{path}:{number}: not a line of JSON; the record is damaged")
                if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                    raise RunError(f"{path}:{number}: not an event; the record is damaged")
                yield event
    except FileNotFoundError:
        raise RunError(f"{path}: no such record; is its folder a run?") from None


def first_event(path: Path) -> dict[str, Any] | None:
    """Return the first event of a record; None: there is no record, or no complete line in it.

    Raises:
        RunError: the first line is not an event.
        UnreadableError: it cannot be read now.
    """
    return next(read_record(path), None) if start_bytes(path) else None


def start_bytes(path: Path) -> int:
    """Return the length of the first line, which a run keeps when it begins again with no
    checkpoint to resume from. 0: there is none.

    Raises:
        UnreadableError: the file cannot be read now.
    """
    try:
        with reading(path), path.open("rb") as file:
            first = file.readline(_MAX_LINE_LENGTH)
    except FileNotFoundError:
        return 0
    return len(first) if first.endswith(b"\n") else 0


def kept_bytes(path: Path, length_bytes: int, update: int) -> tuple[int, str | None]:
    """Return how many bytes of the record belong to a checkpoint; and a warning if they are not
    those the checkpoint was made with, which ended in the line about itself.

    Args:
        path: the record.
        length_bytes: the record's length, by the checkpoint.
        update: number of updates completed at the checkpoint.

    Raises:
        UnreadableError: the file cannot be read now.
    """
    with reading(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = min(size, length_bytes)
        file.seek(max(0, end - _MAX_LINE_LENGTH))
        before = file.read(end - file.tell())
    whole = before[: before.rfind(b"\n") + 1]
    if size < length_bytes:
        return end - len(before) + len(whole), (
            f"{path}: has {size:,} bytes, and had {length_bytes:,} at the checkpoint of update "
            f"{update:,}: lines are missing; the run continues with that gap"
        )
    last = _event(whole[whole.rfind(b"\n", 0, -1) + 1 :])
    is_own = isinstance(last, dict) and (last.get("event"), last.get("update")) == (
        "checkpoint",
        update,
    )
    return end - len(before) + len(whole), (
        None
        if is_own and whole == before
        else f"{path}: differs from the record at the checkpoint of update {update:,}; the run "
        "continues, but do not trust the record before that"
    )


def truncate_record(path: Path, length_bytes: int, discarded: Path) -> None:
    """Truncate the record to `length_bytes` and move the rest into the file `discarded`; both are
    durable on return. A shorter record is left unchanged.
    """
    with open_own(path, "rb+") as file:
        if file.seek(0, os.SEEK_END) <= length_bytes:
            return
        file.seek(length_bytes)
        temporary = discarded.with_name(f".tmp-{discarded.name}")
        with temporary.open("xb") as tail:
            shutil.copyfileobj(file, tail)
            tail.flush()
            os.fsync(tail.fileno())
        move(temporary, discarded)
        sync_folder(discarded.parent)
        file.truncate(length_bytes)
        os.fsync(file.fileno())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; one longer than any event is cut."""
    while line := file.readline(_MAX_LINE_LENGTH):
        yield line


def _event(line: bytes) -> Any:
    """Parse a line; None: it is not JSON, or null."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _torn_bytes(path: Path) -> int:
    """Return the number of bytes after the last line break."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MAX_LINE_LENGTH))
        tail = file.read()
    return len(tail) - (tail.rfind(b"\n") + 1)
