"""What a notebook shows, without one; ecosystem/ has a real one."""

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import hairpin
from hairpin.errors import RunError
from hairpin.reports.terminal.notebook import Notebook, in_notebook
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory
from helpers import text_file, tiny


class Outputs:
    """The outputs of a cell: each is what it last was."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.changes = 0

    def __call__(self, html: str) -> Callable[[str], None]:
        self.shown.append(html)
        place = len(self.shown) - 1

        def replace(changed: str) -> None:
            self.changes += 1
            self.shown[place] = changed

        return replace


def an_update(index: int, **values: Any) -> events.Update:
    return events.Update(index, 0.1, 2.0, 1.0, False, 64, 1000.0, **values)


def test_a_run_is_one_output_and_its_plots_another(tmp_path: Path) -> None:
    outputs = Outputs()
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Notebook(show=outputs)
    )
    live, end = outputs.shown
    assert '<progress value="12" max="12"' in live and "update 12/12" in live
    assert live.count("evaluation after") == 4 and "finished after 12 updates" in live
    assert end.count("data:image/png;base64,") == 3
    names = [part.split('"')[1] for part in end.split("<img ")[1:]]
    assert names == ["loss", "gradient-norm", "learning-rate"]
    for file in (run.path / "plots").glob("*.png"):
        assert base64.b64encode(file.read_bytes()).decode() in end


def test_updates_are_drawn_twice_a_second_and_no_more() -> None:
    now = 0.0
    outputs = Outputs()
    notebook = Notebook(lambda: now, outputs)
    notebook.show(events.Plan("t", 1, 100, 1, 64, 1000, 100, 1.0, 1.0, 1.0))
    for index in range(100):
        now += 0.125
        notebook.show(an_update(index))
    assert outputs.changes == 25  # in 12.5 seconds
    notebook.close()
    assert '<progress value="100" max="100"' in outputs.shown[0]


def test_text_is_text_and_no_markup(tmp_path: Path) -> None:
    outputs = Outputs()
    notebook = Notebook(show=outputs)
    notebook.begin(tmp_path / "<i>")
    notebook.notice("<script>alert(1)</script>\x1b[2J")
    notebook.show(events.Sample(3, "<b>", "</pre><img src=x>"))
    notebook.show(events.Skip(3, 1.0, 1.0, "w", 0, 4, "<u>", "spike"))
    notebook.show(events.End(3, "failed", 1.0, "<b>reason"))
    (html,) = outputs.shown
    for written in ("<script", "<img", "<u>", "<i>", "<b>", "\x1b"):
        assert written not in html
    assert "&lt;script&gt;" in html and "&lt;b&gt;reason" in html


def test_everything_that_happens_has_its_line() -> None:
    outputs = Outputs()
    notebook = Notebook(show=outputs)
    notebook.stage("reading", 5_000_000, 10_000_000)
    assert "reading: 5 MB of 10 MB" in outputs.shown[0]
    notebook.show(events.Resume(8, 0.0, None, 20))
    notebook.show(events.Extend(8, 20, 30, None))
    notebook.show(events.Correction(9, 30, 40))
    notebook.show(events.Evaluation(9, 1, 1.0, 2.0, train_accuracy=0.5, val_accuracy=0.25))
    (html,) = outputs.shown
    assert "reading" not in html
    for words in ("resumed after 8 updates", "to 30 updates", "to 40 updates", "25.0% accuracy"):
        assert words in html
    for number in range(40):
        notebook.notice(f"line {number}")
    assert outputs.shown[0].count("line ") == 9 and "line 39" in outputs.shown[0]
    assert "resumed" in outputs.shown[0], "the first lines stay"


def test_a_run_shows_itself(tmp_path: Path) -> None:
    run = hairpin.train(
        text_file(tmp_path), out=tmp_path / "r&d", settings=tiny(), watcher=hairpin.Quiet()
    )
    html = run._repr_html_()
    assert "r&amp;d" in html and html.count("<img ") == 3 and "bits per byte" in html
    loss = run.plot("loss")
    assert list(loss.png) == ["loss"] and loss.png["loss"].startswith(b"\x89PNG")
    with pytest.raises(RunError, match="there is no plot 'lost'; choose from loss, learning-rate"):
        run.plot("lost")
    run.directory.metrics.write_bytes(run.directory.metrics.read_bytes().split(b"\n")[0] + b"\n")
    assert "<img" not in Run(RunDirectory(run.path))._repr_html_()


def test_a_notebook_is_noticed_and_a_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    shells: list[Any] = [None, SimpleNamespace(), SimpleNamespace(kernel=object())]
    found = []
    for shell in shells:
        module: Any = ModuleType("IPython")
        module.get_ipython = lambda shell=shell: shell
        monkeypatch.setitem(sys.modules, "IPython", module)
        found.append(in_notebook())
    assert found == [False, False, True]
    display: Any = ModuleType("IPython.display")
    outputs = Outputs()
    display.HTML = str

    def show(html: str, display_id: bool) -> Any:
        assert display_id
        return SimpleNamespace(update=outputs(html))

    display.display = show
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    from hairpin.api import _watcher

    watcher = _watcher(None)
    assert isinstance(watcher, Notebook)
    watcher.notice("one")
    watcher.notice("two")
    assert "two" in outputs.shown[0] and len(outputs.shown) == 1
