"""Files -> documents, streamed: no file is ever held whole.

open_corpus(settings) -> Corpus      finds the files; reads nothing but openings
Corpus.documents()    -> Document    one after the other, each an iterator of pieces
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hairpin.config.settings import Data, named
from hairpin.data import embedded
from hairpin.data.finding import FormerSearch, Search, TextSource
from hairpin.data.folders import LeftOut
from hairpin.data.pieces import recut
from hairpin.data.reading import TextReader
from hairpin.data.tables.choosing import choose_tables
from hairpin.data.tables.columns import choose_column, counted
from hairpin.data.tables.table import open_table
from hairpin.errors import CorpusError
from hairpin.system.files import shown

_MAX_PROBLEMS = 10
# Marks that other programs write between documents. Quoted ones are code that mentions them.
_KNOWN = ("<|endoftext|>", "<|end_of_text|>", "<|eos|>", "<eos>", "[EOS]")
_PATTERNS = {mark: re.compile(f"""(?<!["'`]){re.escape(mark)}(?!["'`])""") for mark in _KNOWN}
_OFTEN = 2


class Document:
    """One text, read once; `name` is its origin, for messages."""

    def __init__(self, name: str, blocks: Iterable[str]) -> None:
        self.name = name
        self._pieces = recut(blocks)

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces of about 256 Ki characters, cut where tokens cannot differ."""
        return self._pieces


@dataclass
class SeparatorCounts:
    """Counts of one pass over a text.

    Args:
        files: files that were searched for the separator.
        separators: separators found.
        unused: well-known marks between documents seen while no separator is set.
    """

    files: int = 0
    separators: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def counting(self, blocks: Iterable[str]) -> Iterator[str]:
        """Pass the blocks on unchanged, counting well-known marks in them."""
        for block in blocks:
            for mark, pattern in _PATTERNS.items():
                if mark in block:
                    self.unused[mark] += sum(1 for _ in pattern.finditer(block))
            yield block


@dataclass
class Corpus:
    """The files of a run, in a fixed order.

    Attributes:
        name: a short word for it (the corpus, the file or the first of several).
        sources: the files; those of all sources of a mixture, one after the other.
        data: the settings, with the column and the format of tables filled in.
        left_out: found files and folders that are not part of the text.
        skipped: files and folders left out; known in full after a pass.
        undecodable: files, in the last pass, that are not in the encoding that they declare.
        empty: rows without a text, of all `rows`, in the last pass.
        unused: columns of tables that were not read, in the last pass.
        replaced: U+FFFD characters that replaced bad bytes, in the last pass.
        marks: separators in the last pass, used or missed.
        is_legacy: whether files are read by the former rules; see `legacy_corpus`.
    """

    name: str
    sources: list[TextSource]
    data: Data
    left_out: LeftOut = field(default_factory=LeftOut)
    is_legacy: bool = False
    undecodable: int = field(default=0, init=False)
    replaced: int = field(default=0, init=False)
    rows: int = field(default=0, init=False)
    empty: int = field(default=0, init=False)
    unused: dict[str, None] = field(default_factory=dict, init=False)
    marks: SeparatorCounts = field(default_factory=SeparatorCounts, init=False)

    @property
    def skipped(self) -> int:
        return self.left_out.total + self.undecodable

    def become(self, other: "Corpus") -> None:
        """Take over another's files and its way of reading them."""
        self.sources, self.data = other.sources, other.data
        self.left_out, self.is_legacy = other.left_out, other.is_legacy

    def notices(self) -> tuple[str, ...]:
        """Return lines about what was left out, replaced or not found in the last pass."""
        return reading_notices(
            self.left_out, self.undecodable, self.replaced, self.marks, self.data.separator
        )

    def documents(self) -> Iterator[Document]:
        """Yield every document; requesting the next one reads the rest of the one before.

        Raises:
            CorpusError: a file turns out to be unreadable, damaged or not UTF-8.
        """
        self.undecodable = self.replaced = self.rows = self.empty = 0
        self.unused = {}
        self.marks = SeparatorCounts()
        for number, source in enumerate(self.sources, 1):
            try:
                yield from self._of_source(source)
            except CorpusError as error:
                raise CorpusError(self._with_others(error, self.sources[number:])) from None

    def _of_source(self, source: TextSource) -> Iterator[Document]:
        data = source.data or self.data
        return (self._of_text if source.format == "text" else self._of_table)(source, data)

    def _with_others(self, error: CorpusError, rest: list[TextSource]) -> list[str]:
        """Return a file's problems with those of the files after it, to be fixed all at once."""
        problems = list(error.problems)
        for number, source in enumerate(rest, 1):
            if len(problems) >= _MAX_PROBLEMS:
                problems.append(f"{len(rest) - number + 1:,} more files were not checked")
                break
            try:
                for document in self._of_source(source):
                    deque(document.pieces(), maxlen=0)
            except CorpusError as other:
                problems += other.problems
        return problems

    def _of_text(self, source: TextSource, data: Data) -> Iterator[Document]:
        blocks = self._blocks(source, data)
        separator = data.separator
        if separator is None:
            streams: Iterable[Iterator[str]] = [self.marks.counting(blocks)]
        else:
            streams = split_stream(blocks, separator, is_exact=self.is_legacy)
            self.marks.files += 1
        for number, stream in enumerate(streams, 1):
            self.marks.separators += number > 1
            name = source.name if separator is None else f"{source.name} (document {number})"
            # Empty documents are dropped; the first block shows which these are.
            first = next(stream, None)
            if first is not None:
                document = Document(name, _chain(first, stream))
                yield document
                for _ in document.pieces():
                    pass

    def _of_table(self, source: TextSource, data: Data) -> Iterator[Document]:
        assert source.path
        table = open_table(source.path, source.format, data.on_bad_bytes)
        columns = table.columns()
        if not columns:
            return
        before = self.replaced
        column = choose_column(table.name, columns, data.column)
        for place, text in table.texts(column):
            self.replaced = before + table.replaced
            self.rows += 1
            if not text:
                self.empty += 1
                continue
            document = Document(place, (text,))
            yield document
            for _ in document.pieces():
                pass
        self.unused |= {name: None for name in table.names if name != column}

    def _blocks(self, source: TextSource, data: Data) -> Iterator[str]:
        if source.path is None:
            yield source.text or ""
        elif data.corpus == "stdlib":
            text = embedded.source_text(source.path)
            if text is None:
                self.undecodable += 1
            elif text:
                yield text
        else:
            reader = TextReader(source.path, data.on_bad_bytes, is_checked=not self.is_legacy)
            before = self.replaced
            for block in reader.blocks():
                self.replaced = before + reader.replaced
                yield block
            self.replaced = before + reader.replaced


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def split_stream(
    blocks: Iterable[str], separator: str, *, is_exact: bool = False
) -> Iterator[Iterator[str]]:
    """Yield the parts of a stream between separators, each an iterator of non-empty blocks.

    Use up a part before requesting the next one; the rest of it is dropped. A line end in the
    separator matches any line end of the text, LF or CRLF, unless it `is_exact`.
    """
    lines = [separator] if is_exact else separator.replace("\r\n", "\n").split("\n")
    # A leading return is checked afterwards: a pattern that begins with an option is slow.
    pattern = re.compile("\r?\n".join(map(re.escape, lines)).removeprefix("\r?"))
    longest = sum(map(len, lines)) + 2 * (len(lines) - 1)
    source = iter(blocks)
    text, position, ended = "", 0, False

    def part() -> Iterator[str]:
        nonlocal text, position, ended
        keep = longest - 1  # that many characters may be the beginning of a separator
        while True:
            found = pattern.search(text, position)
            end = found.start() if found else max(len(text) - keep, position)
            if found and not lines[0] and end > position and text[end - 1] == "\r":
                end -= 1
            if end > position:
                yield text[position:end]
            position = end
            if found:
                position = found.end()
                return
            block = next(source, None)
            if block is None:
                if position < len(text):
                    yield text[position:]
                ended = True
                return
            text, position = text[position:] + block, 0

    while not ended:
        current = part()
        yield current
        for _ in current:
            pass


def open_corpus(data: Data) -> Corpus:
    """Open the corpus that the settings name: `data.corpus`, the files of `data.texts`, or all
    sources of a mixture one after the other.

    Raises:
        CorpusError: a line for each path that is missing, unreadable or holds no text; or the
            text column is ambiguous.
    """
    if data.sources:
        return _joined(data)
    if data.corpus == "stdlib":
        found = embedded.standard_library()
        return Corpus("stdlib", [TextSource(name, path) for name, path in found], data)
    if data.corpus == "python-docs":
        topics = embedded.python_docs()
        return Corpus("python-docs", [TextSource(name, text=text) for name, text in topics], data)
    if data.corpus == "verdict":
        path = embedded.verdict()
        return Corpus("verdict", [TextSource(path.name, path)], data)
    if not data.texts:
        raise CorpusError("no text given; name a file or a folder, or use --corpus stdlib")
    # With a hash it is a repeat, maybe of a run that read more as text: see `legacy_corpus`.
    search = Search(
        data.format, takes_tables=data.column is not None, checks_named=data.hash is None
    )
    for text in data.texts:
        search.add(Path(text))
    if search.problems:
        raise CorpusError(search.problems)
    left_out = search.left_out
    data, sources = choose_tables(data, search.sources, left_out)
    return Corpus(named(data), sources, data, left_out)


def _joined(data: Data) -> Corpus:
    corpora = [open_corpus(part) for _, part in data.parts()]
    sources = [replace(s, data=corpus.data) for corpus in corpora for s in corpus.sources]
    left_out = LeftOut()
    for corpus in corpora:
        left_out.take(corpus.left_out)
    return Corpus(named(data), sources, data, left_out)


def legacy_corpus(corpus: Corpus, *, is_refused: bool) -> Corpus | None:
    """Return the corpus as the former rules read it, or None if that makes no difference.

    A run's config holds the hash of its text. If the hash no longer matches, but matches the text
    as the rules in use before files were recognised by content read it, a run from that time
    continues with that text.

    Args:
        corpus: of a run, whose config has the column of its tables.
        is_refused: whether today's rules refuse one of its files.
    """
    data: Data = corpus.data
    if not data.texts or data.sources:
        return None
    search = FormerSearch(data.format, checks_named=False)
    for text in data.texts:
        search.add(Path(text))
    then = [(source.path, source.format) for source in search.sources]
    now = [(source.path, source.format) for source in corpus.sources]
    is_same = then == now and "\n" not in (data.separator or "")
    if search.problems or (is_same and not is_refused):
        return None
    return Corpus(named(data), search.sources, data, search.left_out, is_legacy=True)


def reading_notices(
    left_out: LeftOut,
    undecodable: int,
    replaced: int,
    marks: SeparatorCounts,
    separator: str | None,
) -> tuple[str, ...]:
    """Return lines about what was left out or replaced, and about separators."""
    lines = list(left_out.lines())
    if undecodable:
        which = "that is not in the encoding that it declares"
        if undecodable > 1:
            which = "that are not in the encoding that they declare"
        lines.append(f"left out: {counted(undecodable, 'file')} {which}")
    if replaced:
        lines.append(
            f"bytes that are not text were replaced by {counted(replaced, 'U+FFFD character')}"
        )
    if separator is not None and marks.files and not marks.separators:
        lines.append(
            f'data.separator "{shown(separator)}" is never found: each file is one document'
        )
    elif separator is not None and not marks.files:
        lines.append("data.separator splits text files, and there are none: it is not used")
    mark, count = max(marks.unused.items(), key=lambda item: item[1], default=("", 0))
    if count >= _OFTEN:
        lines.append(
            f"{mark} stands {count:,} times in the text, and no separator is set: "
            f"--data.separator '{mark}' makes each part a document"
        )
    return tuple(lines)
