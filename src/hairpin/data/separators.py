"""Separators between documents, used or missed, and the notices about how a text was read."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hairpin.data.cache import shown
from hairpin.data.left_out import LeftOut
from hairpin.data.tables.naming import counted

# Marks that other programs write between documents. Quoted ones are code that mentions them.
_KNOWN = ("<|endoftext|>", "<|end_of_text|>", "<|eos|>", "<eos>", "[EOS]")
_PATTERNS = {mark: re.compile(f"""(?<!["'`]){re.escape(mark)}(?!["'`])""") for mark in _KNOWN}
_OFTEN = 2


@dataclass
class Marks:
    """Counts of one pass over a text.

    Args:
        files: files that were searched for the separator.
        separators: separators found.
        unused: well-known marks between documents seen while no separator is set.
    """

    files: int = 0
    separators: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def looked_for(self, blocks: Iterable[str]) -> Iterator[str]:
        """Pass the blocks on unchanged, counting well-known marks in them."""
        for block in blocks:
            for mark, pattern in _PATTERNS.items():
                if mark in block:
                    self.unused[mark] += sum(1 for _ in pattern.finditer(block))
            yield block


def told(
    left_out: LeftOut, undecodable: int, replaced: int, marks: Marks, separator: str | None
) -> tuple[str, ...]:
    """Return lines about what was left out or replaced, and about separators."""
    lines = list(left_out.lines())
    if undecodable:
        which = "that is not in the encoding that it declares"
        if undecodable > 1:
            which = "that are not in the encoding that they declare"
        lines.append(f"left out: {counted(undecodable, 'file')} {which}")
    if replaced:
        lines.append(
            f"bytes that are not text were replaced by {counted(replaced, 'U+FFFD character')}"
        )
    if separator is not None and marks.files and not marks.separators:
        lines.append(
            f'data.separator "{shown(separator)}" is never found: each file is one document'
        )
    elif separator is not None and not marks.files:
        lines.append("data.separator divides text files, and there are none here: it is not used")
    mark, count = max(marks.unused.items(), key=lambda item: item[1], default=("", 0))
    if count >= _OFTEN:
        lines.append(
            f"{mark} stands {count:,} times in the text, and no separator is set: "
            f"--data.separator '{mark}' makes a document of each part"
        )
    return tuple(lines)
