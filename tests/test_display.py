import io
import math
import re
from collections.abc import Iterable

import pytest
from rich.console import Console

from hairpin.reports.terminal.display import Display, Stages, standard_console
from hairpin.runs import events

BAR = re.compile("[━╸╺]")


class Clock:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _plain(encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True, newline="")
    return Console(file=stream), raw


def _terminal(width: int = 100) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=width, height=30, color_system="truecolor"
    )
    return console, stream


def _update(update: int, loss: float = 3.2, clipped: bool = False) -> events.Update:
    return events.Update(update, 1.2e-3, loss, 0.87, clipped, 4096, 18_250.4)


def _shown(happened: Iterable[events.Event], encoding: str = "utf-8") -> list[str]:
    """The lines shown on something that is not a terminal."""
    console, raw = _plain(encoding)
    with Display(updates=2400, console=console) as display:
        for event in happened:
            display.show(event)
    return raw.getvalue().decode(encoding).splitlines()


def _bar(display: Display) -> list[str]:
    """The live bar as it is now, without its colours."""
    assert display._live is not None
    console = Console(width=100, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(display._live.renderable)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_plain_lines_of_a_run() -> None:
    shown = _shown(
        [
            events.Start(0.0, "0.1.0", ("train",)),
            events.Plan("book", 10, 2600, 1, 100, 1000, 100, 0.5, 60.0, 60.0),
            events.Resume(100, 0.0),
            events.Evaluation(100, 4096, 3.0, 3.25, 1.5),
            events.Sample(100, "def f(", "x):\n\treturn x\n\n"),
            events.Correction(101, 2600, 2400),
            events.Update(119, 1.2e-3, 3.21, 0.87, True, 4096, 18_250.4),
            events.Checkpoint(120, True),
            events.End(2400, "finished", 598.2),
        ]
    )
    assert shown == [
        "resumed after 100 updates",
        "evaluation after 100 updates  train 3.000  validation 3.250  1.500 bits per byte",
        "    def f(x):",
        "        return x",
        "after 101 updates: corrected from 2,600 to 2,400 updates, to meet the time budget",
        "update 120/2,400  loss 3.210  lr 1.2e-3  grad 0.87 (clipped)  18,250 tok/s",
        "finished after 2,400 updates, 9m 58s",
    ]


def test_an_update_that_went_wrong_is_a_line_that_cannot_touch_the_terminal() -> None:
    what = (1009, math.inf, 1234.0, "head.weight", 4036, 4, "a\nb\x1b[2J[red]")
    rest = ": loss inf, gradient norm 1.23e3, largest in head.weight; samples 4,036 to 4,039: "
    rest += r'"a\nb\x1b[2J[red]"'
    assert _shown(
        [
            events.Spike(*what),
            events.Skip(*what, "non-finite"),
            events.Rewind(*what, "spike", 1000, 40),
        ]
    ) == [
        f"update 1,009: spike, applied anyway{rest}",
        f"update 1,009: non-finite, skipped{rest}",
        "update 1,009: spike, rewound to the checkpoint after 1,000 updates, skipping 40 samples"
        f"{rest}",
    ]


def test_a_failure_says_why() -> None:
    assert _shown([events.End(1, "failed", 2.0, "the loss is nan\x1b[2J")]) == [
        "failed after 1 update, 2s: the loss is nan\\x1b[2J"
    ]


def test_a_progress_line_every_ten_seconds_with_the_time_left(clock: Clock) -> None:
    console, raw = _plain()
    with Display(updates=100, console=console, clock=clock) as display:
        for update in range(26):
            display.show(_update(update, clipped=update == 25))
            clock.seconds += 1.0
    # From update 0 on each takes a second: 89 remain after update 10, 79 after update 20.
    assert raw.getvalue().decode().splitlines() == [
        "update 1/100  loss 3.200  lr 1.2e-3  grad 0.87  18,250 tok/s",
        "update 11/100  loss 3.200  lr 1.2e-3  grad 0.87  18,250 tok/s  1m 29s left",
        "update 21/100  loss 3.200  lr 1.2e-3  grad 0.87  18,250 tok/s  1m 19s left",
    ]


def test_time_left_is_of_this_process_alone(clock: Clock) -> None:
    console, raw = _plain()
    with Display(updates=1000, console=console, clock=clock) as display:
        clock.seconds += 500.0  # what came before the first update says nothing
        display.show(events.Resume(900, 0.0))
        display.show(_update(900))
        clock.seconds += 20.0
        display.show(_update(910))
    # 10 updates took 20 seconds, 89 are left.
    assert raw.getvalue().decode().splitlines()[-1].endswith("2m 58s left")


def test_time_left_after_going_back(clock: Clock) -> None:
    console, raw = _plain()
    with Display(updates=100, console=console, clock=clock) as display:
        for update in (50, 51, 20, 30):
            clock.seconds += 10.0
            display.show(_update(update))
    # 10 updates from 20 to 30 took 10 seconds, 69 are left.
    lines = raw.getvalue().decode().splitlines()
    assert [line.endswith("left") for line in lines] == [False, True, False, True]
    assert lines[-1].endswith("1m 09s left")


def test_after_a_resume_the_bar_has_the_length_the_position_and_a_time_left_of_its_own(
    clock: Clock,
) -> None:
    console, _ = _terminal()
    with Display(console=console, clock=clock) as display:
        display.show(events.Resume(1200, time=0.0, updates=2400))
        bar = _bar(display)
        assert bar[0].startswith("update 1,200/2,400 ")
        assert bar[0].rstrip().endswith("starting")
        for update in (1200, 1201, 1202):
            clock.seconds += 2.0
            display.show(_update(update))
        # 1,197 to go, 2 seconds each: what came before the resume took no part in it.
        assert "update 1,203/2,400" in _bar(display)[0]
        assert _bar(display)[0].rstrip().endswith("39m 54s left")
        display.show(events.Extend(1203, 2400, 3000, "rewarm"))
        # 600 more.
        assert "update 1,203/3,000" in _bar(display)[0]
        assert _bar(display)[0].rstrip().endswith("59m 54s left")


def test_an_extension_is_told() -> None:
    assert _shown([events.Extend(1200, 1200, 2400, "rewarm")]) == [
        "after 1,200 updates: extended from 1,200 to 2,400 updates, rewarm"
    ]
    assert _shown([events.Extend(60, 1200, 2400)]) == [
        "after 60 updates: extended from 1,200 to 2,400 updates"
    ]


def test_a_correction_changes_the_time_left(clock: Clock) -> None:
    console, raw = _plain()
    with Display(updates=1000, console=console, clock=clock) as display:
        display.show(_update(0))
        display.show(events.Correction(1, 1000, 21))
        clock.seconds += 10.0
        display.show(_update(10))
    last = raw.getvalue().decode().splitlines()[-1]
    assert last.startswith("update 11/21")
    assert last.endswith("  10s left")


def test_the_length_may_come_with_the_plan() -> None:
    console, raw = _plain()
    with Display(console=console) as display:
        display.show(_update(0))
        display.show(events.Plan("book", 10, 77, 1, 100, 1000, 100, 0.5, 60.0, 60.0))
    assert raw.getvalue().decode().startswith("update 1  loss")
    assert display._updates == 77


def test_the_loss_is_smoothed(clock: Clock) -> None:
    console, raw = _plain()
    with Display(updates=9, console=console, clock=clock) as display:
        for update, loss in enumerate((4.0, 2.0, float("nan"), 2.0)):
            clock.seconds += 10.0
            display.show(_update(update, loss))
    losses = re.findall(r"loss (\S+)", raw.getvalue().decode())
    # (0.05·0.95·4 + 0.05·2) / (0.05·0.95 + 0.05) = 2.974; and once more with 2: 2.633
    assert losses == ["4.000", "2.974", "nan", "2.633"]


def test_a_sample_cannot_act_on_the_terminal() -> None:
    text = "[bold]x[/bold] \x1b]0;title\x07\x1b[2J\u202eevil\x9b31m [/] :smile: \ud800"
    expected = (
        "[red]p [bold]x[/bold] \\x1b]0;title\\x07\\x1b[2J\\u202eevil\\x9b31m [/] :smile: \\ud800"
    )
    assert _shown([events.Sample(0, "[red]p ", text)]) == [f"    {expected}"]

    console, stream = _terminal(width=120)
    with Display(console=console) as display:
        display.show(events.Sample(0, "[red]p ", text))
    out = stream.getvalue()
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert not re.search("[\x07\x9b\u202e\ud800]", out)
    assert expected in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out)


