"""Recognising encodings other than UTF-8: UTF-16 and UTF-32 by a mark or by their NULs, older
ones by their letters.

marked(opening)      the encoding that a byte-order mark announces
unmarked(opening)    UTF-16 or UTF-32 without a mark
legacy(part)         an encoding of one or two bytes a letter, by its name for `iconv`
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: it begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2))
_NO_TEXT = frozenset(("Cc", "Cn", "Co", "Cs"))
_PLAUSIBLE = 0.97  # of the characters, where a wrong reading gives 0.9 at most
_NULS_OF_LATIN = 0.3  # of the bytes at the places where UTF-16 has them
_CONTROLS_OF_CYRILLIC = 0.3  # of all bytes; each letter's second byte is one
# What terminals, printers and editors put among letters is none of these.
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\b\t\n\v\f\r\x1a\x1b")

Test = Callable[[str], bool]


def encoding_by_mark(opening: bytes) -> tuple[str, int] | None:
    """Return the codec that a byte-order mark announces and the mark's length in bytes, or None
    if there is no mark or what follows is not text.
    """
    for mark, codec in _MARKS:
        if opening.startswith(mark):
            text = opening[len(mark) :].decode(codec, "ignore")
            return (codec, len(mark)) if _share(text, _is_text) >= _PLAUSIBLE else None
    return None


def encoding_by_nuls(opening: bytes) -> str | None:
    """Return "UTF-16LE" or the like for text in a wide encoding without a mark, else None.

    Each Latin letter contains a NUL. Other scripts have NULs only in spaces and line ends, and
    are either invalid as UTF-8 or half control characters.
    """
    if not opening.count(0):
        return None
    for codec, width in _WIDE:
        whole = opening[: len(opening) - len(opening) % width]
        # The last of them may be half a pair.
        text = whole.decode(codec, "ignore")
        if len(text) < len(whole) // width - (len(whole) // width) // 50 - 1 or len(text) < 2:
            continue
        if _share(text, _is_text) < _PLAUSIBLE or not _has_nuls_of(whole, codec, width):
            continue
        is_wide = width == 4 or _nul_share(whole, codec) >= _NULS_OF_LATIN
        if is_wide or not is_utf8(opening) or control_share(opening) >= _CONTROLS_OF_CYRILLIC:
            return codec.upper().replace("-LE", "LE").replace("-BE", "BE")
    return None


def control_share(opening: bytes) -> float:
    """Return the share of bytes that are NULs or control characters foreign to text."""
    return 1 - len(opening.translate(None, _CONTROL)) / len(opening) if opening else 0.0


def _has_nuls_of(whole: bytes, codec: str, width: int) -> bool:
    """Tell whether NULs stand only where small numbers have them."""
    if width == 4:
        return not any(whole[3::4]) if codec.endswith("le") else not any(whole[0::4])
    low, high = (whole[0::2], whole[1::2])[:: 1 if codec.endswith("le") else -1]
    if not low.count(0):
        return high.count(0) >= 2
    # Letters such as U+4E00 and U+3000 end in a NUL; white space tells which byte comes first.
    units = Counter(zip(high, low, strict=True))
    spaces = sum(units[0, byte] for byte in b"\t\n\r ")
    mirrored = sum(units[byte, 0] for byte in b"\t\n\r ")
    return not units[0, 0] and spaces >= 2 and spaces > mirrored


def _nul_share(whole: bytes, codec: str) -> float:
    high = whole[1::2] if codec.endswith("le") else whole[0::2]
    return high.count(0) / max(1, len(high))


def is_utf8(opening: bytes) -> bool:
    """Tell whether the beginning of a file is UTF-8; its last character may be cut."""
    try:
        codecs.utf_8_decode(opening, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _is_text(char: str) -> bool:
    return char in "\t\n\r\f" or unicodedata.category(char) not in _NO_TEXT


def _share(text: str, test: Test) -> float:
    """Return the share of characters that pass; 1 for an empty text."""
    return sum(map(test, text)) / len(text) if text else 1.0


# --- one or two bytes a letter ---


def _within(first: int, last: int) -> Test:
    return lambda char: first <= ord(char) <= last


_KANA = _within(0x3041, 0x30FF)
_HANGUL = _within(0xAC00, 0xD7A3)
_OFTEN = frozenset(
    "的一是不了在人有我他这這中大来來上国國个個到说說们們为為子和你地出道也时時年得就那要下以生会會自"
)
# Codec, the name for `iconv`, the letters that tell, and how many of them at least.
_TWO_BYTES: tuple[tuple[str, str, Test, float], ...] = (
    ("euc_jp", "EUC-JP", _KANA, 0.2),
    ("cp932", "SHIFT_JIS", _KANA, 0.2),
    ("cp949", "EUC-KR", _HANGUL, 0.7),
    ("gb18030", "GB18030", _OFTEN.__contains__, 0.05),
    ("big5", "BIG5", _OFTEN.__contains__, 0.05),
)
# Codec, the name for `iconv`, and the letters that are half of a text in its language and its
# neighbours' or more: read wrongly, a text is of others.
_ONE_BYTE: tuple[tuple[str, str, str], ...] = (
    ("koi8_r", "KOI8-R", "оеаинтсрвл"),
    ("cp1251", "WINDOWS-1251", "оеаинтсрвлії"),
    ("cp866", "CP866", "оеаинтсрвл"),
    ("iso8859_5", "ISO-8859-5", "оеаинтсрвл"),
    ("cp1253", "WINDOWS-1253", "αοιετσνηυρςίό"),
    ("cp1255", "WINDOWS-1255", "יוהלאתרבשמ"),
    ("cp1256", "WINDOWS-1256", "الينمرتوبة"),
    ("cp874", "CP874", "านรอกเงมยล"),
)
WESTERN = "WINDOWS-1252"
_ENOUGH_BYTES = 16  # that are not ASCII: fewer tell no script
# Of bytes that are not ASCII those that follow another: whole words of them are another script,
# and Latin letters with accents stand among those without.
_OTHER_SCRIPT_SHARE = 0.5
_WESTERN_MARKS = "„“”‘’‚–—…€£§©®°«»¿¡·•´\xa0"
_POLISH = "¹³¿Ÿ¾\ufffd"  # ą, ł, ż, ź, ľ and ť, read as Windows-1252
_SIGN_IN_A_WORD = re.compile(rf"(?<=[^\W\d_])[{_POLISH}](?=[^\W\d_])")


def recognise_legacy_encoding(part: bytes) -> str | None:
    """Return the older encoding that a part of a file looks like, by its name for `iconv`.

    Args:
        part: a few kilobytes around the first byte that is not UTF-8; letters may be cut at its
            ends.
    """
    letters_bytes = sum(byte >= 0x80 for byte in part)
    of_utf8 = len(_letters(part.decode(errors="ignore")).encode())
    if control_share(part) or of_utf8 > 0.8 * letters_bytes:  # a bad byte in UTF-8
        return None
    is_enough = letters_bytes >= _ENOUGH_BYTES
    for codec, name, test, least in _TWO_BYTES if is_enough else ():
        letters = _letters(_without_cut(part, codec))
        if letters and _share(letters, test) >= least:
            return name
    in_a_row = sum(one >= 0x80 and other >= 0x80 for one, other in pairwise(part))
    if in_a_row < _OTHER_SCRIPT_SHARE * letters_bytes or not is_enough:
        return _latin(part)
    best = max((_frequent(part, codec, often), name) for codec, name, often in _ONE_BYTE)
    return best[1] if best[0] >= 0.4 else None


def _without_cut(part: bytes, codec: str) -> str | None:
    """Decode a part whose first and last letters may be cut; None if more is wrong."""
    for start in (0, 1):
        for end in (0, 1, 2, 3):
            try:
                return part[start : len(part) - end].decode(codec)
            except UnicodeDecodeError:
                continue
    return None


def _letters(text: str | None) -> str:
    return "".join(char for char in text or "" if ord(char) >= 0x80)


def _frequent(part: bytes, codec: str, often: str) -> float:
    """Return the share of a language's most frequent letters among non-ASCII characters."""
    return _share(_letters(part.decode(codec, "replace")), often.__contains__)


def _latin(part: bytes) -> str | None:
    """Return Windows-1252; or 1250 if reading as 1252 puts signs inside words, as for Polish, or
    mixes letters that no one language has, as for Czech.
    """
    text = part.decode("cp1252", "replace")
    letters = _letters(text)
    if _share(letters, lambda char: char.isalpha() or char in _WESTERN_MARKS + _POLISH) < 0.8:
        return None
    signs = sum(1 for _ in _SIGN_IN_A_WORD.finditer(text))
    is_czech = "ø" in letters and any(char in letters for char in "ìù")
    return "WINDOWS-1250" if signs > 0.05 * len(letters) or is_czech else WESTERN
