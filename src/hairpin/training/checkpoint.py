"""Checkpoints: atomic, hashed, verified on load, rotated. Safetensors and JSON, never a pickle.

    checkpoints/step-00000100/
      model.safetensors  optimizer.safetensors  rng.safetensors  state.json
      manifest.json      size and SHA-256 of each file; written last

A checkpoint is written under a temporary name, made durable, and renamed: it is there whole or not
at all. The one to go on from is the highest step whose manifest verifies.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hairpin.errors import HairpinError, RunError
from hairpin.files import sha256_of, sync_file, sync_folder, write_json
from hairpin.runs.directory import RunDirectory
from hairpin.training.state import TrainState

FORMAT = 1
_SPARE_SPACE = 1.2
_TENSOR_FILES = ("model", "optimizer", "rng")


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Args:
        run: its folder.
        keep: how many of the newest stay.
        identity: hashes of config, tokenizer and data, kept in each manifest.
    """

    run: RunDirectory
    keep: int
    identity: dict[str, str]

    def save(self, state: TrainState, record_bytes: int) -> bool:
        """Commit the state; returns whether its weights became the best.

        Args:
            state: all of it finite.
            record_bytes: the durable length of metrics.jsonl that belongs to it.

        Raises:
            HairpinError: the disk is too full, or the weights are not finite. What was saved
                before is untouched.
        """
        final = self.run.checkpoints / f"step-{state.update:08d}"
        try:
            if not final.exists():
                self._commit(final, state, record_bytes)
            if state.is_best:
                self._replace_best(final, state.update)
            self._rotate()
        except (OSError, SafetensorError) as error:
            raise HairpinError(
                f"{final}: cannot be saved ({error}); the checkpoint before it is whole: make "
                f"space, then `hairpin resume {self.run.path}`"
            ) from error
        return state.is_best

    def _commit(self, final: Path, state: TrainState, record_bytes: int) -> None:
        self._refuse_what_must_not_be_saved(state)
        self.run.checkpoints.mkdir(exist_ok=True)
        temporary = self.run.checkpoints / f".tmp-{final.name}-{os.getpid()}"
        with _removed_on_failure(temporary):
            _write_tensors(temporary, state)
            counters = {**state.counters(), "record_bytes": record_bytes}
            write_json(temporary / "state.json", counters)
            _write_manifest(temporary, state.update, self.identity)
            temporary.rename(final)
        sync_folder(self.run.checkpoints)

    def newest(self, notice: Callable[[str], None]) -> Path | None:
        """The highest step that verifies; those that do not are set aside, never deleted."""
        for path in reversed(_steps(self.run.checkpoints)):
            problem = verify_checkpoint(path)
            if problem is None:
                return path
            aside = path.with_name(f".bad-{path.name}-{time.time_ns()}")
            path.rename(aside)
            notice(f"{problem}; set aside as {aside.name}, taking the checkpoint before it")
        return None

    def _refuse_what_must_not_be_saved(self, state: TrainState) -> None:
        for name, tensor in {**state.model_tensors(), **state.optimizer_tensors()}.items():
            if not torch.isfinite(tensor).all():
                raise HairpinError(
                    f"update {state.update}: {name} is not finite; nothing was saved"
                )
        tensors = [*state.model_tensors().values(), *state.optimizer_tensors().values()]
        needed = _SPARE_SPACE * sum(tensor.nbytes for tensor in tensors)
        free = shutil.disk_usage(self.run.path).free
        if free < needed:
            raise HairpinError(
                f"{self.run.path}: a checkpoint needs {needed / 1e6:.0f} MB and the disk has "
                f"{free / 1e6:.0f} MB free; free some, then `hairpin resume {self.run.path}`"
            )

    def _replace_best(self, checkpoint: Path, update: int) -> None:
        temporary = self.run.path / f".tmp-best-{os.getpid()}"
        old = self.run.path / f".old-best-{os.getpid()}"
        with _removed_on_failure(temporary):
            _link_or_copy(checkpoint / "model.safetensors", temporary / "model.safetensors")
            _write_manifest(temporary, update, self.identity)
            if self.run.best.exists():
                self.run.best.rename(old)
            temporary.rename(self.run.best)
        sync_folder(self.run.path)
        shutil.rmtree(old, ignore_errors=True)

    def _rotate(self) -> None:
        """Delete all but the newest, and only once the newest is known to be whole."""
        steps = _steps(self.run.checkpoints)
        if steps and verify_checkpoint(steps[-1]) is None:
            for path in steps[: -self.keep]:
                shutil.rmtree(path)


