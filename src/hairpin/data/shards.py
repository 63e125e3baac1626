"""Text -> tokens on disk, in bounded memory, and only once for the same text and settings.

prepare(settings)   survey -> tokenizer -> shards, cached by content
prepared_already    the cached result
require_enough      check that the text is long enough for a context
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hairpin.config import settings
from hairpin.data import bpe
from hairpin.data.corpus import Corpus, open_corpus
from hairpin.data.encoding import ChangedError, divided_parts, encoded_parts
from hairpin.data.split import Progress, Survey, forget_survey, survey
from hairpin.data.streams import (
    FORMAT,
    StreamWriter,
    TokenStream,
    dtype_for,
    open_shards,
    write_manifest,
)
from hairpin.data.tokenizers import ByteTokenizer, Gpt2Tokenizer, Tokenizer, train_bpe
from hairpin.errors import CorpusError, UserError
from hairpin.system.files import cache_folder, move, remove, shown, sync_folder

_STALE_SECONDS = 24 * 3600
_MIN_CONTEXT = 8  # below it there is no run of two updates to be had


@dataclass(frozen=True)
class Prepared:
    """Text that is ready for training.

    Attributes:
        folder: with shards.json, the streams' files and tokenizer/; shared by all runs on the
            same text, so read-only.
        survey: of the text, with its split.
        tokenizer: the one that made the ids.
        train, val: the two streams of ids.
        key: SHA-256 of everything that decides the shards.
        data: the settings, with the column and format of tables, and weights of sources.
        sources: of a mixture, whose streams `train` and `val` are one after the other.
    """

    folder: Path
    survey: Survey
    tokenizer: Tokenizer
    train: TokenStream
    val: TokenStream
    key: str
    data: settings.Data
    sources: tuple["PreparedSource", ...] = ()


@dataclass(frozen=True)
class PreparedSource:
    """A source of a mixture: its name, its share of training tokens, and its own text."""

    name: str
    share: float
    prepared: Prepared


def prepare(
    data: settings.Data,
    tokenizer: settings.Tokenizer | Tokenizer,
    *,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Prepared:
    """Return the tokens of a corpus, from the cache if this text was prepared like this before.

    Args:
        data: the text and its split.
        tokenizer: the settings of one to make, or an existing one (another run's).
        cache: instead of the user's cache.
        on_progress: called with ("reading" | "learning vocabulary" | "encoding", bytes done, all
            bytes) every quarter of a megabyte or so.

    Raises:
        CorpusError: the text cannot be read, or the cache cannot be written.
        UserError: GPT-2's vocabulary is not available.
    """
    cache = cache or cache_folder()
    corpus = open_corpus(data)
    found = survey(corpus, cache=cache, on_progress=on_progress)
    data = corpus.data
    if prepared := prepared_already(data, found, tokenizer, cache=cache):
        return prepared
    key = _key(found, data, tokenizer)
    folder = cache / "shards" / key
    try:
        _build(folder, _Job(corpus, found, tokenizer, on_progress))
    except ChangedError:
        forget_survey(corpus, cache=cache)
        raise
    shards = open_shards(folder)
    return Prepared(folder, found, shards.tokenizer, shards.train, shards.val, key, data)


def prepared_already(
    data: settings.Data,
    found: Survey,
    tokenizer: settings.Tokenizer | Tokenizer,
    *,
    cache: Path | None = None,
) -> Prepared | None:
    """Return what `prepare` would find in the cache; None if it is missing or damaged."""
    key = _key(found, data, tokenizer)
    folder = (cache or cache_folder()) / "shards" / key
    try:
        shards = open_shards(folder)
    except UserError:
        return None
    return Prepared(folder, found, shards.tokenizer, shards.train, shards.val, key, data)


def _key(found: Survey, data: settings.Data, tokenizer: settings.Tokenizer | Tokenizer) -> str:
    if isinstance(tokenizer, Tokenizer):
        identity = tokenizer.hash()
    elif tokenizer.kind == "bpe":
        identity = f"bpe {tokenizer.vocabulary or bpe.choose_vocabulary(found.train_bytes)}"
    else:
        identity = tokenizer.kind
    parts = (FORMAT, found.hash, found.split, data.validation_fraction, identity)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# --- building a folder of shards ---


@dataclass(frozen=True)
class _Job:
    """The shards to make, and the callback for progress."""

    corpus: Corpus
    found: Survey
    tokenizer: settings.Tokenizer | Tokenizer
    on_progress: Progress | None

    def report(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        if self.on_progress:
            self.on_progress(stage, done_bytes, total_bytes)


def _build(folder: Path, job: _Job) -> None:
    """Make the shards next to `folder`, then rename them in one step."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        _require_space(folder.parent, job.found)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}-"))
        try:
            _write(temporary, job, _tokenizer_of(job))
            _publish(temporary, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise CorpusError(
            f"{shown(folder.parent)}: the cache cannot be written ({error.strerror or error}); "
            "set HAIRPIN_CACHE to a writable folder with free space"
        ) from error


def _tokenizer_of(job: _Job) -> Tokenizer:
    asked = job.tokenizer
    if isinstance(asked, Tokenizer):
        return asked
    if asked.kind == "bytes":
        return ByteTokenizer()
    if asked.kind == "gpt2":
        return Gpt2Tokenizer.fetch()
    train_bytes = job.found.train_bytes
    total_bytes = min(train_bytes, bpe.TRAINING_BYTES)

    def on_bytes(done_bytes: int) -> None:
        job.report("learning vocabulary", done_bytes, max(total_bytes, done_bytes))

    parts = divided_parts(job.corpus, job.found)
    texts = (part.text for part in parts if not part.is_validation)
    vocabulary = asked.vocabulary or bpe.choose_vocabulary(train_bytes)
    return train_bpe(bpe.sample_evenly(texts, train_bytes), vocabulary, on_bytes)


def _write(folder: Path, job: _Job, tokenizer: Tokenizer) -> None:
    """Write both streams, the tokenizer, and finally the manifest."""
    found, done_bytes = job.found, 0
    dtype = dtype_for(tokenizer.vocabulary)
    writers = {name: StreamWriter(folder, name, dtype) for name in ("train", "val")}
    try:
        parts = divided_parts(job.corpus, found)
        for part, ids in encoded_parts(parts, tokenizer):
            writers["val" if part.is_validation else "train"].append(ids, part.text_bytes)
            done_bytes += part.text_bytes
            job.report("encoding", done_bytes, found.bytes)
        streams = {name: writer.close() for name, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    write_manifest(folder, tokenizer, streams, data_hash=found.hash, split=found.split)


# --- the cache's folders ---


def _publish(temporary: Path, folder: Path) -> None:
    """Rename into place; if two processes prepare the same text, the first one's stays."""
    for _ in range(3):
        try:
            move(temporary, folder)
            return
        except OSError:
            if not folder.exists():
                raise
        with contextlib.suppress(UserError):
            open_shards(folder)
            return
        # The existing folder is damaged. Moved first: removing takes a while, renaming does not.
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}-"))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside / "damaged")
        shutil.rmtree(aside, ignore_errors=True)
    raise CorpusError(f"{shown(folder)}: cannot be replaced; delete it and run the command again")


def _remove_stale(parent: Path) -> None:
    """Remove unfinished folders of killed processes, a day old or older."""
    for path in parent.glob(".*-*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < time.time() - _STALE_SECONDS:
                remove(path, may_stay=True)


def _require_space(folder: Path, found: Survey) -> None:
    # At worst one token per byte and two bytes per token; a learned vocabulary takes a third.
    needed_bytes = 2 * found.bytes + 16_000_000
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise CorpusError(
            f"{shown(folder)}: {free_bytes / 1e9:.1f} GB are free, and the tokens of "
            f"{found.bytes / 1e9:.1f} GB of text may take {needed_bytes / 1e9:.1f} GB; "
            "make space, or set HAIRPIN_CACHE to a folder on another disk"
        )


def require_enough(train_tokens: int, val_tokens: int, context: int) -> None:
    """Check that there is at least one training example, and something to predict in validation.

    Args:
        train_tokens: length of the training stream.
        val_tokens: length of the validation stream.
        context: the model's context in tokens; an example is one token longer.

    Raises:
        CorpusError: a line for each stream that is too short: tokens present and needed, and a
            context that fits.
    """
    problems = []
    if train_tokens < context + 1:
        fitting = train_tokens - 1
        shorter = f", or use --set model.context={fitting}" if fitting >= _MIN_CONTEXT else ""
        problems.append(
            f"too little training text: {train_tokens:,} tokens found, {context + 1:,} needed "
            f"for a context of {context:,}; add text{shorter}"
        )
    if val_tokens < 2:
        problems.append(
            f"too little validation text: {val_tokens:,} tokens found, 2 needed; add text, or use "
            "--set data.validation_fraction=0.2"
        )
    if problems:
        raise CorpusError(problems)
