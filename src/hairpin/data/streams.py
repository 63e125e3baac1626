"""Token shards on disk: a writer, and a verified, memory-mapped reader.

    FOLDER/
      shards.json            manifest: dtype, vocabulary, hashes, and each stream's files
      train-00000.bin …      raw little-endian ids, at most 2^27 in a file
      val-00000.bin …
      tokenizer/

A stream is `<end-of-text> document <end-of-text> document …`; which ids a position holds depends
on the documents alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hairpin.data.tokenizers import Ids, Tokenizer, load_tokenizer
from hairpin.errors import CorpusError
from hairpin.system.files import shown, write_atomically

FORMAT = 1
SHARD_TOKENS = 2**27
_BLOCK_BYTES = 1 << 20
_DAMAGED = "delete the folder and prepare the text again"


@dataclass(frozen=True)
class ShardFile:
    """One file of ids: its name, ids, and the SHA-256 of its bytes."""

    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class StreamRecord:
    """One stream: the bytes of text that it encodes, and its files in order."""

    text_bytes: int
    files: tuple[ShardFile, ...]


def dtype_for(vocabulary: int) -> np.dtype[Any]:
    """Return uint16 if every id fits, else uint32; little-endian on every machine."""
    return np.dtype("<u2" if vocabulary <= 2**16 else "<u4")


class StreamWriter:
    """Appends ids to `<name>-00000.bin`, `<name>-00001.bin`, … in a folder."""

    def __init__(
        self, folder: Path, name: str, dtype: np.dtype[Any], shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self.text_bytes = 0
        self._folder, self._name, self._dtype = folder, name, dtype
        self._shard_tokens = shard_tokens
        self._files: list[ShardFile] = []
        self._file: BinaryIO | None = None
        self._digest, self._tokens = hashlib.sha256(), 0

    def append(self, ids: Ids, text_bytes: int) -> None:
        """Write ids that encode `text_bytes` bytes of text."""
        self.text_bytes += text_bytes
        start = 0
        while start < len(ids):
            if self._file is None:
                self._file = (self._folder / self._next_name()).open("wb")
                self._digest, self._tokens = hashlib.sha256(), 0
            part = ids[start : start + self._shard_tokens - self._tokens]
            content = part.astype(self._dtype).tobytes()
            self._file.write(content)
            self._digest.update(content)
            self._tokens += len(part)
            start += len(part)
            if self._tokens == self._shard_tokens:
                self._end_file()

    def close(self) -> StreamRecord:
        """Flush to disk and return the record of the stream."""
        if self._file is not None:
            self._end_file()
        return StreamRecord(self.text_bytes, tuple(self._files))

    def abandon(self) -> None:
        """Close the open file after a failure; the written files are useless."""
        if self._file is not None:
            self._file.close()

    def _next_name(self) -> str:
        return f"{self._name}-{len(self._files):05d}.bin"

    def _end_file(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._files.append(ShardFile(self._next_name(), self._tokens, self._digest.hexdigest()))


class TokenStream:
    """One stream's ids as a ring; memory-mapped, so that a process holds only what it reads.

    Attributes:
        text_bytes: bytes of UTF-8 text that the stream encodes (end-of-text counts none).
        dtype: of the files, uint16 or uint32.
    """

    def __init__(self, folder: Path, record: StreamRecord, dtype: np.dtype[Any]) -> None:
        self.text_bytes = record.text_bytes
        self.dtype = dtype
        self._maps = [
            np.memmap(folder / file.name, dtype=dtype, mode="r", shape=(file.tokens,))
            for file in record.files
        ]
        self._ends = np.cumsum([file.tokens for file in record.files], dtype=np.int64)

    @classmethod
    def joined(cls, streams: Sequence["TokenStream"]) -> "TokenStream":
        """Join streams of one tokenizer, one after the other."""
        whole = cls.__new__(cls)
        whole.text_bytes = sum(stream.text_bytes for stream in streams)
        whole.dtype = streams[0].dtype
        whole._maps = [ids for stream in streams for ids in stream._maps]
        whole._ends = np.cumsum([len(ids) for ids in whole._maps], dtype=np.int64)
        return whole

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Return `count` ids from index `start` on, int64 [count]; indices wrap around.

        Raises:
            ValueError: the stream is empty, or `count` is negative.
        """
        length = len(self)
        if not length:
            raise ValueError("an empty token stream cannot be read")
        out = np.empty(count, dtype=np.int64)
        done, position = 0, start % length
        while done < count:
            shard = int(np.searchsorted(self._ends, position, side="right"))
            ids = self._maps[shard]
            inside = position - (int(self._ends[shard]) - len(ids))
            taken = min(count - done, len(ids) - inside)
            out[done : done + taken] = ids[inside : inside + taken]
            done += taken
            position = (position + taken) % length
        return out


