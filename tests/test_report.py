import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hairpin as package
from hairpin.api import report, train
from hairpin.config.load import build_config
from hairpin.config.recipes import RECIPES
from hairpin.errors import RunError, UserError
from hairpin.reports.chart import COLORS, DASHES, MARKERS, style
from hairpin.reports.charts import loss_chart, norm_chart
from hairpin.reports.figures import draw
from hairpin.reports.formats import safe_text, short_names
from hairpin.reports.page.chart_data import plain
from hairpin.reports.page.experiment_page import lr_page, rate_row
from hairpin.reports.page.markup import data_script, escape
from hairpin.reports.page.shell import page
from hairpin.reports.page.write import LivePage, write_report
from hairpin.reports.phases import phases
from hairpin.reports.series import smoothed
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from hairpin.schedules.curves import constant, cosine, cosine_restarts, linear, wsd
from hairpin.schedules.extensions import extended
from helpers import Hairpin, Watching, text_file, tiny
from made_up import HOSTILE, MEMORISATION, Event, end, eventful, incident, made_up_run, training


def directories(runs: Iterable[Run]) -> list[RunDirectory]:
    return [run.directory for run in runs]


VOID = {"meta", "link", "input", "img", "br", "hr"}


class Read(HTMLParser):
    """A page as a browser would take it apart; it must be well formed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The elements of a kind that have these attributes."""
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def data(self) -> dict[str, Any]:
        """What the charts are drawn from."""
        (text,) = (text for text in self.texts["script"] if text.startswith('{"charts"'))
        found: dict[str, Any] = json.loads(text)
        return found

    def chart(self, name: str) -> dict[str, Any]:
        """One of the charts."""
        (chart,) = (chart for chart in self.data["charts"] if chart["name"] == name)
        found: dict[str, Any] = chart
        return found

    def line(self, chart: str, name: str) -> tuple[list[float], list[float | None]]:
        """The points of a line."""
        (line,) = (line for line in self.chart(chart)["lines"] if line["name"] == name)
        return line["x"], line["y"]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Read]:
    """The page about a made-up run, read again."""

    def write(record: list[Event], **settings: Any) -> Read:
        run = made_up_run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", record, **settings)
        return Read(write_report([run.directory]).read_text(encoding="utf-8"))

    return write


# --- what the page says ---


def test_the_curves_are_the_record(written: Callable[..., Read]) -> None:
    record = [*training(300, every=50), end(300)]
    found = written(record)
    updates = [event for event in record if event["event"] == "update"]
    evaluations = [event for event in record if event["event"] == "evaluation"]
    xs, ys = found.line("loss", "training, each update")
    assert xs == list(range(300))
    assert ys == pytest.approx([event["loss"] for event in updates], rel=1e-4)
    _, smooth = found.line("loss", "training, smoothed")
    wanted = smoothed(np.array([event["loss"] for event in updates]))
    assert smooth == pytest.approx(wanted.tolist(), rel=1e-4)
    for chart, name, key in (
        ("loss", "validation", "val_loss"),
        ("loss", "training, evaluated", "train_loss"),
        ("bits", "validation", "val_bits_per_byte"),
    ):
        xs, ys = found.line(chart, name)
        assert xs == [0, 50, 100, 150, 200, 250, 300]
        assert ys == pytest.approx([event[key] for event in evaluations], rel=1e-4)
    assert found.line("norm", "gradient norm")[1] == pytest.approx(
        [event["grad_norm"] for event in updates], rel=1e-4
    )
    clipped = [event["update"] for event in updates if event["clipped"]]
    assert len(clipped) > 10
    assert found.line("norm", "clipped")[0] == clipped
    assert found.chart("norm")["rules"] == [[1.0, "threshold 1"]]
    assert found.line("lr", "learning rate")[1][:15] == pytest.approx(
        [1e-3 * (u + 1) / 15 for u in range(15)], rel=1e-4
    )
    assert found.line("ratios", "mlp")[0] == [0, 50, 100, 150, 200, 250]


