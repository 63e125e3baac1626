"""The lock that lets one process at a time use a run.

The lock is the operating system's (flock) on `.lock` in the run's folder: it disappears with the
process that holds it, however that ends, so a file that a killed process left means nothing. Some
file systems that are shared by many machines have no flock. There, the exclusive creation of
`.lock.held` replaces it. That file names its holder, which touches it every two seconds as a sign
of life.
"""

import contextlib
import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from hairpin.errors import RunError
from hairpin.runs.entries import refuse_links
from hairpin.runs.lock_holder import Fate, Holder
from hairpin.system.files import IS_WINDOWS, open_unlinked, unmake

if sys.platform != "win32":
    import fcntl

_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_HEARTBEAT_SECONDS = 2.0
_STALE_AFTER_SECONDS = 15.0  # without a sign of life, a holder of unknown fate is considered dead
_POLL_SECONDS = 0.1
_TRIES = 5


class RunLock:
    """Hold a run's folder inside a `with` block.

    Args:
        folder: the run's, which must exist.

    Raises:
        RunError: on entering: another process holds it, or something in it is a link. Nothing was
            touched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._held = folder / ".lock.held"
        self._descriptor: int | None = None
        self._made = False
        self._is_over = threading.Event()
        self._unwanted: tuple[Path, ...] | None = None

    def __enter__(self) -> Self:
        """Take the lock."""
        refuse_links(self._folder)
        # Some file systems report another inode number each time: there the last try counts.
        for tries_left in reversed(range(_TRIES)):
            self._descriptor = self._open()
            try:
                if not _flock(self._descriptor):
                    self._make_held()
                elif tries_left and not _is_at(self._descriptor, self._path):
                    self._close()  # its holder deleted it meanwhile
                    continue
                with contextlib.suppress(OSError):  # on a full disk the lock has no holder's name
                    os.ftruncate(self._descriptor, 0)
                    os.write(self._descriptor, Holder.own().as_bytes())
            except BlockingIOError:
                self._close()
                raise self._refusal(self._path) from None
            except BaseException:
                self._close()
                raise
            break
        return self

    @property
    def note(self) -> str | None:
        """A line about a lock that is a mere file; None: it is the system's."""
        if not self._made:
            return None
        return (
            f"{self._folder}: this file system has no flock, so {self._held.name} is used "
            "instead; if this machine dies, delete that file before resuming the run elsewhere"
        )

    def __exit__(self, *failure: object) -> None:
        """Release the lock. The file stays: removing it could remove another process's lock."""
        self._is_over.set()
        if self._made and Holder.read(self._held) == Holder.own():
            self._held.unlink(missing_ok=True)
        if self._unwanted is not None and not IS_WINDOWS:  # which cannot remove open files
            self._path.unlink(missing_ok=True)
        self._close()
        if self._unwanted is not None:
            if IS_WINDOWS:
                self._path.unlink(missing_ok=True)
            unmake(self._unwanted)

    def give_up(self, made: Iterable[Path]) -> None:
        """Leave no lock behind when released, and then remove these folders if they are empty:
        there will be no run.
        """
        self._unwanted = tuple(made)

    def _open(self) -> int:
        """Open the lock file, which must be neither a link nor a device."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = open_unlinked(self._path, flags)
        except OSError as error:
            raise RunError(
                f"{self._path}: cannot be opened ({error.strerror or error}), so the run cannot be "
                "locked"
            ) from None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise RunError(f"{self._path}: is not a file, so the run cannot be locked; delete it")

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _make_held(self) -> None:
        """Create the file that replaces the lock, or take over a stale one."""
        for _ in range(2):
            try:
                _make(self._held, Holder.own().as_bytes())
            except FileExistsError:
                holder = Holder.read(self._held)
                if not self._is_stale(holder):
                    raise self._refusal(self._held) from None
                self._remove_stale(holder)
            else:
                self._made = True
                threading.Thread(target=self._heartbeat, daemon=True).start()
                return
        raise self._refusal(self._held)

    def _heartbeat(self) -> None:
        """Touch the file until the lock is released."""
        while not self._is_over.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError, NotImplementedError):
                os.utime(self._held, follow_symlinks=IS_WINDOWS)

    def _is_stale(self, holder: Holder | None) -> bool:
        """Return True if a holder is gone; None: its file is torn, as left by a process killed
        while creating it on a file system without hard links.
        """
        if holder is None:
            return self._has_no_heartbeat()
        fate = holder.fate()
        if fate is Fate.UNSEEN and holder.may_be_this_process():
            return self._has_no_heartbeat()  # a restarted container, or one with the same name
        return fate is Fate.GONE

    def _has_no_heartbeat(self) -> bool:
        """Watch the file for signs of life. Its age is measured by its own file system's clock."""
        first, began = _change_time(self._held), time.monotonic()
        if first is None:
            return True
        with _temporary_beside(self._held, b"") as new:
            age = max(0.0, (_change_time(new) or first) - first)
        while age + time.monotonic() - began < _STALE_AFTER_SECONDS:
            time.sleep(_POLL_SECONDS)
            if _change_time(self._held) != first:
                return False
        return True

    def _remove_stale(self, holder: Holder | None) -> None:
        """Remove a stale file. Rename it first: another process may just have done so and created
        its own, which is put back.
        """
        aside = _temporary_name(self._held)
        with contextlib.suppress(FileNotFoundError):
            self._held.rename(aside)
            if Holder.read(aside) != holder:
                _put_back(aside, self._held)
            aside.unlink(missing_ok=True)

    def _refusal(self, path: Path) -> RunError:
        holder = Holder.read(path)
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        if path == self._path:
            return RunError(f"{self._folder}: in use by {who}; wait for it or stop it first")
        if holder and holder.fate() is Fate.UNSEEN:
            who += ", in another container, which this process cannot inspect"
        return RunError(
            f"{self._folder}: in use by {who}; wait for it or stop it first; if that process has "
            f"ended, delete {path}"
        )


def _put_back(aside: Path, path: Path) -> None:
    """Give a file its name again, unless another file has it by now."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, as on a memory stick
            _write_new(path, aside.read_bytes())


def _make(path: Path, content: bytes) -> None:
    """Create a file that must not exist; with hard links, it appears complete or not at all."""
    with _temporary_beside(path, content) as whole:
        try:
            os.link(whole, path)
        except FileExistsError:
            if whole.stat().st_nlink != 2:  # otherwise the server made it, and its answer was lost
                raise
        except OSError:
            _write_new(path, content)


@contextlib.contextmanager
def _temporary_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Create a file next to another, for the duration of the block."""
    new = _temporary_name(path)
    _write_new(new, content)
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    """Return a name that the run's next start removes, should the file be left."""
    return path.with_name(f".tmp-lock-{os.getpid()}-{time.time_ns()}")


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _change_time(path: Path) -> float | None:
    try:
        return path.lstat().st_mtime
    except OSError:
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _flock(descriptor: int) -> bool:
    """Take the system's lock; False if the file system has none.

    Raises:
        BlockingIOError: another process holds it.
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
