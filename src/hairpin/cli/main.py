"""The command line: `hairpin VERB`, thin over the Python API.

Only click is imported here and in the verbs' modules, of which only those are imported that the
command needs; a verb imports what it needs when it runs.
"""

import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from pkgutil import iter_modules
from types import FrameType
from typing import NoReturn

import click

from hairpin.cli import verbs
from hairpin.cli.options import Verb, refuse_repeats
from hairpin.config.names import FOREIGN_NAMES
from hairpin.distributed.launch import is_follower, world_size
from hairpin.distributed.processes import joined_processes
from hairpin.errors import HairpinError, Interrupted, exit_code_of, one_line
from hairpin.system import output
from hairpin.system.access import require_working_folder
from hairpin.system.shell import command
from hairpin.system.version import __version__

# Sections of the help, in this order.
GROUPS = ("start", "before", "after", "share", "care")
ALIASES = {
    "generate": "sample",
    "pretrain": "train",
    "eval": "evaluate",
    "lr-find": "find-lr",
    "list": "runs",
}
_HELP = frozenset(("-h", "--help", "--version"))
# On these, a process with nothing unsaved exits at once. Windows has no SIGHUP.
_TERMINATE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_DOTTED_FLAG = re.compile(r"--([a-z][a-z_]*\.[A-Za-z0-9_.\-]+)(?:=(.*))?", re.DOTALL)


