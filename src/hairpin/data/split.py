"""One pass over the text: its size, its hash, and the part for validation.

A document's side depends on its content alone (its SHA-256, read as a number below one, against
the validation fraction), so copies are always on the same side. If few or unequal documents leave
validation with less than half or more than twice its share of the bytes, each document's last part
is taken instead.
"""

import contextlib
import hashlib
import io
import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from hairpin.config.settings import Data
from hairpin.data.corpus import Corpus, SeparatorCounts, legacy_corpus, reading_notices
from hairpin.data.pieces import first_cut, last_cut
from hairpin.errors import CorpusError
from hairpin.system.files import cache_folder, write_atomically

Progress = Callable[[str, int, int], None]
Split = Literal["documents", "tails", "mixed"]

_FORMAT = 4
# A file that changed this shortly before the survey may change again unseen: clocks are coarse.
_UNCHANGED_SECONDS = 2.0


@dataclass(frozen=True)
class Survey:
    """Result of one pass over the text.

    Attributes:
        files, skipped: files that hold text; files and folders left out because they do not.
        documents, bytes: of all the text, in UTF-8.
        replaced: U+FFFD characters that replaced bad bytes.
        hash: SHA-256 over the documents' SHA-256s, in order, in hex.
        split: the way validation is chosen; "mixed": in a mixture, some sources by tails.
        val_bytes: bytes of validation text (with "tails" an estimate; the streams have the count).
        document_bytes: the length of each document, in bytes.
        in_validation: for each document 1 if it is for validation ("documents"), else 0.
        rows, empty: of tables, and those of them without a text, which are left out.
        column, unused: the tables' column that is read, if there are any, and the others.
        by_tails: with "mixed", for each document 1 if its last part is for validation.
        undecodable: of the files left out, those that are not in the encoding that they declare.
        marks: as of the corpus.
        left_out: files and folders left out, by kind.
        notices: lines about what was left out, replaced, or not found.
    """

    files: int
    documents: int
    bytes: int
    skipped: int
    replaced: int
    hash: str
    split: Split
    val_bytes: int
    document_bytes: "array[int]" = field(repr=False, compare=False)
    in_validation: bytearray = field(repr=False, compare=False)
    rows: int = 0
    empty: int = 0
    column: str | None = None
    unused: tuple[str, ...] = ()
    by_tails: bytearray = field(default_factory=bytearray, repr=False, compare=False)
    undecodable: int = 0
    marks: SeparatorCounts = field(default_factory=SeparatorCounts)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def train_bytes(self) -> int:
        return self.bytes - self.val_bytes


def survey(
    corpus: Corpus, *, cache: Path | None = None, on_progress: Progress | None = None
) -> Survey:
    """Read the corpus once; the result for unchanged files comes from the cache.

    Raises:
        CorpusError: a file cannot be read, there is no text, `data.hash` is of a different text,
            or `data.split = "documents"` would leave a side empty.
    """
    expected, cache = corpus.data.hash, cache or cache_folder()
    if expected is None:
        return _surveyed(corpus, cache, on_progress)
    found = None
    try:
        found = _surveyed(corpus, cache, on_progress)
        if found.hash == expected:
            return found
        error = CorpusError(
            f"{corpus.name}: the text has changed since this run's config was written (its hash "
            f"is {found.hash[:12]}…, data.hash is {expected[:12]}…); train a changed text as a "
            "new run"
        )
    except CorpusError as problem:
        error = problem
    with contextlib.suppress(CorpusError):
        if former := legacy_corpus(corpus, is_refused=found is None):
            then = _surveyed(former, cache, on_progress)
            if then.hash == expected:
                corpus.become(former)
                return then
    raise error


def _surveyed(corpus: Corpus, cache: Path, on_progress: Progress | None) -> Survey:
    path, start_time = survey_path(corpus, cache), time.time()
    found = _load(path) if path else None
    if found is None:
        found = _read(corpus, on_progress)
        if path and is_unchanged(corpus, start_time):
            # Without a cache the next run just reads the text again.
            with contextlib.suppress(OSError):
                write_atomically(path, _dump(found))
    # Found by each search for files, so never cached.
    left_out = corpus.left_out
    return replace(
        found,
        skipped=left_out.total + found.undecodable,
        left_out=left_out.counts(),
        notices=reading_notices(
            left_out, found.undecodable, found.replaced, found.marks, corpus.data.separator
        ),
    )


