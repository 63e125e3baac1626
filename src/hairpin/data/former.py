"""A corpus as hairpin read it before it told files by their content, for runs that began then.

Such a run knows the hash of its text. Where the text of today has another, and that of then has it,
the run goes on with the text of then.
"""

from pathlib import Path

from hairpin.config.data import Data, named
from hairpin.data.corpus import Corpus
from hairpin.data.finding import Search
from hairpin.data.folders import Found
from hairpin.data.left_out import LeftOut
from hairpin.data.reading import opening_of
from hairpin.data.recognising import BINARY, Kind, by_suffix
from hairpin.errors import CorpusError

_PACKED_THEN = (".bz2", ".xz")  # left out by name


class _FormerSearch(Search):
    """Takes all that is text or a table by name, without a NUL in its opening."""

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


def former_corpus(corpus: Corpus) -> Corpus | None:
    """The corpus as it was read then; None: that was no other text.

    Args:
        corpus: of a run, whose config has the column of its tables.
    """
    data: Data = corpus.data
    if not data.texts or data.sources:
        return None
    search = _FormerSearch(data.format)
    for text in data.texts:
        search.add(Path(text))
    then = [(source.path, source.format) for source in search.sources]
    now = [(source.path, source.format) for source in corpus.sources]
    if search.problems or (then == now and "\n" not in (data.separator or "")):
        return None
    return Corpus(named(data), search.sources, data, search.left_out, is_former=True)
