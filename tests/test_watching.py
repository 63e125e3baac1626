"""A run does not depend on who watches it, nor on what they are shown."""

import io
import itertools
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

import hairpin
from hairpin.config.settings import Config
from hairpin.errors import HairpinError, Interrupted, one_line
from hairpin.reports.diagnostics import diagnose, lines_with
from hairpin.reports.event_text import plan_text
from hairpin.reports.formats import (
    format_bytes,
    format_count,
    format_duration,
    format_loss,
    format_lr,
    format_norm,
    safe_pieces,
)
from hairpin.reports.summary import summarize
from hairpin.reports.terminal.display import Display, Stages
from hairpin.reports.terminal.notebook import Notebook
from hairpin.reports.terminal.run_display import Terminal
from hairpin.reports.terminal.tables import measured_lines
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory, list_runs
from hairpin.runs.watcher import Guarded, Quiet
from hairpin.system import output
from hairpin.training.signals import StopRequest
from helpers import TINY_FLAGS, Hairpin, of_kind, text_file, tiny, updates_without_times

# --- what displays are shown ---

QUICKLY = (Phase.explicit, Phase.generate)  # to make an example smaller takes minutes here
numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e308, 5e-324])
norms = st.floats(min_value=0) | st.sampled_from([math.nan, math.inf, 0.0, 1e308, 5e-324])
maybe = st.none() | numbers
counts = st.integers(0, 10**6) | st.sampled_from([0, 1, 10**15])
words = st.text(max_size=20) | st.sampled_from(["[/]", "[link=x]", "\x1b[2J", "\u202e", "\ud800"])
a_source = st.fixed_dictionaries(
    {"train_loss": maybe, "val_loss": maybe, "val_bits_per_byte": maybe}
)
flags = st.none() | st.booleans()
incident = (counts, numbers, norms, words, counts, counts, words)
any_event = st.one_of(
    st.builds(
        events.Update,
        counts, numbers, numbers, norms, st.booleans(), counts, numbers, flags, flags, maybe,
        st.none() | words, maybe,
    ),
    st.builds(events.Ratios, counts, numbers, st.dictionaries(words, norms, max_size=3)),
    st.builds(
        events.Evaluation,
        counts, counts, numbers, numbers, maybe, maybe, maybe, st.none(),
        st.none() | st.dictionaries(words, a_source, max_size=2),
    ),
    st.builds(events.Sample, counts, words, words),
    st.builds(events.Spike, *incident),
    st.builds(events.Skip, *incident, words),
    st.builds(events.Rewind, *incident, words, counts, counts),
    st.builds(events.Correction, counts, counts, counts),
    st.builds(events.Extend, counts, counts, counts, st.none() | words),
    st.builds(events.Resume, counts, numbers, st.none() | st.tuples(words), st.none() | counts),
    st.builds(events.Checkpoint, counts, st.booleans()),
    st.builds(events.Unwatched, counts, words),
    st.builds(events.End, counts, words, numbers, st.none() | words),
    st.builds(
        events.Plan,
        words, counts, counts, counts, counts, counts, counts, numbers, numbers, numbers,
        st.none() | words, st.none() | counts, st.none() | st.tuples(words),
        st.none() | st.dictionaries(
            words, st.fixed_dictionaries({"share": numbers, "epochs": numbers}), max_size=2
        ),
    ),
)  # fmt: skip
histories = st.lists(any_event, max_size=12)


def a_console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, height=20)


@settings(deadline=None, max_examples=150, phases=QUICKLY)
@given(history=histories, terminal=st.booleans(), ticks=st.floats(0, 100))
def test_a_display_can_be_shown_whatever_happens(
    history: list[events.Event], terminal: bool, ticks: float
) -> None:
    seconds = [0.0]

    def clock() -> float:
        seconds[0] += ticks
        return seconds[0]

    console = a_console(terminal=terminal)
    with Display(console=console, clock=clock) as display:
        for event in history:
            display.show(event)
            if display._live:
                display._live.refresh()
    html: list[str] = []
    notebook = Notebook(clock, lambda page: html.append(page) or html.append)  # type: ignore[func-returns-value]
    for event in history:
        notebook.show(event)
    notebook.close()
    for event in history:
        if isinstance(event, events.Plan):
            plan_text(event)
    with Stages(console=console, clock=clock) as stages:
        for name, done, total in [("", 0, 0), ("[/]", 10**400, 0), ("x", 0, 10**400), ("x", 5, 1)]:
            stages(name, done, total)


