"""A run's folder may hold links to anything: nothing is written over or deleted through one."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.data import shards
from hairpin.errors import HairpinError, RunError
from hairpin.experiments import compare
from hairpin.experiments.compare import Options, compare_finished
from hairpin.experiments.worker import train_trial
from hairpin.launch.request import Request
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.entries import refuse_links
from hairpin.runs.experiment_folder import ExperimentDirectory
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import Record, truncate_record
from hairpin.system.files import (
    is_link,
    make_folders,
    new_folder,
    open_own,
    remove,
    sync_file,
    unmake,
    write_atomically,
)
from helpers import TINY_FLAGS, Hairpin, text_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")

Tree = dict[str, tuple[str, bytes]]


def tree(folder: Path) -> Tree:
    """Everything below a folder: what kind it is, and its content or where it leads."""
    found = dict[str, tuple[str, bytes]]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = "link", os.fsencode(path.readlink())
        elif path.is_dir():
            found[name] = "folder", b""
        else:
            found[name] = "file", path.read_bytes()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve updates, and the text that it was trained on."""
    from hairpin import Quiet, train
    from helpers import tiny

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIRPIN_CACHE", str(folder / "cache"))
        train(text_file(folder), out=folder / "run", settings=tiny(), watcher=Quiet())
    assert (folder / "run" / "plots" / "loss.png").is_file()
    return folder


def mine(folder: Path) -> Path:
    """A folder of somebody's own, beside the run."""
    place = folder / "mine"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "letter.txt").write_text("dear", encoding="utf-8")
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    return place


ENTRIES = [
    ".lock",
    ".lock.held",
    ".tmp-best",
    ".tmp-tokenizer",
    ".old-best",
    ".bad-step-00000004-1",
    "best",
    "checkpoints",
    "checkpoints/step-00000012",
    "checkpoints/.tmp-step-00000014",
    "config.toml",
    "environment.json",
    "metrics.jsonl",
    "metrics.discarded-1.jsonl",
    "plots",
    "plots/loss.png",
    "report.html",
    "tensorboard",
    "tokenizer",
    "tracking.json",
    "trial.json",
]
VERBS: dict[str, list[object]] = {
    "resume": ["resume", "run"],
    "extend": ["resume", "run", "--extend", 2, "--policy", "constant"],
    "or-resume": ["train", "text.txt", *TINY_FLAGS, "--out", "run", "--or-resume"],
    "report": ["report", "run"],
}


def link_away(entry: Path, outside: Path) -> None:
    """Let an entry be a link to what it was, or where it was not, to something of somebody's."""
    outside.mkdir()
    if entry.exists():
        entry.rename(outside / entry.name)
    elif "." in entry.name[1:] and "tmp" not in entry.name:
        (outside / entry.name).write_text("mine", encoding="utf-8")
    else:
        mine(outside).rename(outside / entry.name)
    entry.symlink_to(outside / entry.name)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_or_deletes_through_a_link_in_a_run(
    hairpin: Hairpin, finished: Path, tmp_path: Path, verb: str, entry: str
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(finished / "text.txt", tmp_path)
    record = tmp_path / "run" / "metrics.jsonl"
    if verb == "resume":  # a finished run is left alone
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        record.write_text("".join(lines[:-1]), encoding="utf-8")
    if verb == "or-resume":
        text = (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
        moved = text.replace(str(finished / "text.txt"), str(tmp_path / "text.txt"))
        (tmp_path / "run" / "config.toml").write_text(moved, encoding="utf-8")
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        moved = lines[0].replace(str(finished / "text.txt"), str(tmp_path / "text.txt"))
        record.write_text("".join([moved, *lines[1:-1]]), encoding="utf-8")
    link_away(tmp_path / "run" / entry, tmp_path / "outside")
    before = tree(tmp_path / "outside")
    done = hairpin(*VERBS[verb])
    assert tree(tmp_path / "outside") == before
    if verb == "report":
        assert done.code == 0 and not is_link(tmp_path / "run" / "report.html")
    else:
        assert f"{Path('run', entry)}: is a link to {tmp_path / 'outside'}" in done.refusal
        assert is_link(tmp_path / "run" / entry)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e not in ("checkpoints", "plots")])
