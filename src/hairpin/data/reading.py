"""A file's bytes -> text: decompressed, strict UTF-8, in blocks, in bounded memory."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hairpin.data.cache import shown
from hairpin.errors import CorpusError

BLOCK_BYTES = 256 * 1024
# A kilobyte of zstd can stand for 30 MB: small bites keep memory bounded.
_ZSTD_BITE_BYTES = 1024
_OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def byte_blocks(path: Path) -> Iterator[bytes]:
    """A file's content, decompressed where its name ends in `.gz` or `.zst`.

    Raises:
        CorpusError: the file cannot be opened or read, or its compressed data are damaged.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".gz":
                with gzip.open(file) as unpacked:
                    yield from iter(lambda: unpacked.read(BLOCK_BYTES), b"")
            elif path.suffix.lower() == ".zst":
                yield from _zstd_blocks(path, file)
            else:
                yield from iter(lambda: file.read(BLOCK_BYTES), b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "gzip", str(error)) from error
    except OSError as error:
        raise CorpusError(
            f"{shown(path)}: cannot be read ({error.strerror or error}); "
            "check the path and its permissions"
        ) from error


def _zstd_blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise CorpusError(
            f"{shown(path)}: reading .zst needs a package; type: pip install zstandard"
        ) from error
    frame = None
    try:
        while bite := file.read(_ZSTD_BITE_BYTES):
            while bite:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                block = frame.decompress(bite)
                if block:
                    yield block
                bite = b""
                if frame.eof:
                    bite, frame = frame.unused_data, None
    except zstandard.ZstdError as error:
        raise _damaged(path, "zstd", str(error)) from error
    if frame is not None:
        raise _damaged(path, "zstd", "the file ends inside a frame")


def _damaged(path: Path, kind: str, reason: str) -> CorpusError:
    return CorpusError(
        f"{shown(path)}: its {kind} data are damaged or cut short "
        f"({' '.join(reason.split())}); make the file again, or leave it out"
    )


class TextReader:
    """Text of one file, with a count of what had to be replaced.

    Attributes:
        replaced: U+FFFD characters put in the place of bad bytes so far.
    """

    def __init__(self, path: Path, on_bad_bytes: str) -> None:
        self.path = path
        self.replaced = 0
        self._errors = "strict" if on_bad_bytes == "error" else "replace"
        self._opening = b""

    def blocks(self) -> Iterator[str]:
        """The text, newlines as they are, without a leading byte order mark.

        Raises:
            CorpusError: a byte is not UTF-8 (unless bad bytes are replaced), or as `byte_blocks`.
        """
        offset, pending, first = 0, b"", True
        for block in byte_blocks(self.path):
            data = pending + block
            self._opening = self._opening or data[:4]
            text, used = self._decode(data, offset, final=False)
            pending, offset = data[used:], offset + used
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            if text:
                yield text
        if pending:
            yield self._decode(pending, offset, final=True)[0]

    def _decode(self, data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
        try:
            text, used = codecs.utf_8_decode(data, self._errors, final)
        except UnicodeDecodeError as error:
            raise self._bad_byte(data[error.start], offset + error.start) from None
        if self._errors == "replace" and "\ufffd" in text:
            # The text's own U+FFFD always decodes from these bytes: 0xEF continues nothing.
            self.replaced += text.count("\ufffd") - data[:used].count(b"\xef\xbf\xbd")
        return text, used

    def _bad_byte(self, byte: int, offset: int) -> CorpusError:
        where = f"{shown(self.path)}: byte 0x{byte:02x} at offset {offset} is not UTF-8"
        for mark, name in _OTHER_ENCODINGS:
            if self._opening.startswith(mark):
                where += f" (the file begins like {name}: save it as UTF-8)"
                break
        return CorpusError(
            f"{where}; mend the file, or go on without such bytes: --set data.on_bad_bytes=replace"
        )
