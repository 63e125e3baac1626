"""Options that several verbs share, and the settings that they give."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hairpin.config.names import FLAGS

F = TypeVar("F", bound=Callable[..., Any])

_TEXT_FLAGS = ("column", "sources")


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


def column_option(command: F) -> F:
    """Add --column."""
    words = "Of tables: the column that holds the text."
    return click.option("--column", metavar="NAME", help=words)(command)


def _with_options(command: F, flags: tuple[str, ...], *, is_file: bool = True) -> F:
    options = {
        "config": click.option("--config", type=PATH, help="A TOML file of settings."),
        "set": click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="TABLE.KEY=VALUE",
            help="One setting; docs/config.md lists them. `--table.key value` does the same.",
        ),
        "recipe": click.option(
            "--recipe", help="gpt2, qwen3, simple or book: the defaults to start from."
        ),
        "size": click.option("--size", help="tiny … gpt2-xl: the shape of the model."),
        "updates": click.option(
            "--updates", type=int, help="Length of the run in optimizer updates."
        ),
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
            help="A source of a mixture, in place of TEXT; its share of the training tokens.",
        ),
        "precision": click.option("--precision", help="auto, float32, tf32, bfloat16 or float16."),
        "device": click.option("--device", help="auto, cpu, cuda or mps."),
        "parallel": click.option(
            "--parallel", help="ddp or fsdp: how torchrun's processes share the model."
        ),
    }
    names = (*flags, "set", *(("config",) if is_file else ()))
    chosen = [option for name, option in options.items() if name in names]
    for option in reversed(chosen):
        command = option(command)
    return command


def settings_of(flags: dict[str, Any]) -> dict[str, Any]:
    """Return dotted key → value for the flags that were given."""
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if "sources" in given:
        from hairpin.config.sources import parse_sources

        given["sources"] = parse_sources(given["sources"])
    return {FLAGS[name]: value for name, value in given.items()}


def corpus_option(command: F) -> F:
    """Add --corpus."""
    words = "stdlib, python-docs or verdict, in place of TEXT."
    return click.option("--corpus", help=words)(command)


def track_option(command: F) -> F:
    """Add --track, which may be repeated."""
    words = "Have a tracker follow the run: tensorboard, wandb, mlflow, …; may be repeated."
    return click.option("--track", multiple=True, metavar="TOOL", help=words)(command)


def plugin_option(command: F) -> F:
    """Add --plugin, which may be repeated."""
    words = "Run a Python file that registers names for the config; may be repeated."
    return click.option("--plugin", multiple=True, metavar="F.py", type=PATH, help=words)(command)


def json_option(command: F) -> F:
    """Add --json."""
    words = "One JSON object on standard output."
    return click.option("--json", "as_json", is_flag=True, help=words)(command)


def run_argument(command: F) -> F:
    """Add RUN, which is optional."""
    return click.argument("run", required=False, type=PATH)(command)


def weights_option(command: F) -> F:
    """Add --weights best or last."""
    return click.option(
        "--weights",
        type=click.Choice(["best", "last"]),
        default="best",
        show_default=True,
        help="The best validation's weights, or the last.",
    )(command)
