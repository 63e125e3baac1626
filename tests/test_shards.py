import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.config.settings import Data
from hairpin.config.settings import Tokenizer as TokenizerSettings
from hairpin.data import bpe, encoding, shards
from hairpin.data.corpus import open_corpus
from hairpin.data.encoding import token_blocks
from hairpin.data.shards import Prepared, prepare, require_enough
from hairpin.data.split import survey
from hairpin.data.streams import (
    StreamRecord,
    StreamWriter,
    TokenStream,
    dtype_for,
    open_shards,
    write_manifest,
)
from hairpin.data.tokenizers import ByteTokenizer, Gpt2Tokenizer, train_bpe
from hairpin.errors import CorpusError, RunError

BYTES = TokenizerSettings(kind="bytes")


def folder_of(root: Path, texts: list[str]) -> Data:
    root.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        path = root / f"{number:04d}.txt"
        path.write_text(text, encoding="utf-8", newline="")
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return Data(texts=(str(root),))


def all_ids(stream: TokenStream) -> list[int]:
    ids: list[int] = stream.read(0, len(stream)).tolist()
    return ids


def problem_of(folder: Path) -> str:
    with pytest.raises((CorpusError, RunError)) as caught:
        open_shards(folder)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


# --- what is in the streams ---


def test_streams_hold_every_document_after_an_end_of_text(tmp_path: Path) -> None:
    texts = [f"Document {number}: é\r\n" + "text " * 30 for number in range(60)]
    prepared = prepare(folder_of(tmp_path / "t", texts), BYTES)
    expected: dict[bool, list[int]] = {True: [], False: []}
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()
        expected[int(digest, 16) / 2**256 < 0.1] += [256, *text.encode()]
    assert prepared.survey.split == "documents"
    assert all_ids(prepared.train) == expected[False]
    assert all_ids(prepared.val) == expected[True]
    total_bytes = sum(len(text.encode()) for text in texts)
    assert prepared.train.text_bytes + prepared.val.text_bytes == total_bytes
    assert prepared.train.text_bytes == len(prepared.train) - expected[False].count(256)
    assert prepared.train.dtype == np.uint16


def test_copies_share_a_side_and_no_document_is_on_both(tmp_path: Path) -> None:
    texts = [f"Document {number} " * 20 for number in range(80)]
    prepared = prepare(folder_of(tmp_path / "t", texts * 2), BYTES)
    sides = []
    for stream in (prepared.train, prepared.val):
        rows = "\0".join(chr(index) if index < 256 else "\0" for index in all_ids(stream))
        sides.append([row.replace("\0", "") for row in rows.split("\0\0\0") if row])
    train, val = sides
    assert not set(train) & set(val)
    assert sorted(train + val) == sorted(texts * 2)
    assert val


def test_tails_are_the_ends_of_documents(tmp_path: Path) -> None:
    text = "".join(f"Sentence {number} of a long story. " for number in range(2000))
    prepared = prepare(folder_of(tmp_path / "t", [text]), BYTES)
    assert prepared.survey.split == "tails"
    tokenizer = prepared.tokenizer
    head, tail = (tokenizer.decode(all_ids(side)) for side in (prepared.train, prepared.val))
    assert head + tail == text
    assert all_ids(prepared.val)[0] == tokenizer.end_of_text
    assert 0.09 < len(tail) / len(text) < 0.11
    assert tail[0] == " "


def test_bpe_is_learned_from_training_text_alone(tmp_path: Path) -> None:
    text = "common words here. " * 3000 + "zebra-quagga " * 300
    prepared = prepare(folder_of(tmp_path / "t", [text]), TokenizerSettings(vocabulary=400))
    tokens = [prepared.tokenizer.decode([i]) for i in range(257, prepared.tokenizer.end_of_text)]
    assert " words" in tokens
    assert not [token for token in tokens if "qu" in token]
    head, tail = (
        prepared.tokenizer.decode(all_ids(side)) for side in (prepared.train, prepared.val)
    )
    assert head + tail == text


def test_an_end_of_text_marker_in_a_text_is_ordinary(tmp_path: Path) -> None:
    text = "one<|endoftext|>two " * 200
    prepared = prepare(folder_of(tmp_path / "t", [text]), TokenizerSettings(vocabulary=300))
    eot = prepared.tokenizer.end_of_text
    assert [all_ids(side).count(eot) for side in (prepared.train, prepared.val)] == [1, 1]


