"""What goes wrong elsewhere, shown not to go wrong here: as people meet it who type commands."""

import codecs
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hairpin import api
from hairpin.data.streams import dtype_for, open_shards
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import ConfigError
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.schedules.curves import CURVES
from helpers import TINY, TINY_FLAGS, Hairpin, some_text, text_file


def trained(folder: Path, name: str = "run", **changed: Any) -> Run:
    """A tiny run, with a few settings changed."""
    dotted = {key.replace("__", "."): value for key, value in changed.items()}
    return api.train(
        text_file(folder), out=folder / name, settings={**TINY, **dotted}, watcher=Quiet()
    )


# --- the ends of a schedule ---


@pytest.mark.parametrize("kind", CURVES)
def test_every_schedule_starts_above_zero_reaches_its_peak_and_ends_where_it_says(
    kind: str,
) -> None:
    accepted = 0
    for updates in range(1, 26):
        for warmup in range(26):
            settings = {
                "schedule.kind": kind,
                "train.updates": updates,
                "schedule.warmup_updates": warmup,
                "schedule.peak_lr": 0.01,
                "schedule.cycles": 2,
            }
            if CURVES[kind].decays:
                settings["schedule.min_lr"] = 1e-5
            try:
                curve = api.schedule(settings=settings)
            except ConfigError as error:
                assert all(line and "\n" not in line for line in error.problems)
                assert updates - warmup < 20  # what is refused leaves the curve no room
                continue
            accepted += 1
            lr = [curve(update) for update in range(updates)]
            assert lr[0] > 0
            assert max(lr) == lr[warmup] == 0.01
            if CURVES[kind].decays:
                assert lr[-1] == 1e-5
    assert accepted > 200


def test_a_run_uses_the_whole_curve(tmp_path: Path) -> None:
    run = trained(tmp_path, schedule__min_lr=1e-4)
    lr = [event["lr"] for event in run.record() if event["event"] == "update"]
    # By hand: 12 updates, 3 of warmup from a third of the peak; then half a cosine.
    assert lr[:4] == pytest.approx([0.01 / 3, 0.01 * 5 / 9, 0.01 * 7 / 9, 0.01], rel=1e-12)
    assert lr[3] == 0.01
    assert lr[-1] == 1e-4
    assert all(after < before for before, after in itertools.pairwise(lr[3:]))


