"""The rig: a small run with everything on that could depend on history, and processes that die."""

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

from faults.oracle import Oracle, UnclearError, newest_step, oracle_of, read_ids
from faults.plan import Plan

UPDATES = 60
SAVE_EVERY = 10
_LIMIT_SECONDS = 120.0
_WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "hill",
    "then",
    "saw",
    "été",
    "new",
]
# The evaluation after 40 updates is worse than the one after 20, and the last is the best: a resume
# that forgot the best is seen.
_SETTINGS = f"""
recipe = "gpt2"
[data]
texts = ["text.txt"]
[tokenizer]
kind = "bytes"
[model]
layers = 2
heads = 2
width = 32
context = 32
dropout = 0.1
[train]
updates = {UPDATES}
tokens_per_update = 128
seed = 5
[schedule]
kind = "cosine"
peak_lr = 0.06
min_lr = 0.001
warmup_updates = 6
[clip]
threshold = 1.0
[evaluate]
every_updates = 20
tokens = 512
sample_tokens = 8
[checkpoint]
every_updates = {SAVE_EVERY}
[execution]
precision = "float32"
device = "cpu"
micro_batch = 2
"""

_processes = get_context("forkserver")
_processes.set_forkserver_preload(["faults.child"])


@dataclass(frozen=True)
class Done:
    """What became of a child: its exit code (of a signal: minus its number), what it printed, how
    long it took.
    """

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        """Of what it printed as errors."""
        return (self.err.splitlines() or [""])[-1]

    def surprises(self) -> list[str]:
        """A traceback, or a process that had to be stopped."""
        problems = [f"a traceback: {self.last_line}"] if "Traceback" in self.err else []
        if self.seconds >= _LIMIT_SECONDS:
            problems.append(f"still there after {_LIMIT_SECONDS:.0f} s")
        return problems


@dataclass(frozen=True)
class Case:
    """One run of the rig: its folder; hairpin's cache where it has its own; settings of its own."""

    folder: Path
    cache: Path | None = None
    settings: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        """The run's folder; hairpin makes it."""
        return self.folder / "run"

    @property
    def side(self) -> Path:
        """What the children print, log and announce."""
        return self.folder / "side"

    @property
    def ids(self) -> Path:
        """The log of token ids."""
        return self.side / "ids.jsonl"


class ChildProcess:
    """A process that runs one hairpin command in a case."""

    def __init__(self, process: ForkServerProcess, case: Case) -> None:
        self._process = process
        self._case = case
        self._began = time.monotonic()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid
        return self._process.pid

    def wait_for_announcement(self) -> bool:
        """Wait until it is where the plan wants it announced; False: it ended before."""
        while not (self._case.side / "announced").exists():
            if not self._process.is_alive():
                return False
            time.sleep(0.0005)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self._process.is_alive():
            with suppress(ProcessLookupError):  # it may end between the two lines
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; returns whether it ended."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def finish(self) -> Done:
        """Wait for its end."""
        if not self.wait(_LIMIT_SECONDS):
            self._process.kill()
            self._process.join()
        seconds = time.monotonic() - self._began
        out, err = (
            (self._case.side / name).read_bytes().decode("utf-8", "backslashreplace")
            for name in ("stdout", "stderr")
        )
        assert self._process.exitcode is not None
        return Done(self._process.exitcode, out, err, seconds)


