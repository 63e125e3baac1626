"""A checkpoint folder and its manifest, which is written last and vouches for every byte.

step-00000100/
  model.safetensors  …   groups of tensors; one of which several processes hold pieces is in as many
                         files, model-00001-of-00004.safetensors … (see `pieces`)
  state.json             plain values
  config.toml        …   other files
  manifest.json          size and SHA-256 of each, and at its end its own SHA-256
"""

import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.pieces import file_name, read_rows
from hairpin.checkpoints.tensors import FileFacts, read_tensors, write_hashed
from hairpin.errors import CheckpointError, RunError
from hairpin.files import sha256_of

FORMAT = 2
_NAME = "manifest.json"
_LARGEST_MANIFEST = 1 << 27  # with thousands of tensors in the pieces of a thousand processes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose every byte is as it was written.

    Args:
        path: its folder.
        manifest: what is said of it.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """After how many updates it was made."""
        return int(self.manifest["step"])

    @property
    def processes(self) -> int:
        """How many trained when it was made."""
        return int(self.manifest.get("world_size", 1))

    def groups(self) -> list[str]:
        """The groups of tensors."""
        shards = self.manifest.get("shards", {})
        pieces = {name for group in shards for name in self._names(group)}
        plain = {name for name in self.manifest["files"] if name.endswith(".safetensors")} - pieces
        return sorted({name.removesuffix(".safetensors") for name in plain} | set(shards))

    def tensors(
        self, group: str, rows_of: Callable[[str], tuple[int, int] | None] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of a group, on the CPU.

        Args:
            group: its name.
            rows_of: name → the first row and the row after the last that are wanted of that tensor,
                None for all; nothing else of it is read. None: all of all.

        Raises:
            CheckpointError: it has no such group.
        """
        paths = [self.file(name) for name in self.files(group)]
        shards = self.manifest.get("shards", {}).get(group, {})
        if rows_of is None and not shards:
            return read_tensors(paths[0])
        return read_rows(paths, shards, rows_of or (lambda name: None))

    def files(self, group: str) -> list[str]:
        """The names of a group's files."""
        sharded = group in self.manifest.get("shards", {})
        return self._names(group) if sharded else [f"{group}.safetensors"]

    def _names(self, group: str) -> list[str]:
        return [file_name(group, part, self.processes) for part in range(self.processes)]

    def values(self) -> dict[str, Any]:
        """The content of state.json.

        Raises:
            CheckpointError: it is not a JSON object.
        """
        path = self.file("state.json")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise CheckpointError(f"{path}: not a JSON object")
        return values

    def file(self, name: str) -> Path:
        """Where one of its files is. Only what the manifest vouches for is ever opened.

        Raises:
            CheckpointError: it has none of that name.
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
    """Vouch for the files of a folder; from here on it is a checkpoint.

    Args:
        folder: where the files are, all of them durable.
        step: updates completed.
        files: name → size and hash.
        facts: what else belongs in it, as plain JSON values.
        world_size: how many processes trained.
        shards: of the groups that are in pieces, what `pieces.in_manifest` says.
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
    """The checkpoint in a folder, once every byte of it is known to be as it was written.

    Raises:
        CheckpointError: it is damaged; the line names the file.
        RunError: another version of hairpin wrote it.
    """
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{path}: written in format {manifest.get('format')!r}, and this hairpin reads format "
            f"{FORMAT}; use the version that wrote it"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not isinstance(manifest.get("step"), int):
        raise CheckpointError(f"{path / _NAME}: not a manifest")
    for name, facts in files.items():
        if not _is_as_written(path, name, facts):
            raise CheckpointError(f"{path / Path(name).name}: not the bytes that were written")
    return Checkpoint(path, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a manifest says, once it is known to be the bytes that were written; the files that it
    vouches for are not looked at.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / _NAME
    try:
        if not _is_plain_file(path) or path.stat().st_size > _LARGEST_MANIFEST:
            raise CheckpointError(f"{path}: not the bytes that were written")
        text = path.read_text(encoding="utf-8")
        body, _, claimed = text.rpartition(',"sha256":"')
        if not body or claimed != _sha256(body) + '"}':
            raise CheckpointError(f"{path}: not the bytes that were written")
        manifest: dict[str, Any] = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not the bytes that were written") from None
    return manifest


def _is_as_written(folder: Path, name: str, facts: Any) -> bool:
    """Whether a plain name in the folder is a file of this size and hash. Anything else, a path
    that leads elsewhere, a link, is not.
    """
    if Path(name).name != name or not isinstance(facts, dict):
        return False
    path = folder / name
    try:
        return (
            _is_plain_file(path)
            and path.stat().st_size == facts.get("size")
            and sha256_of(path) == facts.get("sha256")
        )
    except (OSError, ValueError):
        return False


def _is_plain_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
