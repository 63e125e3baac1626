"""The page in a real browser, as a person uses it: with mouse or keys, on a phone, at night."""

import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, Page, browser_path, running_browser
from hairpin.reports import formats
from hairpin.reports.page.write import write_report
from made_up import HOSTILE, end, eventful, made_up_run, training

PATH = browser_path()
pytestmark = pytest.mark.skipif(
    PATH is None, reason="no Chromium here: `apt-get install chromium` for the page's own tests"
)

Open = Callable[..., Page]
RED_GREEN_BLUE = re.compile(r"[\d.]+")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PATH
    with running_browser(PATH, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages about a run with everything, about one that goes on, about an empty one, and three."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "eventful": made_up_run(folder / "eventful", eventful()),
        "live": made_up_run(folder / "live", training(120, planned=300)),
        "empty": made_up_run(folder / "empty", []),
    }
    three = [
        made_up_run(folder / name, [*training(n, low=low), end(n)], schedule__peak_lr=low / 1000)
        for name, n, low in (("one", 100, 2.0), ("two", 200, 3.0), ("<b>three", 150, 4.0))
    ]
    found = {name: write_report([run.directory]) for name, run in runs.items()}
    return found | {
        "several": write_report([run.directory for run in three], folder / "several.html")
    }


@pytest.fixture
def open_page(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page; at the end nothing may have gone wrong in it, and nothing been asked for."""
    opened: list[tuple[Page, Path]] = []

    def open_one(name: str, width: int = 1200, height: int = 900, *, phone: bool = False) -> Page:
        page = browser.new_page()
        page.size(width, height, phone=phone)
        page.open(pages[name])
        opened.append((page, pages[name]))
        return page

    yield open_one
    for page, path in opened:
        assert page.problems == []
        assert set(page.requests) == {path.as_uri()}
        page.close()


def legend(page: Page, chart: str) -> dict[str, str]:
    """What stands in a chart's legend: name → value."""
    found: dict[str, str] = page.js(
        f"Object.fromEntries([...document.querySelectorAll('#{chart} .legend button')]"
        ".map((b) => [b.querySelector('span').textContent, b.querySelector('b').textContent]))"
    )
    return found


def where(page: Page, chart: str) -> str:
    text: str = page.js(f"document.querySelector('#{chart} .where').textContent")
    return text


def ticks(page: Page, chart: str) -> list[str]:
    """The numbers along the bottom."""
    texts: list[str] = page.js(
        f"[...document.querySelectorAll('#{chart} .plot .tick')]"
        ".filter((t) => t.getAttribute('dy') === null).map((t) => t.textContent)"
    )
    return texts


def heights(page: Page, chart: str) -> list[str]:
    """The numbers along the side."""
    texts: list[str] = page.js(
        f"[...document.querySelectorAll('#{chart} .plot .tick')]"
        ".filter((t) => t.getAttribute('dy') !== null).map((t) => t.textContent)"
    )
    return texts


def pressed(page: Page, selector: str) -> bool:
    state: str = page.js(f"document.querySelector('{selector}').getAttribute('aria-pressed')")
    return state == "true"


def test_all_charts_are_drawn_and_nothing_else_happens(open_page: Open) -> None:
    page = open_page("eventful")
    drawn = page.js(
        "Object.fromEntries([...document.querySelectorAll('.chart')].map((c) =>"
        "[c.id, c.querySelectorAll('.plot .line path').length]))"
    )
    assert drawn.keys() == {"loss", "bits", "lr", "norm", "ratios", "speed"}
    assert all(drawn.values())
    bands = page.js(
        "[...document.querySelectorAll('#lr .plot .band-name')].map((t) => t.textContent)"
    )
    assert bands == ["warmup", "stable", "decay"]
    assert page.js("[...document.querySelectorAll('#norm .sign')].map((t) => t.textContent)") == [
        "▲",
        "◀",
    ]


def test_hostile_text_runs_nothing_and_stands_there_as_it_is(open_page: Open) -> None:
    page = open_page("eventful")
    assert page.js("window.hurt === undefined")
    shown = formats.safe_text(HOSTILE)
    texts = page.js("[...document.querySelectorAll('.sample pre')].map((e) => e.textContent)")
    assert any(text.endswith(shown) for text in texts)
    assert any(text.startswith(shown) for text in texts)
    page.js("for (const fold of document.querySelectorAll('details')) fold.open = true")
    # The command line and the folder, in which it stands too, are on a full page alone.
    assert shown not in page.js("document.querySelector('#environment').textContent")
    assert page.js("document.querySelectorAll('main img, main iframe, main [onload]').length") == 0


def test_the_policy_holds_whatever_gets_into_the_page(browser: Browser, tmp_path: Path) -> None:
    """A page with the worst in it, unescaped: the browser itself is to refuse it."""
    path = write_report([made_up_run(tmp_path / "run", training(5)).directory])
    bad = (
        "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
        "<img src='file:///x.png'><link rel=stylesheet href='x.css'>"
        "<h1 id=big style='font-size: 99px'>x</h1>"
    )
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("<header>", bad + "<header>", 1), encoding="utf-8")
    page = browser.new_page()
    page.open(path)
    assert page.js("window.hurt === undefined")
    assert page.js("getComputedStyle(document.getElementById('big')).fontSize") != "99px"
    assert "violates" in " ".join(page.problems)
    assert page.js("document.querySelectorAll('.plot .line').length > 5"), "the page works"
    page.close()


