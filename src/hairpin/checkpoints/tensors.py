"""Safetensors files, hashed while they are written.

The layout is that of https://github.com/huggingface/safetensors: the header's length in 8 bytes, a
JSON header, the tensors' bytes. Implemented here rather than with the library, so that gigabytes
are neither copied into one string nor read again for their hash. The library is used to read parts
of files.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hairpin.checkpoints.verified import Bytes
from hairpin.errors import CheckpointError, UnreadableError
from hairpin.system.access import open_plain

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
# A header takes about 100 bytes per tensor; a larger one is not ours, and is not parsed.
_MAX_HEADER = 1 << 24
_MAX_DIMENSIONS = 64  # as in PyTorch
# Types that are parsed too, so that they can be rejected by name.
_OTHER_TYPES = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}
_TYPES: dict[str, torch.dtype] = {
    **{name: dtype for dtype, name in _DTYPES.items()},
    **{name: getattr(torch, word) for name, word in _OTHER_TYPES.items() if hasattr(torch, word)},
}


@dataclass(frozen=True)
class FileFacts:
    """The manifest's entry for a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
    """Write a new file and make it durable.

    Raises:
        OSError: it cannot be written, or exists already.
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
    """Write tensors on the CPU as a safetensors file; the same tensors give the same bytes.

    Args:
        path: a new file.
        tensors: by name.
        metadata: further entries of its header.

    Raises:
        OSError: it cannot be written, or exists already.
    """
    return write_hashed(path, _chunks(tensors, metadata))


def tensors_in(content: Bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU; they share the memory of its content.

    Args:
        content: the complete content of the file.
        path: the file's path, for the error.

    Raises:
        CheckpointError: it is not a safetensors file.
    """
    try:
        header_bytes = int.from_bytes(content[:8].tobytes(), "little")
        _require_small(header_bytes, path)
        data = torch.from_numpy(content[8 + header_bytes :])
        header = json.loads(content[8 : 8 + header_bytes].tobytes().decode(), **_STRICT)
        header.pop("__metadata__", None)
        return dict(_tensors(header, data))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _not_safetensors(path, error) from None


def _tensors(header: dict[str, Any], data: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor after checking that they are contiguous and fill the file.

    Raises:
        ValueError, TypeError, KeyError: they are not, or the header is invalid.
    """
    place = 0
    for name, facts in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _TYPES[facts["dtype"]], facts["shape"]
        begin, end = facts["data_offsets"]
        if len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"{name} has another shape")
        if begin != place or end - begin != math.prod(shape) * dtype.itemsize or end > len(data):
            raise ValueError(f"{name} is not at its place in the file")
        part = data[begin:end]
        # An empty tensor has address 0, yet `view(dtype)` requires an aligned storage offset too.
        if part.data_ptr() % dtype.itemsize or part.storage_offset() % dtype.itemsize:
            part = part.clone()
        yield name, part.view(dtype).view(shape)
        place = end
    if place != len(data):
        raise ValueError("the file holds more than its tensors")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object whose keys are unique."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


_STRICT: dict[str, Any] = {"object_pairs_hook": _unique_keys}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file without a manifest, on the CPU.

    Raises:
        CheckpointError: it is not a safetensors file, or does not exist.
        UnreadableError: it cannot be read now.
    """
    try:
        require_small_header(path)
        with open_plain(path) as file:
            content = np.fromfile(file, np.uint8)
    except FileNotFoundError as error:
        raise _not_safetensors(path, error) from None
    return tensors_in(content, path)


def open_tensors(path: Path) -> Any:
    """Open a safetensors file to read parts of it; close it with a `with` block.

    Raises:
        CheckpointError: it is not a safetensors file.
        UnreadableError: it cannot be read now.
    """
    try:
        require_small_header(path)
        return safe_open(path, framework="pt")
    except (FileNotFoundError, SafetensorError, ValueError) as error:
        raise _not_safetensors(path, error) from None
    except OSError as error:
        raise UnreadableError(path, error) from None


def require_small_header(path: Path) -> None:
    """Check that the header of a safetensors file is not longer than any model's.

    Raises:
        CheckpointError: it claims to be longer.
        FileNotFoundError, UnreadableError: the file cannot be read.
    """
    with open_plain(path) as file:
        _require_small(int.from_bytes(file.read(8), "little"), path)


def _require_small(header_bytes: int, path: Path) -> None:
    if header_bytes > _MAX_HEADER:
        raise CheckpointError(f"{path}: its header claims {header_bytes:,} bytes; not read")


def _not_safetensors(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: cannot be read as safetensors ({error})")


def _chunks(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    # Widest types first, as in the library, so that every tensor is aligned.
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
