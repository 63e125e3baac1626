"""A run is a folder; this is where everything in it is.

RUN/
  config.toml          all settings
  environment.json     what ran it
  metrics.jsonl        what happened
  tokenizer/           how its text became tokens
  checkpoints/         step-00000100/ …
  .committed           there once a checkpoint was committed
  best/                the weights of the best validation
  plots/               PNG
  report.html          a page about it
"""

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.commands import command
from hairpin.config.load import build_config, to_toml
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, RunError, UnreadableError
from hairpin.files import (
    make_folders,
    not_a_device,
    remove,
    sync_folder,
    unmake,
    write_atomically,
    write_json,
)
from hairpin.reading import entries, is_there, require_utf8
from hairpin.runs.entries import is_free, remove_entries
from hairpin.runs.lock import RunLock

RUNS = Path("runs")
_LONGEST_START = 1 << 24


@dataclass(frozen=True)
class RunDirectory:
    """The places in a run folder; making one checks nothing, `open_run` does.

    Args:
        path: the folder.
        made: what this process made for it, the folder itself and those above it.
    """

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @property
    def config(self) -> Path:
        """All settings, as TOML."""
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions, hardware, threads, git commit, command line."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """The record, one event a line."""
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return self.path / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The weights of the best validation."""
        return self.path / "best"

    @property
    def witness(self) -> Path:
        """A file that is there once a checkpoint was ever committed."""
        return self.path / ".committed"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def report(self) -> Path:
        """The page about it."""
        return self.path / "report.html"

    def discarded_metrics(self) -> Path:
        """A new file for lines of the record that a resume sets aside."""
        return self.path / f"metrics.discarded-{time.time_ns()}.jsonl"

    def unfinished(self) -> list[Path]:
        """What is half written, or is being written."""
        return [*self.path.glob(".tmp-*"), *self.path.glob("plots/.tmp-*")]

    def remove_unfinished(self) -> None:
        """Remove what processes left half written that were killed. The caller holds the lock."""
        for path in self.unfinished():
            remove(path)

    def give_up(self, lock: RunLock) -> None:
        """Leave no run here, and nothing that this process made: a mistake was found before it
        began. What others have put into the folder stays.
        """
        remove_entries(self.path)
        lock.give_up(self.made)

    def write_config(self, config: Config) -> None:
        """Replace config.toml atomically."""
        write_atomically(self.config, to_toml(config).encode())

    def read_config(self) -> Config:
        """The run's settings.

        Raises:
            ConfigError: it is damaged; a line says where a copy is.
        """
        try:
            return build_config(file=self.config)
        except ConfigError as error:
            copies = sorted(self.checkpoints.glob("step-*/config.toml"))
            way_out = [f"{self.config}: put it back from {copies[-1]}"] if copies else []
            raise ConfigError([*error.problems, *way_out]) from None

    def write_environment(self, facts: dict[str, Any]) -> None:
        """Replace environment.json atomically."""
        write_json(self.environment, facts)


def create_run(path: Path, config: Config) -> RunDirectory:
    """A new run folder with its config.

    Raises:
        RunError: there is something at `path` already.
    """
    require_utf8(path.absolute())
    _refuse_if_there(RunDirectory(path), config)
    try:
        if not is_free(path):
            raise RunError(f"{path}: exists and is not an empty folder; name another with --out")
        made = make_folders(path)
        run = RunDirectory(path, made)
        try:
            with RunLock(path) as lock, _given_up_on_failure(run, lock):
                _refuse_if_there(run, config)  # of two processes at once, one makes it
                run.write_config(config)
        except BaseException:
            unmake(made)
            raise
        for folder in made:
            sync_folder(folder.parent)
    except (OSError, ValueError) as error:  # a ValueError: there is a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path}: cannot make a run here: {reason}") from None
    return run


@contextmanager
def _given_up_on_failure(run: RunDirectory, lock: RunLock) -> Iterator[None]:
    try:
        yield
    except OSError:  # the disk is full
        run.give_up(lock)
        raise


def _refuse_if_there(run: RunDirectory, asked: Config) -> None:
    if is_there(run.config):
        # Of the verbs that make runs, `finetune` alone does not go on with one by itself.
        or_resume = " add --or-resume to go on with it if it is the same,"
        raise RunError(
            f"{run.path}: there is a run already; go on with `{command('resume', run.path)}`,"
            f"{'' if asked.finetune.kind else or_resume} or name another folder with --out"
        )


def open_run(path: Path | None) -> RunDirectory:
    """An existing run; None: the newest in `runs/`.

    Raises:
        RunError: there is none.
    """
    if path is None:
        found = list_runs(RUNS)
        if not found:
            raise RunError(
                "no runs in ./runs yet: begin with `hairpin train`, or name a run's folder"
            )
        return found[-1]
    run = RunDirectory(path)
    if not is_there(run.config) or run.config.is_dir():
        known = ", ".join(str(other.path) for other in list_runs(RUNS)[-3:])
        hint = f"; the newest here: {known}" if known else ""
        raise RunError(f"{path}: not a run, it has no config.toml{hint}")
    return run


def list_runs(folder: Path) -> list[RunDirectory]:
    """The runs in a folder, oldest first by when they began."""
    runs = [run for path in entries(folder) if _is_run(run := RunDirectory(path))]
    return sorted(runs, key=lambda run: (_began(run), run.path.name))


def new_run_path(name: str, folder: Path = RUNS) -> Path:
    """`runs/<name>-<n>`, or in another folder, with the first free n."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
    stem = not_a_device(f"{stem}-1").removesuffix("-1")
    number = 1
    while os.path.lexists(folder / f"{stem}-{number}"):  # also a link that leads nowhere
        number += 1
    return folder / f"{stem}-{number}"


def _is_run(run: RunDirectory) -> bool:
    """Tell whether it is one. What cannot be looked into now is; what is hidden is half made."""
    try:
        return not run.path.name.startswith(".") and is_there(run.config)
    except UnreadableError:
        return True


def _began(run: RunDirectory) -> float:
    """When the run's record was begun; config.toml is written again on the way. A folder into which
    nobody may look comes before all others.
    """
    try:
        with run.metrics.open("rb") as file:
            found = re.search(rb'"time": ?([0-9]+\.?[0-9]*)', file.readline(_LONGEST_START))
    except OSError:
        found = None
    if found:
        return float(found[1])
    try:
        return run.config.stat().st_mtime
    except OSError:
        return -math.inf
