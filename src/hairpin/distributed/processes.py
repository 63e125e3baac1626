"""Lifetime of several processes from their first line to their last: they start and end together.

All of them join before anything else. Then rank 0 goes ahead, and the others wait for its message:
the run that it trains, or the exit code with which it ended with nothing to train. If rank 0 leaves
the block of `joined_processes` without having sent a message, leaving sends it. If it is killed, it
sends none, and the others see its connection close.

PyTorch is imported only if there are several processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.distributed import launch
from hairpin.errors import exit_code_of

if TYPE_CHECKING:
    from hairpin.distributed.world import World


@dataclass(frozen=True)
class LeaderMessage:
    """A message from rank 0 to the others.

    Args:
        run: the folder of the run; None: there is none.
        exit_code: its exit code if there was nothing to train; None: it trains the run.
    """

    run: str | None
    exit_code: int | None


class Processes:
    """The processes that were started together; a single process sends no messages.

    Args:
        joined: the world of the processes; None: this process is alone.

    Attributes:
        exit_code: of this process, if it ends without an exception.
    """

    def __init__(self, joined: "World | None" = None) -> None:
        self.exit_code = 0
        self._joined = joined
        self._message: LeaderMessage | None = None

    @property
    def world(self) -> "World":
        """The processes as a world."""
        from hairpin.distributed.world import World

        return self._joined or World()

    def announce_run(self, run: Path) -> None:
        """Tell the others which run rank 0 trains from here on."""
        self._send(LeaderMessage(str(run.absolute()), None))

    def announce_end(self, run: Path) -> None:
        """Tell the others that rank 0 is done with the run, unless it has trained it."""
        self._send(LeaderMessage(str(run.absolute()), 0))

    def message(self) -> LeaderMessage:
        """Wait for rank 0's message and return it.

        Raises:
            ProcessLostError: rank 0 ended without sending one.
        """
        if self._message is None:
            self._message = LeaderMessage(*self.world.share(list))
        return self._message

    def leave(self) -> None:
        """Leave the world; rank 0 tells the others its exit code first."""
        if self._joined is None:
            return
        if self._joined.is_first:
            self._joined.store_exit_code(self.exit_code)
            with suppress(Exception):  # if they are gone, they need not be told
                self._send(LeaderMessage(None, self.exit_code))
        self._joined.leave(in_order=self.exit_code == 0)

    def _send(self, message: LeaderMessage) -> None:
        if self._message is None and self._joined is not None:
            self._message = message
            self._joined.share(lambda: [message.run, message.exit_code])


_entered: list[Processes] = []  # one at most


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the other processes; a nested block returns the same object.

    Raises:
        ProcessLostError: the others cannot be reached.
    """
    if _entered:
        yield _entered[0]
        return
    joined = None
    if launch.world_size() > 1:
        from hairpin.distributed.world import join

        joined = join()
    processes = Processes(joined)
    _entered.append(processes)
    try:
        yield processes
    except BaseException as error:
        processes.exit_code = exit_code_of(error)
        raise
    finally:
        _entered.clear()
        processes.leave()