def test_the_other_axes_count_tokens_and_seconds(written: Callable[..., Read]) -> None:
    record = training(4, every=4)
    for event in record:
        if event["event"] == "update":
            event |= {"tokens": 10 + event["update"], "tokens_per_second": 2.0}
    (run,) = written(record).data["runs"]
    assert run["clock"]["x"] == [0, 1, 2, 3, 4]
    assert run["clock"]["tokens"] == [0, 10, 21, 33, 46]
    assert run["clock"]["seconds"] == [0, 5, 10.5, 16.5, 23]
    assert run["clock"]["tokens_each"] == 11.5


def test_everything_that_the_record_and_the_folder_have_is_said(
    written: Callable[..., Read],
) -> None:
    found = written(eventful())
    text = " ".join(found.texts["main"])
    for words in (
        "finished",
        "2.115",  # the best validation
        "12.3k",  # parameters
        "19.2k",  # tokens: 300 updates of 64
        "schedule.kind",
        "requested",
        "1.92 so far",  # passes
        "25% of 2,000 generated bytes",  # 500 of them, of the samples
        "9 kB of 30 kB",
        "spikes: 1, rewinds: 1",
        "from 280 to 300 updates, to meet the time budget",
        "blocks.0.mlp.up.weight",
        "cores",
    ):
        assert words in text, words
    headings = [tag for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and headings.count("h1") == 1
    for before, after in pairwise(headings):
        assert int(after[1]) <= int(before[1]) + 1, "no level is left out"
    ids = [facts["id"] for _, facts in found.elements if "id" in facts]
    assert len(set(ids)) == len(ids)
    named = set(ids)
    for link in found.all("a"):
        assert (link["href"] or "").removeprefix("#") in named


def test_samples_go_from_first_to_last_with_their_prompt_marked(
    written: Callable[..., Read],
) -> None:
    found = written([*training(200, every=50), end(200)])
    assert found.texts["article"] == [
        f"after {update:,} updatesOnce text {update}" for update in (0, 50, 100, 150, 200)
    ]
    assert found.texts["mark"] == ["Once "] * 5
    kinds = [facts["class"] for facts in found.all("article")]
    assert ["first" in (kind or "") for kind in kinds] == [True, False, False, False, False]


def test_of_very_many_samples_some_are_left_out_and_that_is_said(
    written: Callable[..., Read],
) -> None:
    found = written(training(300, every=1))
    titles = [text.split(" updates")[0] for text in found.texts["article"]]
    assert (len(titles), titles[0], titles[-1]) == (60, "after 0", "after 300")
    assert "60 of 301 samples" in " ".join(found.texts["main"])


def test_what_a_resume_went_back_behind_is_not_drawn(written: Callable[..., Read]) -> None:
    record = training(200, planned=300)
    again = [e for e in training(300, seed=9) if e["event"] == "update" and e["update"] >= 150]
    resumed = {"event": "resume", "update": 150, "time": 1.7e9, "updates": 300}
    found = written([*record, end(200, "interrupted"), resumed, *again])
    xs, ys = found.line("loss", "training, each update")
    assert xs == list(range(300))
    assert ys[150:] == pytest.approx([event["loss"] for event in again], rel=1e-4)
    assert found.chart("lr")["marks"] == [
        {"x": 150, "kind": "resume", "words": "resumed after 150 updates"}
    ]


def test_what_went_wrong_is_marked(written: Callable[..., Read]) -> None:
    record = [*training(100), incident("spike", 20), incident("skip", 40, reason="non-finite")]
    marks = written([*record, end(100)]).chart("norm")["marks"]
    assert [(mark["x"], mark["kind"]) for mark in marks] == [(20, "spike"), (40, "skip")]
    assert marks[1]["words"].startswith(
        "non-finite, skipped: loss 9.500, gradient norm 77, largest in blocks.0.mlp.up.weight; "
        'samples 320 to 327: "'
    )


def test_numbers_that_are_not_finite_are_gaps(written: Callable[..., Read]) -> None:
    record = training(60, every=20)
    for event in record:
        if event["event"] == "update" and event["update"] in (10, 11):
            event |= {"loss": None, "grad_norm": None, "non_finite": "nan"}
        if event["event"] == "evaluation" and event["update"] == 40:
            event |= {"val_loss": None, "train_loss": None, "val_bits_per_byte": None}
    found = written([*record, end(60, "failed", reason="update 10: not finite")])
    _, losses = found.line("loss", "training, each update")
    assert [at for at, loss in enumerate(losses) if loss is None] == [10, 11]
    assert found.line("loss", "validation")[1][2] is None
    assert "failed: update 10: not finite" in " ".join(found.texts["main"])


@pytest.mark.parametrize(
    "record",
    [
        [],
        training(5)[:1],
        training(5)[:2],
        [event for event in training(5) if event["event"] != "evaluation"],
        [event for event in training(5) if event["event"] != "update"],
        [event for event in training(5) if event["event"] not in ("plan", "start")],
    ],
    ids=["nothing", "begun", "planned", "never evaluated", "no update", "no plan"],
)
def test_a_run_that_has_hardly_begun_has_a_page(
    record: list[Event], written: Callable[..., Read]
) -> None:
    found = written(record, train__updates=None, schedule__peak_lr=None)
    assert found.texts["h1"] == ["run-0"]
    assert found.data["charts"][0]["name"] == "loss"


def test_a_classifier_has_accuracy_and_a_matrix(written: Callable[..., Read]) -> None:
    record = training(100)
    matrices = {0: [[9, 1], [8, 2]], 50: [[8, 2], [3, 7]], 100: [[10, 0], [1, 9]]}
    for event in record:
        if event["event"] == "plan":
            event |= {"labels": ["ham", "<b>spam"], "examples": 80}
        if event["event"] == "evaluation":
            del event["val_bits_per_byte"]
            matrix = matrices[event["update"]]
            right = (matrix[0][0] + matrix[1][1]) / 20
            event |= {"val_accuracy": right, "train_accuracy": 1.0, "val_confusion": matrix}
    found = written([*record, end(100)])
    assert found.line("accuracy", "validation") == ([0, 50, 100], [0.55, 0.75, 0.95])
    rows = [text for text in found.texts["tr"] if text.startswith(("ham", "<b>spam"))]
    assert rows == ["ham100", "<b>spam19"]
    assert "95.0% accuracy" in " ".join(found.texts["main"])
    assert "bits" not in [chart["name"] for chart in found.data["charts"]]


def test_a_long_run_makes_a_small_file_that_loses_no_spike(written: Callable[..., Read]) -> None:
    record = training(100_000, every=10_000)
    spiky = next(e for e in record if e["event"] == "update" and e["update"] == 77_777)
    spiky |= {"loss": 50.0, "grad_norm": 1e4}
    found = written([*record, end(100_000)], train__updates=100_000)
    xs, ys = found.line("loss", "training, each update")
    assert (xs[0], xs[-1], len(xs) < 7000) == (0, 99_999, True)
    assert ys[xs.index(77_777)] == 50.0
    xs, ys = found.line("norm", "gradient norm")
    assert ys[xs.index(77_777)] == 1e4
    assert len(json.dumps(found.data)) < 1_000_000


# --- parts of the schedule ---


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (cosine(updates=100, warmup=10, peak_lr=1), "0-10 warmup, 10-100 cosine decay"),
        (linear(updates=100, warmup=0, peak_lr=1), "0-100 linear decay"),
        (constant(updates=9, warmup=3, peak_lr=1), "0-3 warmup, 3-9 constant"),
        (
            wsd(updates=100, warmup=10, peak_lr=1, decay=30),
            "0-10 warmup, 10-70 stable, 70-100 decay",
        ),
        (
            cosine_restarts(updates=50, warmup=10, peak_lr=1, cycles=2),
            "0-10 warmup, 10-30 cycle 1, 30-50 cycle 2",
        ),
        (
            extended(
                wsd(updates=100, warmup=10, peak_lr=1, decay=30, min_lr=0.1),
                [(100, "rewarm"), (300, "constant"), (400, "cooldown")],
                500,
            ),
            "0-10 warmup, 10-70 stable, 70-100 decay, 100-110 rewarm, 110-240 stable, "
            "240-300 decay, 300-400 constant, 400-500 cooldown",
        ),
    ],
)
def test_the_parts_of_a_schedule_have_names(schedule: Any, wanted: str) -> None:
    found = phases(schedule)
    assert ", ".join(f"{start}-{stop} {name}" for start, stop, name in found) == wanted
    for start, stop, name in found:
        rates = [schedule(update) for update in range(start, stop)]
        if name == "stable":
            assert len(set(rates)) == 1
        if "decay" in name or name == "cooldown":
            assert rates == sorted(rates, reverse=True)
            assert rates[0] > rates[-1]


