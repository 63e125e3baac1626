"""A look at a corpus before it is trained on: copies, leaks, boilerplate, odd bytes.

    check_corpus(data)   two passes over the text, in bounded memory

Of more than `SAMPLED_BYTES` a part is looked at: whole documents, of long ones pieces, by a hash of
their place, so that it is the same part each time.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from hairpin.config.data import Data
from hairpin.data.blend import survey_text
from hairpin.data.checking.lines import LineCounter, RepeatedLine
from hairpin.data.checking.near import Hashes, Signature, similar_groups
from hairpin.data.checking.oddities import Oddity, OddityFinder
from hairpin.data.checking.verbatim import Windows
from hairpin.data.corpus import Corpus, Document, open_corpus
from hairpin.data.split import Progress, Survey, divide, tail_bytes

SAMPLED_BYTES = 200_000_000
SIMILAR = 0.8  # Jaccard's similarity from which documents count as nearly the same
WORST_SHARE_SHOWN = 0.1
_LONG_DOCUMENT_BYTES = 4_000_000
_SHOWN_LINES = 10
_MOST_DOCUMENTS = 200_000  # whose signatures are held: 100 MB


@dataclass(frozen=True)
class Near:
    """Documents that are nearly the same.

    Args:
        groups: of them.
        copies: documents beyond the first of each group.
        bytes: of the copies.
        examples: names of the two first of the largest groups.
    """

    groups: int
    copies: int
    bytes: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verbatim:
    """Validation text in training text.

    Args:
        windows: of validation text that were looked for.
        found: those that stand in training text word for word.
        worst: the validation document with most of them, and the share of its windows.
    """

    windows: int
    found: int
    worst: tuple[str, float] | None

    @property
    def share(self) -> float:
        """Of windows that were found."""
        return self.found / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class CorpusCheck:
    """What a corpus is like.

    Args:
        survey: how much there is, and how it is divided.
        checked_bytes, checked_documents: of it, that were looked at.
        empty_documents: that have nothing but white space, and files without a byte.
        longest: the longest document's name and bytes.
        near, verbatim, oddities: see there.
        lines: how many there are.
        repeated: the lines whose repetitions take most bytes.
        repeated_bytes: of all repetitions of lines beyond the first.
        boilerplate: of `repeated`, those that stand in at least a tenth of the documents.
    """

    survey: Survey
    checked_bytes: int
    checked_documents: int
    empty_documents: int
    longest: tuple[str, int]
    near: Near
    verbatim: Verbatim
    oddities: tuple[Oddity, ...]
    lines: int
    repeated: tuple[RepeatedLine, ...]
    repeated_bytes: int
    boilerplate: tuple[RepeatedLine, ...]

    @property
    def is_sample(self) -> bool:
        """Whether only a part was looked at."""
        return self.checked_bytes < self.survey.bytes


def check_corpus(
    data: Data, *, on_progress: Progress | None = None, sampled_bytes: int = SAMPLED_BYTES
) -> CorpusCheck:
    """Look at a corpus. Bytes that are not UTF-8 are counted and not refused.

    Args:
        data: which text, and how it is divided.
        on_progress: called with ("checking", bytes done, all bytes).
        sampled_bytes: to look at, at most, about.

    Raises:
        CorpusError: the text cannot be read, or there is none.
    """
    lenient = data.model_copy(update={"on_bad_bytes": "replace", "hash": None})
    lenient = lenient.model_copy(
        update={"sources": tuple(s.model_copy(update={"hash": None}) for s in data.sources)}
    )
    corpus = open_corpus(lenient)
    found = survey_text(lenient, on_progress=on_progress)
    look = _Look(corpus, found, min(1.0, sampled_bytes / found.bytes), on_progress)
    look.first_pass()
    look.second_pass()
    return look.result()


@dataclass
class _Look:
    corpus: Corpus
    found: Survey
    share: float
    on_progress: Progress | None
    done_bytes: int = 0
    checked_bytes: int = 0
    empty: int = 0
    longest: tuple[str, int] = ("", 0)
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    signatures: list[Hashes] = field(default_factory=list)
    oddities: OddityFinder = field(default_factory=OddityFinder)
    lines: LineCounter = field(default_factory=LineCounter)
    windows: Windows = field(default_factory=Windows)

    def first_pass(self) -> None:
        """Everything but the search for validation text."""
        replaced = 0
        for index, document in enumerate(self.corpus.documents()):
            if self._takes(index, None):
                self._look_at(index, document)
                self.oddities.close(self.corpus.replaced - replaced)
                self.lines.close()
            else:
                for _ in document.pieces():
                    pass
                self._report(self.found.document_bytes[index])
            replaced = self.corpus.replaced  # the next document's first block is not read yet
        self.empty += sum(
            1
            for source in self.corpus.sources
            if any(path.stat().st_size == 0 for path in source.files()[:1])
        )

    def _look_at(self, index: int, document: Document) -> None:
        signature, has_text, size = Signature(), False, 0
        self.oddities.open(document.name)
        number = len(self.names)
        for text, is_validation in self._pieces(index, document):
            content = text.encode()
            size += len(content)
            has_text = has_text or not text.isspace()
            self.oddities.add(text)
            self.lines.add(text)
            if number < _MOST_DOCUMENTS:
                signature.add(content)
            if is_validation:
                self.windows.want(content, number)
            self._report(len(content))
        self.names.append(document.name)
        self.sizes.append(size)
        self.checked_bytes += size
        self.empty += not has_text
        self.longest = max(self.longest, (document.name, size), key=lambda entry: entry[1])
        if number < _MOST_DOCUMENTS:
            self.signatures.append(signature.least)

    def second_pass(self) -> None:
        """Training text is searched for what validation text says."""
        self.windows.begin_search()
        for index, document in enumerate(self.corpus.documents()):
            if not self._takes(index, None):
                self._report(self.found.document_bytes[index])
                continue
            opens = True
            for text, is_validation in self._pieces(index, document):
                content = text.encode()
                if not is_validation:
                    self.windows.search(content, opens=opens)
                    opens = False
                self._report(len(content))

    def _pieces(self, index: int, document: Document) -> Iterator[tuple[str, bool]]:
        """The pieces of a document that are looked at, with their sides."""
        divided = divide(
            document.pieces(),
            in_validation=bool(self.found.in_validation[index]),
            tail_bytes=tail_bytes(self.found, index, self.corpus.data),
            document_bytes=self.found.document_bytes[index],
        )
        for number, (is_validation, text) in enumerate(divided):
            if self._takes(index, number):
                yield text, is_validation

    def _takes(self, index: int, piece: int | None) -> bool:
        """Whether a document (`piece` None), or a piece of a long one, is looked at."""
        if self.share == 1.0:
            return True
        is_long = self.found.document_bytes[index] > _LONG_DOCUMENT_BYTES
        if is_long == (piece is None):
            return True
        digest = hashlib.sha256(f"{index} {piece}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64

    def _report(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes
        if self.on_progress:
            total = max(self.done_bytes, 2 * self.found.bytes)
            self.on_progress("checking", self.done_bytes, total)

    def result(self) -> CorpusCheck:
        """What was seen."""
        repeated = list(self.lines.repeated())
        often = max(3, len(self.names) / 10)
        return CorpusCheck(
            survey=self.found,
            checked_bytes=self.checked_bytes,
            checked_documents=len(self.names),
            empty_documents=self.empty,
            longest=self.longest,
            near=self._near(),
            verbatim=self._verbatim(),
            oddities=tuple(self.oddities.found()),
            lines=self.lines.lines,
            repeated=tuple(repeated[:_SHOWN_LINES]),
            repeated_bytes=sum((line.count - 1) * line.bytes for line in repeated),
            boilerplate=tuple(line for line in repeated if line.documents >= often)[:_SHOWN_LINES],
        )

    def _near(self) -> Near:
        groups = similar_groups(self.signatures, SIMILAR)
        groups.sort(key=lambda group: -sum(self.sizes[member] for member in group[1:]))
        copies = [member for group in groups for member in group[1:]]
        return Near(
            len(groups),
            len(copies),
            sum(self.sizes[member] for member in copies),
            tuple((self.names[group[0]], self.names[group[1]]) for group in groups[:3]),
        )

    def _verbatim(self) -> Verbatim:
        windows, found, each = self.windows.result()
        worst = max(each.items(), key=lambda item: item[1][1], default=None)
        if worst is None or not worst[1][1]:
            return Verbatim(windows, found, None)
        document, (count, hits) = worst
        return Verbatim(windows, found, (self.names[document], hits / count))
