"""The environment variables that torchrun sets for each process. Never imports PyTorch.

https://docs.pytorch.org/docs/stable/elastic/run.html lists the variables.
"""

import os
import socket


def world_size() -> int:
    """Return the number of processes that train together; 1 if the environment sets none."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return this process's rank among them, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Return this process's rank on its machine, from 0: it determines its GPU."""
    return _number("LOCAL_RANK", 0)


def is_follower() -> bool:
    """Return True if another process decides what is trained, and writes the run."""
    return world_size() > 1 and rank() > 0


def attempt() -> int:
    """Return how often torchrun has restarted the processes after a failure."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def is_restarted() -> bool:
    """Return True if torchrun restarted this process after a failure."""
    return attempt() > 0


def launcher() -> str | None:
    """Return an identifier of the torchrun that started this process, stable across restarts; None:
    started without torchrun.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {os.getppid()}"


def has_lasting_store() -> bool:
    """Return True if torchrun itself hosts the processes' store, so that it outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        return default
