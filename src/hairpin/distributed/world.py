"""The processes that train together, as one small object; one process alone is a world too.

What is computed goes over the default group (NCCL on GPUs, gloo else); what the hosts tell each
other goes over a gloo group of its own, so that no GPU is waited for.
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

_joined = itertools.count()  # how often this process has joined the others
_END = "the first process's exit code"

# How long one waits for the others to be there at all: Python and PyTorch are loaded by then.
_JOINING = timedelta(minutes=5)
_LOOK_SECONDS = (0.001, 0.05)  # at first, at most
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
        other_hosts: a second such group, for `apart`.
        store: what outlives a process; None where there is one, or the first process has it.
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
            with suppress(Exception):  # if they are gone, they know
                self._broadcast(json.dumps({"exit_code": exit_code_of(error)}).encode())
            raise
        self._broadcast(json.dumps({"value": value}).encode())
        return value

    def together(self, make: Callable[[], T]) -> T:
        """Return what each process makes for itself; a failure in one ends all of them.

        Raises:
            FollowedError: in the others, that one raised, which says why.
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
        """The same processes, for one other thread: its values do not meet those of this one."""
        return World(self.rank, self.size, self._other_hosts)

    def note_end(self, exit_code: int) -> None:
        """Leave a note of how the first process ends, for those that see its connection close."""
        if self._store is not None:
            with suppress(RuntimeError):
                self._store.set(_END, str(exit_code))

    def noted_end(self) -> int | None:
        """The exit code of the first process, if it could leave a note of it."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([_END]):
                return int(self._store.get(_END))
        return None

    def leave(self, *, in_order: bool = True) -> None:
        """Part; this process is alone from here on.

        Args:
            in_order: whether nothing is under way any more. Else NCCL might wait for it, and its
                connections are left to the end of the process.
        """
        if self.size > 1 and dist.is_initialized() and (in_order or not torch.cuda.is_available()):
            self._hosts = self._other_hosts = None
            dist.destroy_process_group()

    def _broadcast(self, content: bytes) -> bytes:
        """The first process's bytes."""
        with noticing_losses():
            length = torch.tensor([len(content)])
            self._from_first(length)
            data = torch.zeros(int(length), dtype=torch.uint8)
            if content:
                data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            if len(data):
                self._from_first(data)
        return bytes(data.numpy())

    def _from_first(self, tensor: Tensor) -> None:
        """Broadcast in short waits, since Python heeds no signal within one."""
        work = dist.broadcast(tensor, 0, group=self._hosts, async_op=True)
        assert work is not None
        _wait_until(work.is_completed)
        work.wait()


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
        UserError: the environment does not say where they are.
    """
    size, rank = launch.world_size(), launch.rank()
    if size == 1:
        return World()
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local_rank() % torch.cuda.device_count())
    with noticing_losses():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            store, *_ = next(rendezvous("env://", timeout=_JOINING))
        except ValueError as error:  # a variable is missing, or is no number
            raise UserError(
                f"the environment tells of {size} processes (WORLD_SIZE), but: {error}; start them "
                "with torchrun"
            ) from None
        # torchrun keeps the store when it starts the processes again, and what is in it leads to
        # those that have ended.
        store = dist.PrefixStore(  # type: ignore[attr-defined]
            f"attempt {launch.attempt()}, {next(_joined)}", store
        )
        _await_all(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        # All groups are made here: whoever waits for one sees no other process end.
        groups = _host_group(), _host_group()
        return World(rank, size, *groups, store if launch.has_lasting_store() else None)


def _await_all(store: Store, rank: int, size: int) -> None:
    """Wait until all processes are there.

    Raises:
        ProcessLostError: one is not, after a while.
    """
    names = [f"process {other}" for other in range(size)]
    store.set(names[rank], "")
    if not _wait_until(lambda: store.check(names), _JOINING.total_seconds()):
        missing = [name for name in names if not store.check([name])]
        raise ProcessLostError(
            f"process {rank} of {size}: {missing[0]} was not there within "
            f"{_JOINING.total_seconds() / 60:g} minutes; start all of them again"
        )


def _wait_until(is_so: Callable[[], bool], limit_seconds: float = float("inf")) -> bool:
    """Look again and again; whether it was so within the limit."""
    pause, longest = _LOOK_SECONDS
    ends = time.monotonic() + limit_seconds
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(pause)
        pause = min(2 * pause, longest)
    return True


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
        is_lost = isinstance(error, dist.DistError) or any(mark in text for mark in _LOST)
        if launch.world_size() == 1 or not is_lost:
            raise
        raise ProcessLostError(
            f"process {launch.rank()} of {launch.world_size()}: another process has ended, or "
            f"cannot be reached ({_reason(text)}); what was saved is whole: go on with the same "
            "command and --or-resume, as torchrun's --max-restarts does by itself (after "
            "`finetune` with `hairpin resume`)"
        ) from error


def _host_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)  # type: ignore[no-any-return]


def _reason(text: str) -> str:
    """The first sentence, after the place in the library's code."""
    line = text.strip().splitlines()[0].partition("] ")[2] or text.strip().splitlines()[0]
    return line.partition(". ")[0].rstrip(".")
