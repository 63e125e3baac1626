"""hairpin compare, and what it shares with hairpin ablate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hairpin.cli.options import (
    PATH,
    FiniteRange,
    Verb,
    corpus_option,
    json_option,
    settings_apart,
    with_settings,
)
from hairpin.cli.printing import say

if TYPE_CHECKING:
    from hairpin.reports.comparison import Comparison

F = TypeVar("F", bound=Callable[..., Any])


class Grouping(Verb):
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
                "--runs RUN... --against RUN...: name at least one run for each", ctx
            )
        ctx.meta["groups"] = groups
        return super().parse_args(ctx, rest)


def with_experiment_options(command: F) -> F:
    """Add the options that compare and ablate share."""
    for option in reversed(
        (
            corpus_option,
            click.option(
                "--seeds",
                type=int,
                help="Runs of each arm, one per seed, for the verdict; default: 5.",
            ),
            click.option("--budget", metavar="40m", help="Wall time for the whole experiment."),
            click.option("--same-lr", is_flag=True, help="Do not tune each arm's learning rate."),
            click.option(
                "--smallest-difference",
                type=FiniteRange(0, 100),
                default=0.01,
                show_default=True,
                help="Smallest difference that matters, in bits per byte.",
            ),
            click.option(
                "--workers", type=int, help="Runs at the same time; default: one per core."
            ),
            click.option("--out", type=PATH, help="The experiment's folder."),
            click.option(
                "--only-report", is_flag=True, help="Train nothing; report on the runs that exist."
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command(
    cls=Grouping,
    group="after",
    place=5,
    short_help="Compare recipes, and tell a real difference from noise.",
)
@click.argument("arms", nargs=-1, metavar="[ARM|TEXT]...", type=PATH)
@with_settings
@click.option("--vary", multiple=True, metavar="KEY=A,B", help="An arm for each value of a key.")
@click.option(
    "--equal",
    type=click.Choice(["tokens", "updates", "time"]),
    help="What is equal for all arms; default: tokens, unless --vary changes the length.",
)
@click.option("--runs", multiple=True, metavar="RUN...", help="Finished runs of the first arm.")
@click.option("--against", multiple=True, metavar="RUN...", help="Finished runs of another arm.")
@with_experiment_options
def compare(arms: tuple[Path, ...], vary: tuple[str, ...], **given: Any) -> None:
    """Compare variants (arms) on a text: which is better, or is it only the seed?

    \b
      hairpin compare book.txt --vary recipe=modern,gpt2 --budget 20m
      hairpin compare a.toml b.toml --seeds 5
      hairpin compare --runs runs/a-1 runs/a-2 --against runs/b-1 runs/b-2
      hairpin compare --out experiments/compare-book-1 --only-report

    An arm is a variant: a config file, or a value of --vary. Arms train on the same data in the
    same order from the same weights, each at its own best learning rate; differences are taken
    within a seed. --runs and --against compare finished runs, or another trainer's losses in a
    CSV or JSONL file with val_loss or val_bits_per_byte.
    """
    from hairpin.experiments import api

    groups = click.get_current_context().meta["groups"]
    del given["runs"], given["against"]
    show_experiment(given, lambda options: api.compare(*arms, vary=vary, runs=groups, **options))


def show_experiment(
    given: dict[str, Any], run: "Callable[[dict[str, Any]], tuple[Comparison, Path | None]]"
) -> None:
    """Run an experiment with its progress bar, then print the result."""
    from hairpin.reports.conclusions import as_json, lines_of
    from hairpin.reports.terminal.experiment import ExperimentBar

    as_object = given.pop("as_json")
    with ExperimentBar() as progress:
        comparison, folder = run(settings_apart(given) | {"progress": progress})
    if as_object:
        click.echo(json.dumps(as_json(comparison), allow_nan=False))
        return
    say("\n".join(lines_of(comparison)))
    if folder is not None:
        say(f"\nwritten: {folder / 'report.html'}")