class Verbs(click.Group):
    """The verbs, each in the file of its name in `verbs/`, which is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs' names."""
        modules = (module.name for module in iter_modules(verbs.__path__))
        return [module.rstrip("_").replace("_", "-") for module in modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> Verb | None:
        """Return a verb; None: there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name)
        verb: Verb = getattr(import_module(f"{verbs.__name__}.{name}"), name)
        return verb

    def in_groups(self, ctx: click.Context) -> dict[str, list[Verb]]:
        """Return the verbs of each group, in the order of the help."""
        every = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        found = sorted((verb for verb in every if verb), key=lambda verb: verb.place)
        return {group: [verb for verb in found if verb.group == group] for group in GROUPS}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section of the help for each group."""
        for title, found in self.in_groups(ctx).items():
            with formatter.section(title.capitalize()):
                formatter.write_dl([(c.name or "", c.get_short_help_str(70)) for c in found])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb, or raise an error that names the nearest."""
        verb = args[0]
        known = self.list_commands(ctx)
        if verb not in known:
            import difflib

            near = [ALIASES[verb]] if ALIASES.get(verb) in known else []
            near = near or difflib.get_close_matches(verb, known, n=1)
            hint = f"did you mean `hairpin {near[0]}`?" if near else "`hairpin --help` lists them"
            if "." in verb or "/" in verb:
                hint = f"to train on it: `{command('train', Path(verb))}`"
            raise click.UsageError(f"there is no command {verb!r}; {hint}")
        name, found, rest = super().resolve_command(ctx, args)
        if found:
            refuse_repeats(found, rest)
        return name, found, rest


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hairpin")
def hairpin() -> None:
    """Train GPT language models on your own text.

    \b
      hairpin train book.txt          train on a file, or a folder, for three minutes
      hairpin sample                  generate text with the newest run
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a failed run, 2 for bad input, 129, 130 or 143."""
    for number in _TERMINATE:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _terminate)
    output.open_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as stop:  # from `_terminate`, or from click for a closed pipe
        signals = (*_TERMINATE, signal.SIGINT)
        if stop.code in {128 + number for number in signals} and not is_follower():
            sys.stderr.write("hairpin: stopped\n")
        raise
    finally:
        output.require("stdout", required=False)  # the interpreter flushes it once more
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run the verb, handle every error, and return the exit code."""
    try:
        verb = _named_verb(arguments)
        by_several = verb is not None and verb.by_several
        # A run's result is its folder; that of all other verbs is their output.
        output.require("stdout", required=not by_several)
        # Other verbs, and refused ones, do not wait for processes: a shell may have the variables
        # of processes that do not exist.
        if world_size() > 1 and (not by_several or _asks_for_help(arguments)):
            return _run_alone(verb, arguments)
        with joined_processes() as processes:
            if is_follower() and (code := processes.message().exit_code) is not None:
                return code  # nothing to train, and the first process has reported why
            processes.exit_code = _run_verb(arguments)
            return processes.exit_code
    except HairpinError as error:  # the processes could not connect
        return _report(error.problems, error.exit_code)
    except KeyboardInterrupt:  # while waiting for them
        return _exit_on_signal()


def _named_verb(arguments: Sequence[str]) -> Verb | None:
    """Return the verb that the arguments begin with, also by an alias; None: none of ours."""
    name = arguments[0] if arguments else ""
    return hairpin.get_command(click.Context(hairpin), ALIASES.get(name, name))


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return not _HELP.isdisjoint(arguments)


def _run_alone(verb: Verb | None, arguments: list[str]) -> int:
    """Run what is for one process although several were started: only the first says anything."""
    if is_follower():
        return 0 if not arguments or _asks_for_help(arguments) else 2
    if verb is None or _asks_for_help(arguments):
        return _run_verb(arguments)
    line = f"`hairpin {verb.name}` is for one process, and {world_size()} were started"
    return _report([f"{line}: call it without torchrun"], 2)


def _run_verb(arguments: list[str]) -> int:
    try:
        if arguments and not _asks_for_help(arguments):
            require_working_folder()
        code = hairpin.main(
            with_dotted_flags(arguments) or ["--help"], prog_name="hairpin", standalone_mode=False
        )
        sys.stdout.flush()
    except HairpinError as error:
        return _report(error.problems, error.exit_code)
    except click.ClickException as error:
        return _report([_click_line(error)], 2)
    except (KeyboardInterrupt, click.Abort):
        return _exit_on_signal()
    except BrokenPipeError:  # the reader of the output is gone
        return 1
    except (UnicodeEncodeError, OSError, MemoryError) as error:
        return _report([_message_of(error)], 1)
    return code if isinstance(code, int) else 0


def _message_of(error: UnicodeEncodeError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or use a smaller model"
    if isinstance(error, UnicodeEncodeError):  # an argument with a lone surrogate
        return "an argument is not UTF-8 text; type it again, or put it in a file"
    return f"{error.filename or 'input or output'}: {error.strerror or error}"


def with_dotted_flags(arguments: Sequence[str]) -> list[str]:
    """Rewrite `--table.key value` and `--table.key=value` as `--set table.key=value`."""
    rewritten: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        found = _DOTTED_FLAG.fullmatch(argument)
        if not found:
            rewritten.append(argument)
            continue
        value = found[2] if found[2] is not None else next(rest, None)
        if value is None:
            raise click.UsageError(f"{argument} needs a value")
        rewritten += ["--set", f"{found[1]}={value}"]
    return rewritten


def _click_line(error: click.ClickException) -> str:
    """Return click's message as a line, with hairpin's name for another trainer's option."""
    if isinstance(error, click.NoSuchOption):
        ours = FOREIGN_NAMES.get(error.option_name.lstrip("-").replace("-", "_"))
        if ours:
            return f"{error.option_name}: hairpin calls it {ours}" + (
                f", as in --set {ours}=…" if "." in ours and " " not in ours else ""
            )
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    where = f"; see `{context.command_path} --help`" if context else ""
    return message.rstrip(".") + where


def _report(problems: Sequence[str], code: int) -> int:
    for problem in problems:
        sys.stderr.write(f"hairpin: {one_line(problem)}\n")
    return code


def _exit_on_signal() -> int:
    return _report([] if is_follower() else ["stopped"], 130)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Exit on SIGTERM or SIGHUP when nothing is unsaved; the training loop has its own handler. The
    exit code is that of the first signal, if another one's exit is still on its way.
    """
    error = sys.exc_info()[1]
    while error and not isinstance(error, Interrupted | KeyboardInterrupt):
        error = error.__context__
    raise SystemExit(exit_code_of(error) if error else 128 + number)