def test_no_line_of_a_sample_looks_like_one_of_ours() -> None:
    lines = _shown([events.Sample(0, "", "a\nfinished after 1 update, 2s\r\nb")])
    assert lines == ["    a", "    finished after 1 update, 2s", "    b"]


def test_long_lines_are_not_broken_in_a_log() -> None:
    assert len(_shown([events.Sample(0, "", "word " * 100 + "end")])) == 1


def test_a_stream_that_lacks_characters() -> None:
    assert _shown([events.Sample(0, "é", "漢")], encoding="latin-1") == ["    é\\u6f22"]


def test_plain_output_has_no_control_codes() -> None:
    shown = "\n".join(
        _shown([_update(0), events.Evaluation(0, 0, 3.0, 3.0, 1.0), events.End(1, "finished", 1)])
    )
    assert len(shown.splitlines()) == 3
    assert not re.search("[\x00-\x09\x0b-\x1f]", shown)


def test_the_bar_on_a_terminal(clock: Clock) -> None:
    console, stream = _terminal()
    with Display(updates=100, console=console, clock=clock) as display:
        assert _bar(display)[0].startswith("update 0/100 ")
        assert _bar(display)[0].endswith(" starting")
        for update in range(50):
            display.show(_update(update, clipped=True))
            clock.seconds += 2.0
        above, below = _bar(display)
        assert above.startswith("update 50/100 ━━")
        assert above.endswith(" 1m 38s left")  # 50 to go, 2 seconds into the first of them
        assert below == (
            "loss 3.200   lr 1.2e-3   grad 0.87 (clipped)   18,250 tok/s   1m 40s elapsed"
        )
        display.show(events.Evaluation(50, 1, 3.0, 3.25, 1.5))
        display.show(events.Sample(50, "def f(", "x): pass"))
    out = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "evaluation after 50 updates  train 3.000  validation 3.250" in out
    assert "    def f(x): pass" in out
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_bar_keeps_two_lines_on_a_narrow_terminal(width: int) -> None:
    console, _ = _terminal(width)
    with Display(updates=100_000, console=console) as display:
        display.show(_update(99_000, clipped=True))
        assert display._live is not None
        lines = console.render_lines(display._live.renderable)
    assert len(lines) == 2


