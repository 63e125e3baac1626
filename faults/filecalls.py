"""Counts the calls with which a process changes files in a folder, and makes one of them fail.

It stands between hairpin and Python's `os` and `io`: what a file object hands to the operating
system is seen write by write, whatever the buffer above it does.
"""

import builtins
import contextlib
import io
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from faults.plan import Plan

T = TypeVar("T")

_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Those that need space on the disk.
_GROWING = {"open", "write", "mkdir", "link", "rename", "fsync"}
_original_open, _original_unlink = os.open, os.unlink
_original_write, _original_fsync = os.write, os.fsync
_original_rename, _original_link = os.rename, os.link


class FileCalls:
    """Sees every changing call below a folder; `install` puts it in place.

    Args:
        root: the run's folder, which need not exist yet.
        side: a folder for the log and for what a power cut may have to bring back.
        plan: which calls count, and what happens at which.
        on_call: told the path, relative to the root, of each call in a save, before it is made.
    """

    def __init__(self, root: Path, side: Path, plan: Plan, on_call: Callable[[str], None]) -> None:
        self._root = os.path.realpath(root)
        self._side = side
        self._plan = plan
        self._on_call = on_call
        self._lock = threading.RLock()
        self._open_window = not plan.opens
        self._closed_window = False
        self._number = -1
        self._dying = False
        self.power = Power(self._root, side)

    def install(self) -> None:
        """Replace the functions; for the life of this process."""
        for name in ("unlink", "rmdir", "mkdir", "truncate"):
            self._wrap_path_call(name)
        os.remove = os.unlink
        for name in ("rename", "replace", "link"):
            self._wrap_pair_call(name)
        for name in ("write", "fsync", "ftruncate"):
            self._wrap_descriptor_call(name)
        os.open = self._os_open
        opens: Any = self._io_open
        io.open = builtins.open = opens

    def call(self, name: str, path: str, do: Callable[[], T], torn: Callable[[], Any]) -> T:
        """Make one call, or the fault that is planned for it.

        Args:
            name: of the function.
            path: absolute.
            do: the call.
            torn: half of it.
        """
        if not path.startswith(self._root + os.sep):
            return do()
        relative = path[len(self._root) + 1 :]
        if self._dying and not self._lock.acquire(blocking=False):
            _wait_for_death()  # another thread has died, and changes nothing any more
        if not self._counts(relative):
            return do()
        if is_save(relative):
            self._on_call(relative)
        with self._lock:
            self._number += 1
            self._log(name, relative)
            number, plan = self._number, self._plan
            if plan.at_call is None or number < plan.at_call:
                return do()
            if plan.fault == "full":
                is_first = number == plan.at_call
                if name in _GROWING and (is_first or not plan.error_once):
                    raise OSError(plan.error, os.strerror(plan.error), path)
                return do()
            self._dying = True
            if plan.fault == "torn":
                torn()
            elif plan.fault != "before":
                with contextlib.suppress(OSError):
                    do()
            if plan.fault == "power":
                self.power.cut()
            return _die()

    def _counts(self, relative: str) -> bool:
        with self._lock:
            if self._plan.opens and self._plan.opens in relative:
                self._open_window = True
            if self._plan.closes and self._plan.closes in relative:
                self._closed_window = True
            in_window = self._open_window and not self._closed_window
            return in_window and (self._plan.whole_run or is_save(relative))

    def _log(self, name: str, relative: str) -> None:
        if self._plan.log_calls:
            line = json.dumps([self._number, name, relative]) + "\n"
            descriptor = _original_open(
                self._side / "calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            _original_write(descriptor, line.encode())
            os.close(descriptor)

    def _wrap_path_call(self, name: str) -> None:
        original = getattr(os, name)

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            whole = _absolute(path, options.get("dir_fd"))
            return self.call(
                name, whole, lambda: original(path, *arguments, **options), lambda: None
            )

        setattr(os, name, call)

    def _wrap_pair_call(self, name: str) -> None:
        original = getattr(os, name)

        def call(source: Any, target: Any, **options: Any) -> Any:
            paths = _absolute(source, None), _absolute(target, None)

            def do() -> Any:
                if name != "link" and self._plan.fault == "power":
                    self.power.renaming(*paths)
                return original(source, target, **options)

            seen = "rename" if name == "replace" else name
            return self.call(seen, paths[1], do, lambda: None)

        setattr(os, name, call)

    def _wrap_descriptor_call(self, name: str) -> None:
        original = getattr(os, name)

        def call(descriptor: int, *arguments: Any) -> Any:
            path = _path_of(descriptor)

            def do() -> Any:
                done = original(descriptor, *arguments)
                if name == "fsync":
                    self.power.synced(descriptor, path)
                return done

            def torn() -> None:
                if name == "write":
                    _original_write(descriptor, arguments[0][: len(arguments[0]) // 2])

            return self.call(name, path, do, torn)

        setattr(os, name, call)

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
        def do() -> int:
            descriptor = _original_open(path, flags, mode, dir_fd=dir_fd)
            self.power.opened(descriptor)
            return descriptor

        if not flags & _CHANGING:
            return do()
        return self.call("open", _absolute(path, dir_fd), do, lambda: None)

    def _io_open(
        self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any
    ) -> Any:
        path = "" if isinstance(file, int) else os.path.abspath(os.fspath(file))
        inside = isinstance(path, str) and path.startswith(self._root + os.sep)
        if not inside or not set(mode) & set("wax+"):
            return _open(file, mode, buffering, *rest, **named)
        raw_mode = mode.replace("b", "").replace("t", "")
        opener = named.pop("opener", None)
        raw = self.call("open", path, lambda: _SeenFile(self, path, raw_mode, opener), lambda: None)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **named)


class _SeenFile(io.FileIO):
    """A file whose writes are calls that are seen."""

    def __init__(self, calls: FileCalls, path: str, mode: str, opener: Any) -> None:
        super().__init__(path, mode, opener=opener)
        self._calls = calls
        self._path = path
        calls.power.opened(self.fileno())

    def write(self, data: Any) -> int:
        view, write = memoryview(data).cast("B"), super().write
        return self._calls.call(
            "write", self._path, lambda: write(view), lambda: write(view[: len(view) // 2])
        )

    def truncate(self, size: int | None = None) -> int:
        truncate = super().truncate
        return self._calls.call("truncate", self._path, lambda: truncate(size), lambda: None)


class Power:
    """What a power cut would take: what was written and not made durable since is half there, and
    names are where they were before a rename whose folder was not made durable since. Deletions
    are durable at once, which is the worst that they can be.
    """

    def __init__(self, root: str, side: Path) -> None:
        self._root = root
        self._side = side
        self._durable: dict[tuple[int, int], int] = {}  # file → how many of its bytes are
        self._renames: list[tuple[str, str, str | None]] = []

    def opened(self, descriptor: int) -> None:
        """A file is about to be written; what it holds from before this process is durable."""
        facts = os.fstat(descriptor)
        key = facts.st_dev, facts.st_ino
        if facts.st_size == 0:  # new: perhaps with the number of one that was deleted
            self._durable[key] = 0
        self._durable.setdefault(key, facts.st_size)

    def synced(self, descriptor: int, path: str) -> None:
        """A file or a folder is durable now."""
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            self._renames = [each for each in self._renames if os.path.dirname(each[1]) != path]
        else:
            self._durable[facts.st_dev, facts.st_ino] = facts.st_size

    def renaming(self, source: str, target: str) -> None:
        """A rename is about to happen; a file that it replaces is kept."""
        kept = None
        if os.path.isfile(target):
            kept = str(self._side / f"replaced-{len(self._renames)}-{time.monotonic_ns()}")
            _original_link(target, kept)
        self._renames.append((source, target, kept))

    def cut(self) -> None:
        """Take it all."""
        for source, target, kept in reversed(self._renames):
            if os.path.lexists(target) and not os.path.lexists(source):
                _original_rename(target, source)
                if kept:
                    _original_rename(kept, target)
        for folder, _, names in os.walk(self._root):
            for name in names:
                self._tear(os.path.join(folder, name))

    def _tear(self, path: str) -> None:
        facts = os.lstat(path)
        durable = self._durable.get((facts.st_dev, facts.st_ino))
        if durable is not None and durable < facts.st_size:
            descriptor = _original_open(path, os.O_WRONLY)
            _ftruncate(descriptor, durable + (facts.st_size - durable) // 2)
            os.close(descriptor)


def is_save(relative: str) -> bool:
    """Whether a path below a run's folder belongs to its checkpoints."""
    first = relative.split(os.sep, 1)[0]
    return first == "checkpoints" or first.removeprefix(".tmp-").removeprefix(".old-") == "best"


def _absolute(path: Any, dir_fd: int | None) -> str:
    name = os.fsdecode(path)
    if dir_fd is not None and not os.path.isabs(name):
        return os.path.join(_path_of(dir_fd), name)
    return os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _die() -> NoReturn:
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    _wait_for_death()


def _wait_for_death() -> NoReturn:
    time.sleep(60)
    raise AssertionError("still alive")


_open, _ftruncate = open, os.ftruncate
