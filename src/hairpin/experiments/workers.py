"""Processes that train runs concurrently, with one or a few compute threads each.

They run `hairpin.experiments.worker` and take requests through pipes (`channel`), so that it works
the same from a script, a notebook and on every system.
"""

import contextlib
import json
import os
import queue
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self

from hairpin.errors import HairpinError
from hairpin.experiments.channel import ChildProcess

_SHUTDOWN_SECONDS = 120.0
_POLL_SECONDS = 0.2

# Receives the number of updates done of a run.
OnUpdates = Callable[[Path, int], None]


class WorkerError(HairpinError):
    """A worker ended without an answer."""


class Workers:
    """A pool of processes, used as a `with` block.

    Args:
        count: processes.
        threads: compute threads in each.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count = count
        self._environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self._idle: queue.SimpleQueue[ChildProcess | None] = queue.SimpleQueue()
        self._all: list[ChildProcess] = []
        self._threads = ThreadPoolExecutor(count)
        for _ in range(count):
            self._idle.put(None)

    def train(self, runs: Sequence[tuple[Path, Mapping[str, Any]]], on_updates: OnUpdates) -> None:
        """Train runs, one at a time on each worker, and wait for all.

        Args:
            runs: folder and config of each.
            on_updates: receives the progress of each; called from several threads.

        Raises:
            HairpinError: one of them cannot be trained; the others stopped and can be resumed.
        """
        futures: list[Future[None]] = [
            self._threads.submit(self._train_one, folder, config, on_updates)
            for folder, config in runs
        ]
        pending = set(futures)
        try:
            while pending:  # short waits, so that a signal is noticed on every system
                done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            for future in pending:
                future.cancel()

    def _train_one(self, folder: Path, config: Mapping[str, Any], on_updates: OnUpdates) -> None:
        child = self._idle.get()
        try:
            if child is None or child.process.poll() is not None:
                child = self._start()
            request = json.dumps({"folder": str(folder), "config": config})
            child.requests.write(request + "\n")
            child.requests.flush()
            for line in child.answers:
                answer = json.loads(line)
                if "updates" in answer:
                    on_updates(folder, answer["updates"])
                elif "failed" in answer:
                    raise HairpinError(answer["failed"])
                else:
                    return
            code = child.process.wait()
            raise WorkerError(
                f"{folder}: the process that trained it ended with code {code}; run the same "
                "command to continue"
            )
        except BrokenPipeError:
            raise WorkerError(f"{folder}: its worker process has ended") from None
        finally:
            self._idle.put(child)

    def _start(self) -> ChildProcess:
        child = ChildProcess("hairpin.experiments.worker", self._environment)
        self._all.append(child)
        return child

    def __enter__(self) -> Self:
        """Return the workers; a process is started when it gets a run."""
        return self

    def __exit__(self, *failure: object) -> None:
        """End all processes; an unfinished run saves a checkpoint first."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in self._all:
            with contextlib.suppress(OSError):
                child.requests.close()  # it saves its run and ends
        for child in self._all:
            try:
                child.process.wait(_SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._threads.shutdown(wait=True)
        for child in self._all:
            child.answers.close()
