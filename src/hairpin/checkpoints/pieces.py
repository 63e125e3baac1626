"""Tensors split by rows over several processes, and the files that hold them.

A group of such tensors is in as many files as there were processes, starting with
`model-00001-of-00004.safetensors`. The manifest gives the full shape of each tensor and the first
row in each file, so any other number of processes can read the rows that it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hairpin.checkpoints.tensors import open_tensors
from hairpin.distributed.world import starts_of
from hairpin.errors import CheckpointError, UnreadableError


@dataclass(frozen=True)
class Piece:
    """A range of rows of a tensor.

    Args:
        shape: of the whole tensor.
        starts: the first row of each process's piece, followed by the number of rows.
        rank: the process that holds this piece.
    """

    shape: tuple[int, ...]
    starts: tuple[int, ...]
    rank: int

    @staticmethod
    def of(shape: tuple[int, ...], rank: int, size: int) -> "Piece":
        """Return the piece that FSDP2 assigns to a process."""
        return Piece(shape, starts_of(shape[0], size), rank)

    @property
    def start(self) -> int:
        """The first row."""
        return self.starts[self.rank]

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.starts[self.rank + 1]


def file_name(group: str, part: int, parts: int) -> str:
    """Return the file name of a part (from 0) of a group."""
    return f"{group}-{part + 1:05d}-of-{parts:05d}.safetensors"


def in_manifest(pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """Describe a group's tensors for the manifest."""
    return {
        name: {"shape": list(piece.shape), "starts": list(piece.starts)}
        for name, piece in sorted(pieces.items())
    }


def read_tensor_rows(
    paths: Sequence[Path],
    shards: Mapping[str, Mapping[str, Any]],
    rows_of: Callable[[str], tuple[int, int] | None],
) -> dict[str, Tensor]:
    """Return the tensors of a group, or the wanted rows of each, on the CPU.

    Args:
        paths: the group's files, in order; each is opened once.
        shards: the manifest's description of the split tensors; all others are in the first file.
        rows_of: maps a name to the first row and the row after the last, or None for all rows.

    Raises:
        CheckpointError: a file is damaged, or contradicts the manifest.
        UnreadableError: a file cannot be read now.
    """
    with ExitStack() as opened:
        files = [opened.enter_context(open_tensors(path)) for path in paths]
        names = sorted({*shards, *files[0].keys()})
        try:
            return {name: _read(files, shards.get(name), name, rows_of(name)) for name in names}
        except SafetensorError as error:
            raise _missing(paths[0].parent, error) from None
        except OSError as error:
            raise UnreadableError(paths[0].parent, error) from None


def whole_tensors(
    files: Sequence[Mapping[str, Tensor]], shards: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, Tensor]:
    """Join the tensors of a group from the content of its files.

    Args:
        files: the content of each file, in order.
        shards: as in `read_tensor_rows`.
        folder: the checkpoint's folder, for the error.

    Raises:
        CheckpointError: they contradict the manifest.
    """
    if not shards:
        return dict(files[0])
    parts = [_InMemory(file) for file in files]
    try:
        names = sorted({*shards, *files[0]})
        return {name: _read(parts, shards.get(name), name, None) for name in names}
    except KeyError as error:
        raise _missing(folder, error) from None


@dataclass(frozen=True)
class _InMemory:
    """Tensors in memory with the interface of an open safetensors file."""

    tensors: Mapping[str, Tensor]

    def get_tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    get_slice = get_tensor


def _missing(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder}: a tensor is missing from its file ({error})")


def _read(
    files: Sequence[Any],
    shard: Mapping[str, Any] | None,
    name: str,
    rows: tuple[int, int] | None,
) -> Tensor:
    if shard is None:
        return _rows(files[0], name, rows)
    starts = shard["starts"]
    start, stop = rows or (0, starts[-1])
    parts = [
        _rows(file, name, (max(start, first) - first, min(stop, end) - first))
        for file, (first, end) in zip(files, pairwise(starts), strict=True)
        if max(start, first) < min(stop, end)
    ]
    if not parts:
        return _rows(files[0], name, (0, 0))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _rows(file: Any, name: str, rows: tuple[int, int] | None) -> Tensor:
    found: Tensor = (
        file.get_tensor(name) if rows is None else file.get_slice(name)[rows[0] : rows[1]]
    )
    return found
