"""The machine without its devices: versions, cores, folders, terminal, extras. Never imports
torch.
"""

import errno
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from hairpin.doctor.findings import Finding
from hairpin.errors import HairpinError, one_line
from hairpin.runs.lock import RunLock
from hairpin.system.files import cache_folder, private_folder, shown, sync_file, sync_folder
from hairpin.system.version import __version__

MIN_PYTHON = (3, 11)
_LITTLE_DISK_BYTES = 2e9
_LITTLE_MEMORY_BYTES = 2e9

# Extra → the module it provides, and the packages that contain that module.
EXTRAS = {
    "parquet": ("pyarrow", ("pyarrow",)),
    "datasets": ("datasets", ("datasets",)),
    "tensorboard": ("tensorboard", ("tensorboard",)),
    "wandb": ("wandb", ("wandb",)),
    "mlflow": ("mlflow", ("mlflow-skinny", "mlflow")),
    "gguf": ("gguf", ("gguf",)),
}


def check_versions() -> Iterator[Finding]:
    """Yield the versions of Python, the system and hairpin."""
    python = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        least = ".".join(map(str, MIN_PYTHON))
        yield Finding("Python", "problem", f"{python} is too old: install {least} or later")
    else:
        yield Finding("Python", "ok", f"{python}, {platform.platform()}")
    yield Finding("hairpin", "ok", __version__)


def check_size() -> Iterator[Finding]:
    """Yield the number of cores and the amount of memory."""
    cores, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    yield Finding("processor", "ok", f"{cores or '?'} cores, {ours or '?'} threads for hairpin")
    memory = psutil.virtual_memory()
    text = f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB available"
    if memory.available < _LITTLE_MEMORY_BYTES:
        text += "; close other programs, or use a small --size"
        yield Finding("memory", "note", text)
    else:
        yield Finding("memory", "ok", text)


def check_working_folder(folder: Path) -> Iterator[Finding]:
    """Check free space, the lock, hard links and durable writing where runs will be.

    Args:
        folder: test files are written there and removed.
    """
    yield _free_space("working folder", folder, "make space, or name another disk with --out")
    try:
        with _writable_space(folder) as tried:
            yield _lock(tried)
            yield _hard_links(tried)
            yield _durable(tried)
    except OSError as error:
        remedy = "name a writable folder with --out"
        text = f"{shown(folder)}: cannot be written ({_reason(error)}); {remedy}"
        yield Finding("working folder", "problem", text)


def check_cache() -> Iterator[Finding]:
    """Check that the cache can be written, and only by its owner."""
    folder = cache_folder()
    remedy = "set HAIRPIN_CACHE to a writable folder with free space"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _writable_space(folder) as tried:
            (tried / "content").write_bytes(bytes(1 << 20))
            sync_file(tried / "content")
    except OSError as error:
        text = f"{shown(folder)}: cannot be written ({_reason(error)}); {remedy}"
        yield Finding("cache", "problem", text)
        return
    yield _free_space(
        "cache", folder, "make space, or set HAIRPIN_CACHE to a folder on another disk"
    )
    try:
        private_folder(folder)
    except OSError as error:
        yield Finding("cache is private", "note", one_line(str(error)))
    else:
        yield Finding("cache is private", "ok", "no other user can write there")


def check_terminal() -> Iterator[Finding]:
    """Check that text of every language can be printed and used in file names."""
    encodings = {
        "output": getattr(sys.stdout, "encoding", None) or "unknown",
        "file names": sys.getfilesystemencoding(),
    }
    others = [f"{what} {name}" for what, name in encodings.items() if not _is_utf8(name)]
    if others:
        text = f"{', '.join(others)}: not UTF-8, so other characters are escaped; "
        yield Finding("UTF-8", "note", text + "set PYTHONUTF8=1, and LANG=C.UTF-8 on Linux")
    else:
        yield Finding("UTF-8", "ok", "output and file names")


def check_extras() -> Iterator[Finding]:
    """Yield the optional packages that hairpin can use, without importing any."""
    for extra, (module, packages) in EXTRAS.items():
        there = find_spec(module) is not None
        found = next(filter(None, map(_version_of, packages)), "installed") if there else None
        text = found or f"not installed: pip install 'hairpin[{extra}]'"
        yield Finding(f"extra {extra}", "ok" if found else "note", text)


def _free_space(what: str, folder: Path, remedy: str) -> Finding:
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(what, "problem", f"{shown(folder)}: {_reason(error)}; {remedy}")
    text = f"{shown(folder)}: {free_bytes / 1e9:.1f} GB free"
    if free_bytes < _LITTLE_DISK_BYTES:
        return Finding(what, "note", f"{text}; {remedy}")
    return Finding(what, "ok", text)


@contextmanager
def _writable_space(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix=".hairpin-doctor-", dir=folder, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _lock(folder: Path) -> Finding:
    try:
        with RunLock(folder) as lock:
            is_systems = lock.note is None
    except HairpinError as error:
        return Finding("lock", "problem", str(error))
    except OSError as error:
        return Finding("lock", "problem", f"a run cannot be locked here ({_reason(error)})")
    if is_systems:
        return Finding("lock", "ok", "flock: released when its process ends")
    text = (
        "no flock, so a file is used instead: after a machine dies, delete its .lock.held by hand"
    )
    return Finding("lock", "note", text)


def _hard_links(folder: Path) -> Finding:
    (folder / "one").write_bytes(b"content")
    try:
        (folder / "two").hardlink_to(folder / "one")
    except OSError as error:
        text = f"none here ({_reason(error)}); the best weights are a copy and take extra space"
        return Finding("hard links", "note", text)
    return Finding("hard links", "ok", "the best weights take no extra space")


def _durable(folder: Path) -> Finding:
    try:
        (folder / "durable").write_bytes(b"content")
        sync_file(folder / "durable")
        sync_folder(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"fsync fails here ({_reason(error)}); put runs on another disk with --out"
        return Finding("durable writing", "problem", text)
    if os.name == "nt":
        text = "of files; Windows does not guarantee durable names"
        return Finding("durable writing", "note", text)
    return Finding("durable writing", "ok", "fsync of files and folders")


def _reason(error: OSError) -> str:
    return one_line(error.strerror or str(error))


def _is_utf8(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig")


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
