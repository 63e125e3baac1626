"""A mistake leaves nothing and destroys nothing, and the corrected command works; a killed command
stands in nobody's way.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.filecalls import FileCalls
from faults.plan import Plan
from hairpin.api import runs
from hairpin.errors import CorpusError, RunError, UserError
from hairpin.experiments.compare import Options, compare_finished
from hairpin.launch.request import Request
from hairpin.runs.folder import RUNS, list_runs, new_run_path, open_run
from hairpin.tasks import pretraining
from helpers import TINY_FLAGS, Hairpin, gpt2_folder, text_file
from test_links import tree

SHORT = ["--set", "train.updates=4", "--set", "schedule.warmup_updates=1"]
FLAGS = [*TINY_FLAGS, *SHORT, "--set", "evaluate.sample_tokens=0"]

pytestmark = pytest.mark.usefixtures("no_plots")


# --- places for a run ---


def new_parents(folder: Path) -> str:
    return "deep/er/run"


def empty_folder(folder: Path) -> str:
    (folder / "empty").mkdir(mode=0o750)
    return "empty"


def working_folder(folder: Path) -> str:
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    return "."


def link_to_folder(folder: Path) -> str:
    (folder / "disk").mkdir()
    (folder / "link").symlink_to(folder / "disk")
    return "link"


def dangling_link(folder: Path) -> str:
    (folder / "link").symlink_to(folder / "disk" / "to come")
    return "link"


PLACES = [new_parents, empty_folder, working_folder, link_to_folder, dangling_link]


def mistyped(folder: Path) -> list[object]:
    return ["train", folder / "nosuch.txt", *FLAGS]


def too_short(folder: Path) -> list[object]:
    (folder / "short.txt").write_text("short", encoding="utf-8")
    return ["train", folder / "short.txt", *FLAGS]


def no_text(folder: Path) -> list[object]:
    (folder / "odd.txt").write_bytes(b"\xff\xfe\x00" * 400)
    return ["train", folder / "odd.txt", *FLAGS]


def impossible_config(folder: Path) -> list[object]:
    return ["train", text_file(folder), *FLAGS, "--set", "model.heads=7"]


def another_text(folder: Path) -> list[object]:
    return ["train", text_file(folder), *FLAGS, "--data.hash", "0" * 64]


def bad_plugin(folder: Path) -> list[object]:
    (folder / "bad.py").write_text("1 / 0\n", encoding="utf-8")
    return ["train", text_file(folder), *FLAGS, "--plugin", folder / "bad.py"]


def plugin_that_fails_at_its_first_call(folder: Path) -> list[object]:
    """Found when the job is put together: config, tokenizer and record are written by then."""
    code = (
        "from hairpin.plugins.registry import register_optimizer\n"
        "def broken(settings, parameters):\n"
        "    raise ValueError('not today')\n"
        "register_optimizer('broken', broken)\n"
    )
    (folder / "late.py").write_text(code, encoding="utf-8")
    how = ["--plugin", folder / "late.py", "--set", "optimizer.kind=broken"]
    return ["train", text_file(folder), *FLAGS, *how]


def no_start(folder: Path) -> list[object]:
    return ["train", text_file(folder), *FLAGS, "--from", folder / "no such run"]


def no_records(folder: Path) -> list[object]:
    start = folder / "no such run"
    return ["finetune", "classify", "--from", start, "--data", folder / "nosuch.csv"]


# Mistake → what its line says.
MISTAKES: dict[Callable[[Path], list[object]], str] = {
    mistyped: "nosuch.txt: no such file or folder",
    too_short: "too little training text",
    no_text: "odd.txt",
    impossible_config: "heads",
    another_text: "the text has changed",
    bad_plugin: "bad.py",
    plugin_that_fails_at_its_first_call: "not today",
    no_start: "no such run",
    no_records: "no such",
}


@pytest.fixture(autouse=True)
def forget_plugins() -> Iterator[None]:
    from hairpin.plugins import files as plugin_files
    from hairpin.plugins import registry as plugins

    yield
    for found in list(plugins.REGISTERED.values()):
        plugins.forget(found)
    plugin_files._LOADED.clear()


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("place", PLACES)
def test_a_mistake_leaves_a_place_as_it_was_and_the_corrected_command_works(
    hairpin: Hairpin,
    tmp_path: Path,
    place: Callable[[Path], str],
    mistake: Callable[[Path], list[object]],
    hairpin_cache: Path,
) -> None:
    arguments = mistake(tmp_path)
    out = place(tmp_path)

    def seen() -> Any:
        return {
            name: (found, (tmp_path / name).lstat().st_ino, (tmp_path / name).lstat().st_mode)
            for name, found in tree(tmp_path).items()
            if not name.startswith((hairpin_cache.name, "text.txt", "__pycache__"))
        }

    before = seen()
    done = hairpin(*arguments, "--out", out)
    assert done.code == 2 and MISTAKES[mistake] in done.err and "Traceback" not in done.err, done
    assert seen() == before
    if mistake in (mistyped, plugin_that_fails_at_its_first_call):
        assert hairpin("train", text_file(tmp_path), *FLAGS, "--out", out).code == 0
        assert (Path(out) / "best").is_dir()


def test_a_mistyped_text_is_said_before_anything_is_made(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed meanwhile leaves no run that stands in the corrected one's way."""
    monkeypatch.setattr("hairpin.launch.train.create_run", lambda *_: pytest.fail("it was made"))
    mixture = ["--source", "a=text.txt:0.5", "--source", "b=nosuch.txt:0.5"]
    text_file(tmp_path)
    for arguments in (["nosuch.txt"], ["text.txt", "nosuch.txt"], mixture):
        refusal = hairpin("train", *arguments, *FLAGS).refusal
        assert refusal == f"{tmp_path / 'nosuch.txt'}: no such file or folder; check the path"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("out", ["..", "/", "file", "full", "file/run", "loop"])
