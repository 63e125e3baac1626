"""`hairpin verify`: what is damaged is named, and a proof that can fail."""

import json
import shutil
from pathlib import Path

import pytest

import hairpin as package
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.doctor.verify_resume import compare
from hairpin.run import Run
from hairpin.runs.folder import RunDirectory
from hairpin.runs.watcher import Quiet
from helpers import TINY_FLAGS, Hairpin, text_file, tiny


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(Run, "write_plots", lambda self: [])
    return package.train(
        text_file(tmp_path), out=tmp_path / "run", settings=tiny(), watcher=Quiet()
    )


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_whole_run_passes_and_nothing_in_it_changes(hairpin: Hairpin, run: Run) -> None:
    before = contents(run.path)
    done = hairpin("verify", run.path)
    assert done.code == 0 and done.err == ""
    for what in ("step-00000012", "best", "config.toml", "tokenizer", "metrics.jsonl"):
        assert any(what in line and "intact" in line for line in done.out.splitlines()), what
    assert contents(run.path) == before


FILES = [
    "checkpoints/step-00000008/model.safetensors",
    "checkpoints/step-00000012/optimizer.safetensors",
    "checkpoints/step-00000012/config.toml",
    "checkpoints/step-00000004/manifest.json",
    "best/model.safetensors",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_each_damaged_file_is_named(hairpin: Hairpin, run: Run, name: str, damage: str) -> None:
    path = run.path / name
    content = bytearray(path.read_bytes())
    path.unlink()  # `best` is a link to the same bytes
    if damage == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    done = hairpin("verify", run.path)
    assert done.code == 1
    assert name in done.err and len(done.err.splitlines()) == 1
    assert done.out.count("DAMAGED") == 1


def test_a_damaged_tokenizer_config_and_record_are_named(hairpin: Hairpin, run: Run) -> None:
    (run.path / "tokenizer" / "hairpin.json").write_text("{}", encoding="utf-8")
    config = run.directory.config
    config.write_text(
        config.read_text(encoding="utf-8").replace("seed = 5", "seed = 6"), encoding="utf-8"
    )
    lines = run.directory.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if '"update": 3' in line)
    lines.insert(place, lines[place])
    run.directory.metrics.write_text("".join(lines), encoding="utf-8")
    done = hairpin("verify", run.path, "--json")
    assert done.code == 1
    assert "tokenizer" in done.err and "train.seed is 6 but was 5" in done.err
    assert "update 3 instead of 4" in done.err
    found = {finding["what"]: finding for finding in json.loads(done.out)["findings"]}
    assert found["config.toml"]["problems"] and not found["best"]["problems"]


def test_what_was_set_aside_is_listed_and_no_problem(hairpin: Hairpin, run: Run) -> None:
    steps = run.directory.checkpoints
    shutil.copytree(steps / "step-00000012", steps / ".bad-step-00000013-1")
    (run.path / "metrics.discarded-1.jsonl").write_bytes(b"")
    done = hairpin("verify", run.path)
    assert done.code == 0
    assert ".bad-step-00000013-1" in done.out and "metrics.discarded-1.jsonl" in done.out


def test_two_runs_are_compared_to_the_bit(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "other")
    other = RunDirectory(tmp_path / "other")
    (tensors, updates), differences = compare(run.directory, other)
    assert differences == () and tensors > 20 and updates == 12

    checkpoint = CheckpointStore(other.checkpoints).newest()
    assert checkpoint
    groups = {
        name.removesuffix(".safetensors"): checkpoint.tensors(name.removesuffix(".safetensors"))
        for name in checkpoint.manifest["files"]
        if name.endswith(".safetensors")
    }
    weight = groups["model"]["final_norm.weight"]
    weight.view(-1)[3] = weight.view(-1)[3].nextafter(weight.new_tensor(9.0))
    store = CheckpointStore(other.checkpoints)
    store.save(Snapshot(13, groups, checkpoint.values()))
    store.finish()
    lines = other.metrics.read_text(encoding="utf-8")
    other.metrics.write_text(lines.replace('"clipped": true', '"clipped": false', 1))
    _, differences = compare(run.directory, other)
    assert len(differences) == 2
    assert differences[0].startswith("model: final_norm.weight: differs by up to ")
    assert "clipped is True uninterrupted, False with" in differences[1]


@pytest.mark.slow
def test_exact_resume_is_shown_on_this_machine(hairpin: Hairpin, tmp_path: Path) -> None:
    short = ("--set", "checkpoint.keep=3", "--updates", "12")
    assert hairpin("train", text_file(tmp_path), *TINY_FLAGS, *short, "--out", "run").code == 0
    done = hairpin(
        "verify", "--resume", "run/config.toml", "--updates", "60", "--kills", "2", "--json"
    )
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["differences"] == [] and len(shown["kills"]) == 2
    for kill in shown["kills"]:
        assert 0 <= kill["went_on_from"] <= kill["after"] <= 60
        assert kill["seconds_to_update"] > 0


def test_a_config_that_cannot_be_is_refused_before_anything_is_trained(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("[train]\nupdate = 3\n", encoding="utf-8")
    done = hairpin("verify", "--resume", "c.toml")
    assert done.code == 2 and "train.update: unknown key" in done.refusal
