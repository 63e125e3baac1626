import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from hairpin.api import load
from hairpin.cli.main import ALIASES, GROUPS, _terminate, with_dotted_flags
from hairpin.cli.main import hairpin as command_line
from hairpin.config.load import known_keys, parse_override
from hairpin.config.names import FLAGS, FOREIGN_NAMES
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, Interrupted
from hairpin.model.products import require_supported as refuse_precision
from hairpin.run import Run
from hairpin.schedules.curves import CURVES
from hairpin.system.version import __version__
from hairpin.training.evaluate import Measured
from helpers import TINY, TINY_FLAGS, Done, Hairpin, text_file

IN_GROUPS = command_line.in_groups(click.Context(command_line))
VERBS = [command.name or "" for commands in IN_GROUPS.values() for command in commands]
SIZED_FLAGS = ["--size", "nano", "--updates", "2", "--precision", "float32"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished")
    environment = {**os.environ, "HAIRPIN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "hairpin", "train", str(text_file(folder))]
    subprocess.run(
        [*command, *TINY_FLAGS, "--out", str(folder / "run")],
        env=environment,
        check=True,
        capture_output=True,
    )
    return folder / "run"


def refused(done: Done) -> str:
    """The line of a command that was refused as bad input."""
    assert (done.code, done.out) == (2, ""), done
    (line,) = done.err.splitlines()
    assert line.startswith("hairpin: ")
    assert "Traceback" not in done.err
    return line.removeprefix("hairpin: ")


# --- help ---


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_needs_neither_torch_nor_anything_else_that_is_slow(verb: str | None) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    program = (
        "import atexit, sys\n"
        "from hairpin.cli.main import main\n"
        "slow = {'torch', 'numpy', 'matplotlib', 'rich', 'pydantic', 'plotext', 'tokenizers'}\n"
        "atexit.register(lambda: sys.stderr.write(str(slow & set(sys.modules) or '')))\n"
        f"main({arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: " in done.stdout


def test_help_shows_every_verb_in_its_group(hairpin: Hairpin) -> None:
    for arguments in (["--help"], ["-h"], []):
        done = hairpin(*arguments)
        assert (done.code, done.err) == (0, "")
        titles = [title.capitalize() + ":" for title in GROUPS]
        rows = [line.strip() for line in done.out.splitlines()]
        assert [row for row in rows if row in titles] == titles
        for title, commands in zip(titles, IN_GROUPS.values(), strict=True):
            listed = rows[rows.index(title) + 1 :][: len(commands)]
            assert [row.split()[0] for row in listed] == [command.name for command in commands]
            assert all(row.endswith(".") for row in listed)


def test_a_verb_has_the_name_of_its_file_and_a_group() -> None:
    assert sorted(VERBS) == sorted(command_line.list_commands(click.Context(command_line)))


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_does(verb: str) -> None:
    command = next(c for commands in IN_GROUPS.values() for c in commands if c.name == verb)
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            shown = getattr(parameter, "help", None) or getattr(parameter, "show_default", None)
            assert shown, f"{verb} {parameter.name}"


def test_version(hairpin: Hairpin) -> None:
    assert hairpin("--version") == (0, f"hairpin, version {__version__}\n", "")


def test_python_m_hairpin_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hairpin", "--version"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"hairpin, version {__version__}\n")


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "there is no command 'generate'; did you mean `hairpin sample`?"),
        (["pretrain"], "there is no command 'pretrain'; did you mean `hairpin train`?"),
        (["eval"], "there is no command 'eval'; did you mean `hairpin evaluate`?"),
        (["trian", "x.txt"], "there is no command 'trian'; did you mean `hairpin train`?"),
        (["list"], "there is no command 'list'; did you mean `hairpin runs`?"),
        (["xyzzy"], "there is no command 'xyzzy'; `hairpin --help` lists them"),
        (["book.txt"], "no command 'book.txt'; to train on it: `hairpin train book.txt`"),
        (["\x1b[2J"], r"\x1b[2J"),
        (["--nonsense"], "No such option"),
        (["train", "--nonsense"], "train --help"),
        (["train", "--non\x1bsense"], r"\x1b"),
        (["train", "--updates", "many"], "'many' is not a valid integer"),
        (["train", "--updates"], "requires an argument"),
        (["train", "--train.updates"], "--train.updates needs a value"),
        (["train", "--set", "train.updates"], "write it as --set table.key=value"),
        (["train", "--budget", "soon"], "--budget soon: write a length of time such as 90s"),
        (["train", "--recipe", "gpt3"], "recipe: there is no 'gpt3'; choose one of gpt2"),
        (["train", "--size", "huge"], "model.size: there is no 'huge'"),
        (["train", "--lr", "nan"], "schedule.peak_lr"),
        (["train", "--lr", "-1"], "schedule.peak_lr"),
        (["train", "--seed", "-1"], "train.seed"),
        (["train", "--device", "tpu"], "execution.device"),
        (["train", "--corpus", "shakespeare"], "data.corpus"),
        (["train", "--config", "no.toml"], "no.toml: no such config file"),
        (["train", "no.txt"], "no.txt: no such file or folder"),
        (["prepare", "no.txt", "--out", "shards"], "no.txt: no such file or folder"),
        (["prepare", "no.txt"], "Missing option '--out'"),
        (["resume"], "no runs in ./runs yet: start one with `hairpin train`"),
        (["resume", "nowhere"], "nowhere: not a run: it has no config.toml"),
        (["sample"], "no runs in ./runs yet"),
        (["sample", "nowhere"], "nowhere: not a run"),
        (["sample", "--temperature", "nan"], "--temperature: nan is not 0 or more"),
        (["sample", "--temperature", "-1"], "--temperature: -1.0 is not 0 or more"),
        (["sample", "--top-p", "0"], "--top-p: 0.0 is not above 0 and at most 1"),
        (["sample", "--top-k", "-1"], "--top-k: -1 is not a whole number, 0 or more"),
        (["sample", "--weights", "worst"], "--weights"),
        (["sample", "--precision", "int4"], "--precision"),
        (["evaluate"], "no runs in ./runs yet"),
        (["schedule"], "the length of the run is not set: give --updates"),
        (["schedule", "--epochs", "2"], "the length of the run is not set: give --updates"),
    ],
)
def test_bad_input_is_answered_in_one_line(
    hairpin: Hairpin, tmp_path: Path, arguments: list[str], words: str
) -> None:
    assert words in refused(hairpin(*arguments))
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["runs"])


