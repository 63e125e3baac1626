import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hairpin"
# Files whose docstrings and comments are not written as CONTRIBUTING.md asks yet; take yours out.
NOT_DONE: tuple[str, ...] = ()
# Files with messages, and pages of the documentation, that are not; the same.
MESSAGES_NOT_DONE: tuple[str, ...] = ()
PAGES_NOT_DONE: tuple[str, ...] = ()
# Pages that commands write, by the words of these commands.
GENERATED = (
    "benchmarks.md",
    "book.md",
    "config.md",
    "generation-results.md",
    "reliability-results.md",
)
FOR_MODULES_ALONE = ("How", "Where")


def name_of(path: Path) -> str:
    """Return the module's name without the package: "config.load"."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def is_in(name: str, parts: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


SOURCES = {name_of(path): path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))}
FILES = {name: text for name, text in SOURCES.items() if not is_in(name, NOT_DONE)}
SPEAKING = {name: text for name, text in SOURCES.items() if not is_in(name, MESSAGES_NOT_DONE)}
PAGES = {
    path.name: path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name not in PAGES_NOT_DONE + GENERATED
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


def messages(source: str) -> Iterator[str]:
    """Yield the strings of a file that are not docstrings, each in one line."""
    tree = ast.parse(source)
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield " ".join(node.value.split())


def prose(page: str) -> str:
    """Return a page's text in one line, without code and addresses of links."""
    page = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"`[^`\n]*`|\]\([^)]*\)|\*\*\"[^\"]*\"\*\*", "", page).split())


def phrases_in(text: str) -> list[str]:
    """Return the phrases to avoid in a text; an argument's or option's name is none."""
    return [
        phrase
        for phrase in PHRASES
        if re.search(rf"(?<!--)\b{re.escape(phrase)}\b(?!:)", text, re.IGNORECASE)
    ]


def riddle_of(text: str, *, of_module: bool) -> str | None:
    """Return the beginning of a docstring if it is one to avoid."""
    beginnings = BEGINNINGS if of_module else (*BEGINNINGS, *FOR_MODULES_ALONE)
    return next((word for word in beginnings if re.match(rf"{word}\b", text)), None)


def test_what_is_not_done_exists() -> None:
    assert not [name for name in NOT_DONE + MESSAGES_NOT_DONE if name not in SOURCES]
    assert not [name for name in PAGES_NOT_DONE if not (ROOT / "docs" / name).is_file()]


def test_the_table_has_the_riddles_and_phrases() -> None:
    assert {"What", "Whether", "Nothing", "Of", "Who", "Which", "As", "When", "Why"} <= set(
        BEGINNINGS
    )
    assert {"whoever", "so many", "hangs on", "by heart", "beside", "mend"} <= set(PHRASES)


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
        ("A run of the recipe, for --beside", []),
        ("Recommend a rate.", []),
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


@pytest.mark.parametrize("name", SPEAKING)
def test_messages_use_the_fields_words(name: str) -> None:
    found = {text: phrases for text in messages(SPEAKING[name]) if (phrases := phrases_in(text))}
    assert not found, f"{name}: CONTRIBUTING.md has other words: {found}"


def test_code_and_links_are_no_prose() -> None:
    page = "By a `beside` and [a page](beside.md#by-heart).\n```text\nby heart 2%\n```\nAnd so on."
    assert prose(page) == "By a and [a page. And so on."


@pytest.mark.parametrize("name", PAGES)
def test_pages_use_the_fields_words(name: str) -> None:
    found = phrases_in(prose(PAGES[name]))
    assert not found, f"{name}: CONTRIBUTING.md has other words for {found}"
