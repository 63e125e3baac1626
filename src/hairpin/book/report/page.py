"""The page about a run of the appendix: book.md, with its pictures in the same folder."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hairpin.book.report.experiment import EXAMPLE_MIN_LR, ListingResults
from hairpin.book.report.listing import EPOCHS
from hairpin.book.report.pictures import COSINE, LOSSES, WARMUP, write_pictures
from hairpin.book.report.printed import NOT_REACHED, PRINTED_LOSSES, ComparedFigure, findings
from hairpin.book.report.recipe_run import RecipeRun
from hairpin.errors import UserError, one_line
from hairpin.reports.formats import format_bytes, format_duration, format_lr
from hairpin.system.files import make_folders, unmake, write_atomically

if TYPE_CHECKING:
    from jinja2 import Template

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
    outcome: ListingResults,
    folder: Path,
    *,
    text_name: str,
    is_books_text: bool,
    environment: dict[str, Any],
    recipe_run: RecipeRun | None = None,
) -> Path:
    """Write book.md and its pictures into `folder`, replacing an earlier page.

    Args:
        outcome: the listings' results.
        folder: an existing folder.
        text_name: name of the text.
        is_books_text: the text is the book's own.
        environment: result of `describe_environment`.
        recipe_run: a run of hairpin's own loop, to compare.
    """
    write_pictures(outcome, folder, is_books_text=is_books_text, recipe_run=recipe_run)
    rows = findings(outcome, is_books_text=is_books_text)
    best = min(outcome.losses, key=lambda at: at.val)
    page = _template().render(
        text_name=one_line(text_name),
        outcome=outcome,
        steps=outcome.batches * EPOCHS,
        is_books_text=is_books_text,
        agreement=agreement(rows),
        figures=[
            (row.name, _code(row.printed), _code(row.measured or NOT_REACHED), row.agrees)
            for row in rows
        ],
        pictures={"warmup": WARMUP, "cosine": COSINE, "losses": LOSSES},
        loss_heads=_loss_heads(is_books_text=is_books_text, has_recipe=recipe_run is not None),
        losses=_loss_rows(outcome, is_books_text, recipe_run),
        lowest={
            "val": f"{best.val:.3f}",
            "iteration": best.iteration,
            "last": f"{outcome.losses[-1].val:.3f}",
        },
        recipe=_lowest_of_recipe(recipe_run) if recipe_run else None,
        samples=[one_line(text) for text in outcome.samples],
        costs=_cost_rows(outcome, environment, recipe_run),
        lrs={
            "minimum": format_lr(EXAMPLE_MIN_LR),
            "last": format_lr(outcome.cosine_lrs[-1]),
        },
    )
    path = folder / NAME
    write_atomically(path, page.encode())
    return path


def agreement(rows: Sequence[ComparedFigure]) -> str:
    """Tell in a sentence how many of the printed figures were reproduced."""
    compared = [row for row in rows if row.agrees]
    same = sum(row.agrees == "yes" for row in compared)
    other = sum(row.agrees == "no" for row in compared)
    close = len(compared) - same - other
    words = f"{same} of {len(compared)} printed figures match to the digit"
    if close:
        words += f", {close} but for 1 in the last digit"
    return words + (f", {other} did not" if other else "")


def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Markdown needs no escaping but of what would end a cell of a table.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    return environment.get_template(NAME)


def _loss_heads(*, is_books_text: bool, has_recipe: bool) -> list[str]:
    heads = ["iteration", "training", "validation"]
    if is_books_text:
        heads += ["training, printed", "validation, printed"]
    if has_recipe:
        heads += ["training, recipe", "validation, recipe"]
    return heads


def _loss_rows(
    outcome: ListingResults, is_books_text: bool, recipe_run: RecipeRun | None
) -> list[list[str]]:
    recipe = (
        {}
        if recipe_run is None
        else dict(
            zip(recipe_run.updates, zip(recipe_run.train, recipe_run.val, strict=True), strict=True)
        )
    )
    rows = []
    for at in outcome.losses:
        row = [f"{at.iteration}", f"{at.train:.3f}", f"{at.val:.3f}"]
        if is_books_text:
            row += PRINTED_LOSSES.get(at.iteration, ("", ""))
        if recipe_run:
            row += [f"{loss:.3f}" for loss in recipe.get(at.iteration, ())] or ["", ""]
        rows.append(row)
    return rows


def _lowest_of_recipe(recipe_run: RecipeRun) -> dict[str, Any]:
    lowest = min(recipe_run.val)
    return {
        "lowest": f"{lowest:.3f}",
        "updates": recipe_run.updates[recipe_run.val.index(lowest)],
        "last": f"{recipe_run.val[-1]:.3f}",
    }


def _cost_rows(
    outcome: ListingResults, environment: dict[str, Any], recipe_run: RecipeRun | None
) -> list[tuple[str, ...]]:
    took = f"{format_duration(outcome.seconds)}, of it {format_duration(outcome.training_seconds)}"
    rows: list[tuple[str, ...]] = [
        (
            "the listings",
            f"{outcome.iterations:,}",
            f"{took} in `train_model`",
            *_machine(environment),
        )
    ]
    if recipe_run:
        seconds = "?" if recipe_run.seconds is None else format_duration(recipe_run.seconds)
        speed = recipe_run.tokens_per_second
        rows.append(
            (
                f"recipe `book`, on {one_line(recipe_run.text)}",
                f"{recipe_run.length:,}",
                f"{seconds}, of it {format_duration(recipe_run.update_seconds)} in updates"
                + (f" ({speed:,.0f} tokens/s)" if speed else ""),
                *_machine(recipe_run.environment),
            )
        )
    return rows


def _machine(environment: dict[str, Any]) -> tuple[str, str]:
    processor = environment.get("gpu") or environment.get("processor") or "unknown"
    words = [one_line(str(processor))]
    if threads := environment.get("threads"):
        words.append(f"{threads} thread{'' if threads == 1 else 's'}")
    if memory := environment.get("memory_bytes"):
        words.append(f"{format_bytes(memory)} of memory")
    return ", ".join(words), str(environment.get("packages", {}).get("torch", "unknown"))


def _code(text: str | None) -> str:
    """Format text as code in a table; empty for None."""
    return f"`{one_line(text)}`" if text else ""
