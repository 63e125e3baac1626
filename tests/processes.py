"""Several processes that run one hairpin command together, as torchrun would start them.

They are forked from a server that has imported PyTorch already, which torchrun's are not: that
saves seconds in each.
"""

import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from faults.deeds import plant

_processes = get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "hairpin.training.train_run",
        "hairpin.tasks.pretraining",
        "torch.distributed.fsdp",
        "torch._dynamo",
    ]
)
_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one process: it is sent a signal as it begins an update, cannot write
    from its next checkpoint on, or does a deed in the place of a function.

    Args:
        place: "module:function", where it is called from.
        deed: which of `faults.deeds`.
    """

    rank: int
    update: int = -1
    signal_number: int = 0
    full_disk: bool = False
    place: str = ""
    deed: str = ""


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    code: int
    out: str
    err: str


def together(
    size: int,
    arguments: list[str],
    side: Path,
    fault: Fault | None = None,
    *,
    store_of_first: bool = False,
) -> list[Ended]:
    """Run `hairpin ARGUMENTS` in so many processes; what they trained on is logged in `side`.

    Args:
        size: how many.
        arguments: of the command.
        side: a folder; `rows-<rank>.jsonl` and, of the first update, `gradients.safetensors`.
        fault: what goes wrong.
        store_of_first: whether the first process holds their store, as where no torchrun is.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    side.mkdir(parents=True, exist_ok=True)
    store = None if store_of_first else TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    port = store.port if store else _free_port()
    started = [
        _processes.Process(
            target=_live, args=(rank, size, port, store is not None, arguments, side, fault)
        )
        for rank in range(size)
    ]
    for process in started:
        process.start()
    ends = time.monotonic() + _LIMIT_SECONDS
    for process in started:
        process.join(max(0.1, ends - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [
        Ended(
            process.exitcode if process.exitcode is not None else -1,
            (side / f"out-{rank}").read_text(encoding="utf-8"),
            (side / f"err-{rank}").read_text(encoding="utf-8"),
        )
        for rank, process in enumerate(started)
    ]


def rows_trained_on(side: Path, size: int) -> list[list[list[int]]]:
    """By update: the rows of token ids that had targets, in the order of the processes."""
    updates: dict[int, list[list[int]]] = {}
    for rank in range(size):
        for line in (side / f"rows-{rank}.jsonl").read_text(encoding="utf-8").splitlines():
            update, rows = json.loads(line)
            updates.setdefault(update, []).extend(rows)
    return [updates[update] for update in sorted(updates)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _live(
    rank: int,
    size: int,
    port: int,
    has_store: bool,
    arguments: list[str],
    side: Path,
    fault: Fault | None,
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": str(has_store),
        "GLOO_SOCKET_IFNAME": "lo",
        "HAIRPIN_CACHE": str(side.parent / "hairpin-cache"),
    }
    for number, name in ((1, f"out-{rank}"), (2, f"err-{rank}")):
        os.dup2(os.open(side / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    import torch

    torch.set_num_threads(1)
    _log_rows(rank, side)
    _keep_gradients(side)
    if fault and fault.rank == rank:
        _plant(fault)
    from hairpin.cli.main import main

    main(arguments)


def _log_rows(rank: int, side: Path) -> None:
    from hairpin.data.batches import IGNORED
    from hairpin.training.step import Stepper

    step = Stepper.step

    @wraps(step)
    def logged(self: Stepper, batch: Any, *, update: int, **named: Any) -> Any:
        inputs, targets = batch
        rows = inputs[(targets != IGNORED).any(1)].tolist()
        if named["lr"] > 0:  # else it is a probe
            with (side / f"rows-{rank}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps([update, rows]) + "\n")
        return step(self, batch, update=update, **named)

    Stepper.step = logged  # type: ignore[method-assign]


def _keep_gradients(side: Path) -> None:
    """Of the first update, whole."""
    from safetensors.torch import save_file

    from hairpin.training.step import Stepper

    step = Stepper.step

    @wraps(step)
    def kept(self: Stepper, batch: Any, *, update: int, **named: Any) -> Any:
        result = step(self, batch, update=update, **named)
        if update == 0:
            parameters: Any = self.spread.model.named_parameters()
            whole = {
                name: p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
                for name, p in parameters
                if p.grad is not None  # a classifier's language head has none
            }
            if self.world.is_first:
                save_file({n: g.contiguous() for n, g in whole.items()}, side / "gradients")
        return result

    Stepper.step = kept  # type: ignore[method-assign]


def _plant(fault: Fault) -> None:
    writing: Any = import_module("hairpin.checkpoints.writing")
    from hairpin.training.step import Stepper

    step = Stepper.step

    @wraps(step)
    def mortal(self: Stepper, batch: Any, *, update: int, **named: Any) -> Any:
        if update == fault.update:
            os.kill(os.getpid(), signal.Signals(fault.signal_number))
        return step(self, batch, update=update, **named)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    plant(fault.place, fault.deed)
    if fault.signal_number:
        Stepper.step = mortal  # type: ignore[method-assign]
    if fault.full_disk:
        writing.write_tensors = full
