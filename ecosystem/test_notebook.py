"""A real notebook, executed: the bar, the run and its plots are in its outputs."""

import base64
import re
import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import text_file

pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own

SETTINGS = """\
settings = {
    "recipe": "gpt2", "tokenizer.kind": "bytes", "model.layers": 1, "model.heads": 2,
    "model.width": 16, "model.context": 16, "train.updates": 400, "train.tokens_per_update": 64,
    "schedule.peak_lr": 0.01, "evaluate.tokens": 256, "evaluate.sample_prompt": "<b>the</b>",
    "evaluate.sample_tokens": 8, "execution.device": "cpu", "execution.precision": "float32",
    "execution.micro_batch": 4,
}
"""
CELLS = (
    "import hairpin\n" + SETTINGS + "run = hairpin.train('text.txt', out='run', settings=settings)",
    "run",
    "run.plot('loss')",
    "import sys; print('torch' in sys.modules, 'ipywidgets' in sys.modules)",
    "hairpin.resume('run', watcher=hairpin.Quiet()).path.name",
    "run.plot('nothing')",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook with its outputs."""
    folder = tmp_path_factory.mktemp("notebook")
    text_file(folder)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = NotebookClient(
            notebook,
            timeout=120,
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )
        client.create_kernel_manager()
        assert client.km
        client.km.kernel_cmd = [
            sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
        ]  # fmt: skip
        client.execute()
    (folder / "notebook.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    return notebook


def html_of(cell: Any) -> list[str]:
    return [
        output["data"]["text/html"]
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]


def images(html: str) -> list[bytes]:
    return [base64.b64decode(part) for part in re.findall(r"base64,([A-Za-z0-9+/=]+)\"", html)]


def test_training_shows_one_bar_and_then_the_plots(executed: Any) -> None:
    cell = executed.cells[0]
    assert not [output for output in cell.outputs if output.output_type in ("error", "stream")]
    live, end = html_of(cell)
    assert '<progress value="400" max="400"' in live
    assert "finished after 400 updates" in live and "evaluation after 400 updates" in live
    assert re.search(r"update 400/400  loss \d\.\d+  lr ", live)
    assert "&lt;b&gt;the&lt;/b&gt;" in live and "<b>the" not in live, "text stays text"
    assert len(images(end)) == 3 and all(png.startswith(b"\x89PNG") for png in images(end))
    assert "best" in end and "bits per byte" in end


def test_a_run_and_a_plot_show_themselves(executed: Any) -> None:
    (whole,), (loss,) = html_of(executed.cells[1]), html_of(executed.cells[2])
    assert len(images(whole)) == 3 and "status" in whole
    (png,) = images(loss)
    assert png in images(whole) and 'alt="loss"' in loss


def test_nothing_but_ipython_was_needed(executed: Any) -> None:
    assert executed.cells[3].outputs[0]["text"] == "True False\n"


def test_a_quiet_watcher_is_quiet(executed: Any) -> None:
    (output,) = executed.cells[4].outputs
    assert output["data"]["text/plain"] == "'run'"


def test_a_mistake_says_what_there_is(executed: Any) -> None:
    (output,) = executed.cells[5].outputs
    assert "there is no plot 'nothing'; choose from loss" in output["evalue"]
