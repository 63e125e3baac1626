"""Commands for messages, quoted so that they can be pasted into a shell."""

import os
import re
import shlex
import subprocess
from pathlib import Path

# Words that a shell takes literally, so that they need no quotes: `…` stands for the rest.
_PLAIN = re.compile(r"[\w@%+=:,./…-]+", re.ASCII)
_OPTION_LIKE = re.compile(r"-+\w")


def command(verb: str, *arguments: str | Path) -> str:
    """Return `hairpin VERB ARGUMENTS`, with paths quoted if a shell would split them.

    Args:
        verb: of hairpin.
        arguments: flags and placeholders (FILE, TEXT) as strings, files and folders as paths.
    """
    return f"hairpin {verb} {quoted_words(*arguments)}".rstrip()


def quoted_words(*words: str | Path) -> str:
    """Return the words quoted for a shell: a POSIX one, on Windows its own."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str | Path) -> str:
    text = str(word)
    if isinstance(word, Path) and _OPTION_LIKE.match(text):
        text = f".{os.sep}{text}"  # otherwise it would be a flag
    if os.name == "nt":
        return subprocess.list2cmdline([text])
    if text and _PLAIN.fullmatch(text):
        return text
    if text.isprintable():
        return shlex.quote(text)
    # Line breaks, and bytes of a name that are not UTF-8, as escapes for bash, zsh and ksh.
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