def test_many_pieces_give_the_ids_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"It's line {number}; we'll see.\n\n" for number in range(40_000))
    tokenizer = train_bpe([text[:50_000]], 400)
    monkeypatch.setattr(encoding, "_BATCH_CHARS", 300_000)
    prepared = prepare(folder_of(tmp_path / "t", [text]), tokenizer)
    head = tokenizer.decode(all_ids(prepared.train))
    expected = tokenizer.encode(head).tolist()
    assert all_ids(prepared.train)[1:] == expected


def test_vocabularies_beyond_16_bits_are_stored_in_32() -> None:
    assert dtype_for(2**16) == np.dtype("<u2")
    assert dtype_for(2**16 + 1) == np.dtype("<u4")


def test_gpt2_ids_of_the_book(tmp_path: Path, verdict_file: Path, gpt2_vocabulary: Path) -> None:
    data = Data(texts=(str(verdict_file),))
    prepared = prepare(data, TokenizerSettings(kind="gpt2"))
    # 5,145 tokens in one document, two parts: two end-of-texts, and the cut changes no token.
    assert len(prepared.train) + len(prepared.val) == 5145 + 2
    assert isinstance(prepared.tokenizer, Gpt2Tokenizer)


def test_token_blocks_are_whole_documents(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "t", ["é one", "two"])
    blocks = list(token_blocks(open_corpus(data).documents(), ByteTokenizer()))
    assert [index for ids, _ in blocks for index in ids.tolist()] == [
        *(256, *"é one".encode()),
        *(256, *b"two"),
    ]
    assert [text_bytes for _, text_bytes in blocks] == [6, 3]


# --- the ring ---


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(-100, 100),
    st.integers(0, 70),
    st.sampled_from([1, 3, 4, 100]),
)
def test_reads_are_those_of_a_ring(
    sizes: list[int], start: int, count: int, shard_tokens: int
) -> None:
    folder = Path(os.environ["HAIRPIN_CACHE"], "ring")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = StreamWriter(folder, "train", np.dtype("<u2"), shard_tokens)
    ids = np.arange(sum(sizes), dtype=np.uint32) * 7
    for part in np.split(ids, np.cumsum(sizes)):
        writer.append(part, 2 * len(part))
    record = writer.close()
    assert all(file.tokens <= shard_tokens for file in record.files)
    stream = TokenStream(folder, record, np.dtype("<u2"))
    assert len(stream) == len(ids)
    assert stream.text_bytes == 2 * len(ids)
    read = stream.read(start, count)
    assert read.dtype == np.int64
    expected = np.take(ids, np.arange(start, start + count), mode="wrap")
    assert read.tolist() == expected.tolist()


def test_an_empty_stream_cannot_be_read(tmp_path: Path) -> None:
    stream = TokenStream(tmp_path, StreamRecord(0, ()), np.dtype("<u2"))
    assert len(stream) == 0
    with pytest.raises(ValueError, match="empty"):
        stream.read(0, 1)


# --- verification ---


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(folder_of(tmp_path / "t", ["some text to prepare " * 50]), BYTES)


def test_damaged_files_are_named(prepared: Prepared) -> None:
    path = prepared.folder / "train-00000.bin"
    content = path.read_bytes()
    before = all_ids(prepared.train)
    path.write_bytes(content[:-1])
    assert "train-00000.bin: has 1,8" in problem_of(prepared.folder)
    edited = bytearray(content)
    edited[10] ^= 1
    path.write_bytes(edited)
    assert "train-00000.bin: its content was changed" in problem_of(prepared.folder)
    path.write_bytes(content[:20] + np.array([257], "<u2").tobytes() + content[22:])
    line = problem_of(prepared.folder)
    assert "train-00000.bin: id 257 at byte 20 is not in the vocabulary of 257" in line
    path.unlink()
    assert "train-00000.bin: cannot be read" in problem_of(prepared.folder)
    path.write_bytes(content)
    assert all_ids(open_shards(prepared.folder).train) == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"dtype": "uint16"', '"dtype": "uint32"', "claims uint32"),
        ('"format": 1', '"format": 99', "format 99"),
        ('"vocabulary": 257', '"vocabulary": 256', "not the tokenizer that made"),
        ('"streams"', '"stream"', "is damaged"),
        ('"tokens"', '"token"', "is damaged"),
        ("{", "", "is damaged"),
    ],
)
def test_a_damaged_manifest_is_named(prepared: Prepared, old: str, new: str, reason: str) -> None:
    path = prepared.folder / "shards.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    line = problem_of(prepared.folder)
    assert reason in line
    assert str(prepared.folder) in line


