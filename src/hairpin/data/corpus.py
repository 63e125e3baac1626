"""Files -> documents, streamed: nobody ever holds a whole file.

open_corpus(settings) -> Corpus      finds the files; reads nothing but openings
Corpus.documents()    -> Document    one after the other, each an iterator of pieces
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hairpin.config.data import Data
from hairpin.data import embedded
from hairpin.data.cache import shown
from hairpin.data.pieces import recut
from hairpin.data.reading import TextReader, byte_blocks
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
        "arrow db feather h5 npy npz parquet pickle pkl sqlite sqlite3",  # data
        "ckpt gguf onnx pt pth safetensors",  # models
        "eot otf ttf woff woff2",  # fonts
    )
    for name in group.split()
)


class Document:
    """One text, read once: `name` says in messages where it comes from."""

    def __init__(self, name: str, blocks: Iterable[str]) -> None:
        self.name = name
        self._pieces = recut(blocks)

    def pieces(self) -> Iterator[str]:
        """The text in pieces of about 256 Ki characters, cut where tokens cannot differ."""
        return self._pieces


@dataclass(frozen=True)
class Source:
    """Where one file's text comes from: a file on disk, or a text that Python holds."""

    name: str
    path: Path | None = None
    text: str | None = None


@dataclass
class Corpus:
    """The files of a run, in a fixed order.

    Attributes:
        name: a short word for it (the corpus, the file or the first of several).
        skipped: files left out because they are not text; known in full after a pass.
        replaced: U+FFFD characters put in the place of bad bytes, in the last pass.
    """

    name: str
    sources: list[Source]
    data: Data
    binary: int = 0
    undecodable: int = field(default=0, init=False)
    replaced: int = field(default=0, init=False)

    @property
    def skipped(self) -> int:
        return self.binary + self.undecodable

    def documents(self) -> Iterator[Document]:
        """Every document; asking for the next one reads what is left of the one before.

        Raises:
            CorpusError: while reading, a file is found to be unreadable, damaged or not UTF-8.
        """
        self.undecodable = self.replaced = 0
        separator = self.data.separator
        for source in self.sources:
            blocks = self._blocks(source)
            streams = [blocks] if separator is None else split_stream(blocks, separator)
            for number, stream in enumerate(streams, 1):
                name = source.name if separator is None else f"{source.name} (document {number})"
                # An empty document is none; the first block shows which it is.
                first = next(stream, None)
                if first is not None:
                    document = Document(name, _chain(first, stream))
                    yield document
                    for _ in document.pieces():
                        pass

    def _blocks(self, source: Source) -> Iterator[str]:
        if source.path is None:
            yield source.text or ""
        elif self.data.corpus == "stdlib":
            text = embedded.source_text(source.path)
            if text is None:
                self.undecodable += 1
            elif text:
                yield text
        else:
            reader = TextReader(source.path, self.data.on_bad_bytes)
            before = self.replaced
            for block in reader.blocks():
                self.replaced = before + reader.replaced
                yield block
            self.replaced = before + reader.replaced


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def split_stream(blocks: Iterable[str], separator: str) -> Iterator[Iterator[str]]:
    """`text.split(separator)` on a stream: iterators of non-empty blocks, one for each part.

    A part is to be used up before the next one is asked for; what is left of it is dropped.
    """
    source = iter(blocks)
    text, position, ended = "", 0, False

    def part() -> Iterator[str]:
        nonlocal text, position, ended
        keep = len(separator) - 1  # that many characters may be the beginning of a separator
        while True:
            found = text.find(separator, position)
            end = found if found >= 0 else max(len(text) - keep, position)
            if end > position:
                yield text[position:end]
            position = end
            if found >= 0:
                position = found + len(separator)
                return
            block = next(source, None)
            if block is None:
                if position < len(text):
                    yield text[position:]
                ended = True
                return
            text, position = text[position:] + block, 0

    while not ended:
        current = part()
        yield current
        for _ in current:
            pass


def open_corpus(data: Data) -> Corpus:
    """The corpus that the settings name: `data.corpus`, or the files and folders of `data.texts`.

    Raises:
        CorpusError: a line for each path that is missing, unreadable or holds no text.
    """
    if data.corpus == "stdlib":
        found = embedded.standard_library()
        return Corpus("stdlib", [Source(name, path) for name, path in found], data)
    if data.corpus == "python-docs":
        topics = embedded.python_docs()
        return Corpus("python-docs", [Source(name, text=text) for name, text in topics], data)
    if data.corpus == "verdict":
        path = embedded.verdict()
        return Corpus("verdict", [Source(path.name, path)], data)
    if not data.texts:
        raise CorpusError("no text is named; name a file or a folder, or type --corpus stdlib")
    search = _Search()
    for text in data.texts:
        search.add(Path(text))
    if search.problems:
        raise CorpusError(search.problems)
    return Corpus(Path(data.texts[0]).stem or "text", search.sources, data, search.binary)


class _Search:
    """Finds text files below the named paths; collects every problem before it stops."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.problems: list[str] = []
        self.binary = 0
        self._taken: set[Path] = set()

    def add(self, path: Path) -> None:
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self._add_folder(path)
            elif stat.S_ISREG(mode):
                with path.open("rb"):
                    self._take(path)
            else:
                self.problems.append(
                    f"{shown(path)}: is neither a file nor a folder; "
                    "write its text to a file, and name that"
                )
        except FileNotFoundError:
            self.problems.append(f"{shown(path)}: no such file or folder; check the path")
        except (OSError, ValueError) as error:
            self._refuse(path, error)

    def _add_folder(self, root: Path) -> None:
        before, problems_before = len(self.sources), len(self.problems)
        binary_before = self.binary
        already_taken = len(self._taken)
        files = self._walk(root)
        for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
            try:
                if not path.is_file():
                    continue
                if path.suffix.lower() in _BINARY_SUFFIXES or _looks_binary(path):
                    self.binary += 1
                else:
                    self._take(path)
            except OSError as error:
                self._refuse(path, error)
        # A folder whose files were all named before adds nothing, and that is no mistake.
        nothing_new = len(self.sources) == before and not (already_taken and files)
        if nothing_new and len(self.problems) == problems_before:
            count = self.binary - binary_before
            skipped = f" ({count} files are not text)" if count else ""
            self.problems.append(
                f"{shown(root)}: no text files in this folder{skipped}; "
                "name a folder with text, or the files themselves"
            )

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
            files += [Path(folder, name) for name in names if not name.startswith(".")]
        return files

    def _take(self, path: Path) -> None:
        absolute = path.absolute()
        if absolute not in self._taken:
            self._taken.add(absolute)
            self.sources.append(Source(shown(path), absolute))

    def _refuse(self, path: Path, error: Exception) -> None:
        where = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or error
        self.problems.append(
            f"{shown(os.fsdecode(where))}: cannot be read ({reason}); "
            "check its permissions, or leave it out"
        )


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