@settings(deadline=None, max_examples=150, phases=QUICKLY)
@given(history=histories)
def test_what_happened_is_a_record_with_a_summary(history: list[events.Event]) -> None:
    record = [json.loads(json.dumps(event.as_json(), allow_nan=False)) for event in history]
    assert lines_with(summarize(record), diagnose(record, Config()))


@given(st.integers() | st.sampled_from([10**400, -(10**400), 0]) | numbers)
def test_every_number_has_words(number: float) -> None:
    for summary_line in (
        format_bytes, format_count, format_duration, format_loss, format_lr, format_norm
    ):  # fmt: skip
        assert summary_line(number)


def test_a_source_without_bytes_has_a_line() -> None:
    source = SimpleNamespace(loss=math.nan, tokens=0, bits_per_byte=None)
    measured: Any = SimpleNamespace(
        loss=math.inf, tokens=0, perplexity=math.inf, bits_per_byte=None, accuracy=None,
        confusion=None, sources={"web": source},
    )  # fmt: skip
    assert measured_lines(measured)[-1] == "  web  nan nats per token (0 tokens)"


# --- displays that fail ---

SKIPPING = tiny(train__updates=4, guard__on_non_finite="skip", guard__most_skips=9)
NAN_GRADIENT = """
from torch.nn import functional as F
import torch
from hairpin.plugins.registry import register_loss
def losses(logits, targets):
    flat = logits.flatten(0, 1).float(), targets.flatten()
    out = F.cross_entropy(*flat, reduction="none").view_as(targets)
    if torch.is_grad_enabled():
        out.register_hook(lambda gradient: gradient * float("nan"))
    return out
register_loss("nan-gradient", losses)
"""


def test_updates_that_are_skipped_from_the_first_are_shown(
    hairpin: Hairpin, tmp_path: Path, no_plots: None
) -> None:
    (tmp_path / "nanloss.py").write_text(NAN_GRADIENT, encoding="utf-8")
    flags = [*TINY_FLAGS, "--set", "train.loss=nan-gradient", "--plugin", "nanloss.py"]
    flags += ["--set", "guard.on_non_finite=skip", "--set", "guard.most_skips=2"]
    done = hairpin("train", text_file(tmp_path), *flags, "--out", "run")
    assert done.code == 1
    assert "update 0: non-finite, skipped" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("hairpin: update 2: the gradient of")


class Broken(Terminal):
    """A display with a mistake in one of its methods."""

    def __init__(self, method: str, error: Exception) -> None:
        super().__init__()

        def fail(*_: object) -> None:
            raise error

        setattr(self, method, fail)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HAIRPIN_CACHE", str(tmp_path / "cache"))
    return text_file(tmp_path)


@pytest.fixture
def whole(text: Path, no_plots: None) -> Run:
    return hairpin.train(text, out=text.parent / "whole", settings=TINY_RUN, watcher=Quiet())


TINY_RUN = tiny(train__updates=6)


@pytest.mark.parametrize("method", ["stage", "begin", "show", "finish", "close"])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), OSError(5, "gone"), HairpinError("no config")], ids=repr
)
def test_a_display_that_fails_is_given_up_and_noted(
    text: Path, whole: Run, method: str, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = Broken(method, error)
    run = hairpin.train(text, out=text.parent / "run", settings=TINY_RUN, watcher=watcher)
    assert run.summary().status == "finished"
    assert updates_without_times(run.record()) == updates_without_times(whole.record())
    (note,) = of_kind(run.record(), "unwatched")
    assert note["reason"].startswith("display: ")
    assert note["update"] == (6 if method == "finish" else 0)
    assert "continuing without it" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["write_plots", "lines"])