def test_the_pointer_reads_values_in_all_charts(open_page: Open) -> None:
    page = open_page("eventful")
    assert where(page, "loss") == "latest"
    assert legend(page, "loss")["validation"] == "2.115"
    left, top, width, height = page.box("#loss .plot")
    page.move(left + 52 + (width - 64) / 2, top + height / 2)
    page.settle()
    # Update 150 of 300, 64 tokens each; the record says 2 + 6 exp(-3) there, and 0.1 more.
    assert where(page, "loss").startswith("update 150 · 9,600 tokens · ")
    assert legend(page, "loss")["validation"] == f"{2.1 + 6 * math.exp(-3):.3f}"
    assert where(page, "speed") == where(page, "loss")
    assert page.js("document.querySelectorAll('.plot .crosshair').length") == 6
    page.move(left + 5, top - 40)
    page.settle()
    assert where(page, "loss") == "latest"


def test_dragging_zooms_all_charts_and_a_double_click_goes_back(open_page: Open) -> None:
    page = open_page("eventful")
    before = ticks(page, "loss")
    assert (before[0], before[-1]) == ("0", "300")
    left, top, width, height = page.box("#loss .plot")
    across = (width - 64) / 300
    page.drag(left + 52 + 99 * across, top + height / 2, left + 52 + 201 * across)
    assert (ticks(page, "loss")[0], ticks(page, "loss")[-1]) == ("100", "200")
    assert ticks(page, "norm")[0] == "100"
    assert not page.js("document.getElementById('whole').disabled")
    page.click(left + width / 2, top + height / 2, count=2)
    assert ticks(page, "loss") == before


def test_the_wheel_zooms_only_where_somebody_has_clicked(open_page: Open) -> None:
    page = open_page("eventful")
    left, top, width, height = page.box("#loss .plot")
    middle = (left + width / 2, top + height / 2)
    before = ticks(page, "loss")
    page.wheel(*middle, -300)
    assert ticks(page, "loss") == before
    _, top, _, _ = page.box("#loss .plot")
    middle = (left + width / 2, top + height / 2)
    page.click(*middle)
    page.wheel(*middle, -600)
    page.wait("!document.getElementById('whole').disabled")
    page.settle()
    assert int(ticks(page, "loss")[0]) > 0
    assert int(ticks(page, "loss")[-1]) < 300
    page.wheel(*middle, 2000)
    page.wait("document.getElementById('whole').disabled")
    page.settle()
    assert ticks(page, "loss") == before


def test_buttons_zoom_and_switch_the_scale(open_page: Open) -> None:
    page = open_page("eventful")

    def push(chart: str, name: str) -> None:
        page.js(f"document.querySelector('#{chart} [aria-label^=\"{name}\"]').click()")
        page.settle()

    push("loss", "Zoom in")
    assert (ticks(page, "loss")[0], ticks(page, "loss")[-1]) in (("75", "225"), ("80", "220"))
    push("loss", "Zoom out")
    assert (ticks(page, "loss")[0], ticks(page, "loss")[-1]) == ("0", "300")
    push("loss", "Zoom in")
    push("bits", "Whole run")
    assert (ticks(page, "loss")[0], ticks(page, "loss")[-1]) == ("0", "300")

    def middle_of(name: str) -> float:
        """Where 4 stands between 2 and 8: the middle of a logarithmic axis, a third of a linear."""
        places = page.js(
            "Object.fromEntries([...document.querySelectorAll('#loss .plot .tick[dy]')]"
            ".map((t) => [t.textContent, Number(t.getAttribute('y'))]))"
        )
        share: float = (places["2"] - places["4"]) / (places["2"] - places["8"])
        return share

    toggle = '#loss [aria-label^="Logarithmic"]'
    assert pressed(page, toggle)
    assert middle_of("loss") == pytest.approx(1 / 2, abs=0.01)
    push("loss", "Logarithmic")
    assert not pressed(page, toggle)
    assert middle_of("loss") == pytest.approx(1 / 3, abs=0.01)
    assert pressed(page, '#norm [aria-label^="Logarithmic"]')


