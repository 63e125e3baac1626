"""What ran a run: versions, hardware, threads, git commit, command line."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

_PACKAGES = ("hairpin", "torch", "numpy", "tokenizers", "tiktoken", "safetensors")


def describe_environment(device: str, processes: int = 1) -> dict[str, Any]:
    """Facts about this process and machine, as plain JSON values; `processes`: how many train."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": device,
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
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
    """The commit of the folder that hairpin was started in, if it is a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
