"""The followers among several processes: they train what the first one decides.

leader_decides  let the first process call a training function, and the others follow
follow          take part until the run ends
"""

import socket
import time
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from hairpin.distributed import launch
from hairpin.distributed.processes import Processes, joined_processes
from hairpin.errors import (
    FollowedError,
    Interrupted,
    NonFiniteError,
    ProcessLostError,
    RunError,
    SpikeError,
    UserError,
)
from hairpin.launch.train import ignore_sigterm, training_function
from hairpin.plugins.files import load_plugins
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from hairpin.system.access import require_working_folder

P = ParamSpec("P")
_LOOKS, _POLL_SECONDS = 20, 0.1


def leader_decides(act: Callable[P, Run]) -> Callable[P, Run]:
    """Let only the first process call the function, which decides what is trained; the others take
    part, using none of the arguments but `plugin`.
    """

    @wraps(act)
    def acted(*args: P.args, **named: P.kwargs) -> Run:
        require_working_folder()
        with joined_processes() as processes:
            if launch.is_follower():
                plugins: Any = named.get("plugin", ())
                return follow(processes, plugins)
            run = act(*args, **named)
            processes.announce_end(run.path)
            return run

    return acted


def follow(processes: Processes, plugins: Iterable[str | Path]) -> Run:
    """Take part in what the first process trains, until it ends.

    The first one reports what all of them find together; this one reports only its own errors.

    Raises:
        FollowedError: it failed, and the first process reports why.
        HairpinError: something went wrong in this process.
    """
    message = processes.message()
    if message.run is None:
        raise FollowedError(message.exit_code or 0)
    directory = RunDirectory(Path(message.run))
    if message.exit_code is not None:
        return Run(directory)
    load_plugins(plugins)
    world = processes.world
    if not directory.config.is_file():
        raise RunError(
            f"process {world.rank} on {socket.gethostname()} does not see {directory.path}: the "
            "folder must be on a file system that all machines share; name one with --out"
        )
    run = Run(directory)
    try:
        world.gather(0)  # the first process may remove the run only once all have seen it
        for _ in training_function(run)(budget=None, watcher=Quiet(), world=world):
            pass
    except (NonFiniteError, SpikeError, Interrupted) as error:
        raise FollowedError(error.exit_code) from None
    except ProcessLostError as error:
        if (code := world.stored_exit_code()) is not None:
            raise FollowedError(code) from None
        ignore_sigterm(error)
        raise
    except UserError as error:
        if _is_removed(directory):  # while this process was reading it
            raise FollowedError(error.exit_code) from None
        raise
    world.leave()
    return run


def _is_removed(directory: RunDirectory) -> bool:
    """True if the first process has removed the run for a mistake, which it reports itself."""
    for _ in range(_LOOKS):
        if not directory.config.is_file():
            return True
        time.sleep(_POLL_SECONDS)
    return False
