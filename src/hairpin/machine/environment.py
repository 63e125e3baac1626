"""Environment of a run: versions, hardware, threads, git commit, command line."""

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from hairpin.errors import shown_command

_PACKAGES = ("hairpin", "torch", "numpy", "tokenizers", "tiktoken", "safetensors")

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_CHARACTERS = 4096


def describe_environment(
    device: str, processes: int = 1, threads: int | None = None
) -> dict[str, Any]:
    """Return facts about this process and machine, as plain JSON values.

    Args:
        device: the device of the computation.
        processes: number that train.
        threads: compute threads in each; None: all that this process has.
    """
    return {
        "command": shown_command(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": device,
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": threads or torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "git_commit": _git_commit(),
        "working_folder": os.getcwd(),  # noqa: PTH109 - a plain string is what is stored
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a user's path
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def _git_commit() -> str | None:
    """Return the commit of the folder that hairpin was started in, if it is a checkout.

    It is read from git's files, since git itself runs programs named in a checkout's settings.
    """
    try:
        here = Path.cwd()
        found = next(f / ".git" for f in (here, *here.parents) if (f / ".git").exists())
        if found.is_file():  # of a worktree or a submodule
            found = found.parent / _start_of(found).removeprefix("gitdir:").strip()
        head = _start_of(found / "HEAD")
        if head.startswith("ref:"):
            head = _commit_of(found, head.removeprefix("ref:").strip())
    except (OSError, UnicodeError, ValueError, StopIteration):
        return None
    return head if _COMMIT.fullmatch(head) else None


def _commit_of(folder: Path, ref: str) -> str:
    """Return the commit of a branch, from its own file or from packed-refs."""
    common = folder / "commondir"
    folders = [folder, folder / _start_of(common)] if common.is_file() else [folder]
    for each in folders:
        if (each / ref).is_file():
            return _start_of(each / ref)
    lines = (folders[-1] / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next(line.split()[0] for line in lines if line.split()[1:] == [ref])


def _start_of(file: Path) -> str:
    if not file.is_file():  # reading a pipe would block
        raise FileNotFoundError(file)
    with file.open(encoding="utf-8") as content:
        return content.read(_MAX_CHARACTERS).strip()
