"""The work of `hairpin book`: checks, then minutes of computing, then the page."""

from collections.abc import Callable
from pathlib import Path

from hairpin.book.report.experiment import run_listings
from hairpin.book.report.page import agreement, folder_for_page, write_page
from hairpin.book.report.printed import findings
from hairpin.book.report.recipe_run import read_recipe_run
from hairpin.data.embedded import VERDICT_SHA256, verdict
from hairpin.errors import CorpusError
from hairpin.machine.environment import describe_environment
from hairpin.system.files import sha256_of


def run_book(
    text: Path | None,
    out: Path,
    iterations: int | None,
    recipe_run: Path | None,
    on_iteration: Callable[[int, int], None],
) -> tuple[Path, str]:
    """Run the appendix; return the page's path and a sentence on how many figures were reproduced.

    Args:
        text: a UTF-8 file; None: The Verdict, from the cache or downloaded.
        out: the folder of the page.
        iterations: number of training steps; None: all.
        recipe_run: a run of the recipe `book`, to compare.
        on_iteration: called with (done, total).

    Raises:
        UserError: the text, the vocabulary, the folder or the run cannot be used; raised before the
            work.
    """
    other = read_recipe_run(recipe_run) if recipe_run else None
    path = text or verdict()
    content = _read(path)
    is_books_text = sha256_of(path) == VERDICT_SHA256
    with folder_for_page(out):
        outcome = run_listings(content, iterations=iterations, on_iteration=on_iteration)
        page = write_page(
            outcome,
            out,
            text_name="The Verdict" if is_books_text else path.name,
            is_books_text=is_books_text,
            environment=describe_environment("cpu"),
            recipe_run=other,
        )
    return page, agreement(findings(outcome, is_books_text=is_books_text))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: byte {error.start} is not UTF-8; write the file in UTF-8"
        ) from None