def test_a_place_that_is_taken_is_refused_and_kept(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "loop").symlink_to("loop")
    text, work = text_file(tmp_path), tmp_path / "full" / "work"
    work.mkdir()
    if out == "..":
        monkeypatch.chdir(work)
    before = tree(tmp_path)
    for arguments in (["train", text, *FLAGS], ["train", "nosuch.txt", *FLAGS]):
        assert hairpin(*arguments, "--out", out).refusal
        assert tree(tmp_path) == before


def is_mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_a_mount_point_stays_what_it_is(hairpin: Hairpin, tmp_path: Path) -> None:
    disk, text = tmp_path / "disk", text_file(tmp_path)
    disk.mkdir()
    if not is_mounted(disk):
        pytest.skip("nothing can be mounted here")
    try:
        (tmp_path / "short.txt").write_text("short", encoding="utf-8")
        assert hairpin("train", tmp_path / "short.txt", *FLAGS, "--out", disk).code == 2
        assert not list(disk.iterdir()) and disk.is_mount()
        assert hairpin("train", text, *FLAGS, "--out", disk).code == 0
        assert (disk / "best").is_dir()
        shutil.copytree(disk, tmp_path / "run")
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert hairpin("prepare", text, "--out", disk).code == 0
        assert disk.is_mount() and (disk / "shards.json").is_file()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_others_put_into_the_folder_meanwhile_stays(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_run(*_: Any, **__: Any) -> Any:
        (tmp_path / "new" / "run" / "notes.txt").write_text("mine", encoding="utf-8")
        raise CorpusError("too little text")

    monkeypatch.setattr(pretraining, "fill_run", fill_run)
    assert hairpin("train", text_file(tmp_path), *FLAGS, "--out", "new/run").refusal
    assert list(tree(tmp_path / "new")) == ["run", "run/notes.txt"]


def test_a_mistake_found_after_an_update_keeps_the_run(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hairpin.training.evaluate import Evaluator

    measure, calls = Evaluator.measure, list[int]()

    def failing(self: Evaluator, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:  # two in each evaluation, of which the first is before any update
            raise UserError("a plugin's mistake")
        return measure(self, *arguments, **named)

    monkeypatch.setattr(Evaluator, "measure", failing)
    flags = [*FLAGS, "--set", "evaluate.every_updates=1"]
    assert hairpin("train", text_file(tmp_path), *flags, "--out", "run").code == 2
    assert open_run(tmp_path / "run").checkpoints.is_dir()


def test_a_full_disk_at_the_start_leaves_nothing(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_file(tmp_path)
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for out in ("deep/run", "empty"):
            refusal = hairpin("train", text, *FLAGS, "--out", out).refusal
            assert refusal == f"{out}: cannot make a run here: No space left on device"
            assert tree(tmp_path) == before
    assert hairpin("train", text, *FLAGS, "--out", "deep/run").code == 0


# --- what is half made is no run ---


def test_hidden_folders_are_no_runs(hairpin: Hairpin, tmp_path: Path) -> None:
    assert hairpin("train", text_file(tmp_path), *FLAGS).code == 0
    shutil.copytree(RUNS / "text-1", RUNS / ".tmp-other")
    os.utime(RUNS / ".tmp-other" / "config.toml")
    assert [run.path.name for run in list_runs(RUNS)] == ["text-1"]
    assert [run.path.name for run in runs()] == ["text-1"]
    assert open_run(None).path == RUNS / "text-1"
    assert ".tmp-other" not in hairpin("runs").out


def test_a_new_run_takes_no_name_of_a_link_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RUNS.mkdir()
    (RUNS / "text-1").symlink_to(tmp_path / "a disk that is not there")
    assert new_run_path("text") == RUNS / "text-2"


# --- killed at any call ---


def killed(folder: Path, number: int, arguments: list[object]) -> bool:
    """Run a command in a fork that is killed at its n-th call that changes something in a folder;
    whether it was, before it had ended.
    """
    from hairpin.cli.main import main

    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        side = folder.parent / "side"
        side.mkdir(exist_ok=True)
        FileCalls(folder, side, Plan(whole_run=True, at_call=number), lambda path: None).install()
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            os._exit(int(stop.code or 0))
        os._exit(9)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on Windows")
@pytest.mark.parametrize("place", ["new", "empty"])
@pytest.mark.parametrize("verb", ["import", "export", "prepare"])
def test_a_killed_command_is_in_nobodys_way(
    hairpin: Hairpin, tmp_path: Path, verb: str, place: str
) -> None:
    """At each of its calls; then the same command works, with the same result as one untouched."""
    text, model = text_file(tmp_path), gpt2_folder(tmp_path / "model")
    assert hairpin("import", model, "--out", "run").code == 0
    out = tmp_path / "work" / "runs" / "new"
    commands: dict[str, list[object]] = {
        "import": ["import", model, "--out", out],
        "export": ["export", "run", "--to", "huggingface", out],
        "prepare": ["prepare", text, "--tokenizer.kind", "bytes", "--out", out],
    }
    work = tmp_path / "work"
    number, names = 0, set[str]()
    while True:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        if place == "empty":
            out.mkdir(parents=True)
        was_killed = killed(work, number, commands[verb])
        if was_killed:
            assert not [r for r in list_runs(out.parent) if not (r.path / "best").is_dir()]
            done = hairpin(*commands[verb])
            if done.code == 2:  # it was whole when the kill came
                assert "exists and is not an empty folder" in done.refusal
        left = [path.name for path in work.rglob(".*") if path.name != ".lock"]
        assert left == [], (number, left)
        found = {path.relative_to(out).as_posix() for path in out.rglob("*")}
        names = names or found
        assert found == names
        if not was_killed:
            break
        number += 1 if number < 4 else 3
    assert number > 8


def failing_with(error: Exception) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_a_failed_prepare_export_or_book_takes_back_the_folders_that_it_made(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hairpin("import", gpt2_folder(tmp_path / "model"), "--out", "run").code == 0
    text_file(tmp_path)
    before = tree(tmp_path)
    assert hairpin("prepare", "nosuch.txt", "--out", "deep/out").refusal
    monkeypatch.setattr(
        "hairpin.weights.convert.huggingface._write_weights",
        failing_with(OSError(errno.ENOSPC, "No space left on device")),
    )
    assert "No space left" in hairpin("export", "run", "deep/out").refusal
    monkeypatch.setattr(
        "hairpin.book.report.verb.run_listings",
        failing_with(UserError("no vocabulary")),
    )
    assert hairpin("book", "--text", "text.txt", "--out", "deep/out").refusal == "no vocabulary"
    assert hairpin("book", "--text", "text.txt", "--out", "text.txt").refusal
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", [working_folder, link_to_folder, dangling_link])
@pytest.mark.parametrize("verb", ["import", "export", "prepare"])
def test_a_new_folder_may_be_the_working_one_or_behind_a_link(
    hairpin: Hairpin, tmp_path: Path, verb: str, place: Callable[[Path], str]
) -> None:
    model, text = gpt2_folder(tmp_path / "model"), text_file(tmp_path)
    assert hairpin("import", model, "--out", tmp_path / "run").code == 0
    out = place(tmp_path)
    commands: dict[str, list[object]] = {
        "import": ["import", model, "--out", out],
        "export": ["export", tmp_path / "run", "--to", "huggingface", out],
        "prepare": ["prepare", text, "--tokenizer.kind", "bytes", "--out", out],
    }
    assert hairpin(*commands[verb]).code == 0
    proof = {"import": "best", "export": "model.safetensors", "prepare": "shards.json"}
    assert (Path(out) / proof[verb]).exists()
    assert Path(out).is_symlink() == (out == "link")
    assert not list(Path(out).glob(".tmp-*"))
    assert "exists and is not an empty folder" in hairpin(*commands[verb]).refusal


def test_a_half_made_folder_names_nothing_outside_itself(hairpin: Hairpin, tmp_path: Path) -> None:
    """A list of what had moved up may be anybody's."""
    out, text = tmp_path / "out", text_file(tmp_path)
    (out / ".tmp-new").mkdir(parents=True)
    names = '["..", ".", "", "../text.txt", "/etc", "mine.txt", 5]'
    (out / ".tmp-new" / ".names.json").write_text(names, encoding="utf-8")
    (out / "other.txt").write_text("other", encoding="utf-8")
    assert "is not an empty folder" in hairpin("prepare", text, "--out", out).refusal
    assert text.is_file() and list(tree(out)) == ["other.txt"]


def test_a_comparison_of_a_damaged_run_leaves_no_experiment(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    assert hairpin("train", text_file(tmp_path), *FLAGS, "--out", "a").code == 0
    shutil.copytree("a", "b")
    record = Path("b/metrics.jsonl").read_text(encoding="utf-8")
    Path("b/metrics.jsonl").write_text("{" + record, encoding="utf-8")
    groups = [(name, [tmp_path / name]) for name in ("a", "b")]
    request = Request(out=tmp_path / "new" / "experiment")
    with pytest.raises(RunError):
        compare_finished(groups, request, Options())
    assert not (tmp_path / "new").exists()
    Path("b/metrics.jsonl").write_text(record, encoding="utf-8")
    compare_finished(groups, request, Options())
    assert (tmp_path / "new" / "experiment" / "report.html").is_file()


def test_a_killed_comparison_does_not_block_the_next(hairpin: Hairpin, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert hairpin("train", text_file(tmp_path), *FLAGS, "--out", name).code == 0
    out = tmp_path / "experiment"
    out.mkdir()
    (out / ".tmp-experiment.json-1-1").write_text("{", encoding="utf-8")
    compare_finished([(n, [tmp_path / n]) for n in ("a", "b")], Request(out=out), Options())
    assert (out / "report.html").is_file()


def test_a_gguf_file_replaces_no_link(hairpin: Hairpin, tmp_path: Path) -> None:
    assert hairpin("import", gpt2_folder(tmp_path / "model"), "--out", "run").code == 0
    (tmp_path / "a.gguf").symlink_to(tmp_path / "nowhere")
    refusal = hairpin("export", "run", "--to", "gguf", "a.gguf").refusal
    assert refusal == "a.gguf: already exists; name another file"
    assert (tmp_path / "a.gguf").is_symlink()
