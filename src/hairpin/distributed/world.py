"""The processes that train together, as one small object; a single process is a world too.

Tensors go over the default group (NCCL on GPUs, gloo otherwise); messages between hosts go over a
gloo group of their own, so that they wait for no GPU.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from hairpin.distributed import launch
from hairpin.errors import FollowedError, ProcessLostError, UserError, exit_code_of

T = TypeVar("T")

_joined = itertools.count()  # numbers the times this process has joined the others
_END = "the first process's exit code"

# How long to wait for the others to join: by then Python and PyTorch are loaded.
_JOIN_LIMIT = timedelta(minutes=5)
_POLL_SECONDS = (0.001, 0.05)  # initial and longest pause
# The others wait while rank 0 prepares a text. A lost process is noticed at once, by its
# connection.
_WAIT_LIMIT = timedelta(days=2)
_LOST_PROCESS_WORDS = (
    "gloo",
    "NCCL",
    "ProcessGroup",
    "Connection closed",
    "Connection reset",
    "TCPStore",
)


class World:
    """The group of processes. Each has its own, and all call the same methods in the same order.

    Args:
        rank: this process's rank.
        size: the number of processes.
        hosts: the group for messages between hosts; None if there is one process.
        other_hosts: a second such group, for `apart`.
        store: a store that outlives each process; None if there is one process, or rank 0 hosts the
            store.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        hosts: dist.ProcessGroup | None = None,
        other_hosts: dist.ProcessGroup | None = None,
        store: Store | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self._hosts = hosts
        self._other_hosts = other_hosts
        self._store = store

    @property
    def is_first(self) -> bool:
        """True for the process that writes (rank 0)."""
        return self.rank == 0

    def share(self, make: Callable[[], T]) -> T:
        """Return a plain JSON value made by rank 0 in every process.

        Args:
            make: called in rank 0 only. An exception there ends the others as well.

        Raises:
            FollowedError: in the others, that `make` raised; rank 0 reports why.
        """
        if self.size == 1:
            return make()
        if not self.is_first:
            message: dict[str, Any] = json.loads(self._broadcast(b""))
            if "exit_code" in message:
                raise FollowedError(message["exit_code"])
            return message["value"]  # type: ignore[no-any-return]
        try:
            value = make()
        except BaseException as error:
            with suppress(Exception):  # processes that have ended need no message
                self._broadcast(json.dumps({"exit_code": exit_code_of(error)}).encode())
            raise
        self._broadcast(json.dumps({"value": value}).encode())
        return value

    def together(self, make: Callable[[], T]) -> T:
        """Return what each process makes for itself; a failure in one ends all of them.

        Raises:
            FollowedError: in the others, that one raised; that process reports why.
        """
        if self.size == 1:
            return make()
        code = 0
        try:
            return make()
        except BaseException as error:
            code = exit_code_of(error) or 1
            raise
        finally:
            failed = [one for one in self.gather(code) if one]
            if failed and not code:
                raise FollowedError(failed[0])

    def gather(self, value: Any) -> list[Any]:
        """Return the plain JSON values of all processes, by rank."""
        if self.size == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with reporting_lost_process():
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
        """Return each count summed over the processes; waits for the hosts, not for any device."""
        if self.size == 1:
            return counts
        summed = torch.tensor(counts, dtype=torch.int64)
        with reporting_lost_process():
            dist.all_reduce(summed, group=self._hosts)
        return tuple(summed.tolist())

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum the tensor over the processes in place, on its device, and return it."""
        if self.size > 1:
            with reporting_lost_process():
                dist.all_reduce(tensor)
        return tensor

    def rows(self, count: int) -> range:
        """Return the range of `count` consecutive items that belongs to this process."""
        starts = starts_of(count, self.size)
        return range(starts[self.rank], starts[self.rank + 1])

    def apart(self) -> "World":
        """Return the same processes for another thread, with messages separate from this one's."""
        return World(self.rank, self.size, self._other_hosts)

    def store_exit_code(self, exit_code: int) -> None:
        """Store rank 0's exit code for processes that see its connection close."""
        if self._store is not None:
            with suppress(RuntimeError):
                self._store.set(_END, str(exit_code))

    def stored_exit_code(self) -> int | None:
        """Return rank 0's exit code if it could store it."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([_END]):
                return int(self._store.get(_END))
        return None

    def leave(self, *, in_order: bool = True) -> None:
        """Leave the group; this process is alone from here on.

        Args:
            in_order: no operation is pending. Otherwise NCCL might wait for one, so its connections
                are left open until the process ends.
        """
        if self.size > 1 and dist.is_initialized() and (in_order or not torch.cuda.is_available()):
            self._hosts = self._other_hosts = None
            dist.destroy_process_group()

    def _broadcast(self, content: bytes) -> bytes:
        """Return rank 0's bytes."""
        with reporting_lost_process():
            length = torch.tensor([len(content)])
            self._broadcast_in_steps(length)
            data = torch.zeros(int(length), dtype=torch.uint8)
            if content:
                data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            if len(data):
                self._broadcast_in_steps(data)
        return bytes(data.numpy())

    def _broadcast_in_steps(self, tensor: Tensor) -> None:
        """Broadcast in short waits, since Python handles no signals within one."""
        work = dist.broadcast(tensor, 0, group=self._hosts, async_op=True)
        assert work is not None
        _wait_until(work.is_completed)
        work.wait()