def test_a_missing_manifest_or_another_tokenizer_is_named(prepared: Prepared) -> None:
    train_bpe(["other"], 300).save(prepared.folder / "tokenizer")
    assert "not the tokenizer that made the shards" in problem_of(prepared.folder)
    (prepared.folder / "tokenizer" / "hairpin.json").unlink()
    assert "hairpin.json" in problem_of(prepared.folder)
    (prepared.folder / "shards.json").unlink()
    assert "shards.json: cannot be read" in problem_of(prepared.folder)


def test_streams_may_lie_in_many_files(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    streams = {}
    for name in ("train", "val"):
        writer = StreamWriter(tmp_path, name, np.dtype("<u2"), 100)
        writer.append(np.arange(250, dtype=np.uint32), 250)
        streams[name] = writer.close()
    write_manifest(tmp_path, tokenizer, streams, data_hash="0" * 64, split="tails")
    opened = open_shards(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("train*"))] == [
        f"train-0000{number}.bin" for number in range(3)
    ]
    assert all_ids(opened.train) == list(range(250))
    assert (opened.data_hash, opened.split) == ("0" * 64, "tails")
    seen: list[int] = []
    open_shards(tmp_path, seen.append)
    assert seen == [200, 400, 500, 700, 900, 1000]


# --- the cache ---


def test_a_second_run_reads_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder_of(tmp_path / "t", ["text " * 500])
    calls: list[tuple[str, int, int]] = []
    settings = TokenizerSettings(vocabulary=300)
    first = prepare(data, settings, on_progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == [
        "reading",
        "learning vocabulary",
        "encoding",
    ]
    assert calls[-1][1:] == (2500, 2500)
    calls.clear()
    second = prepare(data, settings, on_progress=lambda *call: calls.append(call))
    assert not calls
    assert second.key == first.key
    assert all_ids(second.train) == all_ids(first.train)
    # The same content elsewhere is the same preparation.
    shutil.copytree(tmp_path / "t", tmp_path / "elsewhere")
    assert prepare(Data(texts=(str(tmp_path / "elsewhere"),)), settings).key == first.key


def test_whatever_decides_the_ids_is_in_the_key(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "t", ["text " * 500, "more " * 400])
    folder_of(tmp_path / "u", ["text " * 500, "More " * 400])
    other_tokenizer = train_bpe(["tex"], 258)
    variants: list[tuple[Data, Any]] = [
        (data, BYTES),
        (data, TokenizerSettings(vocabulary=300)),
        (data, TokenizerSettings(vocabulary=301)),
        (data, other_tokenizer),
        (data.model_copy(update={"validation_fraction": 0.2}), BYTES),
        (data.model_copy(update={"separator": "re"}), BYTES),
        (Data(texts=(str(tmp_path / "u"),)), BYTES),
    ]
    keys = [prepare(*variant).key for variant in variants]
    assert len(set(keys)) == len(keys)
    chosen = prepare(data, TokenizerSettings()).key
    assert chosen == prepare(data, TokenizerSettings(vocabulary=512)).key


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "t", [f"text {number} " * 99 for number in range(20)])
    contents = []
    for name in ("one", "two"):
        prepared = prepare(data, TokenizerSettings(vocabulary=300), cache=tmp_path / name)
        files = sorted(path for path in prepared.folder.rglob("*") if path.is_file())
        contents.append([(path.name, path.read_bytes()) for path in files])
    assert contents[0] == contents[1]
    names = ["shards.json", "hairpin.json", "tokenizer.json", "train-00000.bin", "val-00000.bin"]
    assert [name for name, _ in contents[0]] == names


@pytest.mark.parametrize("name", ["train-00000.bin", "shards.json", "tokenizer/hairpin.json"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, name: str) -> None:
    data = folder_of(tmp_path / "t", ["text " * 500])
    first = prepare(data, BYTES)
    before = all_ids(first.train)
    (first.folder / name).write_bytes(b"damaged")
    assert all_ids(prepare(data, BYTES).train) == before
    (first.folder / name).unlink()
    assert all_ids(prepare(data, BYTES).train) == before
    assert [path.name for path in first.folder.parent.iterdir()] == [first.key]


def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, hairpin_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "t", ["text " * 500])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StreamWriter, "append", full)
    with pytest.raises(CorpusError, match=r"No space left on device.*HAIRPIN_CACHE"):
        prepare(data, BYTES)
    assert not list((hairpin_cache / "shards").iterdir())


