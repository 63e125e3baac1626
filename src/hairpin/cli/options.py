"""The class of the verbs, and the options that several of them share."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hairpin.config.names import FLAGS

if TYPE_CHECKING:
    from hairpin.run import Run

Named = TypeVar("Named", str, Path)
F = TypeVar("F", bound=Callable[..., Any])

_TEXT_FLAGS = ("column", "sources")


class Verb(click.Command):
    """A command of `hairpin`.

    Args:
        group: its section of `hairpin --help`.
        place: in that section, from 1.
        by_several: whether processes that torchrun started run it together.
    """

    def __init__(
        self, *args: Any, group: str, place: int, by_several: bool = False, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self.group = group
        self.place = place
        self.by_several = by_several


def refuse_repeats(command: click.Command, arguments: Sequence[str]) -> None:
    """Refuse an option given twice with different values, of which the parser takes the last."""
    try:
        parser = command.make_parser(click.Context(command, resilient_parsing=True))
        _, _, given = parser.parse_args(list(arguments))
    except click.UsageError:
        return  # it is reported when the command runs
    for option in dict.fromkeys(given):
        if isinstance(option, click.Option) and not option.multiple and given.count(option) > 1:
            values = dict.fromkeys(_values(option, arguments))
            if len(values) > 1:
                name = option.opts[0]
                both = " and ".join(f"{name} {value}" for value in values)
                raise click.UsageError(f"{both} disagree; keep one")


def _values(option: click.Option, arguments: Sequence[str]) -> Iterator[str]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in option.opts:
            yield value if equals else following


class FiniteRange(click.FloatRange):
    """A number within bounds; NaN, which passes any comparison, is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or raise click's error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class NamedPath(click.Path):
    """A path. An empty one, left by an unset variable, does not mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or raise click's error."""
        if not str(value).strip() and not isinstance(value, Path):
            self.fail("it is empty (a variable that is not set?); give a name", param, ctx)
        return super().convert(value, param, ctx)


PATH = NamedPath()

# Each adds itself to a verb, as a decorator.
run_argument = click.argument("run", required=False, type=PATH)
start_option = click.option(
    "--from",
    "start",
    type=PATH,
    metavar="RUN|DIR",
    help="A run, or a folder with a model in safetensors (GPT-2, or an export), to start from.",
)
corpus_option = click.option("--corpus", help="stdlib, python-docs or verdict, instead of TEXT.")
column_option = click.option(
    "--column", metavar="NAME", help="For tables: the column with the text."
)
track_option = click.option(
    "--track",
    multiple=True,
    metavar="TOOL",
    help="Have a tracker follow the run: tensorboard, wandb, mlflow, …; may be repeated.",
)
plugin_option = click.option(
    "--plugin",
    multiple=True,
    metavar="F.py",
    type=PATH,
    help="Run a Python file that registers names for the config; may be repeated.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output."
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="The weights with the best validation loss, or the last.",
)


# Options for settings, in the order of the help.
_SETTINGS = {
    "config": click.option("--config", type=PATH, help="A TOML file of settings."),
    "set": click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="TABLE.KEY=VALUE",
        help="One setting; docs/config.md lists them. `--table.key value` does the same.",
    ),
    "recipe": click.option(
        "--recipe", help="modern (default), gpt2, qwen3, simple or book: a set of defaults."
    ),
    "size": click.option("--size", help="nano, tiny, … gpt2-xl: the shape of the model."),
    "updates": click.option("--updates", type=int, help="Length of the run in optimizer updates."),
    "tokens": click.option("--tokens", type=int, help="Length of the run in tokens."),
    "epochs": click.option(
        "--epochs", type=float, help="Length of the run in passes over the data."
    ),
    "lr": click.option("--lr", type=float, help="Peak learning rate."),
    "seed": click.option("--seed", type=int, help="Seed of weights, data order and samples."),
    "column": column_option,
    "sources": click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="NAME=PATH[:WEIGHT]",
        help="A source of a mixture, instead of TEXT, and its share of the training tokens.",
    ),
    "precision": click.option("--precision", help="auto, float32, tf32, bfloat16 or float16."),
    "device": click.option("--device", help="auto, cpu, cuda or mps."),
    "parallel": click.option(
        "--parallel", help="ddp or fsdp: how torchrun's processes share the model."
    ),
}


def with_settings(command: F) -> F:
    """Add --config, --set and the flags for the most used keys."""
    return _with_options(command, tuple(FLAGS))


def with_plan_settings(command: F) -> F:
    """Add the same except the length in tokens, which a plan also takes as "140B"."""
    return _with_options(command, tuple(flag for flag in FLAGS if flag != "tokens"))


def with_curve_settings(command: F) -> F:
    """Add the same except those that name the text."""
    return _with_options(command, tuple(flag for flag in FLAGS if flag not in _TEXT_FLAGS))


def with_text_settings(command: F) -> F:
    """Add only --column, --source and --set."""
    return _with_options(command, _TEXT_FLAGS, is_file=False)


def with_finetune_settings(command: F) -> F:
    """Add the same except the flags for settings of the initial model."""
    return _with_options(command, ("updates", "epochs", "lr", "seed", "precision", "device"))


def _with_options(command: F, flags: tuple[str, ...], *, is_file: bool = True) -> F:
    names = (*flags, "set", *(("config",) if is_file else ()))
    for name, option in reversed(_SETTINGS.items()):
        command = option(command) if name in names else command
    return command


def settings_apart(given: dict[str, Any]) -> dict[str, Any]:
    """Return a verb's arguments as those of its Python function: the flags for settings that were
    given become `settings`, dotted key → value.
    """
    flags = {name: given[name] for name in FLAGS if given.get(name) not in (None, ())}
    if "sources" in flags:
        from hairpin.config.sources import parse_sources

        flags["sources"] = parse_sources(flags["sources"])
    others = {name: value for name, value in given.items() if name not in FLAGS}
    return {**others, "settings": {FLAGS[name]: value for name, value in flags.items()}}


def run_and_rest(arguments: Sequence[Named]) -> "tuple[Run, Sequence[Named]]":
    """Return the run named first, or the newest, and the arguments after it."""
    from hairpin import api

    names_run = bool(arguments) and _names_run(Path(arguments[0]))
    return api.load(arguments[0] if names_run else None), arguments[names_run:]


def _names_run(path: Path) -> bool:
    """True for a run, or for a missing path among runs: the mistyped name of one."""
    from hairpin import api

    if is_file(path / "config.toml"):
        return True
    try:
        return path.parent != Path() and not path.exists() and bool(api.runs(path.parent))
    except (OSError, ValueError):  # a text too long for a name, or with a NUL in it
        return False


def is_file(path: Path) -> bool:
    """True for a file; an argument may be a text instead, too long for a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a name, or with a NUL in it
        return False