def test_the_axis_counts_updates_tokens_or_time(open_page: Open) -> None:
    page = open_page("eventful")
    page.js("document.querySelector('input[value=tokens]').click()")
    page.settle()
    assert (ticks(page, "loss")[0], ticks(page, "loss")[-1]) == ("0", "18k")  # of 19.2k
    left, top, width, _ = page.box("#loss .plot")
    across = (width - 64) / 19_200
    page.drag(left + 52 + 4_800 * across, top + 50, left + 52 + 14_400 * across)
    assert ticks(page, "loss")[0] in ("5,000", "6,000")
    page.js("document.querySelector('input[value=updates]').click()")
    page.settle()
    found = [int(tick) for tick in ticks(page, "loss")]
    assert 75 <= found[0] <= 80 and 220 <= found[-1] <= 225, "the same stretch of the run"
    page.js("document.querySelector('input[value=seconds]').click()")
    page.settle()
    assert all(re.fullmatch(r"[\d.]+s", tick) for tick in ticks(page, "loss"))


def test_the_keyboard_does_it_all(open_page: Open) -> None:
    page = open_page("eventful")

    def said() -> str:
        text: str = page.js("document.getElementById('said').textContent")
        return text

    assert page.js("document.getElementById('said').getAttribute('aria-live')") == "polite"
    page.js("document.getElementById('loss-plot').focus()")
    page.key("Home")
    assert said().startswith("update 0 · 0 tokens · 0.0s; ")
    assert "validation 8.100" in said()
    page.key("ArrowRight", shift=True)
    assert said().startswith("update 1 · 64 tokens")
    page.key("ArrowLeft", shift=True)
    assert said().startswith("update 0 ")
    page.key("ArrowRight")
    assert said().startswith("update 3 "), "a hundredth of the width"
    assert "validation 8.100 at update 0" in said()
    for _ in range(39):
        page.key("ArrowRight")
    assert said().startswith("update 120 ")
    assert "update 120: spike" in said() and "blocks.0.mlp.up.weight" in said()
    page.key("+")
    found = [int(tick) for tick in ticks(page, "loss")]
    assert (found[0], found[-1]) == (60, 200), "60 to 210"
    page.key("0")
    assert ticks(page, "loss")[-1] == "300"
    page.key("End")
    assert "validation 2.115" in said()
    toggle = '#loss [aria-label^="Logarithmic"]'
    page.key("l")
    assert not pressed(page, toggle)
    page.key("Tab")
    assert page.js("document.activeElement.closest('#loss-plot')") is None, "no trap"


def test_the_legend_switches_curves_off_and_on(open_page: Open) -> None:
    page = open_page("eventful")
    button = "#loss .legend li:nth-child(4) button"
    count = "document.querySelectorAll('#loss .plot .line').length"
    assert (page.js(count), pressed(page, button)) == (4, True)
    page.js(f"document.querySelector('{button}').click()")
    page.settle()
    assert (page.js(count), pressed(page, button)) == (3, False)
    page.js(f"document.querySelector('{button}').click()")
    page.settle()
    assert (page.js(count), pressed(page, button)) == (4, True)


def test_of_several_runs_the_legend_switches_a_run_off_everywhere(open_page: Open) -> None:
    page = open_page("several")
    assert list(legend(page, "loss")) == ["one", "two", "<b>three"]
    count = (
        "[...document.querySelectorAll('.chart')].map((c) =>"
        "c.querySelectorAll('.plot .line').length)"
    )
    assert set(page.js(count)) == {3}
    page.js("document.querySelector('#lr .legend li:nth-child(2) button').click()")
    page.settle()
    assert set(page.js(count)) == {2}
    assert not pressed(page, "#loss .legend li:nth-child(2) button")
    looks = page.js(
        "[...document.querySelectorAll('#norm .plot .line path')].map((p) =>"
        "[getComputedStyle(p).stroke, p.getAttribute('stroke-dasharray')].join())"
    )
    assert len(set(looks)) == 2


