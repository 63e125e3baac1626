"""Standard output and standard error as a command needs them: a run does not end because nobody can
be shown it any more.

A terminal is closed, the reader of a pipe ends, the disk with the log is full, or the streams were
never there. What is written from then on is dropped, and `failures` says why.
"""

import io
import os
import select
import sys
from contextlib import suppress

_LABELS = {"stdout": "standard output", "stderr": "standard error"}


class Outlet(io.RawIOBase):
    """A raw stream that is given up where it cannot be written.

    Args:
        raw: the stream below.
        label: its name for people.
        keep: what would close the stream below if nobody held it any more.
    """

    def __init__(self, raw: io.RawIOBase, label: str, keep: object = None) -> None:
        super().__init__()
        self._raw = raw
        self._keep = keep
        self.label = label
        self.raises = False  # the first failure; those that follow say nothing new
        self.failure: str | None = None

    @property
    def name(self) -> object:
        """As the stream below has it."""
        return getattr(self._raw, "name", self.label)

    def write(self, data: "memoryview | bytes", /) -> int:  # type: ignore[override]
        """Write some of the data, or drop all of it; returns how many bytes."""
        if self.failure is not None:
            return len(data)
        try:
            while (written := self._raw.write(data)) is None:  # full, and set not to block
                select.select([], [self._raw], [])
        except (OSError, ValueError) as error:  # a ValueError: somebody has closed it
            reason = getattr(error, "strerror", None) or str(error)
            self.failure = f"{self.label}: {reason}"
            if self.raises:
                raise OSError(getattr(error, "errno", None), reason, self.label) from error
            _say(f"hairpin: {self.failure}; going on without it\n")
            return len(data)
        return written

    def writable(self) -> bool:
        """As `io` asks."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Tell whether it is a terminal that is still there."""
        with suppress(OSError, ValueError):
            return self._raw.isatty()
        return False


_outlets: dict[str, Outlet] = {}


def open_outlets() -> None:
    """Put outlets under this process's output, and something in the place of closed streams.

    A descriptor from 0 to 2 that is closed would be given to the next file that is opened, and what
    is printed would stand in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number that is free; child processes have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    for name in _LABELS:
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal or a pipe of another encoding cannot show is escaped, not fatal.
            stream.reconfigure(errors="backslashreplace")
            _open_outlet(name, stream)


def require(name: str, *, required: bool) -> None:
    """Say whether a stream ("stdout" or "stderr") that fails is an error; at first none is."""
    if name in _outlets:
        _outlets[name].raises = required


def failures() -> list[str]:
    """Why streams were given up, a line each; none: all that was written went out."""
    return [outlet.failure for outlet in _outlets.values() if outlet.failure is not None]


def _say(line: str) -> None:
    """Write past everything that may be between a program and standard error."""
    if (outlet := _outlets.get("stderr")) and outlet.failure is None:
        outlet.write(line.encode())


def _open_outlet(name: str, stream: io.TextIOWrapper) -> None:
    raw = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered, `python -u`, it is the buffer
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, Outlet):
        return  # a test's, or one of ours already
    with suppress(OSError):
        stream.flush()
    _outlets[name] = outlet = Outlet(raw, _LABELS[name], stream)
    text = io.TextIOWrapper(
        io.BufferedWriter(outlet),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, text)
