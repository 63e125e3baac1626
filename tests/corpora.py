"""What tests of reading text share: a corpus, its texts, and what is wrong with it in a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hairpin.config.settings import Data
from hairpin.data.corpus import Corpus, open_corpus
from hairpin.errors import CorpusError


def corpus_of(*paths: Path | str, **fields: Any) -> Corpus:
    return open_corpus(Data(texts=tuple(str(path) for path in paths), **fields))


def texts_of(corpus: Corpus) -> list[str]:
    return ["".join(document.pieces()) for document in corpus.documents()]


def problem_of(act: Callable[[], object]) -> str:
    """The one line of the CorpusError that `act` raises."""
    with pytest.raises(CorpusError) as caught:
        act()
    (line,) = caught.value.problems
    assert "\n" not in line and len(line) < 420
    return line
