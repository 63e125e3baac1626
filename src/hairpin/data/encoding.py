"""Documents -> token ids, streamed: split into sides, cut into pieces, encoded in batches."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hairpin.data.added_tokens import AddedTokens
from hairpin.data.corpus import Corpus, Document
from hairpin.data.split import Survey, divide_text, tail_bytes
from hairpin.data.tokenizers import Ids, Tokenizer
from hairpin.errors import CorpusError

_BATCH_CHARS = 2 * 1024 * 1024


class ChangedError(CorpusError):
    """The text differs from what the survey found."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__(
            f"{corpus.name}: the text changed while it was read; wait until it is complete, then "
            "run the command again"
        )


@dataclass(frozen=True)
class DocumentPart:
    """A piece of text on one side; `opens` if a document, or its tail, begins with it."""

    is_validation: bool
    opens: bool
    text: str
    text_bytes: int


def divided_parts(corpus: Corpus, found: Survey) -> Iterator[DocumentPart]:
    """Yield all pieces of the corpus with their sides, in order.

    Raises:
        ChangedError: at the latest after the last piece, if the content is not what was surveyed.
        CorpusError: a file cannot be read.
    """
    overall = hashlib.sha256()
    for index, document in enumerate(corpus.documents()):
        if index == found.documents:
            raise ChangedError(corpus)
        digest = hashlib.sha256()
        last_side: bool | None = None
        divided = divide_text(
            document.pieces(),
            in_validation=bool(found.in_validation[index]),
            tail_bytes=tail_bytes(found, index, corpus.data),
            document_bytes=found.document_bytes[index],
        )
        for is_validation, text in divided:
            content = text.encode()
            digest.update(content)
            yield DocumentPart(is_validation, is_validation != last_side, text, len(content))
            last_side = is_validation
        overall.update(digest.digest())
    if overall.hexdigest() != found.hash:
        raise ChangedError(corpus)


def encoded_parts(
    parts: Iterable[DocumentPart], tokenizer: Tokenizer
) -> Iterator[tuple[DocumentPart, Ids]]:
    """Yield each part with its ids, with end-of-text before those that open a document."""
    opening = np.array([tokenizer.end_of_text], dtype=np.uint32)
    for batch in _batches(_with_whole_marks(parts, AddedTokens(tokenizer.added_tokens()))):
        all_ids = tokenizer.encode_batch([part.text for part in batch])
        for part, ids in zip(batch, all_ids, strict=True):
            yield part, np.concatenate((opening, ids)) if part.opens else ids


def token_blocks(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[Ids, int]]:
    """Yield (ids, bytes of text) of whole documents, with end-of-text before each of them."""

    def parts() -> Iterator[DocumentPart]:
        for document in documents:
            for number, piece in enumerate(document.pieces()):
                yield DocumentPart(False, number == 0, piece, len(piece.encode()))

    for part, ids in encoded_parts(parts(), tokenizer):
        yield ids, part.text_bytes


def _with_whole_marks(parts: Iterable[DocumentPart], marks: AddedTokens) -> Iterator[DocumentPart]:
    """Yield the parts, recut so that none ends inside the text of an added token, which was unknown
    when they were cut.
    """
    waiting: DocumentPart | None = None
    for part in parts:
        if not waiting:
            waiting = part
            continue
        moved = 0 if part.opens else marks.divided(waiting.text, part.text)
        kept = len(waiting.text) - moved
        yield _with_text(waiting, waiting.text[:kept]) if moved else waiting
        waiting = _with_text(part, waiting.text[kept:] + part.text) if moved else part
    if waiting:
        yield waiting


def _with_text(part: DocumentPart, text: str) -> DocumentPart:
    return replace(part, text=text, text_bytes=len(text.encode()))


def _batches(parts: Iterable[DocumentPart]) -> Iterator[list[DocumentPart]]:
    batch: list[DocumentPart] = []
    chars = 0
    for part in parts:
        batch.append(part)
        chars += len(part.text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