def test_several_mistakes_are_a_line_each(hairpin: Hairpin) -> None:
    done = hairpin("train", "x.txt", "--set", "trian.updates=3", "--seed", "-1", "--lr", "50")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 3
    assert all(line.startswith("hairpin: ") for line in done.err.splitlines())


def test_the_aliases_are_no_verbs_and_lead_to_one_if_it_is_there() -> None:
    assert not set(ALIASES) & set(VERBS)
    assert {"generate", "pretrain", "eval", "lr-find"} <= set(ALIASES)


@pytest.mark.parametrize("theirs", FOREIGN_NAMES)
def test_a_foreign_flag_is_refused_with_our_name(hairpin: Hairpin, theirs: str) -> None:
    for flag in (f"--{theirs}", f"--{theirs.replace('_', '-')}"):
        if flag.removeprefix("--") in FLAGS:
            continue
        for arguments in ([flag, "3"], [f"{flag}=3"]):
            line = refused(hairpin("schedule", *arguments))
            assert line.startswith(f"{flag}: hairpin calls it {FOREIGN_NAMES[theirs]}")


# --- settings ---


@pytest.mark.parametrize("key", list(known_keys()))
def test_every_key_can_be_a_flag(key: str) -> None:
    if "." in key:
        expected = ["--set", f"{key}=1", "x"]
        assert with_dotted_flags([f"--{key}", "1", "x"]) == expected
        assert with_dotted_flags([f"--{key}=1", "x"]) == expected


def test_dotted_flags_keep_whatever_is_in_the_value() -> None:
    assert with_dotted_flags(["--data.separator=a=b\n--x"]) == ["--set", "data.separator=a=b\n--x"]
    assert with_dotted_flags(["--data.separator", "--x.y"]) == ["--set", "data.separator=--x.y"]
    assert with_dotted_flags(["a.b=c", "-a.b", "--out", "x.y"]) == ["a.b=c", "-a.b", "--out", "x.y"]