def load_state(checkpoint: Path, state: TrainState) -> int:
    """Make `state` what the checkpoint holds; returns the record's length in bytes.

    Raises:
        RunError: the checkpoint does not fit the run's model.
    """
    tensors = {name: load_file(checkpoint / f"{name}.safetensors") for name in _TENSOR_FILES}
    counters = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    try:
        state.load(tensors["model"], tensors["optimizer"], tensors["rng"], counters)
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{checkpoint}: does not fit the model of config.toml: {reason}") from None
    return int(counters["record_bytes"])


def load_weights(
    run: RunDirectory, which: str = "best", *, tokenizer_sha256: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """The weights of a run and a phrase that says which: the best, or the last.

    Args:
        run: its folder.
        which: "best" or "last".
        tokenizer_sha256: of the tokenizer that they are going to be used with.

    Raises:
        RunError: nothing was saved yet, it is damaged, or it was trained with another tokenizer.
    """
    steps = _steps(run.checkpoints)
    path = run.best if which == "best" and run.best.is_dir() else (steps[-1] if steps else None)
    if path is None:
        raise RunError(f"{run.path}: no weights saved yet; go on with `hairpin resume {run.path}`")
    problem = verify_checkpoint(path)
    if problem:
        raise RunError(problem)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if tokenizer_sha256 not in (None, manifest.get("tokenizer_sha256")):
        raise RunError(
            f"{run.tokenizer}: not the tokenizer that {path} was trained with; restore the run's "
            "own from a copy"
        )
    kind = "best" if path == run.best else "last"
    return load_file(path / "model.safetensors"), f"{kind} weights, update {manifest['update']}"


def verify_checkpoint(path: Path) -> str | None:
    """A line that says what is wrong with a checkpoint; None when every byte is as written."""
    try:
        text = (path / "manifest.json").read_text(encoding="utf-8")
        body, _, claimed = text.rpartition(',"sha256":"')
        if not body or claimed != _sha256(body) + '"}':
            return f"{path / 'manifest.json'}: not the bytes that were written"
        for name, facts in json.loads(text)["files"].items():
            file = path / name
            if file.stat().st_size != facts["size"] or sha256_of(file) != facts["sha256"]:
                return f"{file}: not the bytes that were written"
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        return f"{path}: {error}"
    return None


def _write_tensors(folder: Path, state: TrainState) -> None:
    groups = (state.model_tensors(), state.optimizer_tensors(), state.rng_tensors())
    for name, tensors in zip(_TENSOR_FILES, groups, strict=True):
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        sync_file(path)


def _write_manifest(folder: Path, update: int, identity: dict[str, str]) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    facts: dict[str, Any] = {
        "format": FORMAT,
        "update": update,
        "world_size": 1,
        "torch": str(torch.__version__),
        **identity,
        "files": files,
    }
    body = json.dumps(facts, separators=(",", ":"))[:-1]
    path = folder / "manifest.json"
    path.write_text(f'{body},"sha256":"{_sha256(body)}"}}', encoding="utf-8")
    sync_file(path)
    sync_folder(folder)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _steps(folder: Path) -> list[Path]:
    """Committed checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        sync_file(target)


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """A new folder that is deleted again if what is done in it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
