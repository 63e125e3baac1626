"""hairpin sample, hairpin evaluate."""

import json
import math
import sys
from pathlib import Path

import click

from hairpin.cli.options import FiniteRange, run_argument, weights_option


@click.command(short_help="Let a run's model write.")
@run_argument
@click.option("--prompt", help="Text to go on from.")
@click.option("--tokens", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option("--temperature", type=FiniteRange(0, 100), default=0.8, show_default=True)
@click.option("--top-k", type=click.IntRange(0), default=50, show_default=True, help="0: all.")
@click.option("--top-p", type=FiniteRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@weights_option
def sample(
    run: Path | None,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    weights: str,
) -> None:
    """Let RUN's model write; without RUN, the newest in ./runs.

    On a terminal and without --prompt it asks for prompts until Ctrl-D.
    """
    from hairpin import api
    from hairpin.analysis.formats import harmless
    from hairpin.model.generate import Sampling

    trained = api.load(run).trained(weights=weights)
    click.echo(trained.weights, err=True)
    sampling = Sampling(temperature, top_k, top_p)

    def write(prompt: str) -> None:
        click.echo(harmless(prompt), nl=False)
        for piece in trained.write(prompt, sampling, tokens=tokens, seed=seed):
            click.echo(harmless(piece), nl=False)
        click.echo()

    if prompt is not None or not sys.stdin.isatty():
        write(prompt or "")
        return
    click.echo("type a prompt; Ctrl-D ends", err=True)
    while True:
        try:
            write(input("> "))
        except EOFError:
            click.echo()
            return
        seed += 1


@click.command(short_help="Measure a run's model on any text.")
@click.argument(
    "run_and_texts", nargs=-1, metavar="[RUN] [TEXT]...", type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@weights_option
def evaluate(run_and_texts: tuple[Path, ...], as_json: bool, weights: str) -> None:
    """Loss, perplexity and bits per byte of RUN's model on TEXT.

    Without TEXT: on the run's own validation text, all of it. Without RUN: the newest in ./runs.
    """
    from hairpin import api
    from hairpin.terminal.watcher import counting_bar

    names_run = bool(run_and_texts) and (run_and_texts[0] / "config.toml").is_file()
    run = api.load(run_and_texts[0] if names_run else None)
    texts = run_and_texts[1:] if names_run else run_and_texts
    trained = run.trained(weights=weights)
    with counting_bar("evaluating") as on_progress:
        measured = trained.measure(texts, on_progress)
    facts = {
        "run": str(run.path),
        "weights": trained.weights,
        "text": [str(text) for text in texts] or "validation",
        "tokens": measured.tokens,
        "loss": measured.loss,
        "perplexity": measured.perplexity,
        "bits_per_byte": measured.bits_per_byte,
    }
    if as_json:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in facts.items()
        }
        click.echo(json.dumps(finite, allow_nan=False))
        return
    click.echo(
        f"{trained.weights}\n"
        f"loss           {measured.loss:.4f} nats per token ({measured.tokens:,} tokens)\n"
        f"perplexity     {measured.perplexity:.2f}\n"
        f"bits per byte  {measured.bits_per_byte:.4f}"
    )
