"""Commands that are printed can be pasted: a shell reads the words that were meant."""

import ast
import os
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.cli.main import hairpin
from hairpin.config.load import build_config
from hairpin.errors import RunError
from hairpin.reports.terminal.run_display import _next_steps
from hairpin.runs.folder import create_run
from hairpin.system.shell import command, quoted_words

SOURCE = Path(__file__).parents[1] / "src" / "hairpin"
_VERBS = "|".join(hairpin.list_commands(click.Context(hairpin)))
_UNFINISHED = re.compile(rf"hairpin (?:{_VERBS})(?: [^`\n]*)? $")

# Whatever a name on the disk can have: no NUL, and no slash, which divides names.
_NAMES = st.binary(min_size=1, max_size=12).map(
    lambda name: os.fsdecode(name.replace(b"\0", b"x").replace(b"/", b"y"))
)


@given(st.lists(_NAMES, min_size=1, max_size=5))
def test_what_can_be_printed_is_read_back_by_a_posix_shell(names: list[str]) -> None:
    printable = [name for name in names if name.isprintable()]
    assert shlex.split(quoted_words(*printable)) == printable


def test_bash_reads_any_name_of_a_file_back() -> None:
    names = ["plain", "out dir", "it's", "a\nb", "tab\t", "caf\udce9", "$HOME", "*", "~", "!x", "ü"]
    names += ["\\", "a\nit's \\", "", "#", "\u200b", "\x1b[2J", "-x", "b\udcff7"]
    words = quoted_words(*names)
    assert words.isprintable()
    ran = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True)
    assert ran.stdout == b"".join(os.fsencode(name) + b"\0" for name in names)


def test_a_path_is_no_flag_and_a_flag_is_no_path() -> None:
    assert command("sample", Path("--help"), "--tokens") == "hairpin sample ./--help --tokens"
    assert command("train", Path("runs/book-1"), "FILE") == "hairpin train runs/book-1 FILE"
    assert command("train", "…") == "hairpin train …"
    assert command("runs") == "hairpin runs"


def test_no_source_puts_a_command_together_by_itself() -> None:
    """An f-string that has a verb and then a value would leave it unquoted."""
    found = [
        f"{path.relative_to(SOURCE)}:{string.lineno}"
        for path in sorted(SOURCE.rglob("*.py"))
        for string in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(string, ast.JoinedStr)
        for before, value in pairwise(string.values)
        if isinstance(before, ast.Constant) and isinstance(value, ast.FormattedValue)
        if _UNFINISHED.search(str(before.value))
    ]
    assert not found, "use hairpin.system.shell.command"


def test_what_a_finished_run_prints_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "out dir" / "run 1's"
    create_run(folder, build_config(flags={"data.corpus": "verdict"}))
    printed = "\n".join(_next_steps(folder))
    words = [
        shlex.split(line.removeprefix("next").split("   generate")[0])
        for line in printed.split("\n")
        if "sample" in line
    ]
    assert words == [["hairpin", "sample", str(folder)]]


def test_a_refusal_prints_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "out dir" / "run 1's"
    asked = build_config(flags={"data.corpus": "verdict"})
    create_run(folder, asked)
    with pytest.raises(RunError) as refused:
        create_run(folder, asked)
    (pasted,) = re.findall("`(.*?)`", str(refused.value))
    assert shlex.split(pasted) == ["hairpin", "resume", str(folder)]
