"""Cut a stream of text where tokens cannot differ from those of the whole.

GPT-2's tokenizer first splits text into words by a regular expression, then each word into
tokens. A cut is safe where the expression always splits, whatever follows:

- before a tab, newline, return or space that comes after something that is no white space: only
  a space at the start of a word and runs of white space match white space at all;
- between an ASCII letter, an ASCII digit and an ASCII mark (also some marks and letters of East
  Asian scripts, whose text may have no spaces): a word has only one of these kinds. Never after
  an apostrophe, which may begin a contraction (`'ll`).

Python's idea of white space is wider than the expression's, and a few characters changed their
class between versions of Unicode: those are left out.
"""

import re
from collections.abc import Iterable, Iterator

PIECE_CHARS = 256 * 1024
LIMIT_CHARS = 1024 * 1024  # a text without a safe cut is cut here anyway: memory is bounded

_LETTER = "A-Za-z\u4e00-\u9fa5\u3041-\u3093\u30a1-\u30f6\uac00-\ud7a3"
_MARK = r'!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~' + "、。「」『』（），：；？！"
_SAFE_CUT = re.compile(
    r"(?<=[^\s\u180e\u200b])(?=[ \t\n\r])"
    rf"|(?<=[{_LETTER}])(?=[0-9{_MARK}'])"
    rf"|(?<=[0-9])(?=[{_LETTER}{_MARK}'])"
    rf"|(?<=[{_MARK}])(?=[{_LETTER}0-9])"
)


def first_cut(text: str, start: int, end: int) -> int | None:
    """Return the first safe cut at an index in [start, end), or None; 0 and len(text) are none."""
    # The search stops at `end`: without a cut it would read all the rest for each piece.
    match = _SAFE_CUT.search(text, max(start, 1), end)
    return match.start() if match else None


def last_cut(text: str, end: int) -> int | None:
    """Return the last safe cut at an index in [1, end], or None."""
    span = 256
    while True:
        start = max(end - span, 1)
        found = None
        # The search ends one past `end`: a cut depends on the character after it.
        for match in _SAFE_CUT.finditer(text, start, end + 1):
            found = match.start()
        if found is not None or start == 1:
            return found
        span *= 16


def recut(
    stream: Iterable[str], piece_chars: int = PIECE_CHARS, limit_chars: int = LIMIT_CHARS
) -> Iterator[str]:
    """Yield the same text in pieces of about `piece_chars` characters that end at safe cuts.

    The pieces depend only on the text, not on how the stream was cut. A stretch of
    `limit_chars` characters without a safe cut is cut at its end: decoding still gives the text.
    """
    waiting: list[str] = []
    waiting_chars = 0
    needed_chars = piece_chars + 1
    for block in stream:
        waiting.append(block)
        waiting_chars += len(block)
        if waiting_chars < needed_chars:
            continue
        text = "".join(waiting)
        position = 0
        while True:
            # Searching a slice keeps a cut's place independent of where the blocks ended.
            window = text[position : position + piece_chars + 1]
            cut = last_cut(window, piece_chars) if len(window) > piece_chars else None
            if cut is None and len(text) - position > limit_chars:
                later = first_cut(text, position + piece_chars, position + limit_chars)
                cut = limit_chars if later is None else later - position
            if cut is None:
                break
            yield text[position : position + cut]
            position += cut
        waiting = [text[position:]]
        waiting_chars = len(waiting[0])
        needed_chars = limit_chars + 1 if waiting_chars > piece_chars else piece_chars + 1
    if rest := "".join(waiting):
        yield rest