def test_a_run_that_was_made_longer_says_so(written: Callable[..., Read]) -> None:
    record = [*training(300), end(300)]
    record.append({"event": "resume", "update": 300, "time": 1.7e9, "updates": 500})
    more = {"event": "extend", "update": 300, "planned_updates": 300, "updates": 500}
    found = written(
        [*record, more | {"policy": "rewarm"}],
        train__updates=500,
        schedule__extensions=[{"at": 300, "policy": "rewarm"}],
    )
    names = [name for _, _, name in found.chart("lr")["bands"]]
    assert names == ["warmup", "stable", "decay", "rewarm", "stable", "decay"]
    assert found.chart("lr")["marks"][-1] == {
        "x": 300,
        "kind": "extend",
        "words": "extended from 300 to 500 updates, rewarm",
    }
    assert "rewarm300 to 309" in " ".join(found.texts["tr"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_are_compared_with_the_recipes_own(
    recipe: str, written: Callable[..., Read]
) -> None:
    found = written(
        [*training(5), end(5)], recipe=recipe, train__seed=77, train__tokens_per_update=512
    )
    rows = [text for text in found.texts["tr"] if text.startswith("train.seed")]
    default = {"book": 123}.get(recipe, 0)
    assert rows == [f"train.seed77{default}filled in"]
    different = " ".join(text for text in found.texts["tr"] if "." in text)
    assert "model.dropout" not in different and "optimizer.beta2" not in different
    assert f"data.hash{'ab' * 6}…unsetfilled in" in different, "all of it stands under Data"
    assert "seed = 77" in " ".join(found.texts["pre"])


def test_what_is_planned_goes_on_from_where_the_run_is(written: Callable[..., Read]) -> None:
    found = written(training(120, planned=300), schedule__min_lr=1e-5)
    xs, ys = found.line("lr", "planned")
    assert (xs[0], xs[-1]) == (119, 299)
    assert ys[0] == pytest.approx(1e-3)
    assert ys[-1] == pytest.approx(1e-5)
    assert "planned" not in [
        line["name"] for line in written([*training(300), end(300)]).chart("lr")["lines"]
    ]


# --- several runs ---


def test_several_runs_are_laid_on_top_of_each_other(tmp_path: Path) -> None:
    runs = [
        made_up_run(tmp_path / "a", [*training(100, low=3.0), end(100)], schedule__peak_lr=1e-3),
        made_up_run(tmp_path / "b", [*training(200, low=2.0), end(200)], schedule__peak_lr=2e-3),
        made_up_run(tmp_path / "c", training(50, planned=300)),
    ]
    found = Read(write_report(directories(runs), tmp_path / "all.html").read_text(encoding="utf-8"))
    names = ["a", "b", "c"]
    assert [run["name"] for run in found.data["runs"]] == names
    for chart in found.data["charts"]:
        assert [line["name"] for line in chart["lines"]] == names
        assert [line["run"] for line in chart["lines"]] == [0, 1, 2]
        styles = {(line["color"], line["dash"], line["marker"]) for line in chart["lines"]}
        assert len({color for color, _, _ in styles}) == 3
        assert len({dash for _, dash, _ in styles}) == 3
        assert len({marker for _, _, marker in styles}) == 3
        ends = [line["x"][-1] for line in chart["lines"]]
        assert ends == ([100, 200, 50] if chart["name"] in ("loss", "bits") else [99, 199, 49])
    rows = [text for text in found.texts["tr"] if text.startswith(("a", "b", "c"))]
    assert "finished" in rows[0] and "unfinished" in rows[2]
    assert "★" in rows[1] and "★" not in rows[0]
    assert "schedule.peak_lr0.0010.0020.001" in found.texts["tr"]
    assert "train.updates" not in " ".join(found.texts["tr"])
    assert not found.all("div", **{"class": "live"})


def test_runs_that_do_not_compare_are_said_not_to(tmp_path: Path) -> None:
    done = [*training(50), end(50)]
    runs = [
        made_up_run(tmp_path / "a", done, data__hash="00" * 32, tokenizer__kind="bytes"),
        made_up_run(tmp_path / "b", done, data__hash="11" * 32),
    ]
    text = write_report(directories(runs), tmp_path / "all.html").read_text(encoding="utf-8")
    main_text = " ".join(Read(text).texts["main"])
    assert "different text" in main_text
    assert "different tokenizers" in main_text
    assert "★" not in main_text


def test_losses_of_labels_and_of_text_are_on_no_page_together(tmp_path: Path) -> None:
    done = [*training(50), end(50)]
    text = made_up_run(tmp_path / "text", done)
    labels = made_up_run(
        tmp_path / "labels", done, finetune__kind="classify", start__path="/base",
        data__texts=["/spam.csv"], data__corpus=None,
    )  # fmt: skip
    for runs in ([text, labels], [labels, text, text]):
        with pytest.raises(RunError) as raised:
            write_report(directories(runs), tmp_path / "all.html")
        (line,) = raised.value.problems
        assert line.startswith(f"{labels.path} is a classifier") and str(text.path) in line
        assert not (tmp_path / "all.html").exists()
    assert write_report(directories([labels, labels]), tmp_path / "all.html").exists()


def test_names_of_runs_tell_them_apart() -> None:
    assert short_names([("x", "a"), ("x", "b")]) == ["a", "b"]
    assert short_names([("x", "r"), ("y", "r"), ("y", "s")]) == ["x/r", "y/r", "y/s"]
    assert short_names([("x", "r"), ("x", "r")]) == ["r (1)", "r (2)"]


def test_no_two_of_sixty_runs_look_alike() -> None:
    styles = [tuple(style(at).values()) for at in range(60)]
    assert len(set(styles)) == 60
    assert (len(COLORS), len(DASHES), len(MARKERS)) == (6, 4, 5)


# --- one file, and nothing else ---


@pytest.mark.parametrize("kind", ["one", "several", "live"])
def test_no_address_stands_in_the_file(kind: str, tmp_path: Path) -> None:
    record = training(120, planned=300) if kind == "live" else eventful()
    runs = [made_up_run(tmp_path / "a", record)]
    if kind == "several":
        runs.append(made_up_run(tmp_path / "b", eventful()))
    text = write_report(directories(runs), tmp_path / "page.html", full=True).read_text(
        encoding="utf-8"
    )
    assert "http://" not in text and "https://" not in text and "//" + "example" not in text
    assert "@import" not in text and "url(" not in text
    found = Read(text)
    for tag, facts in found.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "audio", "video", "img")
        for name, value in facts.items():
            assert not name.startswith("on") and name not in ("src", "style", "srcset", "action")
            if name == "href":
                assert (value or "").startswith("#") or value == "data:,"
    assert "example.org" in " ".join(found.texts["main"]), "text is shown as it is"


def test_the_policy_forbids_all_but_its_own_style_and_script(written: Callable[..., Read]) -> None:
    found = written(training(10))
    (meta,) = found.all("meta", **{"http-equiv": "Content-Security-Policy"})
    parts = [part.partition(" ") for part in str(meta["content"]).split("; ")]
    policy = {directive: value for directive, _, value in parts}
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    own = [text for text in found.texts["script"] if not text.startswith('{"charts"')]
    for directive, sources in (("script-src", own), ("style-src", found.texts["style"])):
        (source,) = sources
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert "unsafe" not in str(meta["content"])


def test_a_page_without_a_script_runs_none() -> None:
    found = Read(page("page.html", "<i>"))
    assert found.texts["title"] == ["<i>"]
    assert "script" not in found.texts
    assert "script-src 'none'" in str(found.all("meta")[1]["content"])


@pytest.mark.parametrize("script", ["x = '</script>'", "y = '</SCRIPT'", "// <!-- z"])
def test_a_script_that_would_end_itself_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match="end of its own element"):
        page("page.html", "t", scripts=script)