def test_a_warmup_that_leaves_no_room_is_refused_before_anything_is_made(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    pair = ["--updates", "10", "--set", "schedule.warmup_updates=9"]
    for arguments in (["schedule", *pair], ["train", text_file(tmp_path), "--size", "nano", *pair]):
        line = hairpin(*arguments).refusal
        assert "schedule.warmup_updates: 9 of 10 updates leave 1 for cosine" in line
        assert "needs 2 or more" in line
    assert not (tmp_path / "runs").exists()


# --- train on my text ---


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_train_takes_a_file_or_a_folder_and_no_flag(
    hairpin: Hairpin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("hairpin.launch.request.DEFAULT_BUDGET", "2s")
    text = text_file(tmp_path, 20_000)
    if kind == "folder":
        folder = tmp_path / "texts"
        for number in range(20):
            path = folder / str(number % 3) / f"{number}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(some_text(1500, seed=number), encoding="utf-8")
        text = folder
    done = hairpin("train", text.name)
    assert (done.code, done.err) == (0, "")
    run = api.load()
    assert run.path == Path("runs", f"{text.stem}-1")
    assert run.summary().status == "finished"
    assert hairpin("sample", "--tokens", "5").code == 0


# --- tiny and oddly encoded files ---


def test_too_little_text_says_how_much_there_is_is_needed_and_what_would_fit(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    text = text_file(tmp_path, 300)
    flags = [*TINY_FLAGS, "--set", "model.context=512", "--set", "train.tokens_per_update=512"]
    line = hairpin("train", text, *flags).refusal
    found = re.fullmatch(
        r"too little training text: (\d+) tokens found, 513 needed for a context of 512; "
        r"add text, or use --set model\.context=(\d+)",
        line,
    )
    assert found, line
    present, fitting = int(found[1]), int(found[2])
    # By hand: nine tenths of the bytes, and an end-of-text.
    assert abs(present - 0.9 * len(text.read_bytes())) < 35
    # What it says does fit, and one more does not.
    for context, code in ((fitting, 0), (fitting + 1, 2)):
        size = ["--set", f"model.context={context}", "--set", f"train.tokens_per_update={context}"]
        assert hairpin("train", text, *TINY_FLAGS, *size, "--updates", "5").code == code


@pytest.mark.parametrize("content", [b"", b"\n", b"a", "\u00e9".encode(), codecs.BOM_UTF8])
def test_next_to_no_text_at_all_is_refused(
    hairpin: Hairpin, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "tiny.txt").write_bytes(content)
    done = hairpin("train", "tiny.txt", "--size", "nano", "--updates", "5")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("hairpin: ")
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs").exists()


def test_a_bad_byte_is_reported_with_its_file_and_offset(hairpin: Hairpin, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.txt").write_text(some_text())
    good = some_text().encode()[:5000]
    (folder / "latin1.txt").write_bytes(good + b"caf\xe9 noir" + good)
    line = hairpin("train", folder, *TINY_FLAGS).refusal
    assert "latin1.txt" in line
    assert f"{len(good) + 3:,}" in line or str(len(good) + 3) in line
    assert "data.on_bad_bytes=replace" in line
    assert hairpin("train", folder, *TINY_FLAGS, "--data.on_bad_bytes=replace").code == 0


def test_text_in_another_encoding_says_which(hairpin: Hairpin, tmp_path: Path) -> None:
    (tmp_path / "wide.txt").write_bytes(some_text().encode("utf-16-le"))
    line = hairpin("train", "wide.txt", *TINY_FLAGS).refusal
    assert "wide.txt" in line
    assert "UTF-16" in line


# --- a run and its tokenizer ---


def test_a_run_needs_nothing_outside_it_to_write(
    hairpin: Hairpin, tmp_path: Path, hairpin_cache: Path
) -> None:
    trained(tmp_path, tokenizer__kind="bpe", tokenizer__vocabulary=300)
    before = hairpin("sample", "run", "--prompt", "the", "--tokens", "9")
    assert before.code == 0
    (tmp_path / "text.txt").unlink()
    shutil.rmtree(hairpin_cache)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert hairpin("sample", "moved", "--prompt", "the", "--tokens", "9") == before


@pytest.mark.parametrize("damage", ["another's", "changed", "missing"])
def test_a_tokenizer_that_does_not_belong_to_the_run_is_refused(
    hairpin: Hairpin, tmp_path: Path, damage: str
) -> None:
    run = trained(tmp_path, tokenizer__kind="bpe", tokenizer__vocabulary=300)
    file = run.path / "tokenizer" / "tokenizer.json"
    if damage == "another's":
        other = trained(tmp_path, "other", tokenizer__kind="bpe", tokenizer__vocabulary=310)
        shutil.rmtree(run.path / "tokenizer")
        shutil.copytree(other.path / "tokenizer", run.path / "tokenizer")
    elif damage == "changed":
        file.write_text(file.read_text().replace('"merges"', '"merges" '))
    else:
        file.unlink()
    for arguments in (["sample", "run", "--prompt", "a"], ["evaluate", "run", "text.txt"]):
        assert "tokenizer" in hairpin(*arguments).refusal


def test_a_config_that_does_not_belong_to_the_weights_is_refused(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    config = trained(tmp_path).path / "config.toml"
    config.write_text(config.read_text().replace("width = 16", "width = 32"))
    assert "config.toml" in hairpin("sample", "run", "--prompt", "a").refusal


def test_a_tokenizer_of_equal_size_from_another_run_is_refused(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    run = trained(tmp_path, tokenizer__kind="bpe", tokenizer__vocabulary=300)
    other_text = tmp_path / "other.txt"
    other_text.write_text(some_text(seed=9).upper())
    settings = {**TINY, "tokenizer.kind": "bpe", "tokenizer.vocabulary": 300}
    other = api.train(other_text, out=tmp_path / "other", settings=settings, watcher=Quiet())
    shutil.rmtree(run.path / "tokenizer")
    shutil.copytree(other.path / "tokenizer", run.path / "tokenizer")
    assert "tokenizer" in hairpin("sample", "run", "--prompt", "a").refusal


def test_ids_that_the_tokenizer_does_not_have_are_refused() -> None:
    tokenizer = ByteTokenizer()
    for ids in ([257], [-1], [65, 1000]):
        with pytest.raises(ValueError, match="is not in a vocabulary of 257"):
            tokenizer.decode(ids)


def test_the_width_of_stored_ids_follows_the_vocabulary(tmp_path: Path) -> None:
    assert [dtype_for(size) for size in (257, 2**16, 2**16 + 1)] == [
        np.dtype("<u2"),
        np.dtype("<u2"),
        np.dtype("<u4"),
    ]
    api.prepare(text_file(tmp_path), out=tmp_path / "out", overrides=["tokenizer.kind=bytes"])
    shards = open_shards(tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert 2 * len(shards.train) in sizes


# --- the network ---

_OFFLINE = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        sys.stderr.write("NETWORK " + event + "\\n")
        raise OSError("the network is blocked")

sys.addaudithook(refuse)
from hairpin.cli.main import main

for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as stop:
        sys.stdout.flush()
        sys.stderr.write("EXIT " + str(stop.code) + "\\n")
"""


def offline(folder: Path, *commands: list[str]) -> list[str]:
    """What the commands write to standard error, one process for all of them, without network."""
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE.format(commands=list(commands))],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()


def test_the_whole_flow_passes_with_the_network_blocked(tmp_path: Path) -> None:
    text_file(tmp_path, 12_000)
    lines = offline(
        tmp_path,
        ["train", "text.txt", *TINY_FLAGS, "--set", "tokenizer.kind=bpe", "--out", "run"],
        ["train", "--corpus", "python-docs", *TINY_FLAGS],
        ["sample", "run", "--prompt", "the", "--tokens", "9"],
        ["evaluate", "run", "text.txt"],
        ["prepare", "text.txt", "--out", "shards"],
        ["schedule", "--updates", "50", "--png", "lr.png"],
        ["runs"],
        ["resume"],
    )
    assert [line for line in lines if line.startswith(("EXIT", "NETWORK"))] == ["EXIT 0"] * 8


def test_what_needs_a_download_says_what_to_do_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no-vocabulary"))
    text_file(tmp_path)
    story = offline(tmp_path, ["train", "--corpus", "verdict", *TINY_FLAGS, "--out", "run"])
    assert story[-1] == "EXIT 2"
    assert "or name a text file of your own" in story[-2]
    gpt2 = ["--set", "tokenizer.kind=gpt2"]
    vocabulary = offline(tmp_path, ["train", "text.txt", *TINY_FLAGS, *gpt2, "--out", "run"])
    assert vocabulary[-1] == "EXIT 2"
    assert "--set tokenizer.kind=bpe" in vocabulary[-2]
    assert not (tmp_path / "run").exists()


# --- evaluation ---


def test_validation_loss_is_the_same_at_any_batch_size(tmp_path: Path) -> None:
    losses = []
    for micro_batch in (1, 2, 4):
        # A context that leaves the last window short, so that batches differ in their tokens.
        run = trained(
            tmp_path,
            f"run-{micro_batch}",
            execution__micro_batch=micro_batch,
            model__context=23,
            train__tokens_per_update=92,
            evaluate__tokens=10_000,
        )
        first = next(event for event in run.record() if event["event"] == "evaluation")
        losses.append((first["val_loss"], first["train_loss"], first["val_bits_per_byte"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)


def test_how_often_one_evaluates_and_samples_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path, "seldom", evaluate__every_updates=12, evaluate__sample_tokens=0),
        trained(tmp_path, "often", evaluate__every_updates=1, evaluate__sample_tokens=5),
        trained(tmp_path, "dropout", evaluate__every_updates=12, model__dropout=0.1),
        trained(tmp_path, "dropout often", evaluate__every_updates=2, model__dropout=0.1),
    ]
    for first, second in (runs[:2], runs[2:]):
        for name in ("model", "optimizer"):
            left, right = (
                (run.path / "checkpoints" / "step-00000012" / f"{name}.safetensors").read_bytes()
                for run in (first, second)
            )
            assert left == right
        losses = [
            [event["loss"] for event in run.record() if event["event"] == "update"]
            for run in (first, second)
        ]
        assert losses[0] == losses[1]
    evaluations = [[e for e in run.record() if e["event"] == "evaluation"] for run in runs]
    assert [len(made) for made in evaluations] == [2, 13, 2, 7]
    # Equal weights to begin with, and dropout is for training alone.
    assert evaluations[0][0]["val_loss"] == evaluations[2][0]["val_loss"]


# --- misspelled settings ---


def test_a_misspelled_setting_is_refused_wherever_it_is_written(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    text = text_file(tmp_path)
    (tmp_path / "mine.toml").write_text("[schedule]\nwarmup_update = 10\n")
    for arguments in (
        ["--config", "mine.toml"],
        ["--set", "schedule.warmup_update=10"],
        ["--schedule.warmup_update", "10"],
        ["--schedule.warmup_update=10"],
    ):
        line = hairpin("train", text, "--size", "nano", *arguments).refusal
        expected = "schedule.warmup_update: unknown key; did you mean schedule.warmup_updates?"
        assert line == expected
    assert not (tmp_path / "runs").exists()


# --- documents ---


def documents_in(ids: np.ndarray[Any, np.dtype[Any]]) -> list[bytes]:
    """What lies between the end-of-texts of a stream of bytes."""
    starts = np.flatnonzero(ids == 256)
    assert starts[0] == 0
    return [bytes(part[1:].astype(np.uint8)) for part in np.split(ids, starts[1:])]


def test_documents_are_divided_by_end_of_text_and_none_is_on_both_sides(
    hairpin: Hairpin, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    texts = {f"{number:02}.txt": some_text(400, seed=number) for number in range(40)}
    texts |= {f"copy-{name}": text for name, text in list(texts.items())[:10]}
    texts["literal.txt"] = "before <|endoftext|> after"
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    flags = ["--set", "tokenizer.kind=bytes", "--set", "data.split=documents"]
    flags += ["--set", "data.validation_fraction=0.3"]
    assert hairpin("prepare", folder, *flags, "--out", "shards").code == 0
    shards = open_shards(tmp_path / "shards")
    train, val = (
        documents_in(stream.read(0, len(stream))) for stream in (shards.train, shards.val)
    )
    assert sorted(train + val) == sorted(text.encode() for text in texts.values())
    assert not set(train) & set(val)
    assert val


def test_the_record_is_strict_json(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    for line in trained(tmp_path).directory.metrics.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=refuse)
