"""hairpin compare, hairpin ablate, hairpin find-lr."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hairpin.cli.options import (
    PATH,
    FiniteRange,
    corpus_option,
    json_option,
    settings_of,
    with_settings,
)
from hairpin.cli.shown import say
from hairpin.config.names import FLAGS

if TYPE_CHECKING:
    from hairpin.reports.comparison import Comparison

F = TypeVar("F", bound=Callable[..., Any])


class Grouping(click.Command):
    """A command whose --runs and --against each take all arguments up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move the groups to `ctx.meta["groups"]`."""
        groups: list[list[str]] = []
        rest: list[str] = []
        in_group = False
        for argument in args:
            if argument in ("--runs", "--against"):
                groups.append([])
                in_group = True
            elif in_group and not argument.startswith("-"):
                groups[-1].append(argument)
            else:
                in_group = False
                rest.append(argument)
        if not all(groups) or len(groups) == 1:
            raise click.UsageError(
                "--runs RUN... --against RUN...: name a run or more for each", ctx
            )
        ctx.meta["groups"] = groups
        return super().parse_args(ctx, rest)


def _with_experiment_options(command: F) -> F:
    for option in reversed(
        (
            corpus_option,
            click.option(
                "--seeds", type=int, help="Runs of each arm in the verdict; 5 if left out."
            ),
            click.option("--budget", metavar="40m", help="Wall time for the whole experiment."),
            click.option("--same-lr", is_flag=True, help="Do not tune each arm's learning rate."),
            click.option(
                "--smallest-difference",
                type=FiniteRange(0, 100),
                default=0.01,
                show_default=True,
                help="Bits per byte below which a difference does not matter.",
            ),
            click.option("--workers", type=int, help="Runs side by side; one for each core."),
            click.option("--out", type=PATH, help="The experiment's folder."),
            click.option(
                "--only-report", is_flag=True, help="Train nothing; report what is there."
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command(cls=Grouping, short_help="Tell which arm is better, and whether it was the seed.")
@click.argument("arms", nargs=-1, metavar="[ARM|TEXT]...", type=PATH)
@with_settings
@click.option("--vary", multiple=True, metavar="KEY=A,B", help="An arm for each value of a key.")
@click.option(
    "--equal",
    type=click.Choice(["tokens", "updates", "time"]),
    help="What all arms have the same of; tokens, unless --vary is about their length.",
)
@click.option("--runs", multiple=True, metavar="RUN...", help="Finished runs of the first arm.")
@click.option("--against", multiple=True, metavar="RUN...", help="Finished runs of another arm.")
@_with_experiment_options
def compare(arms: tuple[Path, ...], vary: tuple[str, ...], **given: Any) -> None:
    """Which of some arms is better on a text, and is it the arm or the seed?

    \b
      hairpin compare book.txt --vary recipe=modern,gpt2 --budget 20m
      hairpin compare a.toml b.toml --seeds 5
      hairpin compare --runs runs/a-1 runs/a-2 --against runs/b-1 runs/b-2
      hairpin compare --out experiments/compare-book-1 --only-report

    Arms train on the same data in the same order from the same weights, each at the learning rate
    that suits it best; differences are taken within a seed. --runs and --against compare finished
    runs, or another trainer's losses in a CSV or JSONL file with val_loss or val_bits_per_byte.
    """
    from hairpin.experiments import verbs

    groups = click.get_current_context().meta["groups"]
    del given["runs"], given["against"]
    _show(given, lambda options: verbs.compare(*arms, vary=vary, runs=groups, **options))


@click.command(short_help="Tell which parts of a recipe help on a text.")
@click.argument("texts", nargs=-1, metavar="[TEXT|CONFIG]...", type=PATH)
@with_settings
@click.option(
    "--factors",
    default="warmup,decay,clip",
    show_default=True,
    help="What is turned on and off, in every combination.",
)
@click.option("--vary", multiple=True, metavar="KEY=OFF,ON", help="Any other key as a factor.")
@_with_experiment_options
def ablate(texts: tuple[Path, ...], factors: str, vary: tuple[str, ...], **given: Any) -> None:
    """Which parts of a recipe help, on this text: warmup, decay, clipping, or any key.

    \b
      hairpin ablate book.txt --budget 40m
      hairpin ablate book.txt --factors clip --vary optimizer.weight_decay=0.0,0.1

    Every combination of the factors is trained, each at the learning rate that suits it best.
    """
    from hairpin.experiments import verbs

    names = [name.strip() for name in factors.split(",") if name.strip()]
    _show(given, lambda options: verbs.ablate(*texts, factors=names, vary=vary, **options))


@click.command(short_help="Find a peak learning rate by short runs.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...", type=PATH)
@with_settings
@corpus_option
@click.option("--budget", metavar="5m", help="Wall time for the search; 5 minutes if left out.")
@click.option("--workers", type=int, help="Runs side by side; one for each core.")
@click.option("--out", type=PATH, help="The page; find-lr-TEXT.html if left out.")
@json_option
def find_lr(texts: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Find a peak learning rate, by short runs of the whole schedule at rates a factor of two
    apart.

    \b
      hairpin find-lr book.txt --size tiny
      hairpin find-lr book.txt --recipe gpt2 --updates 2000 --budget 10m

    Nothing is left behind but a page with the plot and the reason.
    """
    from hairpin.experiments import verbs
    from hairpin.reports.terminal.experiment import ExperimentBar

    flags = settings_of({key: given.pop(key) for key in FLAGS})
    with ExperimentBar() as progress:
        found = verbs.find_lr(*texts, settings=flags, progress=progress, **given)
    if as_json:
        click.echo(json.dumps(found.as_json(), allow_nan=False))
        return
    say("\n".join(found.lines()))


def _show(
    given: dict[str, Any], run: "Callable[[dict[str, Any]], tuple[Comparison, Path | None]]"
) -> None:
    """Run an experiment with its progress bar, then print the result."""
    from hairpin.reports.conclusions import as_json, lines_of
    from hairpin.reports.terminal.experiment import ExperimentBar

    as_object = given.pop("as_json")
    options = {"settings": settings_of({key: given.pop(key) for key in FLAGS}), **given}
    with ExperimentBar() as progress:
        comparison, folder = run(options | {"progress": progress})
    if as_object:
        click.echo(json.dumps(as_json(comparison), allow_nan=False))
        return
    say("\n".join(lines_of(comparison)))
    if folder is not None:
        say(f"\nwritten: {folder / 'report.html'}")
