"""What shall go wrong in a child process, as plain data."""

from dataclasses import dataclass
from typing import Literal

Fault = Literal["before", "after", "torn", "power", "full"]
Phase = Literal["", "start", "load", "update", "evaluation", "sample", "save", "summary"]
Output = Literal["", "pipe", "terminal", "log"]


@dataclass(frozen=True)
class Plan:
    """What the child does besides running hairpin. The default: nothing.

    Args:
        mutant: a planted bug, by name.
        log_calls: whether it lists its file-system calls, for whoever picks one of them.
        opens, closes: calls are counted from the first whose path has the one in it until the
            first whose path has the other; empty: from the first, to the last.
        whole_run: whether calls on all of the run's files count, or only on those of checkpoints.
        at_call: the counted call, from 0, at which the fault comes; None: none does.
        fault: the process dies before or after the call, or in the middle of a write ("torn"), or
            power is cut after it ("power"), or the disk is full from there on ("full").
        error: the number that a call on a full disk raises, or the reading of `unreadable`.
        error_once: whether only that call fails.
        unreadable: a path below the run's folder, which exists and cannot be read.
        readable_first: how often it can be read before that.
        announce: the phase in which it writes the file `announced`, and waits.
        announce_number: which of such phases, from 0.
        pause_seconds: how long it waits there; in a save, before each file-system call.
        output: what its standard output is instead of a file. Where it announces itself, the reader
            of the pipe ends, the terminal is closed, or the log's disk is full.
        dies_in_update: the update at whose beginning it kills itself, once `dies_after` is there.
        dies_after: a path below the run's folder.
        clock_seconds: added to the system's clock.
        most_file_bytes: RLIMIT_FSIZE; None: no limit.
        no_flock: whether the file system has none.
        loss_factors: (batch of the data's order, factor of its loss, such as NaN) pairs.
        rank, size, port: which of how many processes it is, and where they meet.
        place, deed: a function, as "module:name", and what it does instead (`faults.deeds`).
    """

    mutant: str = ""
    log_calls: bool = False
    opens: str = ""
    closes: str = ""
    whole_run: bool = False
    at_call: int | None = None
    fault: Fault = "before"
    error: int = 0
    error_once: bool = False
    unreadable: str = ""
    readable_first: int = 0
    announce: Phase = ""
    announce_number: int = 0
    pause_seconds: float = 0.0
    output: Output = ""
    dies_in_update: int | None = None
    dies_after: str = ""
    clock_seconds: float = 0.0
    most_file_bytes: int | None = None
    no_flock: bool = False
    loss_factors: tuple[tuple[int, float], ...] = ()
    rank: int = 0
    size: int = 1
    port: int = 0
    place: str = ""
    deed: str = ""