# What a text may do to the page around it, and halves of characters.
NASTY = st.text(
    st.one_of(st.sampled_from("<>&\"'/-!]`\\{}$:;=\n\r\t\0\x1b\u2028\u202e\ud800"), st.characters())
) | st.sampled_from([HOSTILE, "</pre>", "</mark>", "<script>", "&lt;", "&#47;", "http://a"])


@given(text=NASTY)
def test_escaped_text_is_text(text: str) -> None:
    found = Read(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert [tag for tag, _ in found.elements] == ["p"]
    assert found.texts["p"] == [safe_text(text)]
    assert found.elements[0][1]["title"] == safe_text(text)
    assert "://" not in escape(text)


@given(value=st.recursive(NASTY, lambda inner: st.lists(inner) | st.dictionaries(NASTY, inner)))
def test_data_comes_out_of_its_script_as_it_went_in(value: Any) -> None:
    html = data_script("d", value)
    assert html.count("<") == 2 and "://" not in html
    found = Read(html)
    assert json.loads(found.texts["script"][0]) == value


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(text=NASTY)
def test_no_text_of_a_run_becomes_markup(text: str, tmp_path_factory: Any) -> None:
    def page_with(words: str, folder: Path) -> Read:
        record = [event | {"words": ""} for event in eventful()]
        for event in record:
            for key in ("text", "prompt", "excerpt", "parameter", "longest_text", "reason"):
                if key in event:
                    event[key] = words or "-"
        run = made_up_run(folder / "run", record)
        return Read(write_report([run.directory]).read_text(encoding="utf-8"))

    plain_one = page_with("plain", tmp_path_factory.mktemp("plain"))
    found = page_with(text.replace("\r\n", "\n") or "-", tmp_path_factory.mktemp("nasty"))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain_one.elements]


