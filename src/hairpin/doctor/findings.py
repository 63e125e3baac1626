"""What an examination of the machine finds."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: its name, a word or a few.
        state: "ok"; "note": something works less well, or is not there; "problem": it does not
            work.
        text: what was found, and what to do where something is to be done; one line.
        is_wrong: whether a device computes wrongly.
    """

    what: str
    state: State
    text: str
    is_wrong: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
