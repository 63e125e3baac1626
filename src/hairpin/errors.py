"""Every way in which hairpin stops on purpose.

    HairpinError                exit code 1: a run failed
    ├── UserError               exit code 2: something the user can put right
    │   ├── ConfigError         a setting is unknown, impossible or contradicts another
    │   ├── CorpusError         the text cannot be read, or there is too little of it
    │   ├── PluginError         a plugin does not load, or does not do what it is to
    │   └── RunError            a run folder is missing, damaged or of another kind
    │       ├── CheckpointError a checkpoint is not the bytes that were written
    │       └── UnreadableError a file is there, and cannot be read now
    ├── NonFiniteError          a loss or gradient became NaN or infinite
    ├── SpikeError              a loss or gradient rose far above the usual
    ├── ProcessLostError        one of several processes ended before the others
    ├── FollowedError           the first of several processes stopped, and said why
    └── Interrupted             a signal asked for the end: exit code 128 + signal

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
    """Base of all errors that hairpin raises on purpose; `problems` has a line for each."""

    exit_code = 1

    def __init__(self, problems: str | Iterable[str]) -> None:
        lines = (problems,) if isinstance(problems, str) else problems
        self.problems = tuple(one_line(line) for line in lines)
        super().__init__("\n".join(self.problems))


class UserError(HairpinError):
    """Something that the user can put right."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, impossible, or contradicts another."""


class CorpusError(UserError):
    """The text cannot be read, or there is too little of it."""


class PluginError(UserError):
    """A plugin does not load, or does not do what it is to."""


class RunError(UserError):
    """A run folder is missing, damaged, or not of the kind that was asked for."""


class CheckpointError(RunError):
    """A checkpoint is not the bytes that were written."""


class UnreadableError(RunError):
    """A file or folder is there and cannot be read now, which says nothing about its content.

    Args:
        path: which it is.
        error: the system's.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.reason = path, error.strerror or str(error)
        super().__init__(
            f"{path}: cannot be read ({self.reason}); nothing was changed: try again when it can "
            "be read"
        )


class NonFiniteError(HairpinError):
    """A loss or a gradient became NaN or infinite; the weights were not touched."""


class SpikeError(HairpinError):
    """A loss or a gradient rose far above the usual; the weights were not touched."""


class ProcessLostError(HairpinError):
    """One of the processes that train together has ended, or cannot be reached."""


class FollowedError(HairpinError):
    """The first of several processes stopped; it says why, and this one says nothing.

    Args:
        exit_code: the first one's.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(())
        self.exit_code = exit_code


class Interrupted(HairpinError):  # noqa: N818 - it is no error of anybody's
    """A signal asked for the end, and the run was left so that it can go on.

    Args:
        problems: what to tell the user.
        signal_number: SIGHUP (1), SIGINT (2) or SIGTERM (15); the exit code is 128 more.
    """

    def __init__(self, problems: str | Iterable[str], signal_number: int) -> None:
        super().__init__(problems)
        self.exit_code = 128 + signal_number


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a process that ends with this."""
    if isinstance(error, HairpinError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return error.code or 0
    return 1


def is_secret(key: str) -> bool:
    """Tell whether a key or an option has the name of a password or of another secret."""
    return _SECRET_KEY.search(key) is not None


def without_secrets(text: str) -> str:
    """The text without the passwords of addresses, and without what is assigned to a secret key."""
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", _IN_ADDRESS.sub(_HIDDEN, text))


def shown_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line as it may be kept, without secrets."""
    return tuple(_shown(arguments))


def _shown(arguments: Sequence[str]) -> Iterator[str]:
    before = ""
    for argument in arguments:
        names_secret = before.startswith("-") and "=" not in before and is_secret(before)
        if names_secret:
            yield _HIDDEN
        elif found := _ASSIGNMENT.fullmatch(argument):  # one argument is one value, with its blanks
            yield found[1] + _HIDDEN
        else:
            yield without_secrets(argument)
        before = argument


def one_line(problem: str) -> str:
    """The text with line breaks and whatever else could act on a terminal as escapes: a problem
    may name a file or a key as somebody wrote it. Secrets are left out.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in without_secrets(problem))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