def test_no_text_of_an_experiment_becomes_markup(tmp_path: Path) -> None:
    picture = tmp_path / "learning-rates.png"
    picture.write_bytes(b"\x89PNG")

    def page_with(words: str) -> Read:
        rows = [rate_row(1e-3, 2.0, [2.0], diverged=False), [words] * 4]
        return Read(lr_page([words, words], rows, words, picture))

    plain_one, found = page_with("plain"), page_with(HOSTILE)
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain_one.elements]
    assert found.texts["h1"] == [safe_text(HOSTILE)]
    (image,) = found.all("img")
    assert image["src"] == "data:image/png;base64,iVBORw=="


def test_pictures_show_the_curves_of_the_page(written: Callable[..., Read]) -> None:
    record = [*training(120, every=20), end(120)]
    config = build_config(flags={"train.updates": 120, "clip.threshold": 1.0})
    found = written(record)
    for chart in (loss_chart(record), norm_chart(record, config)):
        axes = draw(chart).axes[0]
        for drawn in axes.lines:
            label = str(drawn.get_label())
            if label in [line.name for line in chart.lines]:
                xs, ys = found.line(chart.name, label)
                assert list(np.asarray(drawn.get_xdata())) == xs, label
                assert np.asarray(drawn.get_ydata()).tolist() == pytest.approx(ys, rel=1e-4)


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_keep_five_digits(value: float) -> None:
    short = plain(value)
    if not np.isfinite(value):
        assert short is None
    else:
        assert short == pytest.approx(value, rel=1e-4, abs=0)


