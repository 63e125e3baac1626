"""Paths of everything in a run folder.

RUN/
  config.toml          all settings
  environment.json     versions and hardware
  metrics.jsonl        the record of events
  tokenizer/           the tokenizer of its text
  checkpoints/         step-00000100/ …
  .committed           exists once a checkpoint was committed
  best/                the weights of the best validation
  plots/               PNG
  report.html          the report page
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

from hairpin.config.load import build_config, to_toml
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, RunError, UnreadableError
from hairpin.runs.entries import is_free, remove_entries
from hairpin.runs.lock import RunLock
from hairpin.system.access import entries, is_there, require_utf8
from hairpin.system.files import (
    make_folders,
    not_a_device,
    remove,
    sync_folder,
    unmake,
    write_atomically,
    write_json,
)
from hairpin.system.shell import command

RUNS = Path("runs")
_MAX_START_LENGTH = 1 << 24


@dataclass(frozen=True)
class RunDirectory:
    """The paths in a run folder; constructing one checks nothing, `open_run` does.

    Args:
        path: the folder.
        made: the folders that this process created for it: the run's own and its parents.
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
        """A file that exists once any checkpoint was committed."""
        return self.path / ".committed"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.path / "report.html"

    def discarded_metrics(self) -> Path:
        """Return a new file for lines of the record that a resume sets aside."""
        return self.path / f"metrics.discarded-{time.time_ns()}.jsonl"

    def unfinished(self) -> list[Path]:
        """Return the files that are half written or being written."""
        return [*self.path.glob(".tmp-*"), *self.path.glob("plots/.tmp-*")]

    def remove_unfinished(self) -> None:
        """Remove files left half written by killed processes. The caller holds the lock."""
        for path in self.unfinished():
            remove(path)

    def give_up(self, lock: RunLock) -> None:
        """Remove the run and everything that this process made, after a mistake was found before it
        began. Files that others have put into the folder stay.
        """
        remove_entries(self.path)
        lock.give_up(self.made)

    def write_config(self, config: Config) -> None:
        """Replace config.toml atomically."""
        write_atomically(self.config, to_toml(config).encode())

    def read_config(self) -> Config:
        """Return the run's settings.

        Raises:
            ConfigError: the file is damaged; a line says where a copy is.
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
    """Create a new run folder with its config.

    Raises:
        RunError: something exists at `path` already.
    """
    require_utf8(path.absolute())
    _refuse_if_there(RunDirectory(path), config)
    try:
        if not is_free(path):
            raise RunError(f"{path}: exists and is not an empty folder; name another with --out")
        made = make_folders(path)
        run = RunDirectory(path, made)
        try:
            with RunLock(path) as lock, _removed_on_failure(run, lock):
                _refuse_if_there(run, config)  # of two processes at once, only one creates it
                run.write_config(config)
        except BaseException:
            unmake(made)
            raise
        for folder in made:
            sync_folder(folder.parent)
    except (OSError, ValueError) as error:  # a ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path}: cannot make a run here: {reason}") from None
    return run


@contextmanager
def _removed_on_failure(run: RunDirectory, lock: RunLock) -> Iterator[None]:
    try:
        yield
    except OSError:  # the disk is full
        run.give_up(lock)
        raise


def _refuse_if_there(run: RunDirectory, asked: Config) -> None:
    if is_there(run.config):
        # Of the verbs that make runs, only `finetune` does not resume one by itself.
        or_resume = " add --or-resume to resume it if it is the same,"
        raise RunError(
            f"{run.path}: a run already exists; resume it with `{command('resume', run.path)}`,"
            f"{'' if asked.finetune.kind else or_resume} or name another folder with --out"
        )


def open_run(path: Path | None) -> RunDirectory:
    """Return an existing run; None: the newest in `runs/`.

    Raises:
        RunError: no run was found.
    """
    if path is None:
        found = list_runs(RUNS)
        if not found:
            raise RunError(
                "no runs in ./runs yet: start one with `hairpin train`, or name a run's folder"
            )
        return found[-1]
    run = RunDirectory(path)
    if not is_there(run.config) or run.config.is_dir():
        known = ", ".join(str(other.path) for other in list_runs(RUNS)[-3:])
        hint = f"; the newest: {known}" if known else ""
        raise RunError(f"{path}: not a run: it has no config.toml{hint}")
    return run


def list_runs(folder: Path) -> list[RunDirectory]:
    """Return the runs in a folder, the one that began first at the front."""
    runs = [run for path in entries(folder) if _is_run(run := RunDirectory(path))]
    return sorted(runs, key=lambda run: (_began(run), run.path.name))


def new_run_path(name: str, folder: Path = RUNS) -> Path:
    """Return `runs/<name>-<n>`, or one in another folder, with the first free n."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
    stem = not_a_device(f"{stem}-1").removesuffix("-1")
    number = 1
    while os.path.lexists(folder / f"{stem}-{number}"):  # also a broken link
        number += 1
    return folder / f"{stem}-{number}"


def _is_run(run: RunDirectory) -> bool:
    """Return True for a run, or a folder that cannot be read now; hidden ones are half made."""
    try:
        return not run.path.name.startswith(".") and is_there(run.config)
    except UnreadableError:
        return True


def _began(run: RunDirectory) -> float:
    """Return the time at which the run's record was begun; config.toml is rewritten during a run.
    A folder without read permission sorts before all others.
    """
    try:
        with run.metrics.open("rb") as file:
            found = re.search(rb'"time": ?([0-9]+\.?[0-9]*)', file.readline(_MAX_START_LENGTH))
    except OSError:
        found = None
    if found:
        return float(found[1])
    try:
        return run.config.stat().st_mtime
    except OSError:
        return -math.inf
