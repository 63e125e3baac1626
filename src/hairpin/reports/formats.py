"""Numbers and names formatted for people, and untrusted text made safe for a terminal."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from hairpin.system.files import size_words

_MAX_PARTS = 3  # of a path; earlier ones identify the machine and its user
_LARGE = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))

# All C0 and C1 controls but tab and newline, the bidirectional controls, the line and paragraph
# separators, and halves of surrogate pairs (which UTF-8 cannot write).
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Those that act on a terminal. Tabs, and marks that right-to-left scripts need, do not.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units: "0.4s", "42s", "2m 10s", "3h 05m", "2d 04h".

    Rounded to the smaller unit that is shown; "?" where the number is not finite or is negative.
    """
    seconds = _float(seconds)
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 0.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"


def format_count(n: float) -> str:
    """Format a count in three digits and a letter: "950", "9,999", "12.4k", "124M", "1.56B"."""
    n = _float(n)
    if abs(n) < 9_999.5:
        return f"{n:,.0f}"
    return _scaled(n, _LARGE)


def format_bytes(n: float) -> str:
    """Format a size in decimal units: "950 bytes", "12.4 MB"."""
    n = _float(n)
    return size_words(n) if math.isfinite(n) else str(n)


def format_lr(lr: float) -> str:
    """Format a learning rate in three digits: "1.2e-3"; "0" for zero."""
    lr = _float(lr)
    if not math.isfinite(lr):
        return str(lr)
    if lr == 0:
        return "0"
    mantissa, exponent = f"{lr:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_loss(loss: float | None) -> str:
    """Format a loss in its significant digits: "10.83", "3.217", "0.0123"; "unknown" for None."""
    if loss is None:
        return "unknown"
    loss = _float(loss)
    if not math.isfinite(loss):
        return str(loss)
    return f"{loss:.2f}" if loss >= 10 else f"{loss:.3f}" if loss >= 0.1 else f"{loss:.3g}"


def format_norm(norm: float) -> str:
    """Format a gradient norm in three digits: "0.87", "14.2", "1.2e5"."""
    norm = _float(norm)
    if not math.isfinite(norm):
        return str(norm)
    if norm == 0 or 0.01 <= norm < 1000:
        return f"{norm:.2f}" if norm < 10 else f"{norm:.3g}"
    return format_lr(norm)


def format_updates(count: int) -> str:
    """Format a number of updates with its noun: "1 update", "2,400 updates"."""
    return f"{count:,} update{'' if count == 1 else 's'}"


def safe_text(text: str, encoding: str = "utf-8") -> str:
    """Return the text with every character that could act on a terminal escaped.

    Characters that `encoding` lacks are escaped too, so that printing cannot fail.
    """
    escaped = _HARMFUL.sub(_escape, text.replace("\r\n", "\n")).expandtabs(4)
    return escaped.encode(encoding, errors="backslashreplace").decode(encoding)


def safe_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield a text that goes to a terminal piece by piece, with control characters escaped; tabs,
    line breaks and marks that other scripts need stay as they are.

    A line break of two characters may be split over two pieces.
    """
    held = ""
    for piece in pieces:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""
        if text := text.removesuffix("\r").replace("\r\n", "\n"):
            yield _ACTING.sub(_escape, text)
    if held:
        yield _ACTING.sub(_escape, held)


def safe_name(name: str, most: int | None = None) -> str:
    """Return a user-chosen name as part of a line: line breaks and tabs are escaped too.

    Args:
        name: the name.
        most: characters, beyond which the end is cut off; None: no limit.
    """
    line = safe_text(name.replace("\n", "\\n").replace("\t", "\\t"))
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def short_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """Return the last parts of each path, as many as needed to tell all apart; numbered if the
    parts that others may see are not enough.
    """
    paths = [_without_user(parts) for parts in paths]
    longest = min(_MAX_PARTS, max(map(len, paths)))
    for count in range(1, longest + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{parts[-1]} ({number})" for number, parts in enumerate(paths, 1)]


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _float(n: float) -> float:
    """Return the number as a float; a record may hold an integer too large for one."""
    try:
        return float(n)
    except OverflowError:
        return math.inf if n > 0 else -math.inf


def _scaled(n: float, units: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(n):
        return str(n)
    # 999,950 rounds to 1,000 thousand, which reads better as 1M: hence the half digit.
    for scale, unit in units:
        if abs(n) >= 0.9995 * scale:
            value = n / scale
            digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            text = f"{value:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
    return f"{n:,.0f}"


def _without_user(parts: Sequence[str]) -> Sequence[str]:
    """Return a path's parts below a user's home folder, whose name is the user's."""
    is_home = len(parts) > 3 and parts[1].lower() in ("home", "users")
    return parts[3:] if is_home else parts
