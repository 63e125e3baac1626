"""Tensors of which several processes hold some rows each, and the files that they are in.

A group of such tensors is in as many files as there were processes, from
`model-00001-of-00004.safetensors` on. The manifest says of each tensor its whole shape, and with
which row each file begins; any other number of processes reads the rows that it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hairpin.errors import CheckpointError


@dataclass(frozen=True)
class Piece:
    """Some rows of a tensor.

    Args:
        shape: of the whole.
        starts: the first row of each process's piece, and at the end the number of rows.
        rank: whose piece it is.
    """

    shape: tuple[int, ...]
    starts: tuple[int, ...]
    rank: int

    @staticmethod
    def of(shape: tuple[int, ...], rank: int, size: int) -> "Piece":
        """What FSDP2 leaves to a process, which is what `torch.chunk` does: as many rows to each,
        and to the last ones what there is, perhaps none.
        """
        each = -(-shape[0] // size)
        return Piece(shape, tuple(min(shape[0], each * part) for part in range(size + 1)), rank)

    @property
    def start(self) -> int:
        """The first row."""
        return self.starts[self.rank]

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.starts[self.rank + 1]


def file_name(group: str, part: int, parts: int) -> str:
    """The file of a part (from 0) of a group."""
    return f"{group}-{part + 1:05d}-of-{parts:05d}.safetensors"


def in_manifest(pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """What a manifest says of a group's tensors."""
    return {
        name: {"shape": list(piece.shape), "starts": list(piece.starts)}
        for name, piece in sorted(pieces.items())
    }


@dataclass(frozen=True)
class PieceFiles:
    """The files of a group in pieces.

    Args:
        files: in order.
        shards: what the manifest says of the tensors.
    """

    files: tuple[Path, ...]
    shards: Mapping[str, Mapping[str, Any]]

    def names(self) -> list[str]:
        """The tensors: those in pieces, and those that the first file has whole."""
        with _open(self.files[0]) as file:
            return sorted({*self.shards, *file.keys()})

    def read(self, name: str, rows: tuple[int, int] | None) -> Tensor:
        """The rows of a tensor, or all of it.

        Raises:
            CheckpointError: a file is not what the manifest says.
        """
        if name not in self.shards:
            with _open(self.files[0]) as file:
                return _rows(file, name, rows)
        starts = self.shards[name]["starts"]
        start, stop = rows or (0, starts[-1])
        parts = []
        for path, (first, end) in zip(self.files, pairwise(starts), strict=True):
            low, high = max(start, first), min(stop, end)
            if low < high:
                with _open(path) as file:
                    parts.append(_rows(file, name, (low - first, high - first)))
        if not parts:
            with _open(self.files[0]) as file:
                return _rows(file, name, (0, 0))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def read_rows(path: Path, name: str, rows: tuple[int, int] | None) -> Tensor:
    """The rows of a tensor in a file, or all of it.

    Raises:
        CheckpointError: the file cannot be read, or has no such tensor.
    """
    with _open(path) as file:
        return _rows(file, name, rows)


def _rows(file: Any, name: str, rows: tuple[int, int] | None) -> Tensor:
    try:
        found: Tensor = (
            file.get_tensor(name) if rows is None else file.get_slice(name)[rows[0] : rows[1]]
        )
    except SafetensorError as error:
        raise CheckpointError(f"{name}: not in the checkpoint's files ({error})") from None
    return found


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from None
