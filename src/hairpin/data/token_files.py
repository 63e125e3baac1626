"""Files of token ids that other trainers prepare: numbers, of which no text can be had here."""

import numpy as np

_GPT2_TOKENS = 50257
_LLMC = (20240520, 20240801)  # the first number of llm.c's files, of 16 and of 32 bits an id
ADVICE = "give the text it was made of"


def made_by(suffix: str, opening: bytes) -> str | None:
    """Return who wrote a file of token ids, in words; None: it is something else.

    Args:
        suffix: of the file's name.
        opening: its first bytes.
    """
    if suffix.lower() != ".bin" or len(opening) < 4:
        return None
    if int.from_bytes(opening[:4], "little") in _LLMC:
        return "a file of token ids, as llm.c's scripts write"
    if _is_utf8(opening) or opening[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None
    ids = np.frombuffer(opening[: len(opening) // 2 * 2], "<u2")
    is_one = len(np.unique(ids)) > 1 and int(ids.max()) < _GPT2_TOKENS
    return "a file of token ids, as nanoGPT's prepare.py writes" if is_one else None


def _is_utf8(opening: bytes) -> bool:
    """Tell whether it is text as far as it goes; the last character may be cut."""
    if b"\0" in opening:
        return False
    try:
        opening.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(opening) - 3 and error.reason == "unexpected end of data"
    return True