class Rig:
    """Makes cases, runs hairpin in them, and knows what must come out.

    Args:
        folder: an empty one, for everything.
        mutant: a planted bug that every child has.
    """

    def __init__(self, folder: Path, mutant: str = "") -> None:
        self.folder = folder
        self.mutant = mutant
        self.config = folder / "rig.toml"
        self.text = folder / "text.txt"
        self.cache = folder / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(_SETTINGS, encoding="utf-8")
        self.text.write_text(some_text(20_000), encoding="utf-8")

    def case(self, folder: Path, *settings: str) -> Case:
        """A new case in a folder that does not exist, with settings such as "train.seed=1"."""
        case = Case(folder, settings=settings)
        case.side.mkdir(parents=True)
        return case

    def start(self, case: Case, plan: Plan, *arguments: str) -> ChildProcess:
        """Start `hairpin ARGUMENTS`; what the last child of the case printed is gone."""
        for name in ("announced", "stdout", "stderr"):
            (case.side / name).unlink(missing_ok=True)
            if name != "announced":
                (case.side / name).touch()
        from faults.child import live

        plan = replace(plan, mutant=self.mutant)
        process = _processes.Process(
            target=live, args=(plan, list(arguments), case.run, case.side, case.cache or self.cache)
        )
        process.start()
        return ChildProcess(process, case)

    def go_on(self, case: Case, plan: Plan = Plan()) -> ChildProcess:  # noqa: B008 - it is frozen
        """Start what a user types: `train`, or `resume` where there is a run already."""
        if (case.run / "config.toml").exists():
            return self.start(case, plan, "resume", str(case.run))
        settings = [word for setting in case.settings for word in ("--set", setting)]
        return self.start(
            case, plan, "train", "--config", str(self.config), "--out", str(case.run), *settings
        )

    def finished(
        self, case: Case, begins: int | None = None, committed: int | None = None
    ) -> list[str]:
        """Go on until the run is finished, without a fault, and compare with the oracle.

        Args:
            case: what shall be finished.
            begins: the update with which it must go on; None: none that was committed is lost.
            committed: how many updates were, before what happened last; None: those on disk.
        """
        return self.finished_saying(case, begins, committed)[1]

    def finished_saying(
        self, case: Case, begins: int | None = None, committed: int | None = None
    ) -> tuple[Done, list[str]]:
        """The same, with what the process printed."""
        committed = max(newest_step(case.run), committed or 0)
        child = self.go_on(case)
        done = child.finish()
        problems = done.surprises()
        if begins is None:
            problems += lost(case, child, committed)
        elif first_update(case, child) != begins:
            problems.append(f"went on at update {first_update(case, child)}, not {begins}")
        if done.code != 0:
            return done, [*problems, f"going on left with {done.code}: {done.last_line}"]
        return done, problems + self.differences(case)

    def differences(self, case: Case) -> list[str]:
        """How a finished run differs from one that nothing happened to."""
        try:
            found = oracle_of(case.run, case.ids, UPDATES)
        except (UnclearError, OSError, ValueError, KeyError) as problem:
            return [f"{type(problem).__name__}: {problem}"]
        left = [path.name for path in case.run.rglob("*") if path.name.startswith((".tmp", ".old"))]
        return self.oracle.differences(found) + [f"left behind: {name}" for name in left]

    @property
    def oracle(self) -> Oracle:
        """What a run comes to that nothing happens to."""
        return self._clean[0]

    @property
    def run_seconds(self) -> float:
        """How long such a run takes, with its start."""
        return self._clean[1]

    @property
    def clean_run(self) -> Path:
        """The folder of a finished run, to be copied from."""
        _ = self._clean
        return self.folder / "clean" / "run"

    @cached_property
    def _clean(self) -> tuple[Oracle, float]:
        case = self.case(self.folder / "clean")
        done = self.go_on(case).finish()
        if done.code != 0:
            raise RuntimeError(f"the clean run left with {done.code}: {done.err}")
        return oracle_of(case.run, case.ids, UPDATES), done.seconds

    def stopped(self, folder: Path, update: int) -> Case:
        """A case whose run was killed at an update, right after the checkpoint before it."""
        prepared = self._stopped_at(update)
        shutil.copytree(prepared.folder, folder)
        return Case(folder)

    def _stopped_at(self, update: int) -> Case:
        case = Case(self.folder / f"stopped-{update}")
        if not case.folder.exists():
            self.case(case.folder)
            step = update // SAVE_EVERY * SAVE_EVERY
            after = f"checkpoints/step-{step:08d}" if step else ""
            plan = Plan(dies_in_update=update, dies_after=after)
            code = self.go_on(case, plan).finish().code
            if code != -signal.SIGKILL:
                raise RuntimeError(f"the run that was to be killed at {update} left with {code}")
        return case


def first_update(case: Case, child: ChildProcess) -> int | None:
    """The update with which a child that ended had begun; None: it made none."""
    return next((update for pid, update, _ in read_ids(case.ids) if pid == child.pid), None)


def lost(case: Case, child: ChildProcess, committed: int) -> list[str]:
    """Whether a child that ended had begun before the last update that was committed then."""
    began = first_update(case, child)
    if began is not None and began < committed:
        return [f"went on at update {began}, and {committed} was committed"]
    return []


def some_text(characters: int) -> str:
    """Lines of words; always the same."""
    draw = Random(1)
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(" ".join(draw.choices(_WORDS, k=draw.randint(4, 9))) + ".\n")
    return "".join(lines)[:characters]
