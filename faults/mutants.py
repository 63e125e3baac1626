"""Planted bugs. Each must be caught by some row, or the rows prove nothing."""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from hairpin.checkpoints.manifest import Checkpoint
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.distributed.world import World
from hairpin.optim.guard import Guard
from hairpin.runs.lock import RunLock
from hairpin.training.state import TrainState

# Modules in which names are replaced.
stores: Any = import_module("hairpin.checkpoints.store")
tensors: Any = import_module("hairpin.checkpoints.tensors")
assembly: Any = import_module("hairpin.training.assembly")
training_run: Any = import_module("hairpin.training.train_run")
states: Any = import_module("hairpin.training.state")
steps: Any = import_module("hairpin.training.step")
writing: Any = import_module("hairpin.checkpoints.writing")

Facts = Mapping[str, Any]

_MUTANTS: dict[str, Callable[[], None]] = {}


def plant(name: str) -> None:
    """Put a bug into this process; "" is none."""
    if name:
        _MUTANTS[name]()


def names() -> list[str]:
    """All there are."""
    return list(_MUTANTS)


def _mutant(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        _MUTANTS[name] = function
        return function

    return register


def _after_load(change: Callable[[TrainState], None]) -> None:
    load = TrainState.load

    def changed(self: TrainState, *arguments: Any, **named: Any) -> None:
        load(self, *arguments, **named)
        change(self)

    TrainState.load = changed  # type: ignore[method-assign]


@_mutant("dropout goes on from wherever the random stream is, which is not restored")
def _random_stream() -> None:
    seeded: list[int] = []

    def once(seed: int) -> None:
        if not seeded:
            seeded.append(seed)
            _manual_seed(5)

    steps.torch = _Instead(torch, manual_seed=once)
    states.torch = _Instead(torch, set_rng_state=lambda state: None)


@_mutant("the position in the data is one more after a resume")
def _position_more() -> None:
    _after_load(lambda state: setattr(state, "position", state.position + 1))


@_mutant("the position in the data is one less after a resume")
def _position_less() -> None:
    _after_load(lambda state: setattr(state, "position", state.position - 1))


@_mutant("the learning rate goes on one update early after a resume")
def _learning_rate() -> None:
    loaded: list[TrainState] = []
    _after_load(loaded.append)
    schedule_of = assembly.schedule_of

    def shifted(config: Any) -> Any:
        schedule = schedule_of(config)
        return _Shifted(schedule) if loaded else schedule

    assembly.schedule_of = shifted


@_mutant("the optimizer's moments are not restored")
def _moments() -> None:
    states.load_optimizer_tensors = lambda *_: None


@_mutant("the window that spikes are told by is not restored")
def _window() -> None:
    Guard.load = lambda self, tensors: None  # type: ignore[method-assign]


@_mutant("the best evaluation is forgotten at a resume")
def _best() -> None:
    _after_load(lambda state: setattr(state, "best", None))


@_mutant("a resume leaves the record as long as it is")
def _record() -> None:
    training_run.truncate_record = lambda *_: None


@_mutant("a checkpoint is written under its own name")
def _in_place() -> None:
    def commit(snapshot: Snapshot, final: Path, facts: Facts, world_size: int) -> None:
        final.mkdir()
        writing.write_manifest(final, snapshot.step, _write(final, snapshot), facts)

    stores.commit = commit


@_mutant("the manifest is there before the files")
def _manifest_first() -> None:
    def commit(snapshot: Snapshot, final: Path, facts: Facts, world_size: int) -> None:
        final.mkdir()
        writing.write_manifest(final, snapshot.step, {}, facts)
        files = _write(final, snapshot)
        (final / "manifest.json").unlink()
        writing.write_manifest(final, snapshot.step, files, facts)

    stores.commit = commit


@_mutant("old checkpoints are deleted before the new one is there")
def _delete_first() -> None:
    commit = writing.commit

    def deleting(snapshot: Snapshot, final: Path, facts: Facts, world_size: int) -> None:
        for path in CheckpointStore(final.parent).steps():
            shutil.rmtree(path)
        commit(snapshot, final, facts, world_size)

    stores.commit = deleting


@_mutant("files are not made durable")
def _no_fsync() -> None:
    fsync = os.fsync

    def of_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    tensors.os = _Instead(os, fsync=of_folders)


@_mutant("what is loaded is not verified")
def _unverified() -> None:
    opened = stores.open_checkpoint

    def trusting(path: Path) -> Checkpoint:
        if path.name.startswith("step-"):
            return Checkpoint(path, _Anything(step=int(path.name[5:])))
        verified: Checkpoint = opened(path)
        return verified

    stores.open_checkpoint = trusting


@_mutant("a save in the background reads weights that training changes meanwhile")
def _no_copy() -> None:
    Snapshot.copied = lambda self: self  # type: ignore[method-assign]


@_mutant("two processes may have one run")
def _no_lock() -> None:
    RunLock.__enter__ = lambda self: self  # type: ignore[method-assign]


def _write(folder: Path, snapshot: Snapshot) -> Any:
    return writing._write_files(folder, snapshot, World())


class _Anything(dict[str, Any]):
    """A manifest that vouches for whatever is asked of it."""

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]  # as a subscript does

    def __missing__(self, key: str) -> Any:
        return _EQUAL_TO_ALL


class _EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __contains__(self, key: object) -> bool:
        return True


_EQUAL_TO_ALL = _EqualToAll()


class _Shifted:
    """A schedule that is one update behind."""

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule

    def __call__(self, update: int) -> Any:
        return self._schedule(max(0, update - 1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._schedule, name)


class _Instead:
    """A module in which some names mean something else."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return self._names[name] if name in self._names else getattr(self._module, name)


_manual_seed = torch.manual_seed
