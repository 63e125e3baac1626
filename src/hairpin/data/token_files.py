"""Files of token ids that other trainers prepare: numbers, of which no text can be had here."""

from pathlib import Path

import numpy as np

from hairpin.data.other_encodings import is_utf8
from hairpin.data.recognising import Kind

_GPT2_TOKENS = 50257
_LLMC = (20240520, 20240801)  # the first number of llm.c's files, of 16 and of 32 bits an id


def token_ids(path: Path, opening: bytes) -> Kind | None:
    """Return the kind of a file of token ids, with who wrote it; None: it is something else.

    Args:
        path: the file.
        opening: its first bytes.
    """
    if not (words := _made_by(path.suffix, opening)):
        return None
    name, advice = "file of token ids", "give the text it was made of"
    return Kind(name, words, advice, many="files of token ids")


def _made_by(suffix: str, opening: bytes) -> str | None:
    if suffix.lower() != ".bin" or len(opening) < 4:
        return None
    if int.from_bytes(opening[:4], "little") in _LLMC:
        return "a file of token ids, as llm.c's scripts write"
    is_text = b"\0" not in opening and is_utf8(opening)
    if is_text or opening[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None
    ids = np.frombuffer(opening[: len(opening) // 2 * 2], "<u2")
    is_one = len(np.unique(ids)) > 1 and int(ids.max()) < _GPT2_TOKENS
    return "a file of token ids, as nanoGPT's prepare.py writes" if is_one else None
