"""The holder of a lock file, and whether that process still exists.

A process ID alone is not enough: a container's first process is always number 1, IDs are reused
after a while, and two containers with the same host name do not see each other's processes. So the
file also records the machine's boot, the PID namespace, and the start time of the process.
"""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Self

import psutil

PROC = Path("/proc")
_BOOT = PROC / "sys/kernel/random/boot_id"
# Tolerance for systems that report a start time instead of ticks since boot.
_START_TIME_TOLERANCE_SECONDS = 2.0


class Fate(Enum):
    """The state of a holder, as far as this process can tell."""

    GONE = auto()
    LIVES = auto()
    ELSEWHERE = auto()  # on another machine
    UNSEEN = auto()  # on this machine, in a container whose processes are not seen here


@dataclass(frozen=True)
class Holder:
    """A process, described so that others can find out whether it still exists.

    Args:
        host: the machine's name.
        pid: its process ID.
        boot: an ID of the machine's boot; None: unknown, as in files of earlier versions.
        namespace: its PID namespace; None: unknown.
        began: its start time, in ticks since boot on Linux, otherwise in seconds; None: unknown.
    """

    host: str
    pid: int
    boot: str | None = None
    namespace: str | None = None
    began: float | None = None

    @classmethod
    def own(cls) -> Self:
        """Return the holder for this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _boot(), _namespace(), _began(pid))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the holder from a file; None: the file is missing or torn."""
        try:
            found = json.loads(path.read_bytes()[:1000])
            boot, space, began = (found.get(key) for key in ("boot", "namespace", "began"))
            return cls(
                str(found["host"]),
                int(found["pid"]),
                None if boot is None else str(boot),
                None if space is None else str(space),
                None if began is None else float(began),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            return None
        except RecursionError:  # deeply nested brackets
            return None

    def as_bytes(self) -> bytes:
        """Return the bytes that `read` parses."""
        return json.dumps(asdict(self)).encode()

    def fate(self) -> Fate:
        """Return the holder's state, as far as this process can tell."""
        here = Holder.own()
        is_this_boot = self.boot is not None and self.boot == here.boot
        if self.host != here.host and not is_this_boot:
            return Fate.ELSEWHERE
        if self.boot and here.boot and not is_this_boot:
            return Fate.GONE  # the machine has been rebooted since
        if self.namespace and here.namespace and self.namespace != here.namespace:
            return Fate.UNSEEN
        if self.pid == here.pid and self.began is None:
            return Fate.GONE  # written by an earlier version: this process records its start time
        return Fate.LIVES if self._is_there() else Fate.GONE

    def may_be_this_process(self) -> bool:
        """Return True if it has this process's ID from an earlier start of its container."""
        here = Holder.own()
        return self.host == here.host and self.pid == here.pid and self.began != here.began

    def _is_there(self) -> bool:
        try:
            # Use psutil: on Windows `os.kill(pid, 0)` sends Ctrl-C instead of checking.
            if not psutil.pid_exists(self.pid) or _is_zombie(self.pid):
                return False
        except OverflowError:  # no process has such an ID
            return False
        began = _began(self.pid)
        if began is None or self.began is None:
            return True
        return abs(began - self.began) <= (0 if _boot() else _START_TIME_TOLERANCE_SECONDS)


def _boot() -> str | None:
    try:
        return _BOOT.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _namespace() -> str | None:
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return None


def _began(pid: int) -> float | None:
    """Return the start time of a process; None: unknown."""
    if _boot():
        fields = _stat(pid)
        return float(fields[19]) if fields else None  # the 22nd field, without the first two
    with contextlib.suppress(psutil.Error, OSError):
        return float(psutil.Process(pid).create_time())
    return None


def _is_zombie(pid: int) -> bool:
    """Return True if a process has ended but was not waited for: it holds nothing."""
    if _boot():
        return _stat(pid)[:1] in (["Z"], ["X"])
    with contextlib.suppress(psutil.Error, OSError):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return False


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty if /proc uses other IDs."""
    try:
        if str((PROC / "self").readlink()) != str(os.getpid()):
            return []
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rfind(")") + 1 :].split()  # the name before it may contain spaces and brackets