# --- writing it ---


def test_the_page_of_a_run_that_goes_on_reads_itself_again(written: Callable[..., Read]) -> None:
    unfinished = written(training(120, planned=300))
    (live,) = unfinished.all("div", **{"class": "live"})
    assert live["data-refresh"] == "10"
    (again,) = unfinished.all("meta", **{"http-equiv": "refresh"})
    assert again["content"] == "10"
    (progress,) = unfinished.all("progress")
    assert (progress["value"], progress["max"]) == ("120", "300")
    for status in ("finished", "interrupted", "failed"):
        ended = written([*training(120), end(120, status)])
        assert not ended.all("div", **{"class": "live"})
        assert not ended.all("meta", **{"http-equiv": "refresh"})


def test_training_leaves_a_page_and_writes_it_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    class Looking(Watching):
        def show(self, event: events.Event) -> None:
            super().show(event)
            if isinstance(event, events.Update) and run.exists():
                found = Read(run.read_text(encoding="utf-8"))
                unfinished = bool(found.all("div", **{"class": "live"}))
                assert unfinished
                seen.append(("live", len(found.line("loss", "validation")[0])))

    run = tmp_path / "run" / "report.html"
    monkeypatch.setattr("hairpin.reports.page.write._SHARE", 1.0)
    watcher = Looking()
    trained = train(text_file(tmp_path), out=run.parent, settings=tiny(), watcher=watcher)
    assert watcher.notices == []
    counts = [count for _, count in seen]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 3
    found = Read(run.read_text(encoding="utf-8"))
    assert not found.all("div", **{"class": "live"})
    assert found.line("loss", "validation")[0] == [0, 4, 8, 12]
    record = trained.record()
    losses = [event["loss"] for event in record if event["event"] == "update"]
    assert found.line("loss", "training, each update")[1] == pytest.approx(losses, rel=1e-4)


