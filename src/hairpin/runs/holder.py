"""The holder of a lock that is a mere file, and whether that process is still there.

A process's number says little alone: a container's first process is number 1 each time, a number is
given again after a while, and two containers with one host name do not see each other's processes.
So the file also has the machine's boot, the namespace of the number, and when the process began.
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
# Where the system counts no ticks since its boot, but tells a time, by which it may differ.
_SECONDS_APART = 2.0


class Fate(Enum):
    """The state of a holder, as far as it is known from here."""

    GONE = auto()
    LIVES = auto()
    ELSEWHERE = auto()  # on another machine
    UNSEEN = auto()  # on this machine, in a container whose processes are not seen here


@dataclass(frozen=True)
class Holder:
    """A process, for others to find out whether it is still there.

    Args:
        host: the machine's name.
        pid: its number.
        boot: a name of the machine's boot; None: unknown, as in files of earlier versions.
        namespace: of the number; None: unknown.
        began: when: in ticks since the boot on Linux, else in seconds; None: unknown.
    """

    host: str
    pid: int
    boot: str | None = None
    namespace: str | None = None
    began: float | None = None

    @classmethod
    def own(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _boot(), _namespace(), _began(pid))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The one that a file names; None: there is no such file, or it is torn."""
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
        except RecursionError:  # of brackets in brackets
            return None

    def as_bytes(self) -> bytes:
        """For `read`."""
        return json.dumps(asdict(self)).encode()

    def fate(self) -> Fate:
        """Tell what has become of it, as far as that can be seen."""
        here = Holder.own()
        is_this_boot = self.boot is not None and self.boot == here.boot
        if self.host != here.host and not is_this_boot:
            return Fate.ELSEWHERE
        if self.boot and here.boot and not is_this_boot:
            return Fate.GONE  # the machine was started again since
        if self.namespace and here.namespace and self.namespace != here.namespace:
            return Fate.UNSEEN
        if self.pid == here.pid and self.began is None:
            return Fate.GONE  # an earlier version's: this process would have said more
        return Fate.LIVES if self._is_there() else Fate.GONE

    def may_have_been_me(self) -> bool:
        """Tell whether it has this process's number in another life of its container."""
        here = Holder.own()
        return self.host == here.host and self.pid == here.pid and self.began != here.began

    def _is_there(self) -> bool:
        try:
            # Asked of psutil: on Windows `os.kill(pid, 0)` does not ask, it sends Ctrl-C.
            if not psutil.pid_exists(self.pid) or _is_zombie(self.pid):
                return False
        except OverflowError:  # no process has such a number
            return False
        began = _began(self.pid)
        if began is None or self.began is None:
            return True
        return abs(began - self.began) <= (0 if _boot() else _SECONDS_APART)


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
    """When a process began; None: it cannot be seen."""
    if _boot():
        fields = _stat(pid)
        return float(fields[19]) if fields else None  # the 22nd, of which the first two are cut off
    with contextlib.suppress(psutil.Error, OSError):
        return float(psutil.Process(pid).create_time())
    return None


def _is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and nobody has asked how: it holds nothing."""
    if _boot():
        return _stat(pid)[:1] in (["Z"], ["X"])
    with contextlib.suppress(psutil.Error, OSError):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where /proc is of other numbers."""
    try:
        if str((PROC / "self").readlink()) != str(os.getpid()):
            return []
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rfind(")") + 1 :].split()  # the name before may hold spaces and brackets