def test_the_three_ways_to_write_a_setting_are_equal(hairpin: Hairpin) -> None:
    ways = [
        ["--set", "schedule.warmup_updates=7", "--set", "optimizer.beta1=0.8"],
        ["--schedule.warmup_updates", "7", "--optimizer.beta1", "0.8"],
        ["--schedule.warmup_updates=7", "--optimizer.beta1=0.8"],
    ]
    drawn = [hairpin("schedule", "--updates", "100", *way) for way in ways]
    assert drawn[0].code == 0
    assert "7 of warmup" in drawn[0].out
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_setting_typed_twice_is_no_matter_of_order(hairpin: Hairpin) -> None:
    done = hairpin("schedule", "--set", "train.updates=50", "--train.updates=60", "--lr", "0.01")
    assert done.refusal == (
        "train.updates: --set train.updates=50 and --set train.updates=60 disagree; keep one"
    )
    done = hairpin("schedule", "--train.updates=60", "--updates", "70")
    assert done.refusal == (
        "train.updates: --set train.updates=60 and --updates 70 disagree; keep one"
    )


def test_the_flags_set_keys_that_there_are() -> None:
    assert set(FLAGS.values()) <= set(known_keys())


# --- schedule ---


@pytest.mark.parametrize("kind", CURVES)
def test_every_schedule_is_drawn_with_its_figures(
    hairpin: Hairpin, tmp_path: Path, kind: str
) -> None:
    done = hairpin(
        "schedule", "--updates", "135", "--lr", "0.01", "--schedule.warmup_updates=27",
        f"--schedule.kind={kind}", "--png", "curves/lr.png",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert kind in done.out
    assert re.search(r"end of warmup +update +27 +lr 1e-2", done.out)
    assert "written: curves" in done.out.splitlines()[-1]
    assert (tmp_path / "curves" / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_schedule_without_warmup_warns(hairpin: Hairpin) -> None:
    done = hairpin("schedule", "--updates", "100", "--set", "schedule.warmup_updates=0")
    assert "warning: no warmup" in done.out


def test_a_schedule_of_a_length_in_tokens(hairpin: Hairpin) -> None:
    done = hairpin("schedule", "--tokens", "10000", "--train.tokens_per_update=1000")
    assert "10 updates" in done.out
    line = refused(hairpin("schedule", "--updates", "10", "--schedule.warmup_tokens=1000"))
    assert line == "warmup or decay in tokens: add --set train.tokens_per_update=…"


def test_a_picture_that_cannot_be_written_is_a_line(hairpin: Hairpin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = hairpin("schedule", "--updates", "10", "--png", "file/lr.png")
    assert done.code != 0
    (line,) = done.err.splitlines()
    assert "file" in line


# --- train ---


def test_train_on_a_file_alone_names_the_run_after_it(hairpin: Hairpin, tmp_path: Path) -> None:
    book = text_file(tmp_path).rename(tmp_path / "My Book.txt")
    for number in (1, 2):
        done = hairpin("train", book.name, *TINY_FLAGS)
        assert (done.code, done.err) == (0, "")
        run = load(tmp_path / "runs" / f"My-Book-{number}")
        assert run.summary().status == "finished"
        assert run.config.data.texts == (str(book),)
        assert f"hairpin sample runs/My-Book-{number}" in done.out.replace("\\", "/")


def test_train_on_a_folder(hairpin: Hairpin, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        text_file(folder, 2000 + number).rename(folder / f"{number}.txt")
    done = hairpin("train", folder, *TINY_FLAGS, "--out", "out/run")
    assert (done.code, done.err) == (0, "")
    run = load(tmp_path / "out" / "run")
    for path in (
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "plots/loss.png",
        "report.html",
    ):
        assert (run.path / path).is_file(), path
    assert [path.name for path in sorted((run.path / "best").iterdir())] == [
        "manifest.json",
        "model.safetensors",
    ]


def test_a_run_says_what_it_will_do_what_it_does_and_what_came_of_it(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    out = hairpin("train", text_file(tmp_path), *TINY_FLAGS).out
    lines = out.splitlines()
    plan = next(index for index, line in enumerate(lines) if line.startswith("plan: "))
    assert re.search(r"12 updates of 64 tokens \(3 of warmup\).*until \d\d:\d\d:\d\d$", lines[plan])
    assert lines[plan + 1] == f"page: {Path('runs', 'text-1', 'report.html')}"
    assert lines[plan + 2].startswith("evaluation after 0 updates")
    assert sum(line.startswith("evaluation after ") for line in lines) == 4
    end = next(index for index, line in enumerate(lines) if line.startswith("finished after "))
    rest = "\n".join(lines[end:])
    for words in ("best", "bits per byte", "clipped", "plots", "hairpin sample", "--config"):
        assert words in rest


def test_a_config_that_a_run_wrote_repeats_it(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    done = hairpin("train", "--config", finished / "config.toml", "--out", "again")
    assert done.code == 0
    first, second = load(finished), load(tmp_path / "again")
    assert first.config == second.config
    losses = [
        [(e["update"], e["loss"], e["lr"]) for e in run.record() if e["event"] == "update"]
        for run in (first, second)
    ]
    assert len(losses[0]) == 12
    assert losses[0] == losses[1]


@pytest.mark.parametrize("content", ["run", "file", "other folder"])
def test_a_folder_that_is_taken_is_refused(
    hairpin: Hairpin, tmp_path: Path, finished: Path, content: str
) -> None:
    taken = tmp_path / "taken"
    if content == "run":
        shutil.copytree(finished, taken)
    elif content == "file":
        taken.write_text("")
    else:
        (taken / "sub").mkdir(parents=True)
    line = refused(hairpin("train", text_file(tmp_path), "--out", taken, *TINY_FLAGS))
    assert "--out" in line
    assert ("`hairpin resume" in line) == (content == "run")
    assert taken.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "model.context=9999", "--set", "train.tokens_per_update=9999"], "context"),
        (["--device", "cuda"], "this machine has no cuda"),
        (["--data.hash", "0" * 64], "data.hash"),
        (["--set", "schedule.warmup_updates=11"], "schedule.warmup_updates: 11 of 12 updates"),
    ],
)
def test_a_mistake_leaves_no_run_folder(
    hairpin: Hairpin, tmp_path: Path, arguments: list[str], words: str
) -> None:
    if "cuda" in arguments:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
    done = hairpin("train", text_file(tmp_path), *TINY_FLAGS, *arguments, "--out", "run")
    assert words in refused(done)
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_made_is_refused(hairpin: Hairpin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(hairpin("train", text_file(tmp_path), "--out", "file/run", *TINY_FLAGS))
    assert "cannot make a run here" in line or "exists" in line


# --- resume ---


def test_resume_of_a_finished_run_says_so(hairpin: Hairpin, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "text-1")
    for arguments in (["resume"], ["resume", "runs/text-1"]):
        done = hairpin(*arguments)
        assert done.code == 0
        assert "finished after 12 updates: nothing to do" in done.out + done.err


def test_a_mistake_on_resume_deletes_nothing(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    for path in ("config.toml", "metrics.jsonl"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(finished / path, tmp_path / "run" / path)
    config = tmp_path / "run" / "config.toml"
    config.write_text(re.sub(r'".*text.txt"', '"gone.txt"', config.read_text()))
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    done = hairpin("resume", "run")
    assert done.code == 2
    assert "gone.txt: no such file or folder" in done.err
    assert config.is_file()


STOPS = [
    (getattr(signal, name), code)
    for name, code in (("SIGHUP", 129), ("SIGINT", 130), ("SIGTERM", 143))
    if hasattr(signal, name)
]


class Training:
    """A `hairpin train` in a process of its own, long enough to be stopped."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        environment = {**os.environ, "HAIRPIN_CACHE": str(folder / "cache")}
        environment["PYTHONUNBUFFERED"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hairpin", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_update(self) -> None:
        metrics = self.folder / "run" / "metrics.jsonl"
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if metrics.exists() and metrics.read_bytes().count(b'"event": "update"') > 2:
                return
            time.sleep(0.01)
        raise AssertionError(f"no update: {self.process.communicate(timeout=5)}")

    def stop(self, number: signal.Signals) -> Done:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_signal_saves_says_how_to_go_on_and_resume_finishes(
    hairpin: Hairpin, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    long = ["--updates", "250", "--evaluate.every_updates=1000000", "--out", "run"]
    training = Training(tmp_path, "train", str(text_file(tmp_path)), *TINY_FLAGS, *long)
    training.wait_for_update()
    done = training.stop(number)
    assert done.code == code
    (line,) = done.err.splitlines()
    assert re.fullmatch(
        r"hairpin: stopped after update \d+ of 250; resume with `hairpin resume run`", line
    )
    stopped = load(tmp_path / "run").summary()
    assert stopped.status == "interrupted"
    done = hairpin("resume", "run")
    assert (done.code, done.err) == (0, "")
    assert f"resumed after {stopped.updates} updates" in done.out.replace(",", "")
    summary = load(tmp_path / "run").summary()
    assert (summary.status, summary.updates) == ("finished", 250)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_signal_while_text_is_prepared_says_how_to_go_on(
    hairpin: Hairpin, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    pipe = tmp_path / "texts.txt"
    text_file(tmp_path)
    program = (
        "import os, signal, sys, time\n"
        # Where the tests run in the background, a shell has let their children ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import hairpin.data.shards as shards\n"
        "def survey(*args, **kwargs):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(60)\n"
        "shards.survey = survey\n"
        "from hairpin.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "text.txt", *TINY_FLAGS, "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    assert done.stderr == "hairpin: stopped; resume with `hairpin resume run`\n"
    assert not pipe.exists()
    assert load(tmp_path / "run").summary().status == "interrupted"
    assert hairpin("resume", "run").code == 0
    assert load(tmp_path / "run").summary().status == "finished"


# --- sample ---


def test_sample_writes_the_prompt_and_what_follows(hairpin: Hairpin, finished: Path) -> None:
    arguments = ["sample", finished, "--prompt", "the cat", "--tokens", "20"]
    first, second = hairpin(*arguments), hairpin(*arguments)
    assert first.code == 0
    assert first.out.startswith("the cat")
    assert first.out.endswith("\n")
    assert len(first.out) > len("the cat\n")
    assert first == second
    assert re.fullmatch(r"best weights, update \d+\n", first.err)
    assert hairpin(*arguments, "--seed", "1").out != first.out
    last = hairpin(*arguments, "--weights", "last")
    assert last.err == "last weights, update 12\n"


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_sample_says_what_its_weights_are_read_in(
    hairpin: Hairpin, finished: Path, precision: str
) -> None:
    try:
        refuse_precision(precision, "cpu")
    except ConfigError as error:
        pytest.skip(str(error))
    done = hairpin("sample", finished, "--prompt", "the cat", "--precision", precision)
    assert re.fullmatch(rf"best weights, update \d+, read in {precision}\n", done.err)
    assert done.out.startswith("the cat") and len(done.out) > len("the cat\n")


def test_sample_narrowed_to_the_likeliest_is_greedy(hairpin: Hairpin, finished: Path) -> None:
    arguments = ["sample", finished, "--prompt", "a dog", "--tokens", "20"]
    greedy = hairpin(*arguments, "--temperature", "0").out
    assert hairpin(*arguments, "--top-p", "1e-9", "--seed", "3").out == greedy
    assert hairpin(*arguments, "--top-k", "1", "--seed", "3").out == greedy
    assert hairpin(*arguments, "--top-k", "0", "--top-p", "1", "--seed", "3").out != greedy


def test_sample_takes_any_temperature_and_says_what_was_cut_of_a_prompt(
    hairpin: Hairpin, finished: Path
) -> None:
    arguments = ["sample", finished, "--prompt", "a dog" * 10, "--tokens", "20", "--temperature"]
    greedy = hairpin(*arguments, "0")
    assert greedy.err.splitlines()[1:] == [
        "the prompt has 50 tokens, and the model sees 16: its first 39 were cut"
    ]
    assert hairpin(*arguments, "1e-200") == greedy
    done = hairpin(*arguments, "1e200", "--seed", "3")
    assert done.code == 0 and done.out not in ("", greedy.out)


def test_a_prompt_that_is_not_utf_8_is_refused_whole(
    hairpin: Hairpin, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = b"the \xff".decode("utf-8", "surrogateescape")
    done = hairpin("sample", finished, "--prompt", prompt)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[1].startswith("hairpin: the prompt: byte 0xff at character 4")


def test_a_typed_prompt_that_is_not_utf_8_is_asked_for_again(
    hairpin: Hairpin, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python takes such bytes for halves of characters, or refuses them: the locale decides.
    typed: Iterator[str | bytes] = iter(
        [b"the \xff".decode("utf-8", "surrogateescape"), b"the \xff", "the cat"]
    )

    def ask(_: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line if isinstance(line, str) else line.decode()

    class Screen:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Screen())
    monkeypatch.setattr("builtins.input", ask)
    done = hairpin("sample", finished, "--tokens", "3")
    assert done.code == 0 and done.out.startswith("the cat")
    _, _, first, second = done.err.splitlines()
    assert first.startswith("the prompt: byte 0xff at character 4 is not UTF-8 text")
    assert second == "the input is not UTF-8 text; type it again"


def test_sample_without_a_prompt_begins_a_document(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "text-1")
    done = hairpin("sample", "--tokens", "5")
    assert done.code == 0
    assert done.out


def test_what_could_act_on_a_terminal_is_escaped_there_and_a_file_has_it_as_it_is(
    hairpin: Hairpin, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a\x1b[2Jb\x07c\u202ed\x9be"
    sample = ["sample", finished, "--prompt", hostile, "--tokens", "200"]
    assert hairpin(*sample).out.startswith(hostile)
    monkeypatch.setattr("hairpin.cli.printing.sys.stdout.isatty", lambda: True)
    shown = hairpin(*sample).out
    assert shown.startswith(r"a\x1b[2Jb\x07c\u202ed\x9be")
    assert all(character in "\n\t" or character.isprintable() for character in shown.rstrip())


def test_output_in_another_encoding_is_escaped_not_fatal(finished: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    for arguments in (
        ["sample", str(finished), "--prompt", "caf\u00e9 \u2192", "--tokens", "3"],
        ["schedule", "--updates", "50"],
        ["runs", str(finished.parent)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hairpin", *arguments],
            env=environment,
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert not {"\u2192", "\ufffd"} & set(done.stdout.decode("latin-1"))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_sample_asks_for_prompts_until_the_end(finished: Path) -> None:
    import pty

    child, descriptor = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.environ.update(TERM="dumb", NO_COLOR="1")
        os.execv(
            sys.executable,
            [sys.executable, "-m", "hairpin", "sample", str(finished), "--tokens", "4"],
        )
    seen = _until(descriptor, b"> ")
    assert b"Ctrl-D" in seen
    os.write(descriptor, b"the cat\n")
    # The terminal echoes what was typed; then comes the prompt again, with what follows.
    assert _until(descriptor, b"\n> ").count(b"the cat") == 2
    os.write(descriptor, b"the cat\n")
    _until(descriptor, b"\n> ")
    os.write(descriptor, b"\x04")
    _until(descriptor, None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(descriptor)


def _until(descriptor: int, awaited: bytes | None) -> bytes:
    """What the terminal shows until it shows `awaited`, or until it ends."""
    seen = b""
    while awaited is None or awaited not in seen:
        ready, _, _ = select.select([descriptor], [], [], 60)
        assert ready, seen
        try:
            block = os.read(descriptor, 4096)
        except OSError:  # how Linux says that nobody is at the other end
            block = b""
        if not block:
            assert awaited is None, seen
            return seen
        seen += block.replace(b"\r\n", b"\n")
    return seen


# --- evaluate, runs, prepare ---


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_evaluate_measures_any_text(hairpin: Hairpin, finished: Path, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    done = hairpin("evaluate", finished, text, "--json")
    facts = strict_json(done.out)
    assert done.out.count("\n") == 1
    assert facts["text"] == [str(text)]
    assert facts["tokens"] == len(text.read_bytes())
    assert facts["loss"] > 0
    assert facts["perplexity"] == pytest.approx(2.718281828 ** facts["loss"])
    words = hairpin("evaluate", finished, text).out
    assert f"{facts['loss']:.4f} nats per token" in words
    assert f"bits per byte  {facts['bits_per_byte']:.4f}" in words


def test_evaluate_without_a_text_takes_the_validation_text(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "text-1")
    facts = strict_json(hairpin("evaluate", "--json").out)
    assert facts["text"] == "validation"
    evaluations = [e for e in load(finished).record() if e["event"] == "evaluation"]
    assert facts["weights"].startswith("best weights")
    # The run looked at part of it, this is all.
    assert facts["loss"] == pytest.approx(min(e["val_loss"] for e in evaluations), rel=0.1)


def test_evaluate_writes_strict_json_of_any_loss(
    hairpin: Hairpin, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hairpin.tasks.inference import Trained

    monkeypatch.setattr(Trained, "measure", lambda *_: Measured(800.0, 3, float("nan")))
    facts = strict_json(hairpin("evaluate", finished, "--json").out)
    assert (facts["loss"], facts["perplexity"], facts["bits_per_byte"]) == (800.0, None, None)


def test_evaluate_of_an_empty_text_is_refused(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("")
    line = refused(hairpin("evaluate", finished, "empty.txt"))
    assert "the text is empty" in line


def test_runs_are_listed_with_what_came_of_them(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        shutil.copytree(finished, tmp_path / "runs" / f"text-{number}")
    done = hairpin("runs")
    heading, *rows = done.out.splitlines()
    assert heading.split()[:2] == ["run", "status"]
    assert [row.split()[:2] for row in rows] == [
        [str(Path("runs", f"text-{number}")), "finished"] for number in (1, 2)
    ]
    assert hairpin("runs", "runs") == done


def test_a_damaged_run_does_not_hide_the_others(
    hairpin: Hairpin, finished: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "runs" / name)
    (tmp_path / "runs" / "b" / "metrics.jsonl").unlink()
    done = hairpin("runs")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        str(Path("runs", name)) for name in ("a", "b")
    ]


def test_prepare_makes_a_folder_once(hairpin: Hairpin, tmp_path: Path) -> None:
    text = text_file(tmp_path)
    done = hairpin("prepare", text, "--out", "shards", "--set", "tokenizer.kind=bytes")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("shards: ")
    assert "vocabulary 257" in done.out
    assert (tmp_path / "shards" / "tokenizer" / "hairpin.json").is_file()
    line = refused(hairpin("prepare", text, "--out", "shards"))
    assert "name another with --out" in line


def test_a_reader_that_goes_away_is_no_error(finished: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hairpin", "sample", str(finished), "--tokens", "5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.read(1)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)


# --- the same from Python ---


def test_the_python_api_takes_what_the_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hairpin
    from hairpin.runs.watcher import Quiet

    monkeypatch.chdir(tmp_path)
    run = hairpin.train(text_file(tmp_path), settings=TINY, watcher=Quiet())
    assert isinstance(run, Run)
    assert isinstance(run.config, Config)
    for key, value in TINY.items():
        table, _, name = key.rpartition(".")
        assert getattr(getattr(run.config, table) if table else run.config, name) == value
    assert hairpin.resume(run.path, watcher=Quiet()).path == run.path
    assert hairpin.load().path == run.path
    assert set(dir(hairpin)) >= {"train", "resume", "load", "Run", "schedules"}
    assert parse_override(f"train.seed={TINY['train.seed']}") == ("train.seed", TINY["train.seed"])


# --- Ctrl-C before and after the verb ---

_INTERRUPTED_AT = """
import atexit, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == place:
            interrupt()

place = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
if place == "the end":
    atexit.register(interrupt)
from hairpin.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("click", -signal.SIGINT),
        ("hairpin.cli.main", -signal.SIGINT),
        ("hairpin.cli.options", -signal.SIGINT),
        ("hairpin.cli.verbs.schedule", 130),
        ("hairpin.api", 130),
        ("the end", -signal.SIGINT),
    ],
)
def test_ctrl_c_shows_no_traceback_however_early_or_late(place: str, code: int) -> None:
    words = [sys.executable, "-c", _INTERRUPTED_AT, place, "schedule", "--updates", "10"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.strip() == ("hairpin: stopped" if code == 130 else "")


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    words = [
        sys.executable,
        "-c",
        _INTERRUPTED_AT,
        "hairpin.cli.main",
        "schedule",
        "--updates",
        "9",
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True, preexec_fn=ignore)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("first", [KeyboardInterrupt(), Interrupted("stopped", signal.SIGINT)])
def test_the_first_of_two_signals_decides_the_exit_code(first: BaseException) -> None:
    """The second one comes while the page of the stopped run is written."""
    with pytest.raises(SystemExit) as left:
        try:
            raise first
        except (KeyboardInterrupt, Interrupted):
            try:
                raise KeyError("of the page")
            except KeyError:
                _terminate(signal.SIGTERM, None)
    assert left.value.code == 130
    with pytest.raises(SystemExit) as alone:
        _terminate(signal.SIGTERM, None)
    assert alone.value.code == 143
