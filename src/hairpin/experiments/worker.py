"""A process that trains runs for an experiment, one after another.

Started by `channel.ChildProcess`. Each line on the pipe of requests asks for a run: {"folder": …,
"config": …}. On the pipe of answers it sends {"updates": n} on the way, and {"over": state} or
{"failed": [lines]} at the end. If the parent is gone, or on a signal, the run saves a checkpoint;
requested again it resumes from there.
"""

import json
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

from hairpin.config.load import validate
from hairpin.errors import HairpinError, Interrupted, NonFiniteError, SpikeError, UserError
from hairpin.experiments.channel import child_pipes
from hairpin.launch.request import CheckedRequest, Request
from hairpin.launch.train import resume_run, train_new
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record
from hairpin.runs.watcher import Quiet
from hairpin.system.files import remove, write_json

_LOSSES = 20
_FIRST_CHECK = 40  # updates; before that a high loss may still come down
_PROGRESS_SECONDS = 0.1


class DivergedError(HairpinError):
    """The loss is above that of the initial weights."""


class Reporter(Quiet):
    """Reports the progress of a run, and stops it if it diverges.

    Args:
        say: sends a message.
        first_loss: of update 0, if an earlier process made it.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None], first_loss: float | None) -> None:
        self._say = say
        self._first = first_loss
        self._recent: deque[float] = deque(maxlen=_LOSSES)
        self._said_time = 0.0

    def show(self, event: Event) -> None:
        if not isinstance(event, events.Update):
            return
        self._first = event.loss if self._first is None else self._first
        self._recent.append(event.loss)
        if event.update >= _FIRST_CHECK and len(self._recent) == _LOSSES:
            mean = fmean(self._recent)
            if not mean <= self._first:
                raise DivergedError(
                    f"diverged: at update {event.update} the loss is {mean:.3f}, above the "
                    f"{self._first:.3f} of update 0"
                )
        if time.monotonic() > self._said_time + _PROGRESS_SECONDS:
            self._said_time = time.monotonic()
            self._say({"updates": event.update + 1})


def main() -> None:
    """Train each requested run until the requests end."""
    lines, answers = child_pipes(sys.argv[1:])
    requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(lines, requests, busy), daemon=True).start()
    # If the parent is gone, or Ctrl-C stops all, reporting is left to the parent.
    with suppress(BrokenPipeError, KeyboardInterrupt):
        while (line := requests.get()) is not None:
            if not _train_requested(json.loads(line), answers, busy):
                return


def _listen(
    lines: TextIO, requests: "queue.SimpleQueue[str | None]", busy: threading.Event
) -> None:
    for line in lines:
        requests.put(line)
    requests.put(None)
    if busy.is_set():  # the parent is gone
        signal.raise_signal(signal.SIGTERM)


def _train_requested(request: dict[str, Any], answers: TextIO, busy: threading.Event) -> bool:
    """Train one run; return True if another may follow.

    `busy` is cleared before the last answer: at that the parent may close the pipe of requests,
    which is not to be taken for its end.
    """

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    busy.set()
    try:
        state = train_trial(Path(request["folder"]), request["config"], say)
        over: dict[str, Any] = {"over": state}
    except Interrupted:
        return False
    except HairpinError as error:
        over = {"failed": list(error.problems)}
    finally:
        busy.clear()
    say(over)
    return True


def train_trial(folder: Path, config: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> str:
    """Train one run to its end, resuming it; return "finished" or "diverged".

    Args:
        folder: the run's.
        config: nested tables of all settings.
        say: receives the number of updates done.

    Raises:
        HairpinError: it cannot be trained.
    """
    run, state, reason = RunDirectory(folder), "finished", None
    if run.metrics.exists():
        updates = (e["loss"] for e in read_record(run.metrics) if e["event"] == "update")
        first = list(islice(updates, 1))
    else:
        first = []
    watcher = Reporter(say, first[0] if first else None)
    forget_peak_memory()
    try:
        if run.config.exists():
            resume_run(Run(run), None, watcher, pictures=False)
        else:
            request = CheckedRequest(Request(out=folder), validate(config))
            train_new(request, watcher, pictures=False)
    except (DivergedError, NonFiniteError, SpikeError) as error:
        state, reason = "diverged", str(error)
    write_json(
        folder / "trial.json",
        {"state": state, "reason": reason, "peak_bytes": peak_memory_bytes()},
    )
    for saved in (run.checkpoints, run.best):  # an experiment needs only the record
        remove(saved, may_stay=True)
    return state


def forget_peak_memory() -> None:
    """Reset the peak of this process's memory, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """Return the peak memory since then of this process, or of CUDA; None if unknown."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
