"""Safetensors files, hashed while they are written.

The layout is that of https://github.com/huggingface/safetensors: the header's length in 8 bytes, a
JSON header, the tensors' bytes. Written here and not by the library, so that gigabytes are neither
copied into one string nor read again for their hash; the library reads them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from hairpin.errors import CheckpointError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BLOCK_BYTES = 1 << 22
# A header has about 100 bytes a tensor; a larger one is not ours, and is not parsed.
_LARGEST_HEADER = 1 << 24


@dataclass(frozen=True)
class FileFacts:
    """What a manifest says of a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
    """Write a new file and make it durable.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            for start in range(0, len(chunk), _BLOCK_BYTES):
                block = chunk[start : start + _BLOCK_BYTES]
                file.write(block)
                digest.update(block)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return FileFacts(size, digest.hexdigest())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> FileFacts:
    """Write tensors on the CPU as a safetensors file; the same tensors are the same bytes.

    Args:
        path: a new file.
        tensors: by name.
        metadata: what else its header says.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    return write_hashed(path, _chunks(tensors, metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        _require_small_header(path)
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from None


def open_tensors(path: Path) -> Any:
    """A safetensors file, opened for reading parts of it; close it by a `with` block.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        _require_small_header(path)
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from None


def _require_small_header(path: Path) -> None:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > _LARGEST_HEADER:
        raise CheckpointError(f"{path}: its header claims {header_bytes:,} bytes; not read")


def _chunks(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    # Widest numbers first, as the library has it, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name in names:
        tensor = tensors[name]
        end = place + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        yield tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data
