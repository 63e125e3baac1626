"""Standard output that goes away while a child writes to it."""

import os
import pty
import select
import sys
import threading
import tty
from collections.abc import Callable

from faults.plan import Output


def replace_output(kind: Output) -> Callable[[], None]:
    """Put a pipe, a terminal or a log in the place of standard output.

    Returns:
        What makes it go away: called again, it does nothing more.
    """
    if not kind:
        return lambda: None
    if kind == "log":
        return _fill_disk
    reading, writing = os.pipe() if kind == "pipe" else pty.openpty()
    if kind == "terminal":
        tty.setraw(writing)
        os.environ |= {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    os.dup2(writing, 1)
    os.close(writing)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    gone, ended = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(reading, gone, ended), daemon=True).start()

    def close() -> None:
        gone.set()
        ended.wait()

    return close


def _read(descriptor: int, gone: threading.Event, ended: threading.Event) -> None:
    """Read until it is to be closed: a terminal that nobody reads would hold up the writer."""
    while not gone.is_set():
        if select.select([descriptor], [], [], 0.01)[0]:
            os.read(descriptor, 65536)
    os.close(descriptor)
    ended.set()


def _fill_disk() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.close(full)
