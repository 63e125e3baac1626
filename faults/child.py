"""One hairpin command in a forked process, with something that goes wrong.

Importing this module imports torch and hairpin, once for all children: they are forked from a
server that has it. For the rest a child is as a fresh process is.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimizer of a process imports it: a second for each child

import hairpin.api
import hairpin.cli.main
import hairpin.reports.terminal.run_display
import hairpin.tasks.finetuning
import hairpin.tasks.pretraining
import hairpin.tasks.samples
import hairpin.training.evaluate
import hairpin.training.job
import hairpin.training.train_run
from faults import deeds, mutants
from faults.filecalls import FileCalls
from faults.outputs import replace_output
from faults.plan import Plan
from faults.unreadable import make_unreadable
from hairpin.cli.main import main
from hairpin.model.gpt import GPT
from hairpin.run import Run
from hairpin.training.evaluate import Evaluator
from hairpin.training.step import Stepper

# Modules in which names are replaced.
pretrain: Any = hairpin.tasks.pretraining
training_run: Any = hairpin.training.train_run
samples: Any = hairpin.tasks.samples


def live(plan: Plan, arguments: list[str], run: Path, side: Path, cache: Path) -> None:
    """Run `hairpin ARGUMENTS` and leave as it would, exit code and all.

    Args:
        plan: what goes wrong.
        arguments: of the command line.
        run: the run's folder.
        side: a folder beside it, for what is printed, logged and announced.
        cache: hairpin's.
    """
    _be_fresh(arguments, side, cache)
    _be_in_company(plan)
    announcer = Announcer(plan, side, replace_output(plan.output))
    announcer.install(run)
    if plan.unreadable:
        make_unreadable(run / plan.unreadable, plan.error, plan.readable_first)
    _bend(plan)
    deeds.plant(plan.place, plan.deed)
    mutants.plant(plan.mutant)
    _at_begin_of_training(
        lambda: _bend_losses(dict(plan.loss_factors)),
        announcer.install_in_steps,
        lambda: _log_ids(side),
        lambda: _plan_death(plan, run),
    )
    Run.write_plots = lambda self: []  # type: ignore[method-assign] # longer than the training
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _be_fresh(arguments: list[str], side: Path, cache: Path) -> None:
    """What a new process has, and a fork has not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for name, number in (("stdout", 1), ("stderr", 2)):
        descriptor = os.open(side / name, flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["hairpin", *arguments]
    os.environ["HAIRPIN_CACHE"] = str(cache)
    torch.set_num_threads(1)


def _be_in_company(plan: Plan) -> None:
    """What torchrun tells a process."""
    if plan.size > 1:
        os.environ |= {
            "RANK": str(plan.rank),
            "LOCAL_RANK": str(plan.rank),
            "WORLD_SIZE": str(plan.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(plan.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": "lo",
        }


class Announcer:
    """Says when the process comes to a phase, and stays there for a while; there its output goes,
    if that is planned.
    """

    def __init__(self, plan: Plan, side: Path, lose_output: Callable[[], None]) -> None:
        self._plan = plan
        self._side = side
        self._lose_output = lose_output
        self._seen = 0
        self._saves: set[str] = set()

    def install(self, run: Path) -> None:
        """Begin to look, and put the file-system calls under watch."""
        fill, load = pretrain.fill_run, training_run.load_state
        pretrain.fill_run = self._before("start", fill)
        training_run.load_state = self._before("load", load)
        Evaluator.measure = self._before(  # type: ignore[method-assign]
            "evaluation", Evaluator.measure
        )
        samples.generate = self._before("sample", samples.generate)
        Run.lines = self._before("summary", Run.lines)  # type: ignore[method-assign]
        FileCalls(run, self._side, self._plan, self._in_save).install()

    def install_in_steps(self) -> None:
        """Look at steps too: not at those that measure the machine's speed."""
        Stepper.step = self._before("update", Stepper.step)  # type: ignore[method-assign]

    def _before(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def announced(*arguments: Any, **named: Any) -> Any:
            if self._plan.announce == phase:
                self._seen += 1
                if self._seen == self._plan.announce_number + 1:
                    self._announce()
                    time.sleep(self._plan.pause_seconds)
            return function(*arguments, **named)

        return announced

    def _in_save(self, relative: str) -> None:
        if self._plan.announce != "save" or (".tmp-step" not in relative and not self._saves):
            return
        if ".tmp-step" in relative:
            self._saves.add(Path(relative).parts[1])
        if len(self._saves) > self._plan.announce_number:
            self._announce()
            time.sleep(self._plan.pause_seconds)

    def _announce(self) -> None:
        self._lose_output()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._side / "announced", os.O_CREAT | os.O_EXCL))


def _at_begin_of_training(*hooks: Callable[[], None]) -> None:
    build_job = training_run.build_job

    @wraps(build_job)
    def building(*arguments: Any, **named: Any) -> Any:
        for hook in hooks:
            hook()
        return build_job(*arguments, **named)

    training_run.build_job = building


def _log_ids(side: Path) -> None:
    """Log which tokens each update is made with."""
    step, path = Stepper.step, side / "ids.jsonl"

    @wraps(step)
    def logged(self: Stepper, batch: Any, *, update: int, **named: Any) -> Any:
        digest = hashlib.sha256()
        for ids in batch:
            digest.update(ids.contiguous().numpy().tobytes())
        line = json.dumps([os.getpid(), update, digest.hexdigest()]) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        return step(self, batch, update=update, **named)

    Stepper.step = logged  # type: ignore[method-assign]


def _plan_death(plan: Plan, run: Path) -> None:
    step = Stepper.step

    @wraps(step)
    def mortal(self: Stepper, batch: Any, *, update: int, **named: Any) -> Any:
        if update == plan.dies_in_update:
            while plan.dies_after and not (run / plan.dies_after).exists():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, update=update, **named)

    Stepper.step = mortal  # type: ignore[method-assign]


def _bend_losses(factors: dict[int, float]) -> None:
    """Multiply the losses of some batches, whichever update meets them."""
    step, forward = Stepper.step, GPT.forward
    factor = 1.0

    @wraps(step)
    def stepping(self: Stepper, batch: Any, *, position: int, **named: Any) -> Any:
        nonlocal factor
        factor = factors.get(position // len(batch[0]), 1.0)
        try:
            return step(self, batch, position=position, **named)
        finally:
            factor = 1.0

    @wraps(forward)
    def bent(self: GPT, *arguments: Any, **named: Any) -> Any:
        loss, count = forward(self, *arguments, **named)
        return (loss * factor, count) if factor != 1.0 else (loss, count)

    if factors:
        Stepper.step = stepping  # type: ignore[method-assign]
        GPT.forward = bent  # type: ignore[method-assign]


def _bend(plan: Plan) -> None:
    """Another clock, a limit on files, a file system without flock."""
    if plan.clock_seconds:
        clock, clock_ns = time.time, time.time_ns
        time.time = lambda: clock() + plan.clock_seconds
        time.time_ns = lambda: clock_ns() + int(plan.clock_seconds * 1e9)
    if plan.no_flock:
        locking: Any = fcntl
        locking.flock = _no_flock
    if plan.most_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan.most_file_bytes, plan.most_file_bytes))


def _no_flock(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