def starts_of(count: int, size: int) -> tuple[int, ...]:
    """Return where each process's part of `count` consecutive items begins, followed by `count`.
    All parts have the same size except the last ones, which may be smaller or empty, as in FSDP2
    and `torch.chunk`.
    """
    each = -(-count // size)
    return tuple(min(count, each * part) for part in range(size + 1))


def join() -> World:
    """Join the world that torchrun's environment describes; without one, return a world of one.

    Raises:
        ProcessLostError: the others cannot be reached.
        UserError: the environment does not say how to reach them.
    """
    size, rank = launch.world_size(), launch.rank()
    if size == 1:
        return World()
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local_rank() % torch.cuda.device_count())
    with reporting_lost_process():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            store, *_ = next(rendezvous("env://", timeout=_JOIN_LIMIT))
        except ValueError as error:  # a variable is missing or not a number
            raise UserError(
                f"the environment names {size} processes (WORLD_SIZE), but: {error}; start them "
                "with torchrun"
            ) from None
        # torchrun keeps the store across restarts, and its old entries lead to processes that have
        # ended.
        store = dist.PrefixStore(  # type: ignore[attr-defined]
            f"attempt {launch.attempt()}, {next(_joined)}", store
        )
        _wait_for_all(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        # Create all groups here: a process waiting to create one does not notice that another has
        # ended.
        groups = _host_group(), _host_group()
        return World(rank, size, *groups, store if launch.has_lasting_store() else None)


def _wait_for_all(store: Store, rank: int, size: int) -> None:
    """Wait until all processes have joined.

    Raises:
        ProcessLostError: one did not join in time.
    """
    names = [f"process {other}" for other in range(size)]
    store.set(names[rank], "")
    if not _wait_until(lambda: store.check(names), _JOIN_LIMIT.total_seconds()):
        missing = [name for name in names if not store.check([name])]
        raise ProcessLostError(
            f"process {rank} of {size}: {missing[0]} did not start within "
            f"{_JOIN_LIMIT.total_seconds() / 60:g} minutes; start all processes again"
        )


def _wait_until(condition: Callable[[], bool], limit_seconds: float = float("inf")) -> bool:
    """Poll until the condition holds; return False if the limit is exceeded."""
    pause, longest = _POLL_SECONDS
    ends = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(pause)
        pause = min(2 * pause, longest)
    return True


@contextmanager
def reporting_lost_process() -> Iterator[None]:
    """Report the failure of a collective call inside the block in one line.

    Raises:
        ProcessLostError: another process has ended, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_lost = isinstance(error, dist.DistError) or any(
            mark in text for mark in _LOST_PROCESS_WORDS
        )
        if launch.world_size() == 1 or not is_lost:
            raise
        raise ProcessLostError(
            f"process {launch.rank()} of {launch.world_size()}: another process has ended, or "
            f"cannot be reached ({_reason(text)}); saved checkpoints are intact: run the same "
            "command with --or-resume, as torchrun's --max-restarts does automatically (for "
            "`finetune`: `hairpin resume`)"
        ) from error


def _host_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=_WAIT_LIMIT)  # type: ignore[no-any-return]


def _reason(text: str) -> str:
    """Return the first sentence, without the leading position in the library's code."""
    line = text.strip().splitlines()[0].partition("] ")[2] or text.strip().splitlines()[0]
    return line.partition(". ")[0].rstrip(".")
