"""The number of tokens in a text, found without preparing a large one.

Counted if its shards are in the cache or it is small enough to make them at once; otherwise
estimated from a sample.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hairpin.config.settings import Config
from hairpin.config.settings import Tokenizer as TokenizerSettings
from hairpin.data import bpe
from hairpin.data.blend import prepare_text, survey_sources, text_prepared_already
from hairpin.data.corpus import open_corpus
from hairpin.data.shards import Prepared
from hairpin.data.split import Progress, Survey
from hairpin.data.tokenizers import ByteTokenizer, Gpt2Tokenizer, Tokenizer, train_bpe
from hairpin.planning.fill import TextSize, text_settings

_PREPARED_BYTES = 2_000_000
_SAMPLED_BYTES = 2_000_000
_ENCODED_BYTES = 500_000


@dataclass(frozen=True, kw_only=True)
class Text(TextSize):
    """A text in tokens, counted or estimated.

    Args:
        name: a short name.
        survey: its size.
        source: "counted", or "estimated" from a sample.
        preparing_seconds: estimated time to make its shards; 0: they exist.
    """

    name: str
    survey: Survey
    source: str
    preparing_seconds: float

    @property
    def bytes_per_token(self) -> float:
        """Bytes per token of training and validation text."""
        return self.survey.bytes / max(1, self.train_tokens + self.val_tokens)


def count_tokens(config: Config, name: str, on_progress: Progress | None) -> Text:
    """Return the size of a corpus in tokens of the config's tokenizer.

    Args:
        config: with its vocabulary chosen.
        name: of the text.
        on_progress: of slow steps.

    Raises:
        CorpusError: it cannot be read.
    """
    found = survey_sources(config.data, on_progress=on_progress)
    prepared = text_prepared_already(config.data, found, config.tokenizer)
    if prepared is None and found.bytes <= _PREPARED_BYTES:
        prepared = prepare_text(config.data, config.tokenizer, on_progress=on_progress)
    return _counted(name, prepared) if prepared else _estimated(name, config, found)


def _counted(name: str, prepared: Prepared) -> Text:
    size = TextSize.of(prepared)
    return Text(
        **vars(size), name=name, survey=prepared.survey, source="counted", preparing_seconds=0.0
    )


def _estimated(name: str, config: Config, found: Survey) -> Text:
    start = time.perf_counter()
    pieces = list(_sample(config, found))
    tokenizer = _tokenizer(config.tokenizer, pieces, found)
    learned = time.perf_counter()
    encoded = pieces[:: max(1, len("".join(pieces).encode()) // _ENCODED_BYTES)]
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(encoded))
    size = sum(len(piece.encode()) for piece in encoded)
    ended = time.perf_counter()
    per_byte = tokens / size
    learning = (learned - start) * min(found.bytes, bpe.TRAINING_BYTES) / _SAMPLED_BYTES
    preparing = learning * (config.tokenizer.kind == "bpe") + (ended - learned) * found.bytes / size
    train = round(found.train_bytes * per_byte) + found.documents
    val = max(2, round(found.val_bytes * per_byte))
    vocabulary = config.tokenizer.vocabulary or tokenizer.vocabulary
    data = config.data if config.data.sources else open_corpus(config.data).data
    return Text(
        settings=text_settings(found, data, vocabulary),
        train_tokens=train,
        val_tokens=val,
        sources=_estimated_sources(config, per_byte),
        name=name,
        survey=found,
        source="estimated",
        preparing_seconds=preparing,
    )


def _estimated_sources(config: Config, per_byte: float) -> dict[str, tuple[float, int]]:
    sizes = {
        source.name: round(survey_sources(part).train_bytes * per_byte)
        for source, part in config.data.parts()
    }
    weights = {
        source.name: float(sizes[source.name]) if source.weight is None else source.weight
        for source in config.data.sources
    }
    whole = sum(weights.values())
    return {name: (weights[name] / whole, size) for name, size in sizes.items()}


def _sample(config: Config, found: Survey) -> Iterator[str]:
    """Yield small pieces from all over the text."""
    texts = (
        piece for document in open_corpus(config.data).documents() for piece in document.pieces()
    )
    yield from bpe.sample_evenly(texts, found.bytes, _SAMPLED_BYTES)


def _tokenizer(asked: TokenizerSettings, pieces: list[str], found: Survey) -> Tokenizer:
    if asked.kind == "bytes":
        return ByteTokenizer()
    if asked.kind == "gpt2":
        return Gpt2Tokenizer.fetch()
    vocabulary = asked.vocabulary or bpe.choose_vocabulary(found.train_bytes)
    return train_bpe(iter(pieces), vocabulary)
