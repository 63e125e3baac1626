"""One of several processes ends before any update: all end, and one says why."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from faults.deeds import CODES, DEEDS, KILLED
from helpers import some_text, tiny
from processes import Ended, Fault, together

pytestmark = pytest.mark.slow

SETTINGS = [w for k, v in tiny(train__updates=6).items() for w in ("--set", f"{k}={v}")]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    text = tmp_path / "text.txt"
    text.write_text(some_text(), encoding="utf-8")
    return ["train", str(text), "--out", str(tmp_path / "run"), *SETTINGS]


def check_others_are_silent(ended: list[Ended], code: int) -> None:
    first, *others = ended
    assert first.code == code, ended
    for other in others:
        assert other == Ended(code, "", "")


def check_others_know(others: list[Ended], code: int) -> None:
    """Each either read how the first one ended, or saw that it is gone: whichever came first."""
    for other in others:
        if other != Ended(code, "", ""):
            check_others_say_that_one_is_lost([other])


def check_others_say_that_one_is_lost(others: list[Ended]) -> None:
    for other in others:
        assert other.code == 1, others
        assert "another process has ended" in other.err and "Traceback" not in other.err


# Before the others know of a run, and when they do.
@pytest.mark.parametrize(
    "place", ["hairpin.launch.train:create_run", "hairpin.training.train_run:_facts"]
)
@pytest.mark.parametrize("deed", [*CODES, *KILLED, "SIGHUP"])
def test_the_others_end_as_the_first_one_does(
    tmp_path: Path, command: list[str], deed: str, place: str
) -> None:
    ended = together(2, command, tmp_path / "side", Fault(0, place=place, deed=deed))
    if deed in CODES:
        check_others_are_silent(ended, CODES[deed])
        assert ("there is a wrong word" in ended[0].err) == (deed == "a refusal")
    elif deed == "SIGHUP" and ended[0].code >= 0:
        check_others_are_silent(ended, 128 + signal.SIGHUP)
    else:
        assert ended[0].code == KILLED.get(deed, -signal.SIGHUP)
        check_others_say_that_one_is_lost(ended[1:])


def test_every_deed_is_tried() -> None:
    assert set(DEEDS) == {*CODES, *KILLED, "SIGHUP"}


# Where no word is expected: the others are about to compute something together.
@pytest.mark.parametrize("place", ["new_state", "build_job", "truncate_record"])
@pytest.mark.parametrize(("store_of_first", "how"), [(False, "ddp"), (True, "fsdp")])
def test_one_that_fails_between_two_words_ends_the_others(
    tmp_path: Path, command: list[str], store_of_first: bool, how: str, place: str
) -> None:
    fault = Fault(0, place=f"hairpin.training.train_run:{place}", deed="a refusal")
    words = [*command, "--parallel", how]
    ended = together(2, words, tmp_path / "side", fault, store_of_first=store_of_first)
    if store_of_first:  # what it noted goes with it, soon
        assert ended[0].code == 2
        check_others_know(ended[1:], 2)
    else:
        check_others_are_silent(ended, 2)


@pytest.mark.parametrize("deed", ["a refusal", "a bug", "SIGTERM", "SIGKILL", "a sudden end"])
@pytest.mark.parametrize(
    ("store_of_first", "place"),
    [
        (False, "hairpin.launch.other_processes:load_plugins"),
        (True, "hairpin.training.train_run:load_tokenizer"),
    ],
)
def test_a_follower_that_ends_ends_the_first_one(
    tmp_path: Path, command: list[str], place: str, deed: str, store_of_first: bool
) -> None:
    fault = Fault(1, place=place, deed=deed)
    first, other = together(2, command, tmp_path / "side", fault, store_of_first=store_of_first)
    assert other.code == (CODES | KILLED)[deed]
    assert ("hairpin: " in other.err) == (deed == "a refusal")
    check_others_say_that_one_is_lost([first])
    if (tmp_path / "run" / "metrics.jsonl").exists():
        *_, last = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(last)["status"] == "failed"


@pytest.mark.parametrize(
    "place",
    ["hairpin.distributed.processes:LeaderMessage", "hairpin.launch.other_processes:load_plugins"],
)
@pytest.mark.parametrize("deed", ["Ctrl-C", "SIGTERM"])
def test_a_signal_to_a_follower_that_waits_ends_both(
    tmp_path: Path, command: list[str], place: str, deed: str
) -> None:
    fault = Fault(1, place=place, deed=deed)
    first, other = together(2, command, tmp_path / "side", fault)
    assert (other.code, other.out, other.err.strip()) == (CODES[deed], "", "")
    check_others_say_that_one_is_lost([first])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Usage"),
        (["train", "--help"], 0, "Usage"),
        (["--version"], 0, "hairpin"),
        (["train", "--no-such-flag"], 2, "--no-such-flag"),
        (["trian", "x"], 2, "there is no command"),
        (["train", "nowhere.txt"], 2, "nowhere.txt"),
        (["train", "--or-resume"], 2, "--out"),
        (["train", "--plugin", "nowhere.py"], 2, "nowhere.py"),
        (["train", "--set", "track.tools=wandb"], 2, "wandb"),
        (["resume", "nowhere"], 2, "nowhere"),
        (["finetune", "classify"], 2, "--from"),
        (["plan", "nowhere.txt"], 2, "for one process"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    first, other = together(2, words, tmp_path / "side")
    assert first.code == code and said in first.out + first.err, first
    assert "Traceback" not in first.err
    assert other == Ended(code, "", "")


def test_a_plugin_that_fails_is_said_once(tmp_path: Path, command: list[str]) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("1 / 0\n", encoding="utf-8")
    ended = together(2, [*command, "--plugin", str(plugin)], tmp_path / "side")
    check_others_are_silent(ended, 2)
    assert ended[0].err.count("plugin.py") == 1


def test_nothing_is_left_to_do(tmp_path: Path, command: list[str]) -> None:
    assert [e.code for e in together(2, command, tmp_path / "side")] == [0, 0]
    run = str(tmp_path / "run")
    for words in ([*command, "--or-resume"], ["resume", run]):
        ended = together(2, words, tmp_path / "again")
        check_others_are_silent(ended, 0)
        assert "nothing to do" in ended[0].out + ended[0].err
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    ended = together(
        2, ["resume", run, "--extend", "2", "--policy", "nonsense"], tmp_path / "again"
    )
    check_others_are_silent(ended, 2)
