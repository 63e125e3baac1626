"""Findings of an examination of the machine."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        what: the check's name, a few words at most.
        state: "ok"; "note": something works less well, or is missing; "problem": it does not work.
        text: what was found, and what to do about it if anything; one line.
        is_wrong: a device computes wrong numbers.
    """

    what: str
    state: State
    text: str
    is_wrong: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
