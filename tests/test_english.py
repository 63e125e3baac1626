import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hairpin"
# Files whose docstrings and comments are not yet written as CONTRIBUTING.md asks; take yours out.
NOT_DONE = (
    "cli.verbs.ablate",  # these: what commands print as their help
    "cli.verbs.book",
    "cli.verbs.compare",
    "cli.verbs.export",
    "cli.verbs.find_lr",
    "cli.verbs.import_",
    "cli.verbs.plan",
    "system.files",
)
FOR_MODULES_ALONE = ("How", "Where")


def name_of(path: Path) -> str:
    """Return the module's name without the package: "config.load"."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def is_in(name: str, rooms: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{room}.") for room in rooms)


FILES = {
    name: path.read_text(encoding="utf-8")
    for path in sorted(SOURCE.rglob("*.py"))
    if not is_in(name := name_of(path), NOT_DONE)
}


def avoided() -> tuple[list[str], list[str]]:
    """Return the beginnings and the phrases that the table in CONTRIBUTING.md advises against."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## English")[2]
    rows = [line.split("|")[2] for line in page.splitlines() if line.startswith("|")]
    quoted = [phrase for row in rows for phrase in re.findall('"([^"]+)"', row)]
    beginnings = [phrase.removesuffix("…") for phrase in quoted if phrase.endswith("…")]
    return beginnings, [phrase for phrase in quoted if not phrase.endswith("…")]


BEGINNINGS, PHRASES = avoided()


def docstrings(source: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each docstring in one line, after its owner's name, and before True for a module's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node) or "").split())
            yield getattr(node, "name", "the module"), text, isinstance(node, ast.Module)


def comments(source: str) -> str:
    """Return all comments of a file in one line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = (token.string.lstrip("#: ") for token in tokens if token.type == tokenize.COMMENT)
    return " ".join(found)


def phrases_in(text: str) -> list[str]:
    """Return the phrases to avoid in a text; the name of an argument, before a colon, is none."""
    return [
        phrase
        for phrase in PHRASES
        if re.search(rf"\b{re.escape(phrase)}\b(?!:)", text, re.IGNORECASE)
    ]


def riddle_of(text: str, *, of_module: bool) -> str | None:
    """Return the beginning of a docstring if it is one to avoid."""
    beginnings = BEGINNINGS if of_module else (*BEGINNINGS, *FOR_MODULES_ALONE)
    return next((word for word in beginnings if re.match(rf"{word}\b", text)), None)


def test_every_file_that_is_not_done_is_found() -> None:
    names = [name_of(path) for path in SOURCE.rglob("*.py")]
    assert not [room for room in NOT_DONE if not any(is_in(name, (room,)) for name in names)]


def test_the_table_has_the_riddles_and_phrases() -> None:
    assert {"What", "Whether", "Nothing", "Of", "Who", "Which", "As", "When", "Why"} <= set(
        BEGINNINGS
    )
    assert {"whoever", "so many", "hangs on", "by heart", "beside"} <= set(PHRASES)


@pytest.mark.parametrize(
    ("text", "of_module", "riddle"),
    [
        ("What a checkpoint belongs to.", False, "What"),
        ("Whether this is the process that writes.", False, "Whether"),
        ("Of how far three updates move a weight.", True, "Of"),
        ("How a page is made.", False, "How"),
        ("How a page is made.", True, None),
        ("Offsets of the files.", False, None),
        ("Return what was saved, as it was.", False, None),
    ],
)
def test_a_riddle_is_a_beginning(text: str, of_module: bool, riddle: str | None) -> None:
    assert riddle_of(text, of_module=of_module) == riddle


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Whoever reads it sees so many updates.", ["whoever", "so many"]),
        ("The tree hangs on the weights.", ["hangs on"]),
        ("Args: beside: a run to compare with.", []),
        ("The name is besides the point.", []),
    ],
)
def test_a_phrase_is_found_anywhere(text: str, phrases: list[str]) -> None:
    assert phrases_in(text) == phrases


@pytest.mark.parametrize("name", FILES)
def test_no_docstring_begins_with_a_riddle(name: str) -> None:
    found = [
        f"{owner}: {text[:60]}"
        for owner, text, of_module in docstrings(FILES[name])
        if riddle_of(text, of_module=of_module)
    ]
    assert not found, f"{name}: begin with a verb or a noun, see CONTRIBUTING.md: {found}"


@pytest.mark.parametrize("name", FILES)
def test_docstrings_and_comments_use_the_fields_words(name: str) -> None:
    found = {
        owner: phrases
        for owner, text, _ in docstrings(FILES[name])
        if (phrases := phrases_in(text))
    }
    if phrases := phrases_in(comments(FILES[name])):
        found["a comment"] = phrases
    assert not found, f"{name}: CONTRIBUTING.md has other words: {found}"
