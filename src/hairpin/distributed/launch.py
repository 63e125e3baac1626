"""What torchrun tells each process by its environment. PyTorch is not imported here.

https://docs.pytorch.org/docs/stable/elastic/run.html lists the variables.
"""

import os
import socket


def world_size() -> int:
    """How many processes train together; 1 where nothing says so."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Which of the processes of this machine this is, from 0: it says which GPU is its own."""
    return _number("LOCAL_RANK", 0)


def is_follower() -> bool:
    """Whether another process says what is trained, and writes the run."""
    return world_size() > 1 and rank() > 0


def attempt() -> int:
    """How often torchrun has started the processes again after one that failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def is_restarted() -> bool:
    """Whether torchrun started this process again after one that failed."""
    return attempt() > 0


def launcher() -> str | None:
    """What started this process, the same for one that is started again; None: no torchrun did."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {os.getppid()}"


def has_lasting_store() -> bool:
    """Tell whether torchrun itself keeps the store of the processes."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        return default
