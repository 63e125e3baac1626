"""Text of a run, from one source or several: survey, one tokenizer for all, shards of each.

survey_sources(data) survey of all of it
prepare_text(data)   its tokens; of a mixture one set per source, independent of the weights
"""

import contextlib
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hairpin.config import settings
from hairpin.data import bpe
from hairpin.data.corpus import open_corpus
from hairpin.data.encoding import divided_parts
from hairpin.data.shards import (
    Prepared,
    PreparedSource,
    prepare,
    prepared_already,
    require_enough,
)
from hairpin.data.split import Progress, Survey, survey
from hairpin.data.streams import TokenStream
from hairpin.data.tables.columns import table_words
from hairpin.data.tokenizers import (
    ByteTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    load_tokenizer,
    train_bpe,
)
from hairpin.errors import CorpusError, UserError
from hairpin.system.files import cache_folder, new_folder, remove

Asked = settings.Tokenizer | Tokenizer


def survey_sources(
    data: settings.Data, *, cache: Path | None = None, on_progress: Progress | None = None
) -> Survey:
    """Survey all the text.

    Raises:
        CorpusError: as `split.survey`, of a source or of the whole.
    """
    if not data.sources:
        return survey(open_corpus(data), cache=cache, on_progress=on_progress)
    return _joined(data, _surveys(data, cache, on_progress))


