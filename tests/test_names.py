"""Names that are not UTF-8, and a working folder that has gone."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hairpin as package
from hairpin.errors import RunError, UserError, one_line
from helpers import TINY_FLAGS, Hairpin, text_file

LATIN = os.fsdecode(b"caf\xe9 1")

pytestmark = [
    pytest.mark.usefixtures("no_plots"),
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names"),
]


@pytest.fixture
def misnamed(tmp_path: Path) -> Path:
    folder = tmp_path / LATIN
    folder.mkdir()
    return text_file(folder)


@pytest.mark.parametrize("verb", ["train", "plan", "prepare", "compare"])
def test_a_name_that_is_not_utf8_is_said_with_the_command_that_mends_it(
    hairpin: Hairpin, misnamed: Path, tmp_path: Path, verb: str
) -> None:
    flags: dict[str, list[object]] = {
        "prepare": ["--out", tmp_path / "out"],
        "compare": ["--vary", "train.seed=1,2"],
    }
    refusal = hairpin(verb, misnamed, *flags.get(verb, [])).refusal
    assert r"the name caf\xe9 1 is not UTF-8" in refusal
    (rename,) = re.findall("`(.*?)`", refusal)
    subprocess.run(["bash", "-c", rename], check=True)
    assert (tmp_path / "café 1" / "text.txt").is_file()


def test_a_run_has_no_such_name_and_starts_from_none(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    refusal = hairpin("train", text, *TINY_FLAGS, "--out", tmp_path / LATIN).refusal
    assert "is not UTF-8" in refusal and "name another" in refusal
    refusal = hairpin("train", text, *TINY_FLAGS, "--from", tmp_path / LATIN).refusal
    assert "is not UTF-8" in refusal
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    with pytest.raises(UserError, match="is not UTF-8"):
        package.train(text, out=tmp_path / LATIN)


def test_files_in_a_folder_may_have_such_names(hairpin: Hairpin, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    text_file(folder).rename(folder / f"{LATIN}.txt")
    run = tmp_path / "run"
    assert hairpin("train", folder, *TINY_FLAGS, "--out", run).code == 0
    assert hairpin("evaluate", run, folder).code == 0


def test_a_byte_of_a_name_is_shown_as_one() -> None:
    assert one_line(f"{LATIN}\n\u202e\ud812") == r"caf\xe9 1\n\u202e\ud812"


def test_a_working_folder_that_has_gone_is_said_by_every_verb(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_file(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    for words in (["train", text], ["train"], ["resume"], ["runs"], ["sample"], ["doctor"]):
        refusal = hairpin(*words).refusal
        assert "working folder" in refusal and shlex.split(refusal)[-1] == "`cd`"
    with pytest.raises(RunError, match="working folder"):
        package.train(text)
    assert hairpin("train", "--help").code == 0
