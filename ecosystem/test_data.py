"""Parquet, Arrow, Feather, data frames and Hugging Face's datasets, made by their own libraries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

import hairpin
from corpora import corpus_of, problem_of, texts_of
from hairpin.config.load import build_config
from hairpin.data.split import survey
from hairpin.data.tables.records import Wanted, read_records, read_rows
from hairpin.data.tables.spool import paths_of_records, spool
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.runs.watcher import Quiet
from hairpin.tasks.divided import divide_records
from helpers import some_text, tiny

TEXTS = [some_text(300, seed) for seed in range(40)]
ROWS = [{"id": number, "text": text, "meta": {"a": 1}} for number, text in enumerate(TEXTS)]


@pytest.fixture(autouse=True)
def quiet_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HAIRPIN_CACHE", str(tmp_path / "hairpin-cache"))
    datasets.disable_progress_bars()


def write_parquet(path: Path, column: Any, **options: Any) -> Path:
    table = pa.table({"id": pa.array(range(len(column))), "text": column})
    parquet.write_table(table, path, **options)
    return path


# --- Parquet ---


@pytest.mark.parametrize(
    "type_",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_strings_of_every_kind_in_several_row_groups(
    tmp_path: Path, type_: Any, compression: str
) -> None:
    column = pa.array([*TEXTS, None, ""], pa.string()).cast(type_)
    path = write_parquet(tmp_path / "a.parquet", column, row_group_size=7, compression=compression)
    assert parquet.ParquetFile(path).num_row_groups == 6
    corpus = corpus_of(path)
    assert texts_of(corpus) == TEXTS and (corpus.rows, corpus.empty) == (42, 2)
    assert (corpus.data.column, corpus.data.format) == ("text", "parquet")


def test_a_folder_of_parquet_files_is_read_in_order(tmp_path: Path) -> None:
    for number in range(4):
        texts = pa.array(TEXTS[10 * number : 10 * number + 10])
        write_parquet(tmp_path / f"train-{number:05d}.parquet", texts)
    assert texts_of(corpus_of(tmp_path)) == TEXTS
    assert texts_of(corpus_of(tmp_path / "train-0000[13].parquet")) == TEXTS[10:20] + TEXTS[30:]


def test_columns_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    nested = problem_of(lambda: texts_of(corpus_of(path, column="meta")))
    assert 'the column "meta" holds struct<a: int64>, not text' in nested
    assert 'the column "id" holds numbers' in problem_of(
        lambda: texts_of(corpus_of(path, column="id"))
    )
    assert 'did you mean "text"' in problem_of(lambda: texts_of(corpus_of(path, column="texts")))
    two = tmp_path / "b.parquet"
    parquet.write_table(pa.table({"head": ["h"], "body": ["b"]}), two)
    assert 'it has "head" (text), "body" (text)' in problem_of(lambda: corpus_of(two))
    assert texts_of(corpus_of(two, column="body")) == ["b"]


def test_what_is_not_parquet_or_cut_short_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("no Parquet at all, but long enough to look for a footer")
    assert f"{path}: is not Parquet, or is damaged" in problem_of(lambda: corpus_of(path))
    path.write_bytes(b"")
    assert f"{path}: the file is empty" in problem_of(lambda: corpus_of(path))
    write_parquet(path, pa.array(TEXTS))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not Parquet, or is damaged" in problem_of(lambda: corpus_of(path))
    path.write_bytes(whole[:50] + b"\0" * 400 + whole[450:])
    assert "is not Parquet, or is damaged" in problem_of(lambda: texts_of(corpus_of(path)))


def test_bytes_that_are_not_utf8_are_refused_or_replaced(tmp_path: Path) -> None:
    stored = pa.array([b"fine", b"a\xe9b"], pa.binary())
    column = pa.StringArray.from_buffers(2, *stored.buffers()[1:])
    path = write_parquet(tmp_path / "a.parquet", column)
    line = problem_of(lambda: texts_of(corpus_of(path)))
    assert f"{path} (row 2): byte 0xe9 at offset 1 of the text is not UTF-8" in line
    corpus = corpus_of(path, on_bad_bytes="replace")
    assert texts_of(corpus) == ["fine", "a\ufffdb"] and corpus.replaced == 1


CHATS = [
    {"id": f"x{n}", "conversations": [{"from": "human", "value": text}]}
    for n, text in enumerate(TEXTS)
]


def test_chats_and_lists_in_parquet_are_told_from_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(CHATS), path)
    assert '"conversations" holds chats, not text' in problem_of(lambda: corpus_of(path))
    rows = [{"id": f"x{n}", "url": "https://example.org", "body": t} for n, t in enumerate(TEXTS)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    corpus = corpus_of(path)
    assert corpus.data.column == "body" and texts_of(corpus) == TEXTS
    assert list(corpus.unused) == ["id", "url"]


# --- Arrow and Feather ---


def write_arrow(path: Path, table: pa.Table) -> None:
    if path.name == "stream.arrow":  # as datasets' cache has them
        with ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".arrow":
        with ipc.new_file(str(path), table.schema) as file:
            file.write_table(table, max_chunksize=7)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), compression="zstd")
    else:
        parquet.write_table(table, path)


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "a.feather", "a.pq"])
def test_arrow_and_feather_files_are_tables(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_arrow(path, pa.table({"id": list(range(42)), "text": [*TEXTS, None, ""]}))
    corpus = corpus_of(path)
    assert texts_of(corpus) == TEXTS and (corpus.rows, corpus.empty) == (42, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}: is not " in problem_of(lambda: texts_of(corpus_of(path)))
    path.write_bytes(b"")
    assert f"{path}: the file is empty" in problem_of(lambda: corpus_of(path))


# --- datasets on disk ---


def test_a_saved_dataset_is_a_table(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "saved", num_shards=3)
    corpus = corpus_of(tmp_path / "saved")
    assert texts_of(corpus) == TEXTS and corpus.data.format == "dataset"
    saved.select([5, 3, 9]).save_to_disk(tmp_path / "picked")  # its rows are named by indices
    assert texts_of(corpus_of(tmp_path / "picked")) == [TEXTS[5], TEXTS[3], TEXTS[9]]
    assert survey(corpus_of(tmp_path / "saved")).hash == survey(corpus).hash
    (tmp_path / "notes.txt").write_text("a text beside them")
    assert texts_of(corpus_of(tmp_path)) == ["a text beside them"], "tables among texts"
    assert len(texts_of(corpus_of(tmp_path, column="text"))) == 40 + 3 + 1


def test_of_several_splits_train_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    folder = tmp_path / "both"
    datasets.DatasetDict(test=whole.select(range(4)), train=whole).save_to_disk(folder)
    assert texts_of(corpus_of(folder)) == TEXTS
    assert texts_of(corpus_of(folder / "test")) == TEXTS[:4]
    datasets.DatasetDict(a=whole, b=whole).save_to_disk(tmp_path / "others")
    line = problem_of(lambda: corpus_of(tmp_path / "others"))
    assert 'no split is called train; name one of "a", "b"' in line
    datasets.DatasetDict(only=whole.select(range(2))).save_to_disk(tmp_path / "one")
    assert texts_of(corpus_of(tmp_path / "one")) == TEXTS[:2]


def test_a_saved_dataset_without_rows_is_a_line(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).select([]).save_to_disk(tmp_path / "saved")
    line = problem_of(lambda: survey(corpus_of(tmp_path / "saved")))
    assert line.startswith(f"{tmp_path / 'saved'}: ") and "no rows" in line


def test_a_damaged_dataset_is_a_line(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    assert "the saved dataset cannot be read" in problem_of(lambda: corpus_of(tmp_path / "saved"))


# --- records ---

LABELLED = [{"text": text, "label": n % 2, "score": n / 4} for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "a.feather", "a.pq", "saved"])
def test_fine_tuning_reads_what_training_reads(tmp_path: Path, name: str) -> None:
    if name == "saved":
        datasets.Dataset.from_list(LABELLED).save_to_disk(tmp_path / name, num_shards=3)
    else:
        write_arrow(tmp_path / name, pa.Table.from_pylist(LABELLED))
    rows = read_rows(tmp_path / name, ["text", "label"], ["score"])
    assert [dict(row.fields) for row in rows] == [
        {"text": row["text"], "label": str(row["label"]), "score": str(row["score"])}
        for row in LABELLED
    ]
    assert rows[4].place == f"{tmp_path / name} (row 5)"
    settings = {"finetune.kind": "classify", "start.path": "/base", "model.context": 512}
    config = build_config(flags=settings | {"data.texts": [str(tmp_path / name)]})
    found = divide_records(config, ByteTokenizer())
    assert len(found.train) + len(found.val) == 40 and found.config.data.hash
    assert divide_records(found.config, ByteTokenizer()).config == found.config


def test_records_of_data_frames_and_datasets_are_those_of_a_list() -> None:
    (expected,) = paths_of_records(LABELLED)
    table = pa.Table.from_pylist(LABELLED)
    for held in (table, table.to_pandas(), datasets.Dataset.from_list(LABELLED)):
        assert paths_of_records(held) == (expected,), type(held)
    missing = pd.DataFrame({"text": ["a", "b"], "label": pd.array([1, None], "Int64")})
    (path,) = paths_of_records(missing)
    assert [dict(row.fields) for row in read_rows(path, ["text"], ["label"])] == [
        {"text": "a", "label": "1"},
        {"text": "b", "label": ""},
    ]


def test_bytes_of_records_that_are_not_utf8_are_refused_or_replaced(tmp_path: Path) -> None:
    stored = pa.array([b"fine", b"a\xe9b"], pa.binary())
    column = pa.StringArray.from_buffers(2, *stored.buffers()[1:])
    path = write_parquet(tmp_path / "a.parquet", column)
    assert "(row 2): byte 0xe9 at offset 1" in problem_of(lambda: read_rows(path, ["text"]))
    records = read_records(path, ["text"], "replace")
    texts = [row.fields["text"] for row in records.rows(Wanted(("text",)))]
    assert texts == ["fine", "a\ufffdb"] and records.replaced == 1


# --- datasets that Python holds ---


def stream() -> Any:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS

    return datasets.IterableDataset.from_generator(rows)


def test_a_stream_a_dataset_and_a_list_are_the_same_text() -> None:
    path = spool(stream(), "text")
    assert path == spool(datasets.Dataset.from_list(ROWS), "text") == spool(TEXTS, None)
    assert texts_of(corpus_of(path)) == TEXTS
    both = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    assert 'dataset["train"]' in problem_of(lambda: spool(both, None))


@pytest.mark.parametrize("format_", ["arrow", "pandas", "numpy", "torch"])
def test_a_dataset_in_another_format_is_the_same_text(format_: str) -> None:
    dataset = datasets.Dataset.from_list(ROWS).remove_columns("meta")
    assert spool(dataset.with_format(format_), None) == spool(TEXTS, None)


def test_a_data_frame_is_its_rows() -> None:
    frame = pd.DataFrame({"n": range(len(TEXTS)), "body": TEXTS})
    expected = spool([{"body": text} for text in TEXTS], None)
    assert spool(frame, None) == spool(pa.Table.from_pandas(frame), None) == expected
    assert spool(frame["body"], None) == spool(TEXTS, None)
    missing = corpus_of(spool(pd.DataFrame({"body": ["a", None, "b"], "n": [1, 2, 3]}), None))
    assert texts_of(missing) == ["a", "b"] and (missing.rows, missing.empty) == (3, 1)


def test_a_run_on_a_stream_goes_on_and_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hairpin.run.Run.write_plots", lambda self: [])
    how = {"settings": tiny(), "watcher": Quiet(), "column": "text"}
    run = hairpin.train(stream(), out=tmp_path / "run", **how)
    again = hairpin.train(stream(), out=tmp_path / "run", or_resume=True, **how)
    assert again.path == run.path and again.summary() == run.summary()
    file = tmp_path / "same.jsonl"
    datasets.Dataset.from_list(ROWS).to_json(file)
    other = hairpin.train(file, out=tmp_path / "other", **how)
    assert run.config.data.hash == other.config.data.hash
    assert run.summary().best == other.summary().best
