"""hairpin sample."""

import sys
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hairpin.cli.options import Verb, plugin_option, run_argument, weights_option
from hairpin.cli.printing import say, write

if TYPE_CHECKING:
    from hairpin.model.products import Precision


@click.command(cls=Verb, group="after", place=1, short_help="Generate text with a run's model.")
@run_argument
@click.option("--prompt", help="Text to continue.")
@click.option("--tokens", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option(
    "--temperature",
    type=float,
    default=0.8,
    show_default=True,
    help="0 or more; 0: always the most likely token.",
)
@click.option("--top-k", type=int, default=50, show_default=True, help="0: all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Above 0; 1: all.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16", "int8"]),
    default="float32",
    show_default=True,
    help="Format of the weights on a CPU: float32 is exact; float16 and bfloat16 halve the bytes "
    "to read, int8 quarters them; each rounds more than the one before. See docs/generation.md.",
)
@weights_option
@plugin_option
def sample(
    run: Path | None,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    precision: "Precision",
    weights: str,
    plugin: tuple[Path, ...],
) -> None:
    """Generate text with RUN's model; without RUN, the newest in ./runs.

    On a terminal and without --prompt it asks for prompts until Ctrl-D.
    """
    from hairpin import api
    from hairpin.errors import ConfigError, CorpusError
    from hairpin.model.generate import Sampling
    from hairpin.plugins.files import load_plugins

    load_plugins(plugin)
    try:
        sampling = Sampling(temperature, top_k, top_p)
    except ConfigError as error:  # its lines begin with the names of the options
        raise ConfigError(f"--{line}" for line in error.problems) from None
    trained = api.load(run).writer(weights=weights, precision=precision)
    rounded = "" if precision == "float32" else f", read in {precision}"
    click.echo(trained.weights + rounded, err=True)

    def go_on(prompt: str) -> None:
        # A continuation follows its prompt directly, a response is below its instruction.
        before = prompt + "\n" * trained.follows_instructions
        written = trained.write(
            prompt, sampling, tokens=tokens, seed=seed, on_notice=partial(say, err=True)
        )
        write(chain([before], written))

    if prompt is not None or not sys.stdin.isatty():
        go_on(prompt or "")
        return
    click.echo("type a prompt; Ctrl-D ends", err=True)
    while True:
        try:
            go_on(input("> "))
        except EOFError:
            click.echo()
            return
        except UnicodeDecodeError:
            say("the input is not UTF-8 text; type it again", err=True)
        except CorpusError as error:
            say("\n".join(error.problems), err=True)
        seed += 1
