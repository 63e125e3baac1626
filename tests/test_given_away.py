"""What a user gives away says nothing of his machine, and secrets are kept nowhere."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import hairpin
from hairpin.config.load import build_config
from hairpin.config.shared import name_of_path, without_paths
from hairpin.errors import ConfigError, HairpinError, shown_command
from hairpin.reports.trackers.follow import shown_config
from hairpin.run import Run
from hairpin.weights.convert.huggingface import export_folder
from hairpin.weights.convert.source import open_source
from helpers import TINY_FLAGS, Hairpin, Watching, some_text, tiny

PRIVATE_FOLDER = "ann-of-green gables"  # a blank ends no path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / PRIVATE_FOLDER / "secret-project"
    folder.mkdir(parents=True)
    (folder / "river.txt").write_text(some_text(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(base: Path) -> Run:
    """One that started from another, in a folder that says who made it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hairpin", "train", str(base / "river.txt")])
        patch.setattr(Run, "write_plots", lambda self: [])
        first = hairpin.train(
            base / "river.txt", out=base / "first", settings=tiny(), watcher=Watching()
        )
        return hairpin.train(
            base / "river.txt", start=first.path, out=base / "second",
            settings={"train.updates": 6, "train.tokens_per_update": 64,
                      "execution.precision": "float32"},
            watcher=Watching(),
        )  # fmt: skip


def private_words(base: Path) -> list[str]:
    words = [PRIVATE_FOLDER, "green gables", "secret-project", str(base.parent.parent)]
    return [*words, str(Path.home()) + "/", str(Path.cwd()), socket.gethostname() + "."]


def assert_says_nothing(text: str, base: Path) -> None:
    found = [word for word in private_words(base) if word in text]
    assert not found, text[max(0, text.index(found[0]) - 200) :][:400]


def test_the_page_of_a_run(run: Run, base: Path) -> None:
    page = hairpin.report(run.path).read_text(encoding="utf-8")
    assert_says_nothing(page, base)
    assert "river.txt" in page and "of first" in page
    assert "hairpin train" not in page.partition('id="environment"')[2]


def test_the_page_that_is_written_while_a_run_trains(run: Run, base: Path, tmp_path: Path) -> None:
    out = base / "live"
    hairpin.train(base / "river.txt", out=out, settings=tiny(), watcher=Watching())
    assert_says_nothing((out / "report.html").read_text(encoding="utf-8"), base)


def test_the_page_says_it_where_it_is_asked_for(hairpin: Hairpin, run: Run, base: Path) -> None:
    out = base / "full.html"
    assert hairpin("report", run.path, "--out", out, "--full").code == 0
    page = out.read_text(encoding="utf-8")
    assert f"hairpin train {base / 'river.txt'}" in page and "working folder" in page


def test_the_page_of_several_runs(run: Run, base: Path) -> None:
    page = hairpin.report(base / "first", run.path, out=base / "both.html")
    assert_says_nothing(page.read_text(encoding="utf-8"), base)


def test_the_page_of_a_run_that_failed(base: Path, tmp_path: Path) -> None:
    with pytest.raises(HairpinError):
        hairpin.train(
            base / "river.txt", out=base / "stopped", settings=tiny(),
            watcher=Watching(stop_after_update=3),
        )  # fmt: skip
    with (base / "stopped" / "metrics.jsonl").open("a", encoding="utf-8") as record:
        reason = f"stopped; resume with `hairpin resume {base}/stopped`"
        end = {"event": "end", "update": 3, "status": "failed", "seconds": 1, "reason": reason}
        record.write(json.dumps(end) + "\n")
    page = hairpin.report(base / "stopped").read_text(encoding="utf-8")
    assert_says_nothing(page.replace("gables/secret-project/stopped", ""), base)


def test_an_export(run: Run, base: Path, tmp_path: Path) -> None:
    export_folder(open_source(run), tmp_path / "export")
    for path in (tmp_path / "export").iterdir():
        assert_says_nothing(path.read_bytes().decode("utf-8", "replace"), base)
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert "river.txt" in card and "of first" in card


