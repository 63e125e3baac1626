"""Errors when memory runs out, as the backends raise them and as a user reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hairpin.errors import HairpinError
from hairpin.system.shell import command

# Allocators other than CUDA's have no class of their own for it.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux, macOS
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error means that a device, or the host, is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def reporting_out_of_memory(run: Path) -> Iterator[None]:
    """Turn a lack of memory inside the block into a one-line error about the run at `run`.

    Raises:
        HairpinError: memory ran out. Saved files are intact.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HairpinError(
            f"{run}: out of memory; saved checkpoints are intact: close other programs, or halve "
            f"execution.micro_batch in {run / 'config.toml'}, then `{command('resume', run)}`"
        ) from error
