"""Standard output and standard error of a command: a run does not end when they can no longer be
written.

A terminal may be closed, the reader of a pipe may end, the disk with the log may be full, or the
streams may never have existed. Everything written from then on is dropped, and `failures` tells
why.
"""

import io
import os
import select
import sys
from contextlib import suppress

_LABELS = {"stdout": "standard output", "stderr": "standard error"}


class OutputStream(io.RawIOBase):
    """A raw stream that is given up once it cannot be written.

    Args:
        raw: the stream below.
        label: its name for people.
        keep: an object that would close the stream below if it were garbage-collected.
    """

    def __init__(self, raw: io.RawIOBase, label: str, keep: object = None) -> None:
        super().__init__()
        self._raw = raw
        self._keep = keep
        self.label = label
        self.raises = False  # on the first failure; later ones are silent
        self.failure: str | None = None

    @property
    def name(self) -> object:
        """The name of the stream below."""
        return getattr(self._raw, "name", self.label)

    def write(self, data: "memoryview | bytes", /) -> int:  # type: ignore[override]
        """Write some of the data, or drop all of it; return the number of bytes."""
        if self.failure is not None:
            return len(data)
        try:
            while (written := self._raw.write(data)) is None:  # full, and non-blocking
                select.select([], [self._raw], [])
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            reason = getattr(error, "strerror", None) or str(error)
            self.failure = f"{self.label}: {reason}"
            if self.raises:
                raise OSError(getattr(error, "errno", None), reason, self.label) from error
            _write_to_stderr(f"hairpin: {self.failure}; continuing without it\n")
            return len(data)
        return written

    def writable(self) -> bool:
        """Return True, for `io`."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Return True if it is a terminal that is still open."""
        with suppress(OSError, ValueError):
            return self._raw.isatty()
        return False


_streams: dict[str, OutputStream] = {}


def open_streams() -> None:
    """Put outlets under this process's output, and open replacements for closed streams.

    A closed descriptor from 0 to 2 would be reused for the next file that is opened, and printed
    text would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # This takes the lowest free number; child processes inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    for name in _LABELS:
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            # Escape characters that the encoding of a terminal or pipe cannot express.
            stream.reconfigure(errors="backslashreplace")
            _open_stream(name, stream)


def require(name: str, *, required: bool) -> None:
    """Set whether a failure of a stream ("stdout" or "stderr") is an error; initially it is not."""
    if name in _streams:
        _streams[name].raises = required


def failures() -> list[str]:
    """Return why streams were given up, a line each; empty if everything was written."""
    return [outlet.failure for outlet in _streams.values() if outlet.failure is not None]


def _write_to_stderr(line: str) -> None:
    """Write to standard error directly, past all layers of the program."""
    if (outlet := _streams.get("stderr")) and outlet.failure is None:
        outlet.write(line.encode())


def _open_stream(name: str, stream: io.TextIOWrapper) -> None:
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with `python -u` the buffer is raw itself
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, OutputStream):
        return  # a test's stream, or an outlet already
    with suppress(OSError):
        stream.flush()
    _streams[name] = outlet = OutputStream(raw, _LABELS[name], stream)
    text = io.TextIOWrapper(
        io.BufferedWriter(outlet),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, text)
