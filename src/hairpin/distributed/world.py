"""The processes that train together, as one small object; one process alone is a world too.

What is computed goes over the default group (NCCL on GPUs, gloo else); what the hosts tell each
other goes over a gloo group of its own, so that no GPU is waited for.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hairpin.distributed import launch
from hairpin.errors import FollowedError, HairpinError, ProcessLostError

T = TypeVar("T")

# The others wait while the first prepares a text. One that is lost is noticed at once, by its
# connection.
_PATIENCE = timedelta(days=2)
_LOST = (
    "gloo",
    "NCCL",
    "ProcessGroup",
    "Connection closed",
    "Connection reset",
    "TCPStore",
)


class World:
    """Every process has one of its own, and all call the same methods in the same order.

    Args:
        rank: which process this is.
        size: how many there are.
        hosts: the group that values go over; None where there is one process.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, hosts: dist.ProcessGroup | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self._hosts = hosts

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, make: Callable[[], T]) -> T:
        """What the first process makes, a value of plain JSON, in every process.

        Args:
            make: called in the first process alone. What it raises there ends the others as well.

        Raises:
            FollowedError: in the others, that it raised; the first one says why.
        """
        if self.size == 1:
            return make()
        if not self.is_first:
            told: dict[str, Any] = json.loads(self._broadcast(b""))
            if "exit_code" in told:
                raise FollowedError(told["exit_code"])
            return told["value"]  # type: ignore[no-any-return]
        try:
            value = make()
        except BaseException as error:
            code = error.exit_code if isinstance(error, HairpinError) else 1
            with suppress(Exception):  # if they are gone, they know
                self._broadcast(json.dumps({"exit_code": code}).encode())
            raise
        self._broadcast(json.dumps({"value": value}).encode())
        return value

    def together(self, make: Callable[[], T]) -> T:
        """What each process makes for itself; what goes wrong in one ends all of them.

        Raises:
            FollowedError: in the others, that one raised, which says why.
        """
        if self.size == 1:
            return make()
        code = 0
        try:
            return make()
        except HairpinError as error:
            code = error.exit_code
            raise
        finally:
            failed = [one for one in self.gather(code) if one]
            if failed and not code:
                raise FollowedError(failed[0])

    def gather(self, value: Any) -> list[Any]:
        """The values, of plain JSON, of all processes, by rank."""
        if self.size == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with noticing_losses():
            dist.all_gather(lengths, torch.tensor([len(content)]), group=self._hosts)
            longest = int(max(lengths))
            padded = torch.cat([content, content.new_zeros(longest - len(content))])
            found = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(found, padded, group=self._hosts)
        return [
            json.loads(bytes(text[: int(length)].numpy()))
            for text, length in zip(found, lengths, strict=True)
        ]

    def totals(self, *counts: int) -> tuple[int, ...]:
        """Each count summed over the processes; the hosts wait for each other, no device is."""
        if self.size == 1:
            return counts
        summed = torch.tensor(counts, dtype=torch.int64)
        with noticing_losses():
            dist.all_reduce(summed, group=self._hosts)
        return tuple(summed.tolist())

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor itself, summed over the processes, on its device."""
        if self.size > 1:
            with noticing_losses():
                dist.all_reduce(tensor)
        return tensor

    def rows(self, count: int) -> range:
        """Which of `count` things in a row are this process's."""
        starts = starts_of(count, self.size)
        return range(starts[self.rank], starts[self.rank + 1])

    def apart(self) -> "World":
        """The same processes, for another thread: its values do not meet those of this one."""
        if self.size == 1:
            return self
        return World(self.rank, self.size, _host_group())

    def leave(self) -> None:
        """Part; this process is alone from here on."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _broadcast(self, content: bytes) -> bytes:
        """The first process's bytes."""
        with noticing_losses():
            length = torch.tensor([len(content)])
            dist.broadcast(length, 0, group=self._hosts)
            data = torch.zeros(int(length), dtype=torch.uint8)
            if content:
                data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            if len(data):
                dist.broadcast(data, 0, group=self._hosts)
        return bytes(data.numpy())


def starts_of(count: int, size: int) -> tuple[int, ...]:
    """Where each process's part of `count` things in a row begins, and at the end their number: all
    have as many, the last ones what there is, perhaps nothing. So FSDP2 and `torch.chunk` do it.
    """
    each = -(-count // size)
    return tuple(min(count, each * part) for part in range(size + 1))


def join() -> World:
    """The world that torchrun's environment tells of; this process alone where it tells of none.

    Raises:
        ProcessLostError: the others cannot be reached.
    """
    size, rank = launch.world_size(), launch.rank()
    if size == 1:
        return World()
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local_rank() % torch.cuda.device_count())
    with noticing_losses():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, *_ = next(rendezvous("env://"))
        # torchrun keeps the store when it starts the processes again, and what is in it leads to
        # those that have ended.
        store = dist.PrefixStore(  # type: ignore[attr-defined]
            f"attempt {launch.attempt()}", store
        )
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return World(rank, size, _host_group())


def is_joined() -> bool:
    """Whether this process has joined the others."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Inside, the failure of a collective call is said in one line.

    Raises:
        ProcessLostError: another process has ended, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if launch.world_size() == 1 or not any(mark in text for mark in _LOST):
            raise
        raise ProcessLostError(
            f"process {launch.rank()} of {launch.world_size()}: another process has ended, or "
            f"cannot be reached ({_reason(text)}); what was saved is whole: go on with the same "
            "command and --or-resume, as torchrun's --max-restarts does by itself"
        ) from error


def _host_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)  # type: ignore[no-any-return]


def _reason(text: str) -> str:
    """The first sentence, after the place in the library's code."""
    line = text.strip().splitlines()[0].partition("] ")[2] or text.strip().splitlines()[0]
    return line.partition(". ")[0].rstrip(".")
