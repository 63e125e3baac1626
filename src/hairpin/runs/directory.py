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

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.config.load import build_config, to_toml
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, RunError, UnreadableError
from hairpin.files import not_a_device, sync_folder, write_atomically, write_json
from hairpin.reading import entries, is_there
from hairpin.runs.lock import RunLock

RUNS = Path("runs")
_LONGEST_START = 1 << 24


@dataclass(frozen=True)
class RunDirectory:
    """The places in a run folder; making one checks nothing, `open_run` does."""

    path: Path

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
        return list(self.path.glob(".tmp-*"))

    def remove_unfinished(self) -> None:
        """Remove what processes left half written that were killed. The caller holds the lock."""
        for path in self.unfinished():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

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
    run = RunDirectory(path)
    _refuse_if_there(run)
    if path.exists() and (not path.is_dir() or not all(map(_is_left_over, path.iterdir()))):
        raise RunError(f"{path}: exists and is not an empty folder; name another with --out")
    try:
        is_first = not path.parent.exists()
        path.mkdir(parents=True, exist_ok=True)
        with RunLock(path):  # of two processes at once, one makes it
            _refuse_if_there(run)
            run.write_config(config)
        sync_folder(path.parent)
        if is_first:
            sync_folder(path.parent.parent)
    except (OSError, ValueError) as error:  # a ValueError: there is a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path}: cannot make a run here: {reason}") from None
    return run


def _refuse_if_there(run: RunDirectory) -> None:
    if is_there(run.config):
        raise RunError(
            f"{run.path}: there is a run already; go on with `hairpin resume {run.path}`, add "
            "--or-resume to go on with it if it is the same, or name another folder with --out"
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
    while (folder / f"{stem}-{number}").exists():
        number += 1
    return folder / f"{stem}-{number}"


def _is_run(run: RunDirectory) -> bool:
    """Whether it is one; one that cannot be looked into now is."""
    try:
        return is_there(run.config)
    except UnreadableError:
        return True


def _is_left_over(path: Path) -> bool:
    """Whether that is what a process leaves that is killed while it makes a run's folder."""
    return path.name.startswith((".tmp-config.toml-", ".lock"))


def _began(run: RunDirectory) -> float:
    """When the run's record was begun; config.toml is written again on the way."""
    try:
        with run.metrics.open("rb") as file:
            found = re.search(rb'"time": ?([0-9.]+)', file.readline(_LONGEST_START))
    except OSError:
        found = None
    if found:
        return float(found[1])
    try:
        return run.config.stat().st_mtime
    except OSError:
        return 0.0