@dataclass(frozen=True)
class Shards:
    """A verified folder of shards.

    Attributes:
        folder: with the files.
        tokenizer: the one that made them.
        train, val: the two streams.
        data_hash: SHA-256 over the documents' hashes.
        split: "documents" or "tails".
    """

    folder: Path
    tokenizer: Tokenizer
    train: TokenStream
    val: TokenStream
    data_hash: str
    split: str


def write_manifest(
    folder: Path,
    tokenizer: Tokenizer,
    streams: dict[str, StreamRecord],
    *,
    data_hash: str,
    split: str,
) -> None:
    """Write the tokenizer and shards.json, the last file of a folder of shards."""
    tokenizer.save(folder / "tokenizer")
    manifest = {
        "format": FORMAT,
        "dtype": dtype_for(tokenizer.vocabulary).name,
        "vocabulary": tokenizer.vocabulary,
        "tokenizer_hash": tokenizer.hash(),
        "data_hash": data_hash,
        "split": split,
        "streams": {name: asdict(record) for name, record in streams.items()},
    }
    write_atomically(folder / "shards.json", json.dumps(manifest, indent=1).encode() + b"\n")


def open_shards(folder: Path, on_bytes: Callable[[int], None] | None = None) -> Shards:
    """Open the shards in a folder, after checking every file's size, SHA-256 and range of ids.

    Args:
        folder: one that `write_manifest` completed.
        on_bytes: called with the bytes checked so far.

    Raises:
        CorpusError: a file is missing, truncated, edited, of a different width, or holds an id that
            is not in the vocabulary.
        RunError: the tokenizer's files are missing or damaged.
    """
    path = folder / "shards.json"
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']} is not {FORMAT}")
        records = {
            name: StreamRecord(
                stream["text_bytes"], tuple(ShardFile(**file) for file in stream["files"])
            )
            for name, stream in manifest["streams"].items()
        }
        train, val = records["train"], records["val"]
        vocabulary, width = manifest["vocabulary"], manifest["dtype"]
        data_hash, split, made_with = (
            manifest[key] for key in ("data_hash", "split", "tokenizer_hash")
        )
    except OSError as error:
        raise CorpusError(
            f"{shown(path)}: cannot be read ({error.strerror}); {_DAMAGED}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{shown(path)}: is damaged ({error}); {_DAMAGED}") from error
    dtype = dtype_for(vocabulary)
    if width != dtype.name:
        raise CorpusError(
            f"{shown(path)}: claims {width}, but a vocabulary of {vocabulary} is stored as "
            f"{dtype.name}; {_DAMAGED}"
        )
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.hash() != made_with or tokenizer.vocabulary != vocabulary:
        raise CorpusError(
            f"{shown(folder / 'tokenizer')}: is not the tokenizer that made the shards; {_DAMAGED}"
        )
    done_bytes = 0
    for file in (*train.files, *val.files):
        _verify(folder / file.name, file, dtype, vocabulary)
        done_bytes += file.tokens * dtype.itemsize
        if on_bytes:
            on_bytes(done_bytes)
    return Shards(
        folder,
        tokenizer,
        TokenStream(folder, train, dtype),
        TokenStream(folder, val, dtype),
        data_hash,
        split,
    )


def _verify(path: Path, record: ShardFile, dtype: np.dtype[Any], vocabulary: int) -> None:
    """Check one file with plain reads: mapped pages would count as this process's memory."""
    try:
        size_bytes = path.stat().st_size
        expected_bytes = record.tokens * dtype.itemsize
        if size_bytes != expected_bytes:
            raise CorpusError(
                f"{shown(path)}: has {size_bytes:,} bytes instead of {expected_bytes:,} "
                f"({record.tokens:,} ids of {dtype.name}); {_DAMAGED}"
            )
        digest, offset = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                ids = np.frombuffer(block, dtype=dtype)
                if len(ids) and int(ids.max()) >= vocabulary:
                    first = int(np.argmax(ids >= vocabulary))
                    raise CorpusError(
                        f"{shown(path)}: id {ids[first]} at byte {offset + first * dtype.itemsize} "
                        f"is not in the vocabulary of {vocabulary:,}; {_DAMAGED}"
                    )
                offset += len(block)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{shown(path)}: cannot be read ({error}); {_DAMAGED}") from error
    if digest.hexdigest() != record.sha256:
        raise CorpusError(f"{shown(path)}: its content was changed (SHA-256 differs); {_DAMAGED}")
