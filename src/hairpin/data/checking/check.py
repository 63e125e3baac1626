"""Check of a corpus before training: copies, leaks, boilerplate, odd bytes.

    check_corpus(data)   two passes over the text, in bounded memory

Of more than `SAMPLED_BYTES` a part is checked: whole documents, or pieces of long ones, chosen by a
hash of their position, so that it is the same part each time.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from hairpin.config.settings import Data
from hairpin.data.blend import survey_sources
from hairpin.data.checking.lines import LineCounter, RepeatedLine
from hairpin.data.checking.near import Hashes, SharedWindows, Signature, similar_groups
from hairpin.data.checking.oddities import Oddity, OddityFinder
from hairpin.data.corpus import Corpus, Document, open_corpus
from hairpin.data.split import Progress, Survey, divide_text, tail_bytes

SAMPLED_BYTES = 200_000_000
SIMILAR = 0.8  # Jaccard similarity from which documents count as nearly the same
WORST_SHARE_SHOWN = 0.1
_LONG_DOCUMENT_BYTES = 4_000_000
_SHOWN_LINES = 10
_MAX_DOCUMENTS = 200_000  # whose signatures are kept: 100 MB


@dataclass(frozen=True)
class Near:
    """Statistics of documents that are nearly the same.

    Args:
        groups: number of groups of such documents.
        copies: documents beyond the first of each group.
        bytes: size of the copies.
        examples: names of the first two of the largest groups.
    """

    groups: int
    copies: int
    bytes: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verbatim:
    """Statistics of validation text that is in the training text.

    Args:
        windows: number of windows of validation text that were searched for.
        found: number of those that are in the training text verbatim.
        worst: the validation document with most such windows, and their share of its windows.
    """

    windows: int
    found: int
    worst: tuple[str, float] | None

    @property
    def share(self) -> float:
        """The share of windows that were found."""
        return self.found / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class CorpusCheck:
    """The findings about a corpus.

    Args:
        survey: its size, and how it is split.
        checked_bytes, checked_documents: amounts that were checked.
        empty_documents: number of documents with only white space, and of empty files.
        longest: the longest document's name and bytes.
        near, verbatim, oddities: see their classes.
        lines: number of lines.
        repeated: the lines whose repetitions take most bytes.
        repeated_bytes: size of all repetitions of lines beyond the first.
        boilerplate: those of `repeated` that are in at least a tenth of the documents.
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
        """True if only a part was checked."""
        return self.checked_bytes < self.survey.bytes


def check_corpus(
    data: Data, *, on_progress: Progress | None = None, sampled_bytes: int = SAMPLED_BYTES
) -> CorpusCheck:
    """Check a corpus. Bytes that are not UTF-8 are counted rather than rejected.

    Args:
        data: the text, and how it is split.
        on_progress: called with ("checking", bytes done, all bytes).
        sampled_bytes: approximate maximum to check.

    Raises:
        CorpusError: the text cannot be read, or is empty.
    """
    lenient = data.model_copy(update={"on_bad_bytes": "replace", "hash": None})
    lenient = lenient.model_copy(
        update={"sources": tuple(s.model_copy(update={"hash": None}) for s in data.sources)}
    )
    corpus = open_corpus(lenient)
    found = survey_sources(lenient, on_progress=on_progress)
    look = _CorpusScan(corpus, found, min(1.0, sampled_bytes / found.bytes), on_progress)
    look.first_pass()
    look.second_pass()
    return look.result()


@dataclass
class _CorpusScan:
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
    windows: SharedWindows = field(default_factory=SharedWindows)

    def first_pass(self) -> None:
        """Check everything except for validation text in training text."""
        replaced = 0
        for index, document in enumerate(self.corpus.documents()):
            if self._takes(index, None):
                self._examine(index, document)
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

    def _examine(self, index: int, document: Document) -> None:
        signature, has_text, size = Signature(), False, 0
        self.oddities.open(document.name)
        number = len(self.names)
        for text, is_validation in self._pieces(index, document):
            content = text.encode()
            size += len(content)
            has_text = has_text or not text.isspace()
            self.oddities.add(text)
            self.lines.add(text)
            if number < _MAX_DOCUMENTS:
                signature.add(content)
            if is_validation:
                self.windows.want(content, number)
            self._report(len(content))
        self.names.append(document.name)
        self.sizes.append(size)
        self.checked_bytes += size
        self.empty += not has_text
        self.longest = max(self.longest, (document.name, size), key=lambda entry: entry[1])
        if number < _MAX_DOCUMENTS:
            self.signatures.append(signature.least)

    def second_pass(self) -> None:
        """Search the training text for validation text."""
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
        """Yield the pieces of a document that are checked, with True for validation text."""
        divided = divide_text(
            document.pieces(),
            in_validation=bool(self.found.in_validation[index]),
            tail_bytes=tail_bytes(self.found, index, self.corpus.data),
            document_bytes=self.found.document_bytes[index],
        )
        for number, (is_validation, text) in enumerate(divided):
            if self._takes(index, number):
                yield text, is_validation

    def _takes(self, index: int, piece: int | None) -> bool:
        """Return True if a document (`piece` None), or a piece of a long one, is checked."""
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
        """Return the findings."""
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
