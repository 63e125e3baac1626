"""Finding a kept survey again: a key from the files' names, sizes and times."""

import hashlib
import json
import sys
from pathlib import Path

from hairpin.data.corpus import Corpus

_FORMAT = 4
# A file that changed this shortly before the survey may change again unseen: clocks are coarse.
_SETTLED_SECONDS = 2.0


def survey_path(corpus: Corpus, cache: Path) -> Path | None:
    """Return the path for the survey of exactly these files and settings, or None if none can be
    kept.
    """
    signature = hashlib.sha256()
    data = corpus.data.model_dump(mode="json", exclude={"hash"})
    how_it_is_read = (_FORMAT, corpus.is_former, data, sys.version)
    signature.update(json.dumps(how_it_is_read, sort_keys=True).encode())
    for source in corpus.sources:
        if source.path is None:
            return None
        for path in source.files():
            try:
                status = path.stat()
            except OSError:
                return None
            stamp = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            signature.update(ascii((source.format, *stamp)).encode())
    return cache / "surveys" / f"{signature.hexdigest()}.npz"


def settled(corpus: Corpus, start_time: float) -> bool:
    """Tell whether no file changed in the last moments, so that a later change would show."""
    try:
        newest = max(p.stat().st_mtime for source in corpus.sources for p in source.files())
    except (OSError, ValueError):
        return False
    return newest < start_time - _SETTLED_SECONDS
