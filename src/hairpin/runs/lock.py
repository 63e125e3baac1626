"""One process at a time in a run.

The lock is the operating system's (flock) on `.lock` in the run's folder: it is gone with the
process that holds it, however that ends, so a file that a killed process left means nothing. Where
the file system has no flock, as some that are shared by many machines, the exclusive making of
`.lock.held` takes its place, and a stale one is known by its process being gone from its host.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Self

import psutil

from hairpin.errors import RunError

if sys.platform != "win32":
    import fcntl

_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class RunLock:
    """Holds a run's folder inside a `with` block.

    Args:
        folder: the run's, which exists.

    Raises:
        RunError: on entering, that another process has it. Nothing was touched then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._held = folder / ".lock.held"
        self._descriptor: int | None = None
        self._made = False

    def __enter__(self) -> Self:
        """Take it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _flock(descriptor):
                self._make_held()
            self._descriptor = descriptor
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _own_name())
        except BlockingIOError:
            os.close(descriptor)
            raise self._refusal(self._path) from None
        except BaseException:
            os.close(descriptor)
            raise
        return self

    @property
    def note(self) -> str | None:
        """A line about a lock that is no lock of the system's; None: it is."""
        if not self._made:
            return None
        return (
            f"{self._folder}: this file system has no flock, so {self._held.name} stands for it; "
            "if this machine dies, delete that file before the run goes on elsewhere"
        )

    def __exit__(self, *failure: object) -> None:
        """Let it go. The file stays: to remove it could take away another process's."""
        if self._made and _holder(self._held) == (socket.gethostname(), os.getpid()):
            self._held.unlink(missing_ok=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _make_held(self) -> None:
        """Make the file that stands for the lock, or take over a stale one."""
        for _ in range(2):
            try:
                _make(self._held, _own_name())
                self._made = True
                return
            except FileExistsError:
                host, pid = _holder(self._held)
                if host != socket.gethostname() or pid is None or _is_alive(pid):
                    raise self._refusal(self._held) from None
                self._remove_stale((host, pid))
        raise self._refusal(self._held)

    def _remove_stale(self, holder: tuple[str, int]) -> None:
        """Take a stale file away: renamed first, since another process may have just done so and
        made its own, which is put back.
        """
        aside = self._held.with_name(f"{self._held.name}-{os.getpid()}-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):
            self._held.rename(aside)
            if _holder(aside) != holder:
                _put_back(aside, self._held)
            aside.unlink()

    def _refusal(self, path: Path) -> RunError:
        host, pid = _holder(path)
        who = f"process {pid} on {host}" if pid else "another process"
        after = f"; if that is gone, delete {path}" if path == self._held else ""
        return RunError(f"{self._folder}: in use by {who}; wait for it or stop it first{after}")


def _put_back(aside: Path, path: Path) -> None:
    """Give a file its name again, unless another has that by now."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, as on a memory stick
            _make(path, aside.read_bytes())


def _make(path: Path, content: bytes) -> None:
    """Make a file that must not be there."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _flock(descriptor: int) -> bool:
    """Take the system's lock; False where the file system has none.

    Raises:
        BlockingIOError: somebody has it.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True


def _own_name() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()


def _holder(path: Path) -> tuple[str | None, int | None]:
    try:
        found = json.loads(path.read_bytes()[:1000])
        return str(found["host"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _is_alive(pid: int) -> bool:
    """Asked of psutil: on Windows `os.kill(pid, 0)` does not ask, it sends Ctrl-C."""
    try:
        return bool(psutil.pid_exists(pid))
    except OverflowError:  # no process has such a number
        return False