def prepare_text(
    data: settings.Data,
    tokenizer: Asked,
    *,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Prepared:
    """Return the tokens of all the text, from the cache if it was prepared like this before.

    Args:
        data, tokenizer, cache, on_progress: as in `shards.prepare`.

    Raises:
        CorpusError, UserError: as `shards.prepare`.
    """
    if not data.sources:
        return prepare(data, tokenizer, cache=cache, on_progress=on_progress)
    found = _surveys(data, cache, on_progress)
    known = _tokenizer(data, found, tokenizer, cache, on_progress)
    parts = [prepare(part, known, cache=cache, on_progress=on_progress) for _, part in data.parts()]
    return _blend(data, found, parts)


def text_prepared_already(
    data: settings.Data, found: Survey, tokenizer: settings.Tokenizer
) -> Prepared | None:
    """Return what `prepare_text` would find in the cache; None if anything is missing."""
    if not data.sources:
        return prepared_already(open_corpus(data).data, found, tokenizer)
    surveys = _surveys(data, None, None)
    known = _kept(_tokenizer_folder(data, surveys, tokenizer, None))
    if known is None:
        return None
    parts = [
        prepared_already(open_corpus(part).data, each, known)
        for (_, part), each in zip(data.parts(), surveys, strict=True)
    ]
    there = [part for part in parts if part]
    return _blend(data, surveys, there) if len(there) == len(parts) else None


def require_enough_text(prepared: Prepared, context: int) -> None:
    """Check as `require_enough` does, for each source of a mixture.

    Raises:
        CorpusError: a line for each stream that is too short.
    """
    problems: list[str] = []
    for source in prepared.sources:
        try:
            require_enough(len(source.prepared.train), len(source.prepared.val), context)
        except CorpusError as error:
            problems += [f"source {source.name}: {problem}" for problem in error.problems]
    if problems:
        raise CorpusError(problems)
    require_enough(len(prepared.train), len(prepared.val), context)


def summary_line(prepared: Prepared) -> str:
    """Sum up a prepared text in a line; further lines report what was left out."""
    return (
        f"{len(prepared.train):,} training and {len(prepared.val):,} validation tokens, "
        f"vocabulary {prepared.tokenizer.vocabulary:,}"
        + "".join(f"\n{line}" for line in text_notices(prepared.survey))
    )


def text_notices(found: Survey) -> Iterator[str]:
    """Yield the notices of train, plan and prepare about a text: what is read, left out,
    replaced, or not found.
    """
    if of_tables := columns_line(found):
        yield of_tables
    yield from found.notices


def columns_line(found: Survey) -> str | None:
    """Return a line about the columns that are read and left out; None: no tables."""
    return table_words(found.column, found.unused, found.rows, found.empty)


def _surveys(data: settings.Data, cache: Path | None, on_progress: Progress | None) -> list[Survey]:
    return [
        survey(open_corpus(part), cache=cache, on_progress=on_progress) for _, part in data.parts()
    ]


def _joined(data: settings.Data, found: Sequence[Survey]) -> Survey:
    """Return one survey of all sources, in their order."""
    names = [source.name for source in data.sources]
    hashes = json.dumps([[n, each.hash] for n, each in zip(names, found, strict=True)])
    lengths, sides, tails = array("Q"), bytearray(), bytearray()
    for each in found:
        lengths += each.document_bytes
        sides += each.in_validation
        tails += bytes([each.split == "tails"]) * each.documents
    joined = Survey(
        files=sum(each.files for each in found),
        documents=len(lengths),
        bytes=sum(each.bytes for each in found),
        skipped=sum(each.skipped for each in found),
        replaced=sum(each.replaced for each in found),
        hash=hashlib.sha256(hashes.encode()).hexdigest(),
        split="mixed",
        val_bytes=sum(each.val_bytes for each in found),
        document_bytes=lengths,
        in_validation=sides,
        rows=sum(each.rows for each in found),
        empty=sum(each.empty for each in found),
        unused=tuple(dict.fromkeys(name for each in found for name in each.unused)),
        by_tails=tails,
        left_out=sum((Counter(each.left_out) for each in found), Counter()),
        notices=tuple(
            f"source {name}: {line}"
            for name, each in zip(names, found, strict=True)
            for line in each.notices
        ),
    )
    if data.hash not in (None, joined.hash):
        raise CorpusError(
            f"{settings.named(data)}: the sources differ from those in this run's config; other "
            "sources need a new run"
        )
    return joined


def _blend(data: settings.Data, found: Sequence[Survey], parts: Sequence[Prepared]) -> Prepared:
    sizes = [len(part.train) for part in parts]
    weights = [
        source.weight if source.weight is not None else size / max(1, sum(sizes))
        for source, size in zip(data.sources, sizes, strict=True)
    ]
    filled = tuple(
        source.model_copy(
            update={
                "weight": weight,
                "column": part.data.column,
                "format": part.data.format,
                "split": part.survey.split,
                "hash": part.survey.hash,
            }
        )
        for source, weight, part in zip(data.sources, weights, parts, strict=True)
    )
    return Prepared(
        folder=parts[0].folder,
        survey=_joined(data, found),
        tokenizer=parts[0].tokenizer,
        train=TokenStream.joined([part.train for part in parts]),
        val=TokenStream.joined([part.val for part in parts]),
        key=hashlib.sha256(json.dumps([part.key for part in parts]).encode()).hexdigest(),
        data=data.model_copy(update={"sources": filled}),
        sources=tuple(
            PreparedSource(source.name, weight / sum(weights), part)
            for source, weight, part in zip(data.sources, weights, parts, strict=True)
        ),
    )


# --- one tokenizer for all sources ---


def _tokenizer(
    data: settings.Data,
    found: Sequence[Survey],
    asked: Asked,
    cache: Path | None,
    on_progress: Progress | None,
) -> Tokenizer:
    if isinstance(asked, Tokenizer):
        return asked
    if asked.kind == "bytes":
        return ByteTokenizer()
    if asked.kind == "gpt2":
        return Gpt2Tokenizer.fetch()
    folder = _tokenizer_folder(data, found, asked, cache)
    if kept := _kept(folder):
        return kept
    total_bytes = min(sum(each.train_bytes for each in found), bpe.TRAINING_BYTES)

    def on_bytes(done_bytes: int) -> None:
        if on_progress:
            on_progress("learning vocabulary", done_bytes, max(total_bytes, done_bytes))

    learned = train_bpe(_sample(data, found, total_bytes), _vocabulary(found, asked), on_bytes)
    # Without a cache the next run just learns it again.
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove(folder, may_stay=True)  # the existing folder is damaged
        with new_folder(folder) as made:
            learned.save(made)
    return learned


def _sample(data: settings.Data, found: Sequence[Survey], total_bytes: int) -> Iterator[str]:
    """Yield training text of each source in proportion to its weight, as far as it lasts."""
    for (_, part), each, share in zip(data.parts(), found, _shares(data, found), strict=True):
        parts = divided_parts(open_corpus(part), each)
        texts = (piece.text for piece in parts if not piece.is_validation)
        yield from bpe.sample_evenly(
            texts,
            each.train_bytes,
            max(1, round(share * total_bytes)),
            max(1, round(share * bpe.DISTINCT_BYTES)),
        )


def _shares(data: settings.Data, found: Sequence[Survey]) -> list[float]:
    weights = [
        source.weight if source.weight is not None else float(each.train_bytes)
        for source, each in zip(data.sources, found, strict=True)
    ]
    return [weight / sum(weights) for weight in weights]


def _vocabulary(found: Sequence[Survey], asked: settings.Tokenizer) -> int:
    return asked.vocabulary or bpe.choose_vocabulary(sum(each.train_bytes for each in found))


def _tokenizer_folder(
    data: settings.Data,
    found: Sequence[Survey],
    asked: settings.Tokenizer,
    cache: Path | None,
) -> Path:
    parts = [
        (each.hash, each.split, share)
        for each, share in zip(found, _shares(data, found), strict=True)
    ]
    identity = (parts, data.validation_fraction, asked.kind, _vocabulary(found, asked))
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return (cache or cache_folder()) / "tokenizers" / key


def _kept(folder: Path) -> Tokenizer | None:
    try:
        return load_tokenizer(folder)
    except UserError:
        return None
