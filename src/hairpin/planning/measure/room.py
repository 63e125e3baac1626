"""Room: the memory that this machine has for a run, and the check that a model fits in it."""

import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from hairpin.config.settings import Config
from hairpin.distributed.launch import world_size
from hairpin.errors import ConfigError
from hairpin.model.shape import Shape
from hairpin.planning.choose import CPU_GIGABYTES, GPU_MEMORY_SHARE
from hairpin.planning.memory import least_bytes, weight_bytes

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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


def usable_gigabytes(device: str) -> float:
    """Return the memory that a run may take (10^9 bytes): most of a GPU's free memory; elsewhere
    3, as the machine is used for other things.
    """
    if device != "cuda":
        return CPU_GIGABYTES
    torch.cuda.empty_cache()  # memory left by a run before this one
    free_bytes, _ = torch.cuda.mem_get_info()
    return max(0.1, round(GPU_MEMORY_SHARE * free_bytes / 1e9, 1))


def require_room(config: Config, shape: Shape) -> None:
    """Check, from the sizes alone, that weights, gradients and moments can fit in this machine.

    Args:
        config: with a device.
        shape: of the model; sizes alone do not give a plugin's.

    Raises:
        ConfigError: they cannot, even if all other memory is freed.
    """
    if not shape.is_built_in:
        return
    needed = least_bytes(shape, config.optimizer.kind)
    if config.finetune.layers is not None:  # frozen blocks have neither gradients nor moments
        needed = weight_bytes(shape)
    if config.execution.parallel == "fsdp":
        needed //= world_size()
    there = installed_bytes(config.execution.device)
    if needed > there:
        raise ConfigError(
            f"model: {shape.layers} layers of width {shape.width} need at least "
            f"{needed / 1e9:,.1f} GB for weights, gradients and moments, but this machine has "
            f"{there / 1e9:,.1f} GB; {smaller(config, ', model.layers or model.width')}"
        )


def smaller(config: Config, keys: str) -> str:
    """Return advice on how the model can be made smaller.

    Args:
        config: of the run, whose start may decide its shape.
        keys: settings besides --size that shrink a model with random weights, in words.
    """
    if config.start.path is None:
        return f"use a smaller --size{keys}"
    fewer = ", or train fewer blocks with finetune.layers" if config.finetune.kind else ""
    return f"start from a smaller model{fewer}"
