"""Checkpoint folder and its manifest, which is written last and holds the hash of every file.

step-00000100/
  model.safetensors  …   groups of tensors; a group split over several processes is in as many
                         files, model-00001-of-00004.safetensors … (see `pieces`)
  state.json             plain values
  config.toml        …   other files
  manifest.json          size and SHA-256 of each, and at its end its own SHA-256
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.pieces import file_name, read_tensor_rows, whole_tensors
from hairpin.checkpoints.tensors import FileFacts, tensors_in, write_hashed
from hairpin.checkpoints.verified import Bytes, damage_error, read_verified, verify_file
from hairpin.errors import CheckpointError, RunError
from hairpin.system.access import open_plain

FORMAT = 2
_NAME = "manifest.json"
_MAX_MANIFEST = 1 << 27  # with thousands of tensors in the pieces of a thousand processes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Whole files are verified against their hash when read.

    Args:
        path: its folder.
        manifest: the content of its manifest.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of updates after which it was saved."""
        return int(self.manifest["step"])

    @property
    def processes(self) -> int:
        """The number of processes that trained when it was saved."""
        return int(self.manifest.get("world_size", 1))

    def groups(self) -> list[str]:
        """Return the names of its groups of tensors."""
        shards = self.manifest.get("shards", {})
        pieces = {name for group in shards for name in self._names(group)}
        plain = {name for name in self.manifest["files"] if name.endswith(".safetensors")} - pieces
        return sorted({name.removesuffix(".safetensors") for name in plain} | set(shards))

    def tensors(
        self, group: str, rows_of: Callable[[str], tuple[int, int] | None] | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of a group, on the CPU.

        Args:
            group: its name.
            rows_of: maps a name to the first row and the row after the last to read of that tensor,
                or None for all rows. Nothing else is read, so no hash can be compared. None: read
                and verify all of every tensor.

        Raises:
            CheckpointError: there is no such group, or it is damaged.
            UnreadableError: it cannot be read now.
        """
        names = self.files(group)
        shards = self.manifest.get("shards", {}).get(group, {})
        if rows_of is not None:
            return read_tensor_rows([self.file(name) for name in names], shards, rows_of)
        files = [tensors_in(self.read(name), self.path / name) for name in names]
        return whole_tensors(files, shards, self.path)

    def files(self, group: str) -> list[str]:
        """Return the names of a group's files."""
        sharded = group in self.manifest.get("shards", {})
        return self._names(group) if sharded else [f"{group}.safetensors"]

    def _names(self, group: str) -> list[str]:
        return [file_name(group, part, self.processes) for part in range(self.processes)]

    def values(self) -> dict[str, Any]:
        """Return the content of state.json.

        Raises:
            CheckpointError: it is damaged, or not a JSON object.
            UnreadableError: it cannot be read now.
        """
        try:
            values = json.loads(self.read("state.json").tobytes())
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.path / 'state.json'}: not a JSON object")
        return values

    def read(self, name: str) -> Bytes:
        """Return the verified content of one of its files.

        Raises:
            CheckpointError: there is no file of that name, or it is damaged.
            UnreadableError: it cannot be read now.
        """
        return read_verified(self.file(name), self.manifest["files"][name])

    def file(self, name: str) -> Path:
        """Return the path of one of its files. Only files listed in the manifest are ever opened.

        Raises:
            CheckpointError: there is no file of that name.
        """
        if name not in self.manifest["files"]:
            raise CheckpointError(f"{self.path}: it has no {name}")
        return self.path / name


def write_manifest(
    folder: Path,
    step: int,
    files: Mapping[str, FileFacts],
    facts: Mapping[str, Any],
    *,
    world_size: int = 1,
    shards: Mapping[str, Any] | None = None,
) -> None:
    """Write the manifest of a folder; from here on the folder is a checkpoint.

    Args:
        folder: holds the files, all of them durable.
        step: updates completed.
        files: maps names to size and hash.
        facts: further content of the manifest, as plain JSON values.
        world_size: the number of processes that trained.
        shards: for each group in pieces, the result of `pieces.in_manifest`.
    """
    manifest = {
        "format": FORMAT,
        "step": step,
        "world_size": world_size,
        "torch": str(torch.__version__),
        **({"shards": shards} if shards else {}),
        **facts,
        "files": {name: vars(of_file) for name, of_file in sorted(files.items())},
    }
    body = json.dumps(manifest, separators=(",", ":"))[:-1]
    write_hashed(folder / _NAME, [f'{body},"sha256":"{_sha256(body)}"}}'.encode()])


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint in a folder after verifying every byte of it.

    Raises:
        CheckpointError: it is damaged; the message names the file.
        UnreadableError: a file cannot be read now, damaged or not.
        RunError: it was written by another version of hairpin.
    """
    checkpoint = described_checkpoint(path)
    for name, facts in checkpoint.manifest["files"].items():
        # Only plain names: a path would lead elsewhere.
        if Path(name).name != name:
            raise damage_error(path / Path(name).name)
        verify_file(path / name, facts)
    return checkpoint


def described_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint in a folder, reading only the manifest.

    Raises:
        CheckpointError, UnreadableError, RunError: as in `open_checkpoint`, for the manifest.
    """
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{path}: written in format {manifest.get('format')!r}, and this hairpin reads format "
            f"{FORMAT}; use the version that wrote it"
        )
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("step"), int):
        raise CheckpointError(f"{path / _NAME}: not a manifest")
    return Checkpoint(path, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of a manifest after verifying its hash; the files it lists are not read.

    Raises:
        CheckpointError: it is damaged.
        UnreadableError: it cannot be read now.
    """
    path = folder / _NAME
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size > _MAX_MANIFEST:
                raise damage_error(path)
            text = file.read().decode()
        body, _, claimed = text.rpartition(',"sha256":"')
        if not body or claimed != _sha256(body) + '"}':
            raise damage_error(path)
        manifest = json.loads(text)
    except (FileNotFoundError, ValueError, RecursionError):
        raise damage_error(path) from None
    if not isinstance(manifest, dict):
        raise damage_error(path)
    return manifest


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
