import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hairpin.config.load import build_config
from hairpin.config.settings import Config
from hairpin.reports.charts import loss_chart, lr_chart, norm_chart, schedule_chart
from hairpin.reports.figures import draw
from hairpin.reports.phases import plotted_updates
from hairpin.reports.plots import write_plots, write_schedule_plot
from hairpin.reports.schedule_drawing import draw_schedule
from hairpin.reports.series import COLUMNS, highest, smoothed, thin
from hairpin.schedules.curves import constant, cosine, cosine_restarts, wsd

Event = dict[str, Any]
NAMES = ["loss.png", "learning-rate.png", "gradient-norm.png"]
BOOK = cosine(updates=135, warmup=27, peak_lr=1e-2, initial_lr=1e-4, min_lr=1e-5)


def _config(clip: str = "norm") -> Config:
    """The settings of a run that clips at 1."""
    flags = {"clip.kind": clip} | ({} if clip == "off" else {"clip.threshold": 1.0})
    return build_config(flags=flags)


def _record(updates: int, norms: dict[int, float | None] | None = None) -> list[Event]:
    """A run whose norms are 0.5 but for those given, clipped at 1."""

    def happen() -> Iterator[Event]:
        schedule = cosine(updates=updates, warmup=updates // 10, peak_lr=1e-3, min_lr=1e-4)
        for u in range(updates + 1):
            if u % (updates // 5) == 0:
                val = 2 + 6 * math.exp(-5 * u / updates)
                yield {"event": "evaluation", "update": u, "tokens": 64 * u} | {
                    "train_loss": val - 0.1,
                    "val_loss": val,
                    "val_bits_per_byte": val / 4,
                }
            if u < updates:
                norm = (norms or {}).get(u, 0.5)
                clipped = norm is not None and norm > 1
                yield {"event": "update", "update": u, "lr": schedule(u), "tokens": 64} | {
                    "loss": 2 + 6 * math.exp(-5 * u / updates) + 0.1 * math.sin(u),
                    "grad_norm": norm,
                    "clipped": clipped,
                    "tokens_per_second": 1.0,
                }

    return list(happen())


def _axes(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def _line(figure: Figure, label: str) -> tuple[list[float], list[float]]:
    """The points of the line with this label."""
    (line,) = [line for line in _axes(figure).lines if line.get_label() == label]
    return list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata()))


def _png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.mark.parametrize("record", [[], _record(50)], ids=["empty", "run"])
def test_the_files(record: list[Event], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "plots"
    paths = write_plots(record, folder, _config())
    assert paths == [folder / name for name in NAMES]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert {_png_size(path) for path in paths} == {(1300, 728)}


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plots(_record(20), tmp_path / name, _config())
    for name in NAMES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_threads_may_draw_at_once(tmp_path: Path) -> None:
    record = _record(20)
    write_plots(record, tmp_path / "alone", _config())

    def draw(name: str) -> None:
        write_plots(record, tmp_path / name, _config())

    threads = [threading.Thread(target=draw, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in NAMES:
        alone = (tmp_path / "alone" / name).read_bytes()
        assert [(tmp_path / folder / name).read_bytes() == alone for folder in "ab"] == [True] * 2


def test_the_loss_figure_holds_the_record() -> None:
    record = _record(50)
    figure = draw(loss_chart(record))
    evaluations = [e for e in record if e["event"] == "evaluation"]
    updates = [e for e in record if e["event"] == "update"]
    assert _line(figure, "training, each update") == (
        [e["update"] for e in updates],
        [e["loss"] for e in updates],
    )
    for label, key in (("validation", "val_loss"), ("training, evaluated", "train_loss")):
        assert _line(figure, label) == (
            [0, 10, 20, 30, 40, 50],
            [e[key] for e in evaluations],
        )
    assert _line(figure, "best validation") == ([50], [evaluations[-1]["val_loss"]])
    title = _axes(figure).get_title(loc="left")
    assert title == (
        "Loss: best validation 2.040 nats per token (0.510 bits per byte) after 50 updates"
    )


def test_the_best_validation_is_marked_where_it_was() -> None:
    record = _record(50)
    record[-1]["val_loss"] = 7.0
    assert _line(draw(loss_chart(record)), "best validation")[0] == [40]


def test_the_upper_axis_is_tokens_and_the_right_one_bits_per_byte() -> None:
    figure = draw(loss_chart(_record(50)))
    figure.draw_without_rendering()
    axes = _axes(figure)
    top, right = axes.child_axes
    assert top.get_xlabel() == "tokens"
    assert top.get_xlim() == pytest.approx([64 * x for x in axes.get_xlim()])
    assert right.get_ylabel() == "validation bits per byte"
    assert right.get_ylim() == pytest.approx([y / 4 for y in axes.get_ylim()])


def test_null_leaves_a_gap() -> None:
    record = _record(50, {20: None})
    for event in record:
        if event["event"] == "update" and event["update"] == 20:
            event["loss"] = None
    for label in ("training, each update", "training, smoothed"):
        _, losses = _line(draw(loss_chart(record)), label)
        assert [u for u in range(50) if math.isnan(losses[u])] == [20]
    _, norms = _line(draw(norm_chart(record, _config())), "gradient norm")
    assert [u for u in range(50) if math.isnan(norms[u])] == [20]


def test_the_clip_line_and_the_clipped_updates() -> None:
    figure = draw(norm_chart(_record(50, {3: 8.0, 7: 2.0, 30: 0.0}), _config()))
    axes = _axes(figure)
    (marks,) = axes.collections
    assert np.asarray(marks.get_offsets()).tolist() == [[3, 8.0], [7, 2.0]]
    assert _line(figure, "threshold 1")[1] == [1.0, 1.0]
    assert axes.get_yscale() == "log"
    title = axes.get_title(loc="left")
    assert title == "Gradient norm before clipping: 4.0% of 50 updates clipped"
    _, norms = _line(figure, "gradient norm")
    assert math.isnan(norms[30])  # zero has no place on a logarithmic axis


@pytest.mark.parametrize(
    ("kind", "lines", "title"),
    [
        ("norm", 2, "Gradient norm before clipping: 2.0% of 50 updates clipped"),
        ("value", 1, "Gradient norm before clipping by value: 2.0% of 50 updates clipped"),
        ("off", 1, "Gradient norm (clipping is off)"),
    ],
)
def test_the_clip_line_is_drawn_for_norms_alone(
    kind: str, lines: int, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: dict[str, Figure] = {}

    def save(figure: Figure, path: Path) -> Path:
        saved[path.name] = figure
        return path

    monkeypatch.setattr("hairpin.reports.plots.save_figure", save)
    write_plots(_record(50, {3: 8.0}), tmp_path, _config(kind))
    axes = _axes(saved["gradient-norm.png"])
    assert (len(axes.lines), axes.get_title(loc="left")) == (lines, title)


def test_marks_on_the_learning_rate() -> None:
    figure = draw(lr_chart(_record(50), _config()))
    marks = {str(line.get_label()) for line in _axes(figure).lines[1:]}
    assert marks == {
        "first: 2e-4 at update 0",
        "end of warmup, peak: 1e-3 at update 5",
        "last: 1e-4 at update 49",
    }
    (curve, *_) = _axes(figure).lines
    lr = cosine(updates=50, warmup=5, peak_lr=1e-3, min_lr=1e-4)
    assert list(np.asarray(curve.get_ydata())) == [lr(u) for u in range(50)]


def test_a_record_of_one_update_at_zero(tmp_path: Path) -> None:
    update = {"event": "update", "update": 0, "lr": 0.0, "loss": 5.0, "grad_norm": 0.0}
    record = [update | {"clipped": False, "tokens": 64, "tokens_per_second": 1.0}]
    paths = write_plots(record, tmp_path, _config("off"))
    assert [_png_size(path) for path in paths] == [(1300, 728)] * 3


def test_a_narrow_range_of_losses_still_has_ticks() -> None:
    record = _record(10)
    for event in record:
        for key in ("loss", "train_loss", "val_loss"):
            event[key] = 9.0 + 0.001 * event["update"]
    figure = draw(loss_chart(record))
    axes = _axes(figure)
    low, high = axes.get_ylim()
    assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 2


def test_a_resumed_run_is_drawn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Figure] = {}

    def save(figure: Figure, path: Path) -> Path:
        saved[path.name] = figure
        return path

    monkeypatch.setattr("hairpin.reports.plots.save_figure", save)
    whole = _record(50)
    at = whole.index(next(e for e in whole if e["event"] == "update" and e["update"] == 30))
    resumed = [*whole[: at + 8], {"event": "resume", "update": 30, "time": 0.0}, *whole[at:]]
    write_plots(resumed, tmp_path, _config())
    assert _line(saved["loss.png"], "training, each update")[0] == list(range(50))


def test_a_long_record_is_thinned_but_keeps_its_spikes() -> None:
    norms: dict[int, float | None] = {17: 50.0, 123_456: 77.0}
    record = _record(150_000, norms | dict.fromkeys(range(60_000, 90_000), 1.5))
    figure = draw(norm_chart(record, _config()))
    xs, ys = _line(figure, "gradient norm")
    assert len(xs) <= 2 * COLUMNS + 2
    assert {(17, 50.0), (123_456, 77.0)} <= set(zip(xs, ys, strict=True))
    (marks,) = _axes(figure).collections
    offsets = np.asarray(marks.get_offsets())
    assert {(17.0, 50.0), (123_456.0, 77.0)} <= {tuple(point) for point in offsets.tolist()}
    # A fifth of the run is clipped: one mark for each of its columns, and the two spikes.
    assert len(offsets) == COLUMNS // 5 + 2
    title = _axes(figure).get_title(loc="left")
    assert title == "Gradient norm before clipping: 20.0% of 150,000 updates clipped"


def test_thin_leaves_short_series_alone() -> None:
    xs, ys = np.arange(20.0), np.sin(np.arange(20.0))
    assert thin(xs, ys, columns=10)[1].tolist() == ys.tolist()


def test_thin_keeps_the_extremes_the_ends_and_the_gaps() -> None:
    ys = np.tile([3.0, 9.0, 1.0, 4.0, 5.0], 5)
    ys[10:15] = np.nan
    xs, kept = thin(np.arange(25.0), ys, columns=5)
    assert xs.tolist() == [0, 1, 2, 6, 7, 10, 16, 17, 21, 22, 24]
    assert np.array_equal(kept, ys[xs.astype(int)], equal_nan=True)


def test_highest_takes_one_of_each_column() -> None:
    xs, ys = np.arange(12.0), np.array([1.0, 5, 2, 2, 3, 4, 9, 8, 7, 1, 1, 6])
    assert [a.tolist() for a in highest(xs, ys, 11, columns=4)] == [[1, 5, 6, 11], [5, 4, 9, 6]]


def test_smoothing() -> None:
    ys = np.arange(1000.0)
    assert smoothed(ys)[:-10].tolist() == pytest.approx(ys[:-10].tolist())
    spike = np.zeros(1000)
    spike[500] = 21.0  # the window is 21 wide: 2% of the run and its middle
    assert smoothed(spike)[489:512].tolist() == pytest.approx([0, *[1.0] * 21, 0])
    assert smoothed(np.array([8.0, 1.0, np.nan]))[0] == 8.0
    assert smoothed(np.array([])).tolist() == []


def test_a_schedule_s_figure_marks_its_corners(tmp_path: Path) -> None:
    axes = _axes(draw(schedule_chart(BOOK, 2 * COLUMNS)))
    assert [str(line.get_label()) for line in axes.lines[1:]] == [
        "first: 1e-4 at update 0",
        "end of warmup, peak: 1e-2 at update 27",
        "min: 1e-5 at update 134",
    ]
    assert list(np.asarray(axes.lines[0].get_ydata())) == [BOOK(u) for u in range(135)]
    assert axes.get_title(loc="left") == "Learning rate, cosine: 135 updates, 27 of warmup"
    write_schedule_plot(BOOK, tmp_path / "lr.png")
    assert _png_size(tmp_path / "lr.png") == (1300, 728)


def test_corners_are_drawn_however_long_the_schedule() -> None:
    schedule = wsd(updates=1_000_003, warmup=101, decay=777, peak_lr=1.0)
    updates = plotted_updates(schedule, 100)
    assert {0, 100, 101, 1_000_002 - 777, 1_000_002} <= set(updates)
    assert len(updates) < 120
    restarts = cosine_restarts(updates=100_000, warmup=2, peak_lr=1.0, cycles=3)
    lr = [restarts(u) for u in plotted_updates(restarts, 10)]
    assert (lr.count(1.0), lr.count(0.0)) == (3, 3)


def test_a_schedule_drawn_in_the_terminal() -> None:
    lines = draw_schedule(BOOK, width=60, height=12).split("\n")
    assert lines[0] == "Learning rate, cosine: 135 updates, 27 of warmup"
    assert len(lines) == 1 + 12 + 4
    assert all(len(line) <= 60 for line in lines[1:13])
    assert lines[-4:] == [
        "  first            update   0   lr 1e-4",
        "  end of warmup    update  27   lr 1e-2",
        "  middle           update  67   lr 6.93e-3",
        "  last             update 134   lr 1e-5",
    ]


def test_the_figures_of_wsd_name_the_start_of_the_decay() -> None:
    # The last update is 999; the decay takes the 200 before it.
    schedule = wsd(updates=1000, warmup=50, decay=200, peak_lr=1e-3)
    assert draw_schedule(schedule).split("\n")[-5:] == [
        "  first            update   0   lr 2e-5",
        "  end of warmup    update  50   lr 1e-3",
        "  middle           update 500   lr 1e-3",
        "  start of decay   update 799   lr 1e-3",
        "  last             update 999   lr 0",
    ]


def test_the_drawing_goes_up_and_down() -> None:
    rows = [
        [i for i, letter in enumerate(line) if "\u2801" <= letter <= "\u28ff"]
        for line in draw_schedule(BOOK).split("\n")[2:]
    ]
    drawn = [row for row in rows if row]
    top, bottom = drawn[0], drawn[-1]
    # Warmup is a fifth of 64 columns; the lowest row has the first update and the last.
    assert 15 <= top[0] <= 22
    assert (bottom[0], bottom[-1]) == (7, 70)


def test_colour_only_where_it_is_wanted() -> None:
    plain, coloured = draw_schedule(BOOK), draw_schedule(BOOK, color=True)
    assert "\x1b" not in plain
    assert "\x1b[36m" in coloured
    assert coloured.replace("\x1b[36m", "").replace("\x1b[39m", "") == plain


def test_warnings_are_under_the_drawing() -> None:
    text = draw_schedule(constant(updates=10, warmup=0, peak_lr=1e-3))
    assert text.split("\n")[-1].startswith("  warning: no warmup")
    assert "warning" not in draw_schedule(constant(updates=10, warmup=1, peak_lr=1e-3))


def test_the_shortest_schedule_can_be_drawn() -> None:
    lines = draw_schedule(constant(updates=1, warmup=0, peak_lr=1e-3)).split("\n")
    assert "Learning rate, constant (does not decay): 1 update, no warmup" in lines
