"""Reading of files listed in a manifest: each byte is hashed as it is read, so the bytes used are
those that were written, whatever happens to the file afterwards.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hairpin.errors import CheckpointError
from hairpin.system.access import open_plain

Bytes = NDArray[np.uint8]
_BLOCK_BYTES = 1 << 22


def read_verified(path: Path, facts: Any) -> Bytes:
    """Return the content of a file after verifying its size and hash.

    Args:
        path: the file; not a link.
        facts: the manifest's entry, with size and SHA-256.

    Raises:
        CheckpointError: it is missing, or has another size or hash.
        UnreadableError: it cannot be read now.
    """
    return _read(path, facts, keep=True)


def verify_file(path: Path, facts: Any) -> None:
    """Verify a file's size and hash without keeping its content.

    Raises:
        CheckpointError, UnreadableError: as in `read_verified`.
    """
    _read(path, facts, keep=False)


def damage_error(path: Path) -> CheckpointError:
    """Return the error for a file that was changed after it was written."""
    return CheckpointError(f"{path}: its bytes differ from those that were written")


def _read(path: Path, facts: Any, *, keep: bool) -> Bytes:
    size = facts.get("size") if isinstance(facts, dict) else None
    digest, at = hashlib.sha256(), 0
    try:
        with open_plain(path) as file:
            # Allocate only after the file is known to have the claimed size.
            if type(size) is not int or os.fstat(file.fileno()).st_size != size:
                raise damage_error(path)
            content = np.empty(size if keep else min(size, _BLOCK_BYTES), np.uint8)
            while at < size:
                begin = at if keep else 0
                block = content[begin : begin + min(_BLOCK_BYTES, size - at)].data
                count = file.readinto(block)  # type: ignore[attr-defined]
                if not count:
                    raise damage_error(path)
                digest.update(block[:count])
                at += count
    except (FileNotFoundError, ValueError):  # ValueError: the name contains a NUL
        raise damage_error(path) from None
    if digest.hexdigest() != facts.get("sha256"):
        raise damage_error(path)
    return content