def test_the_bar_goes_when_the_block_is_left_by_an_error() -> None:
    console, stream = _terminal()
    with pytest.raises(KeyboardInterrupt), Display(updates=9, console=console) as display:
        display.show(_update(0))
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in stream.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    happened = (events.Evaluation(0, 0, 3.0, 3.0, 1.0), events.End(1, "finished", 1.0))

    def colours() -> list[str]:
        console, stream = _terminal()
        with Display(updates=9, console=console) as display:
            for event in happened:
                display.show(event)
        return re.findall("\x1b\\[(?:[0-9;]*;)?[39][0-7][;m]", stream.getvalue())

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet(terminal: bool) -> None:
    console, stream = _terminal() if terminal else (Console(file=io.StringIO()), io.StringIO())
    with Display(updates=9, quiet=True, console=console) as display:
        for event in (
            _update(0),
            events.Evaluation(0, 0, 3.0, 3.0, 1.0),
            events.Sample(0, "a", "b"),
            events.Resume(1, 0.0),
            events.Correction(1, 2, 3),
            events.End(1, "finished", 1.0),
        ):
            display.show(event)
    assert stream.getvalue() == ""
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_a_pipe_is_no_terminal_whatever_force_color_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Display(updates=9) as display:
        display.show(_update(0))
    assert not standard_console().is_interactive
    assert capsys.readouterr().out == "update 1/9  loss 3.200  lr 1.2e-3  grad 0.87  18,250 tok/s\n"


def test_stages_that_are_quick_show_nothing(clock: Clock) -> None:
    for console, read in ((c, s) for c, s in (_plain(), _terminal())):
        with Stages(console=console, clock=clock) as on_progress:
            on_progress("reading", 0, 100)
            clock.seconds += 0.4
            on_progress("reading", 100, 100)
        assert not read.getvalue()


def test_stages_as_plain_lines(clock: Clock) -> None:
    console, raw = _plain()
    with Stages(console=console, clock=clock) as on_progress:
        for step in range(30):
            on_progress("encoding", step * 10**6, 3 * 10**7)
            clock.seconds += 1.0
        on_progress("counting", 10**9, 0)
    assert raw.getvalue().decode().splitlines() == [
        "encoding: 1 MB of 30 MB",
        "encoding: 11 MB of 30 MB",
        "encoding: 21 MB of 30 MB",
    ]


def test_stages_whose_total_is_not_known(clock: Clock) -> None:
    console, raw = _plain()
    with Stages(console=console, clock=clock) as on_progress:
        clock.seconds += 1.0
        on_progress("counting", 10**9, 0)
    assert raw.getvalue().decode() == "counting: 1 GB\n"


def test_stages_on_a_terminal(clock: Clock) -> None:
    console, stream = _terminal()
    with Stages(console=console, clock=clock) as on_progress:
        clock.seconds += 1.0
        on_progress("encoding", 10**6, 3 * 10**7)
        on_progress("writing", 3 * 10**7, 3 * 10**7)
        assert on_progress._live is not None
        on_progress._live.refresh()
    out = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "encoding ━" in out
    assert "1 MB of 30 MB" in out
    assert "writing ━" in out
    assert BAR.search(out)
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_quiet_stages(clock: Clock) -> None:
    console, raw = _plain()
    with Stages(quiet=True, console=console, clock=clock) as on_progress:
        clock.seconds += 60.0
        on_progress("encoding", 1, 2)
    assert not raw.getvalue()