def test_what_fails_behind_the_end_is_said(
    text: Path, monkeypatch: pytest.MonkeyPatch, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    monkeypatch.setattr(Run, method, lambda self: 1 / 0)
    run = hairpin.train(text, out=text.parent / "run", settings=TINY_RUN)
    assert run.summary().status == "finished"
    assert (
        "ZeroDivisionError: division by zero; the run itself is intact" in capsys.readouterr().out
    )


class Own(Quiet):
    """A watcher that somebody wrote."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def show(self, event: events.Event) -> None:
        if isinstance(event, events.Update):
            raise self.error


def test_a_watcher_of_ones_own_stops_a_run_but_not_by_losing_its_output(
    text: Path, no_plots: None
) -> None:
    class EnoughError(Exception):
        pass

    for number, error in enumerate((EnoughError(), HairpinError("enough"))):
        with pytest.raises(type(error)):
            out = text.parent / f"stopped-{number}"
            hairpin.train(text, out=out, settings=TINY_RUN, watcher=Own(error))
    with pytest.raises(Interrupted):
        out = text.parent / "interrupted"
        hairpin.train(text, out=out, settings=TINY_RUN, watcher=Own(KeyboardInterrupt()))
    out = text.parent / "run"
    run = hairpin.train(text, out=out, settings=TINY_RUN, watcher=Own(BrokenPipeError(32, "pipe")))
    assert run.summary().status == "finished"
    assert of_kind(run.record(), "unwatched") == [
        {"event": "unwatched", "update": 1, "reason": "display: pipe"}
    ]


def test_a_bar_that_fails_in_its_thread_is_given_up_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    drawn = threading.Event()

    class Bad:
        def __rich_console__(self, *_: object) -> None:
            if threading.current_thread() is not threading.main_thread():
                drawn.set()
                raise ZeroDivisionError

        def __bool__(self) -> bool:
            return True

    display = Display(console=a_console(terminal=True))
    with pytest.raises(ZeroDivisionError), display:
        assert display._live
        monkeypatch.setattr(
            "hairpin.reports.terminal.live.Bar.__rich_console__", Bad.__rich_console__
        )
        assert drawn.wait(10)
        while display._live.failure is None:
            time.sleep(0.01)
        monkeypatch.undo()
        display.show(events.Checkpoint(1, True))
    assert not raised


# --- output that goes away ---

posix = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are POSIX's")
PROGRAM = "from hairpin.run import Run\nRun.write_plots = lambda self: []\n"
PROGRAM += "from hairpin.cli.main import main\nmain()"


def start(
    folder: Path, *arguments: str, code: str = PROGRAM, **streams: Any
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"HAIRPIN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        **streams,
    )


def in_training(folder: Path, *more: str) -> list[str]:
    return ["train", "text.txt", *TINY_FLAGS, "--out", "run", *more]


def notes(folder: Path) -> list[str]:
    run = Run(RunDirectory(folder / "run"))
    assert run.summary().status == "finished"
    return [note["reason"] for note in of_kind(run.record(), "unwatched")]


@posix
def test_a_pipe_that_nobody_reads_does_not_end_a_run(tmp_path: Path) -> None:
    text_file(tmp_path)
    reading, writing = os.pipe()
    process = start(tmp_path, *in_training(tmp_path), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert said == b"hairpin: standard output: Broken pipe; continuing without it\n"
    assert notes(tmp_path) == ["standard output: Broken pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_log_does_not_end_a_run(tmp_path: Path) -> None:
    text_file(tmp_path)
    with Path("/dev/full").open("wb") as full:
        process = start(tmp_path, *in_training(tmp_path), stdout=full, stderr=full)
        assert process.wait(100) == 0
    lost = [f"standard {name}: No space left on device" for name in ("error", "output")]
    assert sorted(notes(tmp_path)) == lost


@posix
def test_a_terminal_that_is_closed_does_not_end_a_run_that_is_not_told(tmp_path: Path) -> None:
    text_file(tmp_path)
    ours, theirs = pty.openpty()
    process = start(tmp_path, *in_training(tmp_path), stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    assert os.read(ours, 10)
    os.close(ours)  # it is not the process's controlling terminal: no SIGHUP, only EIO
    assert process.wait(100) == 0
    assert "standard output: Input/output error" in notes(tmp_path)


@posix
@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_streams_that_are_closed_do_not_end_a_run(tmp_path: Path, closed: str) -> None:
    text_file(tmp_path)
    shut = " ".join(f"{number}>&-" for number in closed.split())
    command = f'exec "$0" -c "$1" {" ".join(in_training(tmp_path))} {shut}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, PROGRAM],
        cwd=tmp_path,
        env=os.environ | {"HAIRPIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert notes(tmp_path) == []
    # What is printed does not get into the files that are opened instead.
    for line in (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines():
        json.loads(line)


@posix
@pytest.mark.parametrize("verb", [["runs", "."], ["sample", "run", "--tokens", "3"], ["--help"]])
def test_what_only_prints_ends_quietly(tmp_path: Path, text: Path, whole: Run, verb: Any) -> None:
    (tmp_path / "run").symlink_to(whole.path)
    outcomes = {}
    for kind in ("pipe", "full", "closed"):
        command = 'exec "$0" -c "$1" "$@"'
        command += {"pipe": "", "full": " > /dev/full", "closed": " >&-"}[kind]
        command = command.replace('"$@"', " ".join(verb))
        reading, writing = os.pipe()
        process = subprocess.Popen(
            ["/bin/sh", "-c", command, sys.executable, PROGRAM],
            cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(writing)
        os.close(reading)
        said = process.communicate(timeout=60)[1].decode().splitlines()
        outcomes[kind] = (process.returncode, [line for line in said if "weights" not in line])
    assert outcomes == {
        "pipe": (1, []),
        "full": (1, ["hairpin: standard output: No space left on device"]),
        "closed": (0, []),
    }


def test_a_stream_that_fails_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        calls = 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            self.calls += 1
            raise OSError(28, "No space left on device")

    raw = Full()
    outlet = output.OutputStream(raw, "standard output")
    outlet.raises = True
    with pytest.raises(OSError, match="standard output"):
        outlet.write(b"abc")
    assert [outlet.write(b"abc"), outlet.write(b"de"), raw.calls] == [3, 2, 1]
    assert outlet.failure == "standard output: No space left on device"


# --- signals ---

needs_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
IGNORING = "import signal, sys\nsignal.signal(getattr(signal, sys.argv.pop(1)), signal.SIG_IGN)\n"


def stopped(folder: Path, number: signal.Signals, code: str, *first: str) -> tuple[int, str]:
    """Send a signal once some updates are made; the exit code and the standard error."""
    more = ["--set", "train.updates=250", "--set", "evaluate.every_updates=100000"]
    process = start(
        folder, *first, *in_training(folder, *more), code=code,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    metrics = folder / "run" / "metrics.jsonl"
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b'"event": "update"') > 2):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=100)[1].decode()
    return process.returncode, said


@needs_sighup
def test_a_closed_terminal_saves_the_run_and_stops_it(tmp_path: Path) -> None:
    text_file(tmp_path)
    code, said = stopped(tmp_path, signal.SIGHUP, PROGRAM)
    assert code == 129
    assert said.startswith("hairpin: stopped after update ")
    run = Run(RunDirectory(tmp_path / "run"))
    saved = max((run.path / "checkpoints").glob("step-*")).name
    assert int(saved.removeprefix("step-")) == run.summary().updates > 2
    assert run.summary().status == "interrupted"


@needs_sighup
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_that_is_ignored_at_the_start_stays_so(tmp_path: Path, name: str) -> None:
    text_file(tmp_path)
    assert stopped(tmp_path, getattr(signal, name), IGNORING + PROGRAM, name) == (0, "")
    assert Run(RunDirectory(tmp_path / "run")).summary().updates == 250


@needs_sighup
def test_before_training_a_closed_terminal_ends_it_at_once(tmp_path: Path) -> None:
    text_file(tmp_path)
    code = "import os, signal, time\nimport hairpin.data.shards as shards\n"
    code += "def survey(*_, **__):\n    os.kill(os.getpid(), signal.SIGHUP)\n    time.sleep(60)\n"
    code += "shards.survey = survey\n" + PROGRAM
    process = start(tmp_path, *in_training(tmp_path), code=code, stderr=subprocess.PIPE)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 129
    assert said == b"hairpin: stopped; resume with `hairpin resume run`\n"


@needs_sighup
def test_several_processes_agree_on_a_closed_terminal() -> None:
    """One of two hears it; both stop, by the same signal."""
    one, other = StopRequest(alone=False), StopRequest(alone=False)
    with one.deferring():
        signal.raise_signal(signal.SIGHUP)
    assert not one.requested
    sums = [a + b for a, b in zip(one.noted(), other.noted(), strict=True)]
    for each in (one, other):
        each.agree(sums)
        assert each.requested
        assert each.signal_number == signal.SIGHUP


# --- text from elsewhere ---


def written(pieces: Sequence[str]) -> str:
    return "".join(safe_pieces(pieces))


def test_what_acts_on_a_terminal_is_an_escape_and_all_else_is_itself() -> None:
    plain = "tab\there\nfamily \U0001f468\u200d\U0001f469 \u200f\u05d0\u200e \u200c\u061c漢"
    assert written([plain]) == plain
    assert written(["a\r", "\nb\r\nc\r", "d\r"]) == "a\nb\nc\\x0dd\\x0d"
    assert written(["\x1b[2J", "\x9b", "\u202e\u2066", "\ud800"]) == (
        "\\x1b[2J\\x9b\\u202e\\u2066\\ud800"
    )
    assert one_line("a\u202e\n\x1b") == "a\\u202e\\n\\x1b"


@given(st.text(), st.lists(st.integers(0, 50)))
def test_it_does_not_depend_on_how_a_text_is_divided(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert written(pieces) == written(["".join(pieces)])


WRITTEN = ["a\t\u200e", "\u200f\r", "\nb\x1b[2J", "é\u202e"]


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes known text."""
    from hairpin.tasks.inference import Trained

    monkeypatch.setattr(Trained, "write", lambda *_, **__: iter(WRITTEN))


def test_a_file_has_the_bytes_that_the_model_wrote(
    whole: Run, writing: None, monkeypatch: pytest.MonkeyPatch, hairpin: Hairpin
) -> None:
    held = io.BytesIO()
    stdout = io.TextIOWrapper(held, encoding="ascii", newline="\r\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert hairpin("sample", whole.path, "--prompt", "p\t\r\n").code == 0
    assert held.getvalue() == ("p\t\r\n" + "".join(WRITTEN) + "\n").encode()


def test_a_terminal_is_not_touched_by_what_the_model_wrote(
    whole: Run, writing: None, monkeypatch: pytest.MonkeyPatch, hairpin: Hairpin
) -> None:
    monkeypatch.setattr("hairpin.cli.printing.sys.stdout.isatty", lambda: True)
    done = hairpin("sample", whole.path, "--prompt", "p")
    assert done.out == "pa\t\u200e\u200f\nb\\x1b[2Jé\\u202e\n"


def damage(record: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    record.write_text("".join(json.dumps(change(line)) + "\n" for line in lines), encoding="utf-8")


def test_one_odd_record_does_not_end_the_list(hairpin: Hairpin, tmp_path: Path, whole: Run) -> None:
    import shutil

    def changed(kind: str, **values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda line: line | values if line["event"] == kind else line

    changes = {
        "a[final]": changed("end"),
        "b[link=http:x]": changed("update", tokens="many"),
        "c[bold]": changed("update", update=None),
        "d": changed("plan", parameters=10**400),
        "e": changed("end", status=7),
        "f": changed("evaluation", val_loss="low"),
        "g": lambda line: {"event": line["event"]},
        "h:smile:": changed("end", status="[red]\x1b[2J"),
        "i\u202e": changed("update", update=10**30),
    }
    for name, change in changes.items():
        shutil.copytree(whole.path, tmp_path / "all" / name)
        damage(tmp_path / "all" / name / "metrics.jsonl", change)
    (tmp_path / "all" / "j" / "metrics.jsonl").mkdir(parents=True)
    shutil.copy(whole.path / "config.toml", tmp_path / "all" / "j")
    done = hairpin("runs", "all")
    assert (done.code, done.err) == (0, "")
    _, *rows = done.out.splitlines()
    found = dict(sorted(row.removeprefix(f"all{os.sep}").split(maxsplit=1) for row in rows))
    assert [*found] == [*(name.replace("\u202e", "\\u202e") for name in changes), "j"]
    assert found["a[final]"].startswith("finished")
    for name in ("b[link=http:x]", "c[bold]", "g", "j"):
        assert found[name].startswith("damaged: ")
    assert "\\x1b[2J" in found["h:smile:"]


def test_a_folder_into_which_nobody_may_look_has_a_row(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "all" / "closed"
    closed.mkdir(parents=True)
    stat = Path.stat

    def looking(path: Path, **named: Any) -> os.stat_result:
        if path.parent == Path("all", "closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **named)

    monkeypatch.setattr(Path, "stat", looking)
    assert [run.path.name for run in list_runs(Path("all"))] == ["closed"]
    done = hairpin("runs", "all")
    assert done.code == 0
    assert re.search("closed  (unreadable|damaged): ", done.out)


# --- what takes long ---


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_without_a_size_shows_itself(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("hairpin.reports.terminal.live.SECONDS_BEFORE_STAGES", 0.01)
    monkeypatch.setattr("hairpin.reports.terminal.live._SECONDS_BEFORE_A_LINE", 0.01)
    console = a_console(terminal=terminal)
    assert isinstance(console.file, io.StringIO)
    with Stages(console=console) as stages:
        stages("measuring", 0, 0)
        until = time.monotonic() + 20
        while "measuring" not in console.file.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert ("measuring …" in console.file.getvalue()) != terminal


def test_a_stage_of_a_run_that_trains_is_in_its_bar() -> None:
    display = Display(console=a_console(terminal=True))
    with display:
        display.stage("looking")
        console = Console(width=100, file=io.StringIO(), color_system=None)
        with console.capture() as shown:
            assert display._live
            console.print(display._live.renderable)
        assert shown.get().splitlines()[0].rstrip().endswith("looking …")
        display.show(events.Checkpoint(1, True))
        with console.capture() as shown:
            console.print(display._live.renderable)
        assert "looking" not in shown.get()


def test_a_run_tells_what_takes_long(text: Path, no_plots: None) -> None:
    told: list[str] = []

    class Told(Quiet):
        def stage(self, name: str, done: int, total: int) -> None:
            told.append(name)

    out = text.parent / "run"
    hairpin.train(text, out=out, settings=TINY_RUN, watcher=Told())
    kinds = ("reading", "encoding", "measuring", "verifying", "measuring", "writing the page")
    assert [kind for kind in kinds if any(name.startswith(kind) for name in told)] == [*kinds]
    assert told[-1] == "drawing the plots"


def test_a_guarded_watcher_is_asked_nothing_any_more() -> None:
    calls: list[str] = []

    class Once(Quiet):
        only_shows = True

        def notice(self, line: str) -> None:
            calls.append(line)
            raise RuntimeError

    guarded = Guarded(Once())
    guarded.notice("a")
    guarded.notice("b")
    assert calls == ["a"]
