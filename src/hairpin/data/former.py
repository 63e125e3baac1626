"""Reading a corpus by the rules in use before files were recognised by content.

A run's config holds the hash of its text. If the hash no longer matches, but matches the text as
the former rules read it, a run from that time continues with that text.
"""

from pathlib import Path

from hairpin.config.settings import Data, named
from hairpin.data.corpus import Corpus
from hairpin.data.finding import Search
from hairpin.data.folders import Found
from hairpin.data.left_out import LeftOut
from hairpin.data.reading import opening_of
from hairpin.data.recognising import BINARY, Kind, by_suffix
from hairpin.errors import CorpusError

_PACKED_THEN = (".bz2", ".xz")  # left out by name


class _FormerSearch(Search):
    """A search that takes every file with the name of a text or table and no NUL in its opening."""

    def inside(self, pattern: Path) -> None:
        return None

    def kind_of_folder(self, place: Path, entries: list[str]) -> Kind | None:
        return None

    def kind_of_found(self, path: Path) -> Kind | None:
        if path.suffix.lower() in _PACKED_THEN:
            return BINARY
        try:
            has_nul = b"\0" in opening_of(path)
        except CorpusError:
            has_nul = False
        return by_suffix(path) or (BINARY if has_nul else None)

    def chosen(self, found: list[Found], left_out: LeftOut) -> list[Found]:
        return found


def former_corpus(corpus: Corpus, *, is_refused: bool) -> Corpus | None:
    """Return the corpus as the former rules read it, or None if that makes no difference.

    Args:
        corpus: of a run, whose config has the column of its tables.
        is_refused: whether today's rules refuse one of its files.
    """
    data: Data = corpus.data
    if not data.texts or data.sources:
        return None
    search = _FormerSearch(data.format, checks_named=False)
    for text in data.texts:
        search.add(Path(text))
    then = [(source.path, source.format) for source in search.sources]
    now = [(source.path, source.format) for source in corpus.sources]
    is_same = then == now and "\n" not in (data.separator or "")
    if search.problems or (is_same and not is_refused):
        return None
    return Corpus(named(data), search.sources, data, search.left_out, is_former=True)
