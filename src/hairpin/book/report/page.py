"""The page about a run of the appendix: book.md, with its pictures in the same folder."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hairpin.book.report.beside import BesideRun
from hairpin.book.report.counted import EPOCHS
from hairpin.book.report.experiment import EXAMPLE_MIN_LR, Outcome
from hairpin.book.report.pictures import COSINE, LOSSES, WARMUP, write_pictures
from hairpin.book.report.printed import NOT_REACHED, PRINTED_LOSSES, Finding, findings
from hairpin.errors import UserError, one_line
from hairpin.reports.formats import format_bytes, format_duration, format_lr
from hairpin.system.files import make_folders, unmake, write_atomically

NAME = "book.md"


@contextmanager
def folder_for_page(folder: Path) -> Iterator[None]:
    """Make the page's folder before the work begins; if the block fails, remove what was made.

    Raises:
        UserError: it cannot be made, or cannot be written to.
    """
    try:
        made = make_folders(folder)
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{folder}: cannot be made a folder ({reason}); name another with --out"
        ) from None
    try:
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: may not be written to; name another with --out")
        yield
    except BaseException:
        unmake(made)
        raise


def write_page(
    outcome: Outcome,
    folder: Path,
    *,
    text_name: str,
    of_the_story: bool,
    environment: dict[str, Any],
    beside: BesideRun | None = None,
) -> Path:
    """Write book.md and its pictures into `folder`, replacing an earlier page.

    Args:
        outcome: the listings' results.
        folder: an existing folder.
        text_name: name of the text.
        of_the_story: the text is the book's own.
        environment: result of `describe_environment`.
        beside: a run of hairpin's own loop, to compare.
    """
    write_pictures(outcome, folder, of_the_story=of_the_story, beside=beside)
    rows = findings(outcome, of_the_story=of_the_story)
    sections = [
        *_opening(outcome, text_name, of_the_story),
        *_figures(rows),
        *_losses(outcome, of_the_story, beside),
        *_samples(outcome),
        *_cost(outcome, environment, beside),
        *(_recipe_notes() if beside else ()),
        *(_contradictions(outcome) if of_the_story else ()),
    ]
    path = folder / NAME
    write_atomically(path, ("\n\n".join(sections) + "\n").encode())
    return path


def agreement(rows: Sequence[Finding]) -> str:
    """Tell in a sentence how many of the printed figures were reproduced."""
    compared = [row for row in rows if row.agrees]
    same = sum(row.agrees == "yes" for row in compared)
    other = sum(row.agrees == "no" for row in compared)
    close = len(compared) - same - other
    words = f"{same} of {len(compared)} printed figures came out to the digit"
    if close:
        words += f", {close} but for 1 in the last digit"
    return words + (f", {other} did not" if other else "")


def _opening(outcome: Outcome, text_name: str, of_the_story: bool) -> Iterator[str]:
    yield "# Appendix D, run"
    yield (
        "Written by `hairpin book`: the listings of appendix D of *Build a Large Language Model\n"
        "(From Scratch)*, run in their order with hairpin's plain functions of the same names\n"
        "(`hairpin.book`), on the CPU, and each printed figure beside what came out."
    )
    steps = outcome.batches * EPOCHS
    yield (
        f"Text: {one_line(text_name)}, {outcome.batches:,} batches of two windows in an epoch. "
        f"Training steps: {outcome.iterations:,} of {steps:,}."
    )
    if not of_the_story:
        yield (
            "The book's figures are about another text, The Verdict, so that few of them can be "
            "compared."
        )


def _figures(rows: Sequence[Finding]) -> Iterator[str]:
    yield "## Figures"
    yield agreement(rows) + "."
    yield _table(
        ("figure", "printed", "here", "agrees"),
        (
            (row.name, _code(row.printed), _code(row.measured or NOT_REACHED), row.agrees)
            for row in rows
        ),
    )
    yield f"![Learning rate of each step, figure D.1]({WARMUP})"
    yield f"![Learning rate of each step, figure D.2]({COSINE})"


def _losses(outcome: Outcome, of_the_story: bool, beside: BesideRun | None) -> Iterator[str]:
    yield "## Losses"
    yield (
        "In nats per token. The listings evaluate one batch of training text and one of\n"
        "validation text, after the step with the index in the first column."
    )
    heads = ["iteration", "training", "validation"]
    if of_the_story:
        heads += ["training, printed", "validation, printed"]
    if beside:
        heads += ["training, recipe", "validation, recipe"]
        yield (
            "The recipe's losses are those after as many updates as that index says, one fewer;\n"
            "its evaluation takes all of the validation text."
        )
    recipe = (
        {}
        if beside is None
        else dict(zip(beside.updates, zip(beside.train, beside.val, strict=True), strict=True))
    )
    rows = []
    for at in outcome.losses:
        row = [f"{at.iteration}", f"{at.train:.3f}", f"{at.val:.3f}"]
        if of_the_story:
            row += PRINTED_LOSSES.get(at.iteration, ("", ""))
        if beside:
            row += [f"{loss:.3f}" for loss in recipe.get(at.iteration, ())] or ["", ""]
        rows.append(row)
    yield _table(heads, rows)
    yield f"![Losses against updates]({LOSSES})"
    best = min(outcome.losses, key=lambda at: at.val)
    yield (
        f"Lowest validation loss of the listings: {best.val:.3f}, iteration {best.iteration}; "
        f"at the end {outcome.losses[-1].val:.3f}."
        + (
            f" Of the recipe: {min(beside.val):.3f}, after "
            f"{beside.updates[beside.val.index(min(beside.val))]} updates; at the end "
            f"{beside.val[-1]:.3f}."
            if beside
            else ""
        )
    )


def _samples(outcome: Outcome) -> Iterator[str]:
    if not outcome.samples:
        return
    yield "## Samples"
    yield "After each epoch, always the likeliest token; the book prints three of them."
    lines = (f"{epoch:2}  {one_line(text)}" for epoch, text in enumerate(outcome.samples, 1))
    yield "```text\n" + "\n".join(lines) + "\n```"


def _cost(outcome: Outcome, environment: dict[str, Any], beside: BesideRun | None) -> Iterator[str]:
    yield "## Time and machine"
    rows = [
        (
            "the listings",
            f"{outcome.iterations:,}",
            f"{format_duration(outcome.seconds)}, of it {format_duration(outcome.training_seconds)}"
            " in `train_model`",
            *_machine(environment),
        )
    ]
    if beside:
        seconds = "?" if beside.seconds is None else format_duration(beside.seconds)
        speed = beside.tokens_per_second
        rows.append(
            (
                f"recipe `book`, on {one_line(beside.text)}",
                f"{beside.length:,}",
                f"{seconds}, of it {format_duration(beside.update_seconds)} in updates"
                + (f" ({speed:,.0f} tokens/s)" if speed else ""),
                *_machine(beside.environment),
            )
        )
    yield _table(("what", "updates", "wall time", "machine", "torch"), rows)
    yield (
        "Wall time includes evaluations and samples"
        + (", and of the recipe its checkpoints" if beside else "")
        + ". The book speaks of about 5 minutes on a laptop."
    )


def _machine(environment: dict[str, Any]) -> tuple[str, str]:
    processor = environment.get("gpu") or environment.get("processor") or "unknown"
    words = [one_line(str(processor))]
    if threads := environment.get("threads"):
        words.append(f"{threads} thread{'' if threads == 1 else 's'}")
    if memory := environment.get("memory_bytes"):
        words.append(f"{format_bytes(memory)} of memory")
    return ", ".join(words), str(environment.get("packages", {}).get("torch", "unknown"))


def _recipe_notes() -> Iterator[str]:
    yield "## What the recipe does otherwise"
    yield (
        "`hairpin train --recipe book` has the same sizes, the same distributions of first\n"
        "weights, and the same peak, warmup and decay. Otherwise it is hairpin's own loop, and no\n"
        "digit of the two can agree:"
    )
    yield "\n".join(
        (
            "- each parameter is drawn from the seed and its name, not from one stream in order;",
            "- an epoch cuts the text at places of its own, so that it is learned by heart later;",
            "- each document begins with an end-of-text, the samples' prompt too;",
            "- clipping begins with the first update, and every norm is recorded;",
            "- the decay ends with the last update exactly at the minimum;",
            "- biases and norms do not decay;",
            "- evaluations draw nothing from the stream that training draws from.",
        )
    )


def _contradictions(outcome: Outcome) -> Iterator[str]:
    last, at_peak = outcome.cosine_lrs[-1], outcome.warmup_steps
    yield "## Where the printed text and its listings part"
    yield "\n".join(
        (
            f"- The listing works out and prints {at_peak} warmup steps; the sentences around it,",
            "  and the captions of both learning-rate figures, speak of 20.",
            "- `peak_lr = 5e-4` is set before training and never used. The optimizer is made",
            "  without a learning rate, so the peak is AdamW's default, 1e-3.",
            "- The decay is said to end at its minimum. In D.2 that is "
            f"{format_lr(EXAMPLE_MIN_LR)}; the last",
            f"  step is at {format_lr(last)}, since the curve would arrive one step later.",
            f"- `train_model` clips after step {at_peak}, not from it: during warmup, and in the",
            "  first step at the peak, gradients are as large as they are.",
            "- `find_highest_gradient` looks for the largest entry with its sign. By magnitude the",
            f"  largest is {outcome.largest_magnitude:.4f}.",
        )
    )


def _code(text: str | None) -> str:
    """Format text as code in a table; empty for None."""
    return f"`{one_line(text)}`" if text else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