def test_what_a_killed_process_left_is_removed_a_day_later(
    tmp_path: Path, hairpin_cache: Path
) -> None:
    old, young = (hairpin_cache / "shards" / name for name in (".aaaa-old", ".aaaa-young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (1_000_000_000, 1_000_000_000))
    prepare(folder_of(tmp_path / "t", ["text " * 50]), BYTES)
    assert not old.exists()
    assert young.exists()


def test_too_little_space_is_said_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 10))
    with pytest.raises(CorpusError, match=r"0\.0 GB are free.*HAIRPIN_CACHE"):
        prepare(folder_of(tmp_path / "t", ["text"]), BYTES)


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusError, match=r"cannot be written.*HAIRPIN_CACHE"):
        prepare(folder_of(tmp_path / "t", ["text"]), BYTES, cache=tmp_path / "file")


def test_text_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "t", ["text " * 500])
    found = survey(open_corpus(data))
    stale = [
        dataclasses.replace(found, hash="0" * 64),
        dataclasses.replace(found, documents=0),
    ]
    for outdated in stale:
        monkeypatch.setattr(shards, "survey", lambda *_, found=outdated, **__: found)
        for tokenizer in (BYTES, TokenizerSettings(vocabulary=300)):
            with pytest.raises(CorpusError, match="changed while it was read"):
                prepare(data, tokenizer)
    assert not list(Path(os.environ["HAIRPIN_CACHE"]).rglob("*.npz"))  # it would be stale again


def _prepare_elsewhere(texts: tuple[str, ...], cache: str) -> str:
    return prepare(Data(texts=texts), BYTES, cache=Path(cache)).key


@pytest.mark.slow
def test_processes_may_race(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "t", ["text " * 40_000])
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        jobs = [(data.texts, str(tmp_path / "cache"))] * 6
        keys = pool.starmap(_prepare_elsewhere, jobs, chunksize=1)
        pool.close()
        pool.join()
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "cache" / "shards").iterdir()] == [keys[0]]


def test_the_loser_of_a_race_uses_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "t", ["text " * 400])
    real_write = shards._write

    def lose(folder: Path, job: Any, tokenizer: Any) -> None:
        real_write(folder, job, tokenizer)
        monkeypatch.setattr(shards, "_write", real_write)
        winner = prepare(data, BYTES)
        (winner.folder / "winner").touch()

    monkeypatch.setattr(shards, "_write", lose)
    assert (prepare(data, BYTES).folder / "winner").exists()


# --- enough text ---


def test_enough_text() -> None:
    require_enough(train_tokens=129, val_tokens=2, context=128)
    with pytest.raises(CorpusError) as caught:
        require_enough(train_tokens=128, val_tokens=1, context=128)
    train, val = caught.value.problems
    assert "128 tokens found, 129 needed" in train
    assert "--set model.context=127" in train
    assert "1 tokens found, 2 needed" in val
    with pytest.raises(CorpusError, match="add text"):
        require_enough(train_tokens=2, val_tokens=2, context=128)


def test_a_tiny_text_is_prepared_and_then_refused(tmp_path: Path) -> None:
    prepared = prepare(folder_of(tmp_path / "t", ["hi"]), TokenizerSettings())
    with pytest.raises(CorpusError) as caught:
        require_enough(len(prepared.train), len(prepared.val), 64)
    assert len(caught.value.problems) == 2


def test_the_sample_for_learning_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "TRAINING_BYTES", 10_000)
    texts = [f"text number {number} " * 50 for number in range(100)]
    calls: list[tuple[str, int, int]] = []
    prepare(
        folder_of(tmp_path / "t", texts),
        TokenizerSettings(vocabulary=300),
        on_progress=lambda *call: calls.append(call),
    )
    learned = [done for stage, done, _ in calls if stage == "learning vocabulary"]
    assert 8_000 < learned[-1] <= 10_000


def test_the_manifest_is_plain_json(prepared: Prepared) -> None:
    manifest = json.loads((prepared.folder / "shards.json").read_text())
    (train,) = manifest["streams"]["train"]["files"]
    content = (prepared.folder / train["name"]).read_bytes()
    assert train["sha256"] == hashlib.sha256(content).hexdigest()
    assert train["tokens"] * 2 == len(content)
    assert manifest["data_hash"] == prepared.survey.hash