def forget_survey(corpus: Corpus, *, cache: Path | None = None) -> None:
    """Drop the cached survey of a corpus whose files turned out to be different."""
    path = survey_path(corpus, cache or cache_folder())
    if path:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _read(corpus: Corpus, on_progress: Progress | None) -> Survey:
    fraction = corpus.data.validation_fraction
    overall = hashlib.sha256()
    lengths, sides = array("Q"), bytearray()
    done_bytes, total_bytes = 0, _bytes_on_disk(corpus)
    for document in corpus.documents():
        digest, length = hashlib.sha256(), 0
        for piece in document.pieces():
            content = piece.encode()
            digest.update(content)
            length += len(content)
            done_bytes += len(content)
            if on_progress:
                # Compressed files hold more than their size on disk.
                on_progress("reading", done_bytes, max(total_bytes, done_bytes))
        overall.update(digest.digest())
        lengths.append(length)
        sides.append(int.from_bytes(digest.digest(), "big") < int(fraction * 2**256))
    if not done_bytes:
        raise _empty_error(corpus)
    val_bytes = sum(length for length, side in zip(lengths, sides, strict=True) if side)
    found = Survey(
        files=len(corpus.sources) - corpus.undecodable,
        documents=len(lengths),
        bytes=done_bytes,
        skipped=corpus.skipped,
        replaced=corpus.replaced,
        hash=overall.hexdigest(),
        split="documents",
        val_bytes=val_bytes,
        document_bytes=lengths,
        in_validation=sides,
        rows=corpus.rows,
        empty=corpus.empty,
        column=corpus.data.column,
        unused=tuple(corpus.unused),
        undecodable=corpus.undecodable,
        marks=corpus.marks,
    )
    return _decide(corpus, found)


def _empty_error(corpus: Corpus) -> CorpusError:
    where = corpus.sources[0].name if len(corpus.sources) == 1 else corpus.name
    if corpus.rows:
        return CorpusError(
            f"{where}: no rows left: all {corpus.rows:,} have nothing in the column "
            f'"{corpus.data.column}"; name another with --column'
        )
    if corpus.sources and all(source.format != "text" for source in corpus.sources):
        return CorpusError(f"{where}: it has no text: the table has no rows; name another")
    return CorpusError(f"{where}: it has no text; name a file with text")


def _decide(corpus: Corpus, found: Survey) -> Survey:
    """Return the survey with the split that follows from the settings and the sizes."""
    data = corpus.data
    share = found.val_bytes / found.bytes
    if data.split == "documents" and not 0 < found.val_bytes < found.bytes:
        side = "validation" if not found.val_bytes else "training"
        raise CorpusError(
            f"{corpus.name}: dividing {found.documents} documents by their content leaves {side} "
            "empty; give more documents (data.separator splits a file), or use --set "
            "data.split=tails"
        )
    fits = data.validation_fraction / 2 <= share <= min(2 * data.validation_fraction, 0.75)
    if data.split == "documents" or (data.split == "auto" and fits):
        return found
    tails = sum(_tail_bytes(length, data.validation_fraction) for length in found.document_bytes)
    return replace(found, split="tails", val_bytes=tails, in_validation=bytearray(found.documents))


def _tail_bytes(document_bytes: int, fraction: float) -> int:
    return round(document_bytes * fraction)


