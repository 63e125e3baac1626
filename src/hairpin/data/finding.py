"""Where text is: files and folders, patterns, and what each file holds."""

import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hairpin.config.data import GLOB_CHARACTERS, Data, Format
from hairpin.data.arrow import is_saved_dataset, split_folder
from hairpin.data.cache import shown
from hairpin.data.json_tables import begins_like_rows
from hairpin.data.kinds import format_of
from hairpin.data.reading import byte_blocks
from hairpin.data.token_files import ADVICE, made_by
from hairpin.errors import CorpusError

_SNIFFED_BYTES = 8192
_BINARY_SUFFIXES = frozenset(
    f".{name}"
    for group in (
        "7z bz2 deb dmg egg iso jar rar rpm tar tgz whl xz zip",  # archives
        "aac avi flac m4a mkv mov mp3 mp4 ogg wav webm",  # sound and film
        "bmp gif heic ico jpeg jpg png psd tif tiff webp",  # pictures
        "doc docx epub odt pdf ppt pptx xls xlsx",  # documents of other programs
        "a bin class dll dylib exe lib o obj pyc pyd pyo so wasm",  # programs
        "arrow db feather h5 npy npz pickle pkl sqlite sqlite3",  # data
        "ckpt gguf onnx pt pth safetensors",  # models
        "eot otf ttf woff woff2",  # fonts
    )
    for name in group.split()
)


@dataclass(frozen=True)
class Source:
    """Where one file's text comes from: a file on disk, a folder that is one dataset, or a text
    that Python holds.

    Args:
        name: for messages.
        path, text: the one or the other.
        format: what the file holds.
        data: how it is read, where that is not as the corpus says.
    """

    name: str
    path: Path | None = None
    text: str | None = None
    format: Format = "text"
    data: Data | None = None

    def files(self) -> list[Path]:
        """The files that decide what the text is."""
        if self.path is None:
            return []
        if self.format != "dataset":
            return [self.path]
        return sorted(path for path in split_folder(self.path).rglob("*") if path.is_file())


class Search:
    """Finds files of text below the named paths; collects every problem before it stops.

    Args:
        asked: what all files hold; None: what each one's name says.
    """

    def __init__(self, asked: Format | None = None) -> None:
        self._asked = asked
        self.sources: list[Source] = []
        self.problems: list[str] = []
        self.binary = 0
        self._taken: set[Path] = set()

    def add(self, path: Path) -> None:
        """Take a file, what is in a folder, or what a pattern matches."""
        if GLOB_CHARACTERS & set(str(path)) and not _exists(path):
            self._add_matches(path)
            return
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self._add_folder(path)
            elif stat.S_ISREG(mode):
                with path.open("rb") as file:
                    ids = made_by(path.suffix, file.read(_SNIFFED_BYTES))
                if ids:
                    self.problems.append(f"{shown(path)}: is {ids}: {ADVICE}")
                else:
                    self._take(path, self._asked or format_of(path))
            else:
                self.problems.append(
                    f"{shown(path)}: is neither a file nor a folder; "
                    "write its text to a file, and name that"
                )
        except FileNotFoundError:
            self.problems.append(_no_such(path))
        except (OSError, ValueError) as error:
            self._refuse(path, error)

    def _add_matches(self, pattern: Path) -> None:
        before = len(self.problems) + len(self._taken) + self.binary
        found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - pathlib's shows hidden files
        for match in sorted(map(Path, found), key=Path.as_posix):
            if not match.is_dir():
                self._take_found(match, is_named=True)
            elif "**" not in pattern.parts:
                self._add_folder(match)
        if len(self.problems) + len(self._taken) + self.binary == before:
            self.problems.append(
                f"{shown(pattern)}: no file matches this pattern; check it (** stands for any "
                "folders)"
            )

    def _add_folder(self, root: Path) -> None:
        if self._asked in (None, "dataset") and is_saved_dataset(root):
            self._take(root, "dataset")
            return
        before, problems_before = len(self.sources), len(self.problems)
        binary_before = self.binary
        already_taken = len(self._taken)
        files = self._walk(root)
        for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
            self._take_found(path, is_named=False)
        # A folder whose files were all named before adds nothing, and that is no mistake.
        nothing_new = len(self.sources) == before and not (already_taken and files)
        if nothing_new and len(self.problems) == problems_before:
            count = self.binary - binary_before
            skipped = f" ({count} files are not text)" if count else ""
            self.problems.append(
                f"{shown(root)}: no text files in this folder{skipped}; "
                "name a folder with text, or the files themselves"
            )

    def _take_found(self, path: Path, *, is_named: bool) -> None:
        """Take a file that was found, if it is text or a table."""
        try:
            if path.is_dir():
                self._take(path, "dataset")
                return
            if not path.is_file():
                return
            format_ = self._asked if self._asked == "text" else format_of(path)
            if format_ == "json" and not (is_named or self._asked or begins_like_rows(path)):
                format_ = "text"
            if self._asked not in (None, format_):
                return
            if format_ == "text" and (
                path.suffix.lower() in _BINARY_SUFFIXES or _looks_binary(path)
            ):
                self.binary += 1
            else:
                self._take(path, format_)
        except OSError as error:
            self._refuse(path, error)

    def _walk(self, root: Path) -> list[Path]:
        files: list[Path] = []
        seen: set[tuple[int, int]] = set()
        walk = os.walk(root, followlinks=True, onerror=lambda error: self._refuse(root, error))
        for folder, subfolders, names in walk:
            status = Path(folder).stat()
            # A link to a folder above would otherwise be walked without end.
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            saved = [name for name in subfolders if is_saved_dataset(Path(folder, name))]
            if self._asked in (None, "dataset"):
                files += [Path(folder, name) for name in saved]
                subfolders[:] = [name for name in subfolders if name not in saved]
            files += [Path(folder, name) for name in names if not name.startswith(".")]
        return files

    def _take(self, path: Path, format_: Format) -> None:
        absolute = path.absolute()
        if absolute not in self._taken:
            self._taken.add(absolute)
            self.sources.append(Source(shown(path), absolute, format=format_))

    def _refuse(self, path: Path, error: Exception) -> None:
        where = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or error
        self.problems.append(
            f"{shown(os.fsdecode(where))}: cannot be read ({reason}); "
            "check its permissions, or leave it out"
        )


def require_there(data: Data) -> None:
    """Check that the files and folders that settings name are there; nothing is read.

    Raises:
        CorpusError: a line for each that is not.
    """
    parts = [part for _, part in data.parts()] or [data]
    named = [Path(text) for part in parts for text in part.texts]
    missing = [
        _no_such(path)
        for path in dict.fromkeys(named)
        if not GLOB_CHARACTERS & set(str(path)) and not os.path.lexists(path)
    ]
    if missing:
        raise CorpusError(missing)


def _no_such(path: Path) -> str:
    return f"{shown(path)}: no such file or folder; check the path"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _looks_binary(path: Path) -> bool:
    """Whether the (decompressed) opening holds a NUL byte; damaged files are left to the reader."""
    opening = b""
    try:
        for block in byte_blocks(path):
            opening += block
            if len(opening) >= _SNIFFED_BYTES:
                break
    except CorpusError:
        with path.open("rb"):
            return False
    return b"\0" in opening[:_SNIFFED_BYTES]