def test_a_page_that_cannot_be_written_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hairpin.reports.page.write.write_atomically", full)
    watcher = Watching()
    run = train(text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=watcher)
    assert run.summary().status == "finished"
    assert not run.directory.report.exists()
    (notice,) = watcher.notices
    assert "report.html: not written" in notice and "No space left on device" in notice


def test_a_mistake_in_the_page_stops_no_run_either(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", [{"event": "evaluation", "update": "three"}])
    notices: list[str] = []
    live = LivePage(run.directory, notices.append)
    for _ in range(3):
        live.follow(events.Resume(0, 0.0))
    assert len(notices) == 1


def test_the_page_takes_little_of_the_runs_time(tmp_path: Path) -> None:
    """Writing takes two seconds by this clock, so that it comes each two hundred at most."""
    ticks = iter(range(10**6))
    now = 0.0

    def clock() -> float:
        return now + next(ticks)

    run = made_up_run(tmp_path / "run", training(5))
    live = LivePage(run.directory, lambda line: None, clock)
    update = events.Update(0, 1e-3, 2.0, 1.0, False, 64, 1000.0)
    evaluation = events.Evaluation(4, 256, 2.0, 2.0)
    times: list[float] = []
    for second in range(0, 2000, 10):
        now = float(second)
        run.directory.report.unlink(missing_ok=True)
        live.follow(evaluation)
        live.follow(update)
        if run.directory.report.exists():
            times.append(second)
    assert times[0] == 0
    assert all(later - earlier >= 100 for earlier, later in pairwise(times))
    assert 5 <= len(times) <= 20


def test_a_reader_sees_the_old_page_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_up_run(tmp_path / "run", training(20))
    page_path = write_report([run.directory])
    old = page_path.read_bytes()

    def crash(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(UserError, match=r"report\.html: cannot be written \(Input/output error\)"):
        write_report([run.directory])
    assert page_path.read_bytes() == old
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".tmp")] == []


