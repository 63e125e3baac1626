"""A file's bytes -> text: decompressed, strict, in blocks, in bounded memory.

Text is UTF-8, or UTF-16 or UTF-32 with a byte-order mark. A file that is plainly not text is
refused whatever `on_bad_bytes` says.
"""

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol

from hairpin.data.other_encodings import (
    WESTERN,
    control_share,
    encoding_by_mark,
    recognise_legacy_encoding,
)
from hairpin.data.recognising import (
    BINARY,
    COMPRESSED,
    OPENING_BYTES,
    Kind,
    is_mostly_binary,
    recognise,
    token_ids,
)
from hairpin.errors import CorpusError
from hairpin.system.files import shown

BLOCK_BYTES = 256 * 1024
# A kilobyte of zstd can expand to 30 MB: small reads keep memory bounded.
_ZSTD_CHUNK_BYTES = 1024
# `zstd --long=31`, used for large dumps: as much memory as the file requests, up to 2 GB.
_ZSTD_WINDOW_BYTES = 2**31
_GARBLED = 0.02  # NULs and control characters around a bad byte, above which it is no text encoding
_CONTEXT_BYTES = 4096
_DECODERS: dict[str, Callable[[bytes, str, bool], tuple[str, int]]] = {
    "utf-8": codecs.utf_8_decode,
    "utf-16-le": codecs.utf_16_le_decode,
    "utf-16-be": codecs.utf_16_be_decode,
    "utf-32-le": codecs.utf_32_le_decode,
    "utf-32-be": codecs.utf_32_be_decode,
}


class _Readable(Protocol):
    """A file, or its decompressor."""

    def read(self, size: int, /) -> bytes:
        """Read that many bytes, or fewer at the end."""
        ...


def byte_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file's content, decompressed if its name ends in `.gz`, `.xz`, `.bz2` or `.zst`.

    Raises:
        CorpusError: the file cannot be opened or read, or its compressed data are damaged.
    """
    try:
        with path.open("rb") as file:
            if unpack := _UNPACK.get(path.suffix.lower()):
                yield from unpack(path, file)
            else:
                yield from _read(file)
    except OSError as error:
        raise CorpusError(
            f"{shown(path)}: cannot be read ({error.strerror or error}); "
            "check the path and its permissions"
        ) from error


def opening_of(path: Path) -> bytes:
    """Return the first bytes of a file, decompressed.

    Raises:
        CorpusError: as `byte_blocks`.
    """
    return _opening(byte_blocks(path))[0]


def kind_of_file(path: Path, *, is_found: bool = False) -> Kind | None:
    """Return the kind of a file that is not text, else None; a damaged file is left to its reader.

    Args:
        path: the file.
        is_found: whether it was found in a folder, where a NUL in the opening rules out text; a
            named file may have some.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        opening = opening_of(path)
    except CorpusError:
        with path.open("rb"):
            return None
    if (kind := _without_text(path, opening)) or encoding_by_mark(opening):
        return kind
    if (is_found and b"\0" in opening) or is_mostly_binary(opening + _samples(path)):
        return BINARY
    return None


def _without_text(path: Path, opening: bytes) -> Kind | None:
    """Return the kind of a file without text, by its name and first bytes; None: it may be text.

    Token ids are checked first: most of their bytes are NULs, and the first few may be any.
    """
    kind = token_ids(path, opening) or recognise(path, opening)
    if kind and kind.name == COMPRESSED and path.suffix.lower() in _UNPACK:
        return Kind(COMPRESSED, "compressed twice", "unpack it once")
    return kind