def divide_text(
    pieces: Iterator[str], *, in_validation: bool, tail_bytes: int, document_bytes: int
) -> Iterator[tuple[bool, str]]:
    """Yield a document's pieces as (is validation, text): all of one side, or a head and a tail.

    With `tail_bytes` > 0 the tail begins about that many bytes before the end: at a safe cut if
    there is one within a quarter of the tail.
    """
    if in_validation or not tail_bytes:
        yield from ((in_validation, piece) for piece in pieces)
        return
    head_bytes = document_bytes - tail_bytes
    is_validation = False
    for piece in pieces:
        size_bytes = len(piece.encode())
        if is_validation or head_bytes >= size_bytes:
            yield is_validation, piece
            head_bytes -= size_bytes
            continue
        cut = _tail_cut(piece, head_bytes, tail_bytes // 4)
        if cut:
            yield False, piece[:cut]
        if cut < len(piece):
            yield True, piece[cut:]
        is_validation = True


def _tail_cut(piece: str, head_bytes: int, slack_chars: int) -> int:
    """Return the index near `head_bytes` bytes at which the tail begins, from 0 to len(piece)."""
    head = piece.encode()[:head_bytes].decode(errors="ignore")
    # A partial character belongs to the head, so that a head is never empty.
    wanted = len(head) + (len(head.encode()) < head_bytes)
    after = first_cut(piece, wanted, wanted + slack_chars)
    if after is not None:
        return after
    before = last_cut(piece, min(wanted, len(piece) - 1))
    return before if before is not None and before >= wanted - slack_chars else wanted


def tail_bytes(found: Survey, index: int, data: Data) -> int:
    """Return the number of document `index`'s last bytes for validation; 0 unless by tails."""
    if found.split == "documents" or (found.split == "mixed" and not found.by_tails[index]):
        return 0
    return _tail_bytes(found.document_bytes[index], data.validation_fraction)


# --- the cached survey ---


def _bytes_on_disk(corpus: Corpus) -> int:
    total = 0
    for source in corpus.sources:
        with contextlib.suppress(OSError):
            total += sum(path.stat().st_size for path in source.files()) + len(source.text or "")
    return total


_PLAIN = (
    "files", "documents", "bytes", "skipped", "replaced", "hash", "split", "val_bytes", "rows",
    "empty", "column", "unused", "undecodable",
)  # fmt: skip


def _dump(found: Survey) -> bytes:
    file = io.BytesIO()
    plain: dict[str, Any] = {name: getattr(found, name) for name in _PLAIN}
    marks = found.marks
    plain["marks"] = (marks.files, marks.separators, dict(marks.unused))
    np.savez(
        file,
        plain=np.frombuffer(json.dumps(plain).encode(), np.uint8),
        document_bytes=np.frombuffer(found.document_bytes, np.uint64),
        in_validation=np.frombuffer(found.in_validation, np.uint8),
    )
    return file.getvalue()


def _load(path: Path) -> Survey | None:
    """Return the cached survey, or None if it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            plain = json.loads(stored["plain"].tobytes())
            plain["unused"] = tuple(plain["unused"])
            lengths = array("Q", stored["document_bytes"].astype(np.uint64).tobytes())
            files, separators, unused = plain.pop("marks")
            return Survey(
                **plain,
                marks=SeparatorCounts(files, separators, Counter(unused)),
                document_bytes=lengths,
                in_validation=bytearray(stored["in_validation"].tobytes()),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return None


def survey_path(corpus: Corpus, cache: Path) -> Path | None:
    """Return the path for the survey of exactly these files and settings, or None if none can be
    kept.
    """
    signature = hashlib.sha256()
    data = corpus.data.model_dump(mode="json", exclude={"hash"})
    how_it_is_read = (_FORMAT, corpus.is_legacy, data, sys.version)
    signature.update(json.dumps(how_it_is_read, sort_keys=True).encode())
    for source in corpus.sources:
        if source.path is None:
            return None
        for path in source.files():
            try:
                status = path.stat()
            except OSError:
                return None
            stamp = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            signature.update(ascii((source.format, *stamp)).encode())
    return cache / "surveys" / f"{signature.hexdigest()}.npz"


def is_unchanged(corpus: Corpus, start_time: float) -> bool:
    """True if no file changed in the last moments, so that a later change would show."""
    try:
        newest = max(p.stat().st_mtime for source in corpus.sources for p in source.files())
    except (OSError, ValueError):
        return False
    return newest < start_time - _UNCHANGED_SECONDS
