"""Every way in which hairpin stops on purpose.

    HairpinError                exit code 1: a run failed
    ├── UserError               exit code 2: a mistake that the user can fix
    │   ├── ConfigError         a setting is unknown, impossible or contradicts another
    │   ├── CorpusError         the text cannot be read, or there is too little of it
    │   ├── PluginError         a plugin cannot be loaded, or breaks its contract
    │   └── RunError            a run folder is missing, damaged or of another kind
    │       ├── CheckpointError a checkpoint differs from the bytes that were written
    │       └── UnreadableError a file exists but cannot be read now
    ├── NonFiniteError          a loss or gradient became NaN or infinite
    ├── SpikeError              a loss or gradient rose far above its usual range
    ├── ProcessLostError        one of several processes ended before the others
    ├── FollowedError           the first of several processes stopped and reported why
    └── Interrupted             a signal stopped the run: exit code 128 + signal

Each problem is one line that says what is wrong, where, and what to do. The command line prints
these lines and nothing else; a traceback means a bug in hairpin.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_SECRET = (
    r"(?:api|access|private|auth|wandb|hf)[_.-]?key|passw(?:or)?d|passphrase|secret|credential|bearer"
    r"|token(?![a-z])"
)
_SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""([\w.-]*(?:{_SECRET})[\w.-]*\s*=\s*)("[^"]*"|'[^']*'|\S+)""", re.IGNORECASE
)
_ASSIGNMENT = re.compile(rf"(.*?(?:{_SECRET})[\w.-]*\s*=).*", re.IGNORECASE | re.DOTALL)
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_HIDDEN = "***"


class HairpinError(Exception):
    """Base of all errors that hairpin raises on purpose; `problems` has their lines."""

    exit_code = 1

    def __init__(self, problems: str | Iterable[str]) -> None:
        lines = (problems,) if isinstance(problems, str) else problems
        self.problems = tuple(one_line(line) for line in lines)
        super().__init__("\n".join(self.problems))


class UserError(HairpinError):
    """A mistake that the user can fix."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, impossible, or contradicts another."""


class CorpusError(UserError):
    """The text cannot be read, or there is too little of it."""


class PluginError(UserError):
    """A plugin cannot be loaded, or breaks its contract."""


class RunError(UserError):
    """A run folder is missing, damaged, or not of the requested kind."""


class CheckpointError(RunError):
    """A checkpoint differs from the bytes that were written."""


class UnreadableError(RunError):
    """A file or folder exists but cannot be read now, which says nothing about its content.

    Args:
        path: of the file or folder.
        error: the system's error.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.reason = path, error.strerror or str(error)
        super().__init__(
            f"{path}: cannot be read ({self.reason}); nothing was changed; try again when it can "
            "be read"
        )


class NonFiniteError(HairpinError):
    """A loss or a gradient became NaN or infinite; the weights were not changed."""


class SpikeError(HairpinError):
    """A loss or a gradient rose far above its usual range; the weights were not changed."""


class ProcessLostError(HairpinError):
    """One of the processes that train together has ended, or cannot be reached."""


class FollowedError(HairpinError):
    """The first of several processes stopped; it reports why, and this one reports nothing.

    Args:
        exit_code: of the first process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(())
        self.exit_code = exit_code


class Interrupted(HairpinError):  # noqa: N818 - not an error
    """A signal stopped the run, which can be resumed.

    Args:
        problems: the lines for the user.
        signal_number: SIGHUP (1), SIGINT (2) or SIGTERM (15); the exit code is 128 more.
    """

    def __init__(self, problems: str | Iterable[str], signal_number: int) -> None:
        super().__init__(problems)
        self.exit_code = 128 + signal_number


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a process that ends with this exception."""
    if isinstance(error, HairpinError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return error.code or 0
    return 1


def is_secret(key: str) -> bool:
    """Return True if a key or an option is named like a password or another secret."""
    return _SECRET_KEY.search(key) is not None


def without_secrets(text: str) -> str:
    """Return the text without passwords in addresses and values assigned to secret keys."""
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", _IN_ADDRESS.sub(_HIDDEN, text))


def shown_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without secrets, so that it can be stored."""
    return tuple(_shown(arguments))


def _shown(arguments: Sequence[str]) -> Iterator[str]:
    before = ""
    for argument in arguments:
        names_secret = before.startswith("-") and "=" not in before and is_secret(before)
        if names_secret:
            yield _HIDDEN
        elif found := _ASSIGNMENT.fullmatch(argument):  # one argument is one value, with its spaces
            yield found[1] + _HIDDEN
        else:
            yield without_secrets(argument)
        before = argument


def one_line(problem: str) -> str:
    """Return the text as one line without secrets: line breaks and other control characters, which
    a file's name or a key may contain, are escaped.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in without_secrets(problem))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