@pytest.mark.parametrize("name", ["eventful", "several", "live", "empty"])
def test_a_phone_never_scrolls_sideways(name: str, open_page: Open) -> None:
    page = open_page(name, 360, 780, phone=True)
    page.js("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.settle()
    assert page.js("document.documentElement.scrollWidth") == 360
    assert page.js("document.body.scrollWidth") <= 360
    small = page.js(
        "[...document.querySelectorAll('button, summary, label')].filter((e) => e.offsetHeight > 0"
        " && e.getBoundingClientRect().height < 24).map((e) => e.textContent)"
    )
    assert small == [], "a finger needs 24 pixels (WCAG 2.5.8)"


def test_a_finger_moves_the_crosshair_and_leaves_it_there(open_page: Open) -> None:
    page = open_page("eventful", 360, 780, phone=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    left, top, width, height = page.box("#loss .plot")
    page.touch(left + 52 + (width - 64) / 3, top + height / 2)
    assert where(page, "loss").startswith(("update 99 ", "update 100 ", "update 101 "))
    page.touch(left + 60, top + height / 2, to_x=left + 52 + (width - 64) * 2 / 3)
    assert where(page, "loss").startswith(("update 199 ", "update 200 ", "update 201 "))
    assert page.js("document.getElementById('whole').disabled"), "nothing was zoomed"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_by_day_and_by_night(scheme: str, open_page: Open) -> None:
    page = open_page("eventful")
    page.media(prefers_color_scheme=scheme)
    background = page.js("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.05) == (scheme == "dark")
    card = page.js("getComputedStyle(document.querySelector('.chart')).backgroundColor")
    colors = page.js(
        "[...document.querySelectorAll('p, dt, dd, th, td, a, h1, h2, h3, summary, pre, label,"
        " button:enabled, legend, caption, .tick')].filter((e) => e.textContent.trim())"
        ".map((e) => {"
        "const s = getComputedStyle(e); let at = e; let back = 'rgba(0, 0, 0, 0)';"
        "while (at && back === 'rgba(0, 0, 0, 0)') { back = getComputedStyle(at).backgroundColor;"
        "at = at.parentElement; }"
        "return [e.classList.contains('tick') ? s.fill : s.color, back, e.tagName]; })"
    )
    for front, back, tag in {tuple(found) for found in colors}:
        assert contrast(front, back) >= 4.5, (tag, front, back)
    lines = page.js(
        "[...document.querySelectorAll('.plot .line:not(.faint) path')]"
        ".map((p) => getComputedStyle(p).stroke)"
    )
    drawn = {line for line in lines if line != "none"} - {card}
    assert len(drawn) >= 4
    for line in drawn:
        assert contrast(line, card) >= 3, line


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [float(c) / 255 for c in RED_GREEN_BLUE.findall(color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_printed_it_is_light_and_without_controls(open_page: Open) -> None:
    page = open_page("eventful")
    page.media("print", prefers_color_scheme="dark")
    assert luminance(page.js("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert luminance(page.js("getComputedStyle(document.querySelector('h1')).color")) < 0.1
    for gone in ("nav", ".controls", ".tools"):
        assert page.js(f"getComputedStyle(document.querySelector('{gone}')).display") == "none"


def test_reduced_motion_is_respected(open_page: Open) -> None:
    page = open_page("eventful")
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.js(behavior) == "smooth"
    page.media(prefers_reduced_motion="reduce")
    assert page.js(behavior) == "auto"


def test_a_screen_reader_finds_its_way(open_page: Open) -> None:
    page = open_page("eventful")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            roles.setdefault(node["role"]["value"], []).append(name)
    assert len(roles["main"]) == 1 and "On this page" in roles["navigation"]
    assert {"Curves", "Samples", "Settings"} <= set(roles["region"])
    assert len([name for name in roles["application"] if "Arrow keys" in name]) == 6
    assert all(roles["button"]) and all(roles["radio"]) and all(roles["link"])
    assert "What came" not in roles["heading"] and "Loss" in roles["heading"]
    page.js("for (const fold of document.querySelectorAll('details')) fold.open = true")
    tables = page.js("document.querySelectorAll('.chart table').length")
    assert tables == 6, "each chart has its table"


def test_the_first_sample_stays_beside_the_last(open_page: Open) -> None:
    page = open_page("eventful")
    page.box(".samples")
    seen = page.js(
        "[...document.querySelectorAll('.sample')].filter((e) => { const r ="
        " e.getBoundingClientRect(); const at = document.elementFromPoint(r.left + r.width / 2,"
        " r.top + 20); return at && e.contains(at); })"
        ".map((e) => e.querySelector('h3').textContent)"
    )
    assert seen == ["after 0 updates", "after 250 updates", "after 300 updates"]


def test_a_page_that_reads_itself_again_comes_back_to_where_it_was(
    open_page: Open, browser: Browser, pages: dict[str, Path]
) -> None:
    page = open_page("live")
    page.js("document.querySelector('input[value=tokens]').click()")
    page.js("document.querySelector('#loss [aria-label^=\"Logarithmic\"]').click()")
    page.js("document.querySelector('#loss [aria-label^=\"Zoom in\"]').click()")
    page.js("document.querySelector('#loss .legend li:nth-child(1) button').click()")
    page.js("document.querySelector('#bits details').open = true")
    page.js("document.getElementById('norm-plot').focus()")
    page.js("scrollTo({top: 777, behavior: 'instant'})")
    page.settle()
    state = (
        "JSON.stringify([scrollY, document.querySelector('input[name=axis]:checked').value,"
        "[...document.querySelectorAll('#loss .tick')].map((t) => t.textContent),"
        "document.querySelectorAll('#loss .plot .line').length, document.activeElement.id,"
        "document.querySelector('#bits details').open])"
    )
    before = page.js(state)
    assert re.match(r'\[7\d\d,"tokens",', before)
    page.js("window.old = true; location.reload()")
    page.wait("window.old === undefined && document.readyState === 'complete'")
    page.settle()
    assert page.js(state) == before


def test_it_reads_itself_again_by_itself_unless_paused(browser: Browser, tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", training(20, planned=300))
    path = write_report([run.directory])
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace('data-refresh="10"', 'data-refresh="0.3"'), encoding="utf-8")
    page = browser.new_page()
    page.call("Page.navigate", url=path.as_uri())
    page.wait("window.old = Boolean(document.querySelector('.live'))")
    page.wait("window.old === undefined && document.readyState === 'complete'")
    page.wait("document.querySelector('.live button').click(), window.old = true")
    assert page.js("document.querySelector('.live button').textContent") == "Resume"
    page.js("new Promise((done) => setTimeout(done, 1000))")
    assert page.js("window.old === true")
    page.js("document.querySelector('.live button').click()")
    page.wait("window.old === undefined && document.readyState === 'complete'")
    done = [*training(300), end(300)]
    write_report([made_up_run(tmp_path / "done", done).directory], path)
    page.wait("document.querySelector('.live') === null && document.readyState === 'complete'")
    assert page.problems == []
    page.close()


def test_numbers_are_written_as_everywhere_else_in_hairpin(open_page: Open) -> None:
    page = open_page("eventful")
    draw = random.Random(3)
    values = [draw.uniform(1, 10) * 10.0**power for power in range(-3, 9) for _ in range(20)]
    values += [0.0, 1.0, 9_999.4, 9_999.6, 999_960.0, 1e6, 59.6, 3_599.6, 86_399.0, 0.94]
    formatted: dict[str, Callable[[Any], str]] = {
        "loss": formats.format_loss,
        "lr": formats.format_lr,
        "norm": formats.format_norm,
        "count": formats.format_count,
        "seconds": formats.format_duration,
    }
    for name, write in formatted.items():
        fitting = [v for v in values if v >= 1e-3 or name not in ("loss",)]
        found = page.js(f"{fitting}.map(written.{name})")
        assert found == [write(value) for value in fitting], name


def test_a_page_of_nothing_still_is_a_page(open_page: Open) -> None:
    page = open_page("empty")
    assert page.js("document.querySelectorAll('.chart').length") >= 3
    page.js("document.getElementById('loss-plot').focus()")
    for key in ("ArrowRight", "ArrowLeft", "Home", "+", "0", "l"):
        page.key(key)
    page.js("document.querySelector('input[value=seconds]').click()")
    page.settle()