def _samples(path: Path) -> bytes:
    """Read samples from the middle and the end of a file, where a crash may have left NULs."""
    size = path.stat().st_size
    if size < 3 * OPENING_BYTES or path.suffix.lower() in _UNPACK:
        return b""
    parts = []
    with path.open("rb") as file:
        for place in (size // 2, size - OPENING_BYTES):
            file.seek(place)
            parts.append(file.read(OPENING_BYTES))
    return b"".join(parts)


def _opening(blocks: Iterator[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the first bytes of a stream, and the blocks that were read for them."""
    taken, count = [], 0
    for block in blocks:
        taken.append(block)
        count += len(block)
        if count >= OPENING_BYTES:
            break
    return b"".join(taken)[:OPENING_BYTES], taken


def _read(file: _Readable) -> Iterator[bytes]:
    yield from iter(lambda: file.read(BLOCK_BYTES), b"")


def _gzip_blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.open(file) as unpacked:
            yield from _read(unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "gzip", str(error)) from error


def _xz_blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        import lzma
    except ImportError:
        raise _no_module(path, "lzma") from None
    try:
        with lzma.open(file) as unpacked:
            yield from _read(unpacked)
    except (EOFError, lzma.LZMAError) as error:
        raise _damaged(path, "xz", str(error)) from error


def _bzip2_blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        import bz2
    except ImportError:
        raise _no_module(path, "bz2") from None
    try:
        with bz2.open(file) as unpacked:
            yield from _read(unpacked)
    except (EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, "bzip2", str(error)) from error


def _no_module(path: Path, name: str) -> CorpusError:
    return CorpusError(
        f"{shown(path)}: this Python was built without its module {name}; unpack the file first"
    )


def _zstd_blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise CorpusError(
            f"{shown(path)}: reading .zst needs a package; type: pip install zstandard"
        ) from error
    unpacker, frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES), None
    try:
        while bite := file.read(_ZSTD_CHUNK_BYTES):
            while bite:
                frame = frame or unpacker.decompressobj()
                block = frame.decompress(bite)
                if block:
                    yield block
                bite = b""
                if frame.eof:
                    bite, frame = frame.unused_data, None
    except (MemoryError, zstandard.ZstdError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise CorpusError(
                f"{shown(path)}: needs more memory to unpack than this machine has; unpack it "
                "first, as with `zstd -d --long=31`"
            ) from None
        raise _damaged(path, "zstd", str(error)) from error
    if frame is not None:
        raise _damaged(path, "zstd", "the file ends inside a frame")


def _damaged(path: Path, kind: str, reason: str) -> CorpusError:
    return CorpusError(
        f"{shown(path)}: its {kind} data are damaged or cut short "
        f"({' '.join(reason.split())}); make the file again, or leave it out"
    )


_UNPACK: dict[str, Callable[[Path, BinaryIO], Iterator[bytes]]] = {
    ".gz": _gzip_blocks,
    ".tgz": _gzip_blocks,  # the opening shows the contents
    ".xz": _xz_blocks,
    ".txz": _xz_blocks,
    ".bz2": _bzip2_blocks,
    ".tbz2": _bzip2_blocks,
    ".zst": _zstd_blocks,
}


def refusal(path: Path, kind: Kind) -> CorpusError:
    """Return the error for a file that is not text."""
    return CorpusError(f"{shown(path)}: is {kind.words}: {kind.advice}")


class TextReader:
    """Text of one file, with a count of replaced bytes.

    Args:
        path: the file.
        on_bad_bytes: as in `config.data.Data`.
        is_checked: whether files that are not text are refused.

    Attributes:
        replaced: U+FFFD characters that replaced bad bytes so far.
    """

    def __init__(self, path: Path, on_bad_bytes: str, *, is_checked: bool = True) -> None:
        self.path = path
        self.replaced = 0
        self._errors = "strict" if on_bad_bytes == "error" else "replace"
        self._codec = "utf-8"
        self._is_checked = is_checked

    def blocks(self) -> Iterator[str]:
        """Yield the text, newlines unchanged, without a leading byte order mark.

        Raises:
            CorpusError: the file is not text, a byte is not of its encoding (unless bad bytes are
                replaced), or as `byte_blocks`.
        """
        source = byte_blocks(self.path)
        opening, taken = _opening(source)
        if self._is_checked and (kind := _without_text(self.path, opening)):
            raise refusal(self.path, kind)
        self._codec, mark_bytes = encoding_by_mark(opening) or ("utf-8", 0)
        pending, offset, first = b"", 0, True
        for block in chain(taken, source):
            data = pending + block
            if offset < mark_bytes:
                if len(data) < mark_bytes:
                    pending = data
                    continue
                data, offset = data[mark_bytes:], mark_bytes
            text, used = self._decode(data, offset, final=False)
            pending, offset = data[used:], offset + used
            if first and text:
                text, first = text.removeprefix("\ufeff" * (self._codec == "utf-8")), False
            if text:
                yield text
        if pending:
            yield self._decode(pending, offset, final=True)[0]

    def _decode(self, data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
        try:
            text, used = _DECODERS[self._codec](data, self._errors, final)
        except UnicodeDecodeError as error:
            raise self._bad_byte(data, error.start, offset + error.start) from None
        if self._errors == "replace" and "\ufffd" in text:
            self.replaced += text.count("\ufffd") - self._own_replacements(data[:used])
        return text, used

    def _own_replacements(self, data: bytes) -> int:
        """Count the U+FFFD that are in the text itself."""
        if self._codec == "utf-8":
            return data.count(b"\xef\xbf\xbd")  # only it decodes so: 0xEF continues nothing
        return data.decode(self._codec, "ignore").count("\ufffd")

    def _bad_byte(self, data: bytes, at: int, offset: int) -> CorpusError:
        name = self._codec.upper().removesuffix("-LE").removesuffix("-BE")
        where = f"{shown(self.path)}: byte 0x{data[at]:02x} at offset {offset} is not {name}"
        around = data[max(0, at - _CONTEXT_BYTES) : at + _CONTEXT_BYTES]
        if self._codec == "utf-8" and control_share(around) >= _GARBLED:
            return CorpusError(
                f"{where}, and the bytes around it look like binary data; name a text file"
            )
        mend = "fix the file"
        if self._codec == "utf-8" and (likely := recognise_legacy_encoding(around)):
            mend = f"it looks like {likely}: save it as UTF-8, as with `iconv -f {likely} -t UTF-8`"
            if likely != WESTERN:  # hardly any text lacks such bytes
                return CorpusError(f"{where}; {mend}")
        return CorpusError(
            f"{where}; {mend}, or continue without such bytes: --set data.on_bad_bytes=replace"
        )
