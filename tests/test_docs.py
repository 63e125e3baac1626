import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import hairpin
from hairpin.cli.main import hairpin as command_line
from hairpin.cli.main import with_dotted_flags
from hairpin.config.load import known_keys, parse_override

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [ROOT / name for name in NAMES] + sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Whatever an example calls a file, it is no option and no verb.
COMMENT = re.compile(r"\s+#.*$")


def text_of(path: Path) -> str:
    assert path.is_file(), f"{path.name} is missing"
    return path.read_text(encoding="utf-8")


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in these languages."""
    return (body for language, body in FENCE.findall(text_of(path)) if language in languages)


def commands(path: Path) -> list[str]:
    """Every hairpin command of a page that somebody could type: in blocks, and in line."""
    lines = [line for block in blocks(path, "sh", "console", "bash") for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(path)))
    typed = [COMMENT.sub("", line).removeprefix("$ ").strip() for line in lines]
    typed = [re.sub(r"^\.venv[\\/](Scripts|bin)[\\/]", "", line) for line in typed]
    return [line for line in typed if line.startswith("hairpin ")]


COMMANDS = [(path.name, command) for path in PAGES if path.is_file() for command in commands(path)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_there_and_is_plain_text(path: Path) -> None:
    text = text_of(path)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    strange = {
        character for character in text if not (character.isprintable() or character == "\n")
    }
    assert not strange, f"{path.name}: {sorted(map(ascii, strange))}"
    assert "\n```" not in FENCE.sub("", text), "a block is not closed"


def test_the_readme_shows_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 5


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_in_the_docs_is_one_that_hairpin_takes(page: str, command: str) -> None:
    parse(command)


def parse(command: str) -> None:
    """Read a command as the command line would, without running it."""
    verb, *arguments = with_dotted_flags(shlex.split(command)[1:])
    if verb.startswith("-") or verb == "VERB":  # hairpin --help, hairpin VERB --help
        return
    group = click.Context(command_line)
    found = command_line.get_command(group, verb)
    assert found is not None, f"there is no verb {verb!r}"
    # Parsed strictly, so that an unknown option is an error; --help would print and leave.
    arguments = [argument for argument in arguments if argument not in ("--help", "-h", "…")]
    context = found.make_context(verb, arguments, parent=group)
    for override in context.params.get("overrides", ()):
        assert parse_override(override)[0] in set(known_keys()), override


@pytest.mark.parametrize(
    "command",
    ["hairpin trian x", "hairpin train --bugdet 3m", "hairpin train --schedule.knid wsd"],
)
def test_a_command_that_hairpin_does_not_take_would_be_seen(command: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        parse(command)


def test_every_flag_named_in_line_is_one_of_some_verb() -> None:
    known = {
        option
        for verbs in command_line.in_groups(click.Context(command_line)).values()
        for command in verbs
        for parameter in command.params
        for option in parameter.opts
    } | {"--help", "--version"}
    for name in ("README.md", "CONTRIBUTING.md"):
        for code in re.findall(r"`(--[^`\n]+)`", FENCE.sub("", text_of(ROOT / name))):
            flags = [word for word in with_dotted_flags(shlex.split(code)) if word.startswith("--")]
            unknown = {flag.partition("=")[0] for flag in flags} - known
            assert not unknown, f"{name}: {code}"


def test_the_tree_in_the_readme_is_the_source() -> None:
    trees = [block for block in blocks(ROOT / "README.md", "text") if "src/hairpin/" in block]
    assert len(trees) == 1, "the README has one tree, in a ```text block"
    rows = [line.split(maxsplit=1) for line in trees[0].splitlines()[1:]]
    assert all(len(row) == 2 for row in rows), "every entry has its line"
    source = ROOT / "src" / "hairpin"
    there = [
        path.name + "/" * path.is_dir()
        for path in source.iterdir()
        if path.name != "__pycache__" and not path.name.startswith(".")
    ]
    assert sorted(row[0] for row in rows) == sorted(there)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(path)))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{path.name}: {target}"


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_make_target_named_is_there(path: Path) -> None:
    makefile = text_of(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert set(phony.split()) == targets
    lines = "\n".join(blocks(path, "sh", "console", "bash")) + "\n"
    named = re.findall(r"^(?:\$ )?make ([a-z-]+)", lines, re.MULTILINE)
    named += re.findall(r"`make ([a-z-]+)`", text_of(path))
    assert set(named) <= targets


def test_files_that_the_docs_name_are_there() -> None:
    for path in PAGES:
        for name in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./-]+)`", text_of(path)):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_python_in_the_docs_is_python_and_its_names_exist(name: str) -> None:
    for block in blocks(ROOT / name, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "hairpin":
                    assert hasattr(hairpin, node.attr), ast.unparse(node)
                if node.value.id == "run":
                    assert hasattr(hairpin.Run, node.attr), ast.unparse(node)


def test_what_hairpin_says_it_has_it_has() -> None:
    for name in hairpin.__all__:
        assert getattr(hairpin, name) is not None
    assert dir(hairpin) == sorted(hairpin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hairpin.nothing  # noqa: B018


def test_torchrun_is_shown_so_that_no_module_of_the_working_folder_is_run() -> None:
    shown = [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.sh")]
    text = "\n".join(text_of(path) for path in shown)
    assert text.count("--no-python hairpin") >= 5
    assert not re.findall(r"(?m)^.*(?:nproc|torchrun|rdzv|^\s+)[^\n]*-m hairpin.*$", text)