def test_a_gguf_file(run: Run, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    out = tmp_path / "m.gguf"
    hairpin.export(run.path, out=out, to="gguf")
    assert_says_nothing(out.read_bytes().decode("utf-8", "replace"), base)


def test_what_trackers_are_told(run: Run, base: Path) -> None:
    told = shown_config(run.config)
    assert_says_nothing(json.dumps(dict(told)), base)
    assert told["data.texts"] == ["river.txt"] and told["start.path"] == "first"


def test_shards_and_pictures(base: Path, run: Run, tmp_path: Path) -> None:
    hairpin.api.prepare(base / "river.txt", out=tmp_path / "shards", watcher=Watching())
    hairpin.api.load(run.path)
    from hairpin.reports.plots import write_plots

    write_plots(run.record(), tmp_path / "plots", run.config)
    files = [p for name in ("shards", "plots") for p in (tmp_path / name).rglob("*") if p.is_file()]
    assert len(files) > 5
    for path in files:
        assert_says_nothing(path.read_bytes().decode("utf-8", "replace"), base)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/home/ann/x.txt", "x.txt"),
        ("~/x.txt", "x.txt"),
        (r"C:\Users\ann\x.txt", "x.txt"),
        (r"\\server\ann\x.txt", "x.txt"),
        ("file:///home/ann/mlruns", "mlruns"),
        ("https://example.org/a", "https://example.org/a"),
        ("data/x.txt", "data/x.txt"),
    ],
)
def test_a_path_becomes_a_name(text: str, name: str) -> None:
    assert name_of_path(text) == name


def test_words_about_a_path() -> None:
    words = "best weights, update 4, of /home/ann lee/runs/x"
    assert without_paths(words) == "best weights, update 4, of x"
    assert without_paths("/home/ann/x: no space; 3/4 done") == "x: no space; 3/4 done"


# --- secrets ---

SECRETS = [
    ["--set", "track.wandb.api_key=HUSH"],
    ["--set", "track.token=HUSH"],
    ["--track.password", "HUSH"],
    ["--track.secret=HUSH"],
    ["--set", "track.mlflow_uri=https://ann:HUSH@example.org"],
    ["--set", "track.api_key HUSH"],
    ["--api-key=HUSH"],
    ["--set", "data.api_key=[HUSH"],
]


@pytest.mark.parametrize("words", SECRETS, ids=" ".join)
def test_a_refused_secret_is_not_said(hairpin: Hairpin, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "t.txt").write_text(some_text(), encoding="utf-8")
    done = hairpin("train", tmp_path / "t.txt", "--out", tmp_path / "run", *words)
    assert done.code == 2 and "HUSH" not in done.out + done.err
    assert "Traceback" not in done.err


def test_a_refused_secret_of_a_file_is_not_said(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for text in (
        '[track]\nmlflow_uri = "https://ann:HUSH@example.org"\n',
        '[track]\napi_key = "HUSH"\n',
        '[track.wandb]\ntoken = "HUSH"\n',
        'password = "HUSH"\n',
        'password = "HUSH',
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            build_config(file=file)
        assert "HUSH" not in str(refused.value), refused.value


@pytest.mark.parametrize("words", SECRETS, ids=" ".join)
def test_a_secret_of_the_command_line_is_not_kept(words: list[str]) -> None:
    assert "HUSH" not in " ".join(shown_command(["hairpin", *words])).replace("key HUSH", "")


def test_other_words_of_the_command_line_are_kept(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["hairpin", "train", "x", "--tokens", "5", *TINY_FLAGS]
    assert shown_command(words) == tuple(words)
    monkeypatch.setattr(sys, "argv", [*words, "--set", "x.password=HUSH"])
    monkeypatch.setenv("WANDB_API_KEY", "HUSH")
    hairpin.train(base / "river.txt", out=tmp_path / "run", settings=tiny(), watcher=Watching())
    kept = "".join(
        (tmp_path / "run" / n).read_text() for n in ("metrics.jsonl", "environment.json")
    )
    assert "HUSH" not in kept and kept.count("x.password=***") == 2


def test_weights_and_biases_is_told_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from hairpin.reports.trackers.wandb import _private

    class Settings:
        model_fields: dict[str, Any] = {"host": 1, "x_disable_meta": 1, "console": 1}  # noqa: RUF012

    assert _private(Settings) == {"host": "unnamed", "x_disable_meta": True}
