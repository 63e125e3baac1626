"""Files and folders written atomically, and never through a link.

A folder from someone else may contain links to anything. A rename replaces a link, not its target;
opening for writing and removing never follow a link.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

_BLOCK_BYTES = 1 << 20
SPARE_SPACE = 1.2  # room that there has to be for what is going to be written, as a multiple of it
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
IS_WINDOWS = os.name == "nt"
_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
# What Windows takes for a device, whatever follows after a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears completely or not at all, even after a power cut.

    Raises:
        OSError: the folder cannot be created, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with _new_file(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _new_file(path: Path) -> IO[bytes]:
    """Open a new file; replace one of this name that a killed process left."""
    try:
        return path.open("xb")
    except FileExistsError:
        remove(path)
        return path.open("xb")


def size_words(count: float) -> str:
    """Format a number of bytes in decimal units: "950 bytes", "12.4 MB"."""
    for unit, name in _SIZES:
        if abs(count) >= 0.9995 * unit:
            scaled = count / unit
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            text = f"{scaled:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {name}"
    return f"{count:,.0f} bytes"


def bytes_in(*folders: Path) -> int:
    """Return the total size of the files below some folders; hard links count once."""
    found: dict[tuple[int, int], int] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):  # another process removes it
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def is_link(path: Path) -> bool:
    """Return True if the path itself is a symbolic link, or a junction on Windows."""
    try:
        facts = path.lstat()
    except (OSError, ValueError):
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    tag = getattr(facts, "st_reparse_tag", 0)
    return stat.S_ISLNK(facts.st_mode) or (bool(tag) and tag == junction)


def open_own(path: Path, mode: str) -> IO[bytes]:
    """Open a file for writing, like `open`, but never through a link.

    Raises:
        OSError: it is a link, or cannot be opened.
    """
    file: IO[bytes] = open(path, mode, opener=open_unlinked)  # noqa: SIM115
    return file


def open_unlinked(path: str | Path, flags: int) -> int:
    """Open a descriptor, like `os.open`, of a file that is not a link."""
    if IS_WINDOWS and is_link(Path(path)):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def remove(path: Path, *, may_stay: bool = False) -> None:
    """Remove a file, a folder with its content, or a link without its target.

    Args:
        path: need not exist.
        may_stay: leave what cannot be removed, instead of raising an error.
    """
    with contextlib.suppress(*([OSError] if may_stay else [])):
        if is_link(path) or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=may_stay)


def make_folders(path: Path) -> tuple[Path, ...]:
    """Create a folder and its parents, also at the target of a link; return the new ones, deepest
    first, for `unmake`.

    Raises:
        OSError: it cannot be created; then none is.
    """
    place = Path(os.path.realpath(path))
    made: list[Path] = []
    try:
        for folder in reversed((place, *place.parents)):
            if folder.is_dir():
                continue
            try:
                folder.mkdir()
                made.insert(0, folder)
            except FileExistsError:
                if not folder.is_dir():  # else another process was quicker
                    raise
    except BaseException:
        unmake(made)
        raise
    return tuple(made)


def unmake(made: Iterable[Path]) -> None:
    """Remove those of the folders that are empty; the content of others stays."""
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file at `target`.

    Windows refuses this while a program, such as a virus scanner, has one of the two open, or a
    file in the folder. There it is retried for a second and a half.

    Raises:
        OSError: it cannot be done.
    """
    for pause in _PAUSES_SECONDS if IS_WINDOWS else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    source.replace(target)


def not_a_device(name: str) -> str:
    """Return a name that is not a device on Windows, as `nul.txt` is."""
    return f"_{name}" if _DEVICES.match(name) else name


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill inside the block; it appears at `path` completely or not at all.

    The caller makes its files durable. A folder left incomplete by a crash is replaced.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    made = make_folders(path.parent)
    try:
        remove(temporary)
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        move(temporary, path)
    except BaseException:
        remove(temporary, may_stay=True)
        unmake(made)
        raise
    sync_folder(path.parent)


def private_folder(path: Path) -> None:
    """Create a folder that only its owner can enter, or check that no other user can write to it.

    Raises:
        PermissionError: others can, or another user owns it, so its content cannot be trusted.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if IS_WINDOWS:  # permissions are another matter there; a user's folder is the user's
        return
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user; remove it")
    if facts.st_mode & 0o022:
        raise PermissionError(f"other users can write to {path}; remove it, or `chmod 700` it")


def write_json(path: Path, value: Any) -> None:
    """Replace the file's content with readable strict JSON in one durable step."""
    write_atomically(path, as_json(value).encode())


def as_json(value: Any) -> str:
    """Return readable strict JSON that ends with a line break."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, if the system can."""
    if IS_WINDOWS:  # Windows has no handle on a folder to flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the file's content durable."""
    with open_own(path, "rb+") as file:
        os.fsync(file.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """Give the file a second name, or make a durable copy if there are no hard links.

    Raises:
        OSError: the target is there, or cannot be written.
    """
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        sync_file(target)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder of the user's cache, whose contents can all be made again: `HAIRPIN_CACHE`
    if it is set, else this platform's own.
    """
    import platformdirs

    return Path(os.environ.get("HAIRPIN_CACHE") or platformdirs.user_cache_dir("hairpin"))


def shown(path: Path | str) -> str:
    """Format a path for one line of a message: control characters and stray bytes are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(path)
    )
