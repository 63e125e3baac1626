"""Memory: the amount installed, and errors when it runs out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from hairpin.config.settings import Config
from hairpin.errors import HairpinError
from hairpin.system.shell import command

# Allocators other than CUDA's have no class of their own for it.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux, macOS
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
)
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error means that a device, or the host, is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def installed_bytes(device: str) -> int:
    """Return all the memory that a process could ever have here: a card's, or the machine's with
    its swap, as far as a container or `ulimit -v` allows.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    limits = [psutil.virtual_memory().total]
    with suppress(OSError, RuntimeError):  # some sandboxes hide it
        limits[0] += psutil.swap_memory().total
    for path in map(Path, _CGROUP_LIMITS):
        try:
            limits.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return int(min(limits))


def smaller(config: Config, keys: str) -> str:
    """Return advice on how the model can be made smaller.

    Args:
        config: of the run, whose start may decide its shape.
        keys: settings besides --size that shrink a model with random weights, in words.
    """
    if config.start.path is None:
        return f"take a smaller --size{keys}"
    fewer = ", or train fewer blocks with finetune.layers" if config.finetune.kind else ""
    return f"start from a smaller model{fewer}"


@contextmanager
def noticing_shortage(run: Path) -> Iterator[None]:
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
            f"{run}: out of memory; what was saved is whole: let other programs go, or halve "
            f"execution.micro_batch in {run / 'config.toml'}, then `{command('resume', run)}`"
        ) from error
