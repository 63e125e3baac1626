"""Writing so that a crash leaves the old or the new, never half of one; and through no link.

A folder may come from elsewhere, with links in it to anything. What is renamed takes a link's place
and leaves what it led to; what is opened to be written, or removed, is never what a link leads to.
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
    """Write a file that others see whole or not at all, also after a power cut.

    Raises:
        OSError: the folder cannot be made, or the disk is full; nothing is left behind.
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
    """Open a file that is new; one of the name that a killed process left is replaced."""
    try:
        return path.open("xb")
    except FileExistsError:
        remove(path)
        return path.open("xb")


def size_words(count: float) -> str:
    """Write a number of bytes in decimal units: "950 bytes", "12.4 MB"."""
    for unit, name in _SIZES:
        if abs(count) >= 0.9995 * unit:
            scaled = count / unit
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            text = f"{scaled:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {name}"
    return f"{count:,.0f} bytes"


def bytes_in(*folders: Path) -> int:
    """Add up the sizes of the files in folders and below; a file with several names counts once."""
    found: dict[tuple[int, int], int] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):  # another process removes it
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def is_link(path: Path) -> bool:
    """Tell whether a path is a link itself: a symbolic one, or a junction of Windows."""
    try:
        facts = path.lstat()
    except (OSError, ValueError):
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    tag = getattr(facts, "st_reparse_tag", 0)
    return stat.S_ISLNK(facts.st_mode) or (bool(tag) and tag == junction)


def open_own(path: Path, mode: str) -> IO[bytes]:
    """Open a file to be written, as `open` does, but never one that a link leads to.

    Raises:
        OSError: it is a link, or cannot be opened.
    """
    file: IO[bytes] = open(path, mode, opener=open_unlinked)  # noqa: SIM115
    return file


def open_unlinked(path: str | Path, flags: int) -> int:
    """Open a descriptor as `os.open` does, of a file that is no link."""
    if IS_WINDOWS and is_link(Path(path)):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def remove(path: Path, *, may_stay: bool = False) -> None:
    """Remove a file, a folder with all that is in it, or a link, which leaves what it leads to.

    Args:
        path: need not be there.
        may_stay: whether what cannot be removed is left; else that is an error.
    """
    with contextlib.suppress(*([OSError] if may_stay else [])):
        if is_link(path) or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=may_stay)


def make_folders(path: Path) -> tuple[Path, ...]:
    """Make a folder and those above it, also where a link leads to none; returns those that were
    not there, the deepest first, for `unmake`.

    Raises:
        OSError: it cannot be made; then none is.
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
    """Remove folders again as far as they are empty: what others put there stays."""
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def move(source: Path, target: Path) -> None:
    """Rename; a file that is at `target` is replaced.

    Windows refuses that while anybody has one of the two open, or something in a folder: a reader,
    or a virus scanner for a moment. There it is tried again for a second and a half.

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
    """A name for a file or folder that means one on Windows too, where `nul.txt` is a device."""
    return f"_{name}" if _DEVICES.match(name) else name


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled inside the block, which others see at `path` whole or not at all.

    Whoever fills it makes its files durable. One that a crash left unfinished is replaced.
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
    """Make a folder that only its owner can enter, or see that nobody else can write in it.

    Raises:
        PermissionError: others can, or it is somebody else's; what is in it may not be trusted.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if IS_WINDOWS:  # permissions are another matter there; a user's folder is the user's
        return
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else; remove it")
    if facts.st_mode & 0o022:
        raise PermissionError(f"others can write in {path}; remove it, or `chmod 700` it")


def write_json(path: Path, value: Any) -> None:
    """Replace the file's content with readable strict JSON in one durable step."""
    write_atomically(path, as_json(value).encode())


def as_json(value: Any) -> str:
    """Readable strict JSON, with a line break at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, where the system can."""
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
    """The file under a second name; a durable copy where the file system has no hard links.

    Raises:
        OSError: the target is there, or cannot be written.
    """
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        sync_file(target)


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
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
