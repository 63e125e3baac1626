"""What one of several processes may do as it comes to a function, before any update."""

import errno
import os
import signal
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from hairpin.errors import HairpinError, UserError


def _raising(make: Callable[[], BaseException]) -> Callable[[], None]:
    def deed() -> None:
        raise make()

    return deed


def _sending(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


DEEDS: dict[str, Callable[[], None]] = {
    "a refusal": _raising(lambda: UserError("there is a wrong word in it")),
    "a failure": _raising(lambda: HairpinError("that did not work")),
    "a bug": _raising(lambda: KeyError("nobody thought of it")),
    "out of memory": _raising(MemoryError),
    "a full disk": _raising(lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")),
    "an exit": _raising(lambda: SystemExit(7)),
    "an exit with 0": _raising(lambda: SystemExit(0)),
    "Ctrl-C": _raising(KeyboardInterrupt),
    "SIGINT": _sending(signal.SIGINT),
    "SIGTERM": _sending(signal.SIGTERM),
    "SIGHUP": _sending(signal.SIGHUP),
    "SIGKILL": _sending(signal.SIGKILL),
    "a sudden end": lambda: os._exit(0),
}

# The exit code of the process that does it; of those that are killed there is no way to say it to
# the others.
CODES = {
    "a refusal": 2,
    "a failure": 1,
    "a bug": 1,
    "out of memory": 1,
    "a full disk": 1,
    "an exit": 7,
    "an exit with 0": 0,
    "Ctrl-C": 130,
    "SIGINT": 130,
    "SIGTERM": 143,
}
KILLED = {"SIGKILL": -signal.SIGKILL, "a sudden end": 0}


def plant(place: str, deed: str) -> None:
    """Let "module:function" do the deed before it does anything else; no deed: nothing."""
    if not deed:
        return
    path, _, name = place.partition(":")
    module = import_module(path)
    function = getattr(module, name)

    @wraps(function)
    def planted(*arguments: Any, **named: Any) -> Any:
        DEEDS[deed]()
        return function(*arguments, **named)

    setattr(module, name, planted)