def test_a_link_that_comes_after_the_look_is_not_followed_either(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Files are opened so that no link is followed, and a rename takes the link's place."""
    from hairpin import Quiet, resume

    monkeypatch.setenv("HAIRPIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hairpin.runs.lock.refuse_links", lambda folder: None)
    monkeypatch.setattr("hairpin.run.refuse_links", lambda folder: None)
    shutil.copytree(finished / "run", tmp_path / "run")
    link_away(tmp_path / "run" / entry, tmp_path / "outside")
    before = tree(tmp_path / "outside")
    with contextlib.suppress(HairpinError, OSError):
        resume(tmp_path / "run", extend=2, policy="constant", watcher=Quiet())
    assert tree(tmp_path / "outside") == before


def test_a_run_that_is_a_link_or_lies_behind_one_is_as_any_other(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    disk, text = tmp_path / "disk", text_file(tmp_path)
    disk.mkdir()
    (tmp_path / "runs").symlink_to(disk)
    assert hairpin("train", text, *TINY_FLAGS).code == 0
    assert (disk / "text-1" / "best").is_dir()
    (tmp_path / "mine").symlink_to(disk / "text-1")
    assert hairpin("resume", "mine", "--extend", 2, "--policy", "constant").code == 0
    assert hairpin("report", "mine").code == 0
    assert (tmp_path / "mine").is_symlink() and (tmp_path / "runs").is_symlink()
    assert hairpin("train", text, *TINY_FLAGS, "--out", "runs/deep/run").code == 0
    assert (disk / "deep" / "run" / "best").is_dir()


def test_plots_are_not_drawn_through_a_link(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "plots")
    (tmp_path / "run" / "plots").symlink_to(mine(tmp_path))
    before = tree(tmp_path / "mine")
    with pytest.raises(RunError, match="plots: is a link to"):
        Run(RunDirectory(tmp_path / "run")).write_plots()
    assert tree(tmp_path / "mine") == before


# --- experiments ---


def test_a_trial_deletes_no_checkpoints_through_a_link(
    finished: Path, tmp_path: Path, hairpin_cache: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished / "run", folder)
    for name in ("checkpoints", "best", "trial.json"):
        remove(folder / name)
        (folder / name).symlink_to(mine(tmp_path / name))
    before = [tree(tmp_path / name) for name in ("checkpoints", "best", "trial.json")]
    assert train_trial(folder, {}, lambda what: None) == "finished"
    assert [tree(tmp_path / name) for name in ("checkpoints", "best", "trial.json")] == before
    assert not any(map(is_link, folder.iterdir()))
    assert json.loads((folder / "trial.json").read_bytes())["state"] == "finished"


@pytest.mark.parametrize("entry", ["plots", "report.md", "results.json", "runs/a", "runs/a/x1"])
def test_an_experiment_writes_through_no_link(finished: Path, tmp_path: Path, entry: str) -> None:
    groups = [(name, [finished / "run"]) for name in ("a", "b")]
    request = Request(out=tmp_path / "experiment")
    compare_finished(groups, request, Options())
    path = tmp_path / "experiment" / entry
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    path.symlink_to(mine(tmp_path))
    before = tree(tmp_path)
    for act in (
        lambda: compare_finished(groups, request, Options()),
        lambda: compare.report(ExperimentDirectory(tmp_path / "experiment")),
    ):
        with pytest.raises(RunError, match=f"{path.name}: is a link to"):
            act()
        assert tree(tmp_path) == before


# --- checkpoints, the record, the cache ---


def a_snapshot(step: int) -> Snapshot:
    import torch

    return Snapshot(step, {"model": {"w": torch.full((2,), float(step))}}, {"step": step}, {})


@pytest.mark.parametrize("name", [".tmp-best", ".old-best", "checkpoints/.tmp-step-00000003"])
def test_the_store_takes_a_link_away_and_leaves_what_it_leads_to(tmp_path: Path, name: str) -> None:
    own = mine(tmp_path)
    before = tree(own)
    store = CheckpointStore(tmp_path / "checkpoints", keep=1, best=tmp_path / "best")
    with store:
        store.save(a_snapshot(1), is_best=True)
    (tmp_path / name).symlink_to(own)
    with store:
        store.save(a_snapshot(2), is_best=True)
        store.save(a_snapshot(3), is_best=True)
    assert store.newest() and not is_link(tmp_path / name)
    assert [path.name for path in store.steps()] == ["step-00000003"]
    assert tree(own) == before


def test_a_checkpoint_that_is_a_link_is_rotated_without_what_it_leads_to(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    with store:
        store.save(a_snapshot(1))
    moved = (tmp_path / "checkpoints" / "step-00000001").rename(tmp_path / "moved")
    (tmp_path / "checkpoints" / "step-00000001").symlink_to(moved)
    before = tree(moved)
    with store:
        store.save(a_snapshot(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert tree(moved) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_record_is_opened_through_no_link(tmp_path: Path, is_there: bool) -> None:
    target = tmp_path / "mine.txt"
    if is_there:
        target.write_bytes(b"no line end")
    (tmp_path / "metrics.jsonl").symlink_to(target)
    with pytest.raises(HairpinError, match=r"metrics\.jsonl: cannot be written"):
        Record(tmp_path / "metrics.jsonl").write(events.Start(1.0, "x", ()))
    if is_there:
        with pytest.raises(OSError, match="symbolic links"):
            truncate_record(tmp_path / "metrics.jsonl", 0, tmp_path / "discarded")
        assert target.read_bytes() == b"no line end"
    assert target.exists() == is_there


def test_the_cache_forgets_an_old_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    own, cache = mine(tmp_path), tmp_path / "cache"
    cache.mkdir()
    (cache / ".abc-1").symlink_to(own)
    (cache / ".abc-2").mkdir()
    for path in (cache / ".abc-1", cache / ".abc-2", own):
        os.utime(path, (1.0, 1.0), follow_symlinks=False)
    before = tree(own)
    shards._remove_stale(cache)
    assert not list(cache.iterdir()) and tree(own) == before


# --- the helpers ---


def test_what_is_removed_is_the_link(tmp_path: Path) -> None:
    own = mine(tmp_path)
    before = tree(own)
    for target in (own, own / "notes.txt", tmp_path / "nowhere"):
        (tmp_path / "link").symlink_to(target)
        assert is_link(tmp_path / "link") and not is_link(target)
        remove(tmp_path / "link")
        assert not os.path.lexists(tmp_path / "link")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").symlink_to(own)
    remove(folder)
    remove(folder)  # it is gone already
    assert not folder.exists() and tree(own) == before


def test_what_is_written_replaces_a_link(tmp_path: Path) -> None:
    own = mine(tmp_path)
    before = tree(own)
    (tmp_path / "file").symlink_to(own / "notes.txt")
    write_atomically(tmp_path / "file", b"new")
    assert not is_link(tmp_path / "file") and (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / ".tmp-folder").symlink_to(own)
    with new_folder(tmp_path / "folder") as made:
        (made / "file").write_bytes(b"new")
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"
    assert tree(own) == before


def test_a_temporary_file_that_is_there_is_replaced_and_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be guessed: of the file, the process and the thread."""
    monkeypatch.setattr("threading.get_ident", lambda: 7)
    planted = tmp_path / f".tmp-file-{os.getpid()}-7"
    own = mine(tmp_path)
    before = tree(own)
    plants: list[Callable[[], Any]] = [
        lambda: planted.symlink_to(own / "notes.txt"),
        lambda: planted.hardlink_to(own / "notes.txt"),
        lambda: planted.write_text("half", encoding="utf-8"),
        planted.mkdir,
    ]
    for plant in plants:
        plant()
        write_atomically(tmp_path / "file", b"new")
        assert (tmp_path / "file").read_bytes() == b"new"
        assert tree(own) == before and not os.path.lexists(planted)


def test_no_file_is_opened_to_be_written_through_a_link(tmp_path: Path) -> None:
    own = mine(tmp_path)
    (tmp_path / "link").symlink_to(own / "notes.txt")
    for mode in ("ab", "wb", "rb+"):
        with pytest.raises(OSError, match="symbolic links"):
            open_own(tmp_path / "link", mode)
    with pytest.raises(OSError, match="symbolic links"):
        sync_file(tmp_path / "link")
    with open_own(own / "notes.txt", "ab") as file:
        file.write(b", still")
    assert (own / "notes.txt").read_bytes() == b"mine, still"


def test_folders_are_made_and_taken_back_as_far_as_they_are_ones_own(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    made = make_folders(tmp_path / "there" / "a" / "b")
    assert made == (tmp_path / "there" / "a" / "b", tmp_path / "there" / "a")
    (tmp_path / "there" / "a" / "mine").write_text("mine", encoding="utf-8")
    unmake(made)
    assert [path.name for path in (tmp_path / "there" / "a").iterdir()] == ["mine"]
    assert make_folders(tmp_path / "there") == ()
    (tmp_path / "link").symlink_to(tmp_path / "new" / "place")
    assert len(make_folders(tmp_path / "link")) == 2 and (tmp_path / "link").is_dir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        make_folders(tmp_path / "file" / "a")
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "file")


def test_a_look_for_links_names_all_of_them_and_no_others(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "wandb").mkdir(parents=True)
    for name in ("best", "metrics.jsonl", "notes", "wandb/latest-run"):
        (run / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError) as caught:
        refuse_links(run)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        str(run / "best"),
        str(run / "metrics.jsonl"),
    ]
    refuse_links(tmp_path / "no folder")
