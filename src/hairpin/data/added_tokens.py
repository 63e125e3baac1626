"""Tokens that no merge makes: end-of-text, and additions to a vocabulary (`<|im_start|>`)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Added:
    """A token that no merge makes.

    Args:
        content: its text.
        id: its id.
        special: whether programs leave it out of displayed text.
    """

    content: str
    id: int
    special: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return it as tokenizer_config.json has it, under its id."""
        return {
            "content": self.content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": self.special,
        }


class AddedTokens:
    """The added tokens that a text can become: all but end-of-text.

    Args:
        added: all of a vocabulary.
    """

    def __init__(self, added: Sequence[Added]) -> None:
        self.id_of = {token.content: token.id for token in added if token.content != END_OF_TEXT}
        # Of tokens that begin at the same place the longest is taken.
        longest_first = sorted(self.id_of, key=len, reverse=True)
        self._expression = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def divided(self, text: str, following: str) -> int:
        """Return the number of characters at the end of a text that, with the text after it, form
        an added token; 0: none.
        """
        reach = max(map(len, self.id_of), default=1) - 1
        if not reach:
            return 0
        tail = text[-reach:]
        for found in self._expression.finditer(tail + following[:reach]):
            if found.start() < len(tail) < found.end():
                return len(tail) - found.start()
        return 0

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield the text in pieces, each with its id, or None where merges make its ids."""
        if not self.id_of:
            yield text, None
            return
        for index, piece in enumerate(self._expression.split(text)):
            if piece:
                yield piece, self.id_of[piece] if index % 2 else None
