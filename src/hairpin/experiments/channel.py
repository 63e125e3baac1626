"""Two pipes to a child process, for lines of JSON and nothing else.

They are separate from the child's standard streams, so that nothing that prints or reads there,
from Python or from C, can interfere, even during startup and shutdown.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO


class ChildProcess:
    """A Python module running in a child process, with a pipe in each direction.

    It imports nothing from the working folder unless PYTHONPATH says so. Its output goes to this
    process's standard error.

    Args:
        module: its name; it calls `child_pipes`.
        environment: the child's variables.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        its_input, output = os.pipe()
        input_, its_output = os.pipe()
        handles = [_inheritable(end) for end in (its_input, its_output)]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, handles)],
                stdin=subprocess.DEVNULL,
                stdout=_errors(),
                env=_without_empty_parts(environment),
                **_inherited_handles(handles),
            )
        except BaseException:
            os.close(output)
            os.close(input_)
            raise
        finally:
            os.close(its_input)
            os.close(its_output)
        self.requests = os.fdopen(output, "w", encoding="utf-8")
        self.answers = os.fdopen(input_, encoding="utf-8")


def child_pipes(arguments: Iterable[str]) -> tuple[TextIO, TextIO]:
    """Open, in the child, the pipe to read requests from and the one to write answers to."""
    requests, answers = map(int, arguments)
    if sys.platform == "win32":
        import msvcrt

        requests = msvcrt.open_osfhandle(requests, os.O_RDONLY)
        answers = msvcrt.open_osfhandle(answers, 0)
    for end in (requests, answers):
        os.set_inheritable(end, False)  # not inherited by processes that this one starts
    return os.fdopen(requests, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8")


def _inheritable(end: int) -> int:
    """Make the descriptor inheritable and return the value the child uses for it."""
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.get_osfhandle(end)
        os.set_handle_inheritable(handle, True)
        return handle
    return end


def _inherited_handles(handles: list[int]) -> dict[str, Any]:
    """Return Popen arguments that let a child inherit only these and its standard streams."""
    if sys.platform == "win32":
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": handles})
        return {"startupinfo": startup, "close_fds": True}
    return {"pass_fds": handles}


def _errors() -> int:
    """Return the descriptor of standard error, if it is open."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _without_empty_parts(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without empty parts of PYTHONPATH: to Python they mean the working
    folder, which `PYTHONPATH=$PYTHONPATH:/more` does not intend.
    """
    found = dict(environment)
    if "PYTHONPATH" in found:
        parts = filter(None, found["PYTHONPATH"].split(os.pathsep))
        found["PYTHONPATH"] = os.pathsep.join(parts)
    return found