# --- the verb ---


def test_the_verb_writes_beside_the_run_or_where_it_is_told(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    for name, began in (("old", 1.0), ("new", 2.0)):
        record = [*training(20), end(20)]
        record[0]["time"] = began
        made_up_run(tmp_path / "runs" / name, record)
    assert hairpin("report").out.strip() == str(Path("runs", "new", "report.html"))
    assert (tmp_path / "runs" / "new" / "report.html").is_file()
    both = hairpin("report", "runs/old", "runs/new")
    assert (both.code, both.out.strip()) == (0, "report.html")
    assert "2 runs compared" in Path("report.html").read_text(encoding="utf-8")
    there = hairpin("report", "runs/old", "--out", "deep/page.html")
    assert (there.code, there.out.strip()) == (0, str(Path("deep", "page.html")))
    assert hairpin("report", "runs/old", "runs/old").out.strip() == str(
        Path("runs", "old", "report.html")
    )


def test_what_cannot_be_is_refused_in_a_line(hairpin: Hairpin, tmp_path: Path) -> None:
    assert "no runs in ./runs yet" in hairpin("report").refusal
    assert "not a run" in hairpin("report", "nothing").refusal
    run = made_up_run(tmp_path / "runs" / "a", training(5))
    (tmp_path / "file").write_text("")
    refusal = hairpin("report", "runs/a", "--out", "file/x.html").refusal
    assert refusal.startswith("file/x.html: cannot be written") and "--out" in refusal
    run.directory.metrics.write_text("{\nno\n{}\n{}\n", encoding="utf-8")
    assert "damaged" in hairpin("report", "runs/a").refusal


def test_from_python(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "a", [*training(5), end(5)])
    assert package.report(run.path) == run.directory.report
    assert package.report is report
    with pytest.raises(RunError):
        report(tmp_path / "b")


def test_it_needs_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    made_up_run(tmp_path / "a", eventful())
    made_up_run(tmp_path / "b", eventful())
    program = (
        "import sys\nfrom hairpin.cli.main import main\n"
        "for arguments in (['report', 'a'], ['report', 'a', 'b']):\n"
        "    try:\n        main(arguments)\n"
        "    except SystemExit as done:\n        assert done.code == 0\n"
        "heavy = {'torch', 'matplotlib', 'rich', 'plotext', 'tokenizers', 'tiktoken'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(Path("a", "report.html")), "report.html"]


def test_templates_cost_nothing_before_a_page_is_written() -> None:
    program = (
        "import sys, hairpin.api, hairpin.launch.observers, hairpin.cli.main\n"
        "import hairpin.experiments.compare\n"
        "assert not {'jinja2', 'markupsafe'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_memorised_text_is_shown(written: Callable[..., Read]) -> None:
    found = written([*training(10), MEMORISATION, end(10)])
    (quoted,) = found.texts["blockquote"]
    assert quoted.startswith("to be or not ")
    quiet = MEMORISATION | {"longest_text": "", "longest_bytes": 0, "verbatim_bytes": 0}
    assert "blockquote" not in written([*training(10), quiet, end(10)]).texts
