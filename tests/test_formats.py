import codecs
import csv
import gzip
import io
import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpora import corpus_of, problem_of, texts_of
from hairpin.config.formats import TABLES, format_of
from hairpin.data import reading
from hairpin.data.split import survey
from hairpin.data.tables import csv as csv_tables
from hairpin.data.tables import table as tables
from hairpin.data.tables.csv import Csv, Tsv
from hairpin.data.tables.json import JsonArray, JsonLines
from hairpin.data.tables.spool import spool
from hairpin.data.tables.table import open_table
from helpers import TINY_FLAGS, Hairpin, some_text

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "The first text.\nIn two lines, with a comma.", "title": "one"},
    {"id": 2, "text": 'A "quoted" word; été 🌙.', "title": "two"},
    {"id": 3, "text": "", "title": "three"},
    {"id": 4, "text": "The last one.\n", "title": "four"},
]
TEXTS = [row["text"] for row in ROWS if row["text"]]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "a.jsonl": as_lines,
    "a.ndjson": as_lines,
    "a.json": lambda rows: json.dumps(rows, indent=2),
    "a.csv": as_csv,
    "semicolons.csv": lambda rows: as_csv(rows, ";"),
}


def write(path: Path, text: str) -> Path:
    """The text in a file, packed as the file's name says."""
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- rows are documents ---


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", WRITERS)
def test_each_row_is_a_document_and_empty_ones_are_counted(
    tmp_path: Path, name: str, packed: str
) -> None:
    corpus = corpus_of(write(tmp_path / (name + packed), WRITERS[name](ROWS)))
    assert corpus.data.column == "text"
    assert corpus.data.format == {"a.ndjson": "jsonl"}.get(name, name.rpartition(".")[2])
    assert texts_of(corpus) == TEXTS
    assert (corpus.rows, corpus.empty) == (4, 1)


def test_a_tsv_has_a_record_a_line_and_quotes_are_text(tmp_path: Path) -> None:
    content = 'text\tid\nsay "yes" twice\t1\r\n"a ""whole"" cell"\t2\n'
    assert texts_of(corpus_of(write(tmp_path / "a.tsv", content))) == [
        'say "yes" twice',
        'a "whole" cell',
    ]


WITH_BREAKS = ["one\ntwo", 'said "yes"\r\nand\tleft', '"', "plain", "", '"\n"', "a\n\nb"]


@pytest.mark.parametrize("columns", [["text"], ["text", "id"], ["id", "text"]])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_tsv_of_a_csv_writer_may_have_line_breaks_in_its_cells(
    tmp_path: Path, columns: list[str], quoting: Any, end: str
) -> None:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(
        file, columns, delimiter="\t", quoting=quoting, lineterminator=end, extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows({"text": text, "id": n} for n, text in enumerate(WITH_BREAKS))
    expected = [text for text in WITH_BREAKS if text]
    path = write(tmp_path / "a.tsv", file.getvalue())
    assert texts_of(corpus_of(path)) == expected
    table = Tsv(path, "error")
    table.blocks = lambda: in_blocks(file.getvalue(), 5)  # type: ignore[method-assign]
    assert [text for _, text in table.texts("text") if text] == expected


@pytest.mark.parametrize(
    "lines",
    [
        ['"and left', "whole"],
        ['"and left', 'said "so"', 'came back"'],  # a quote inside of a plain cell
        ['"Hello" he said', '"and', 'left"'],  # one that does not end its cell
        ['5" pipe', '6" pipe'],
        ["plain", 'the last "'],
    ],
)
def test_a_quote_in_a_tsv_that_nobody_quoted_is_text(tmp_path: Path, lines: list[str]) -> None:
    content = "id\ttext\n" + "".join(f"{n}\t{line}\n" for n, line in enumerate(lines))
    assert texts_of(corpus_of(write(tmp_path / "a.tsv", content))) == lines


def test_the_rows_of_a_long_tsv_are_found_where_its_quotes_begin_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_tables, "_SAMPLE_CHARS", 200)
    rows = [("x" * 50, "y")] * 9 + [('a "b"', "z")] * 9 + [("c\nd", "e"), ("f", "g")]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t").writerows([("text", "id"), *rows])
    table = Tsv(write(tmp_path / "a.tsv", file.getvalue()), "error")
    assert [text for _, text in table.texts("text")] == [text for text, _ in rows]
    places = [place.rpartition(":")[2] for place, _ in table.texts("text")]
    assert places == [str(n) for n in range(2, 21)] + ["22"]


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_the_delimiter_is_the_one_that_is_named_or_that_the_header_has(
    tmp_path: Path, packed: str
) -> None:
    for content in (
        "id|body\n1|a, b; c\n2|d\n",
        'sep=;\r\nid;body\r\n1;"a, b; c"\r\n2;d\r\n',
        '"sep=;"\nid;body\n1;"a, b; c"\n2;d\n',
        "sep=|\nid|body\n1|a, b; c\n2|d\n",
        "sep=\t\nid\tbody\n1\ta, b; c\n2\td\n",
        'SEP=,\nid,body\n1,"a, b; c"\n2,d\n',
    ):
        corpus = corpus_of(write(tmp_path / f"a.csv{packed}", content))
        assert texts_of(corpus) == ["a, b; c", "d"], content
    named = write(tmp_path / "t.tsv", "sep=\t\nid\tbody\n1\ta, b; c\n2\td\n")
    assert texts_of(corpus_of(named)) == ["a, b; c", "d"]
    other = write(tmp_path / "o.csv", "id^body\n1^a, b\n")
    assert "a first line such as sep=^" in problem_of(lambda: texts_of(corpus_of(other)))
    ragged = write(tmp_path / "b.csv", "sep=;\nid;body\n1;a\n2\n")
    assert problem_of(lambda: texts_of(corpus_of(ragged))).startswith(f"{ragged}:4: 1 cell")
    assert texts_of(corpus_of(write(tmp_path / "c.csv", "text\nsep=;\n"))) == ["sep=;"]


def test_null_missing_and_empty_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"text": None}, {"text": "kept"}, {"other": 1}, {"text": ""}]
    corpus = corpus_of(write(tmp_path / "a.jsonl", as_lines(rows)))
    found = survey(corpus)
    assert (found.documents, found.rows, found.empty) == (1, 4, 3)


def test_the_same_rows_have_the_same_hash_in_every_format(tmp_path: Path) -> None:
    hashes = {
        survey(corpus_of(write(tmp_path / name, make(ROWS)))).hash for name, make in WRITERS.items()
    }
    for number, text in enumerate(TEXTS):
        write(tmp_path / "texts" / f"{number}.txt", text)
    hashes.add(survey(corpus_of(tmp_path / "texts")).hash)
    assert len(hashes) == 1


def test_a_survey_is_kept_and_made_anew_where_another_column_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_lines(ROWS))
    by_text, by_title = survey(corpus_of(path)), survey(corpus_of(path, column="title"))
    assert by_text == survey(corpus_of(path)) == survey(corpus_of(path, column="text"))
    assert by_title.documents == 4 and by_title.hash != by_text.hash


@pytest.mark.parametrize("name", TABLES)
def test_each_format_names_its_reader_and_suffixes_of_its_own(tmp_path: Path, name: str) -> None:
    suffixes = [suffix for table in TABLES.values() for suffix in table.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert open_table(tmp_path / "a", name, "error").name == str(tmp_path / "a")
    for suffix in TABLES[name].suffixes:
        for packed in ("", ".gz", ".ZST"):
            assert format_of(Path(f"a.b{suffix.upper()}{packed}")) == name


# --- which column ---


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": 1, "body": "b"}, {"id": 2, "body": "c"}],
        [{"n": 0.5, "body": "b", "flag": True}],
        [{"body": None, "n": 1}, {"body": "b", "n": 2}],
    ],
)
def test_without_a_text_column_the_only_one_of_texts_is_read(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    for name in ("a.jsonl", "a.json"):
        assert corpus_of(write(tmp_path / name, WRITERS[name](rows))).data.column == "body"
    if "flag" not in rows[0]:
        assert corpus_of(write(tmp_path / "a.csv", as_csv(rows))).data.column == "body"


@pytest.mark.parametrize("name", WRITERS)
def test_an_open_choice_of_columns_lists_them(tmp_path: Path, name: str) -> None:
    rows = [{"id": 1, "head": "h", "body": "b"}]
    line = problem_of(lambda: corpus_of(write(tmp_path / name, WRITERS[name](rows))))
    assert "several columns hold text; name one with --column" in line
    assert '"id" (' in line and '"head" (text), "body" (text)' in line
    path = tmp_path / name
    assert texts_of(corpus_of(path, column="body")) == ["b"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, WRITERS[name](ROWS))
    line = problem_of(lambda: texts_of(corpus_of(path, column="txt")))
    assert line.startswith(f'{path}: no column "txt" (did you mean "text" for "txt"?)')
    assert 'it has "id", "text", "title"' in line


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_of_numbers_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, WRITERS[name](ROWS))
    line = problem_of(lambda: texts_of(corpus_of(path, column="id")))
    assert 'the column "id" holds numbers, not text; name another with --column' in line
    only = write(tmp_path / f"only-{name}", WRITERS[name]([{"n": 1, "m": 2.5}]))
    assert "no column holds text" in problem_of(lambda: corpus_of(only))


def test_files_of_a_corpus_have_the_column_of_the_first(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", as_lines([{"body": "b"}]))
    write(tmp_path / "b.jsonl", "")  # a shard that a filter left empty
    second = write(tmp_path / "c.jsonl", as_lines([{"content": "c"}]))
    assert f'{second}: no column "body"' in problem_of(lambda: texts_of(corpus_of(tmp_path)))


# --- folders, patterns, formats by name ---


def test_a_folders_texts_are_its_text_and_tables_where_a_column_is_named(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.txt", "plain")
    write(tmp_path / "b" / "b.jsonl.gz", as_lines([{"text": "row"}]))
    write(tmp_path / "c.json", json.dumps([{"text": "record"}]))
    write(tmp_path / "package.json", '{"name": "settings, and no rows"}')
    texts = ["plain", '{"name": "settings, and no rows"}']
    assert texts_of(corpus_of(tmp_path)) == texts
    corpus = corpus_of(tmp_path, column="text")
    assert texts_of(corpus) == ["plain", "row", "record", texts[1]]
    assert (corpus.data.column, corpus.data.format) == ("text", None)


def test_a_format_that_is_named_is_of_all_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", as_lines([{"text": "row"}]))
    assert texts_of(corpus_of(path, format="jsonl")) == ["row"]
    assert texts_of(corpus_of(path, format="text")) == ['{"text": "row"}\n']
    write(tmp_path / "readme.md", "no row")
    write(tmp_path / "b.jsonl", as_lines([{"text": "other"}]))
    assert texts_of(corpus_of(tmp_path, format="jsonl")) == ["other"]
    assert len(texts_of(corpus_of(tmp_path, format="text"))) == 3


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a/deep/1.jsonl", "a/0.jsonl.gz", "a/no.txt"):
        write(tmp_path / name, as_lines([{"text": name}]))
    assert texts_of(corpus_of(tmp_path / "**" / "*.jsonl*")) == [
        "a/0.jsonl.gz",
        "a/deep/1.jsonl",
        "b/2.jsonl",
    ]
    assert texts_of(corpus_of(tmp_path / "b*")) == ["b/2.jsonl"]
    line = problem_of(lambda: corpus_of(tmp_path / "*.parquet"))
    assert line.startswith(f"{tmp_path / '*.parquet'}: no file matches this pattern")
    there = write(tmp_path / "what?.txt", "a name that looks like a pattern")
    assert texts_of(corpus_of(there)) == ["a name that looks like a pattern"]


def test_a_corpus_of_a_pattern_is_called_as_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "wiki" / "0.jsonl", as_lines(ROWS))
    assert corpus_of(tmp_path / "wiki" / "**" / "*.jsonl").name == "wiki"


# --- what is wrong with a file ---


BROKEN: dict[str, tuple[str, str]] = {
    "no-json.jsonl": ('{"text": "a"}\n\n{"text": nope}\n', ":3: not valid JSON: Expecting value"),
    "two-on-a-line.jsonl": ('{"text": "a"} {"text": "b"}\n', ":1: not valid JSON: Extra data"),
    "list.jsonl": ("[1]\n", ":1: should be an object"),
    "cut-list.jsonl": ("[\n", ":1: not valid JSON: Expecting value (column 3); each line holds one "
    "object; if the file is one list of objects, name it .json"),
    "mixed.jsonl": (as_lines([{"text": "a"}] * 150 + [{"text": 7}]), ':151: "text" is a number'),
    "bool.jsonl": (as_lines([{"text": "a"}] * 101 + [{"text": True}]), "is true or false"),
    "mixed.json": (json.dumps([{"text": "a"}] * 150 + [{"text": []}]), ': record 151: "text" is a'),
    "no-list.json": ('{"text": "a"}', ": is not a list; a .json holds a list of objects"),
    "inner-list.json": ('{"name": "me",\n "messages": [{"text": "a"}]}', ": is not a list; a .json "
    'holds a list of objects: [{…}, {…}]. Save the list "messages" inside it as a separate'),
    "one-line.json": ('{"n": 1, "chats": [{"text": "a"}]}', 'Save the list "chats" inside it'),
    "lines.json": (as_lines([{"messages": [{"text": "a"}]}] * 2), "use --set data.format=jsonl"),
    "empty.json": ("", ": is empty; a .json holds"),
    "cut.json": ('[{"text": "a"}, {"text": "b"}', ": the list has no end"),
    "cut-in-a-row.json": ('[{"text": "a"},\n {"text": "b', ":2: not valid JSON: Unterminated"),
    "no-comma.json": (
        '[{"text": "a"}\n {"text": "b"}]',
        ':2: not valid JSON: "{"text": "" instead of a comma or the end of the list',
    ),
    "wrong.json": ('[{"text": "a"},\n\n{"text": nope}]' + " " * 99, ":3: not valid JSON: "),
    "texts.json": ('["a"]', ": record 1: should be an object"),
    "ragged.csv": ("text,id\na,1\nb\n", ":3: 1 cell, and the header has 2; put a cell"),
    "more.csv": ("text,id\na,1\nb,2,3\n", ":3: 3 cells, and the header has 2"),
    "unclosed.csv": ('text,id\na,1\n"b,2\nc,3\n', ":3: unbalanced quotes in this record"),
    "empty.csv": ("", ": is empty; its first line should name the columns"),
    "twice.csv": ("text,text\na,b\n", ':1: two columns are called "text"; rename one'),
    "ragged.tsv": ("text\tid\na\n", ":2: 1 cell, and the header has 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_one_line_with_its_place(tmp_path: Path, name: str) -> None:
    content, expected = BROKEN[name]
    path = write(tmp_path / name, content)
    line = problem_of(lambda: texts_of(corpus_of(path)))
    assert line.startswith(str(path)) and expected in line


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.json.zst", "a.tsv.zst"])
def test_packed_tables_that_are_cut_short_are_refused(tmp_path: Path, name: str) -> None:
    rows = [{"text": some_text(20_000, seed), "id": seed} for seed in range(8)]
    make = as_csv if "sv" in name else as_lines
    text = json.dumps(rows) if ".json." in name else make(rows)
    path = write(tmp_path / name, text.replace("\n", " ") if ".json." in name else text)
    path.write_bytes(path.read_bytes()[:-20])
    kind = "gzip" if name.endswith(".gz") else "zstd"
    line = problem_of(lambda: texts_of(corpus_of(path)))
    assert line.startswith(f"{path}: its {kind} data are damaged or cut short")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_bytes_that_are_not_utf8_are_refused_or_replaced(tmp_path: Path, name: str) -> None:
    make = as_csv if "sv" in name else WRITERS[name]
    path = write(tmp_path / name, make([{"text": "a?b"}, {"text": "c"}]))
    path.write_bytes(path.read_bytes().replace(b"?", b"\xe9"))
    assert "byte 0xe9 at offset" in problem_of(lambda: texts_of(corpus_of(path)))
    corpus = corpus_of(path, on_bad_bytes="replace")
    assert texts_of(corpus) == ["a\ufffdb", "c"] and corpus.replaced == 1
    path.write_bytes(codecs.BOM_UTF8 + make([{"text": "with a mark"}]).encode())
    assert texts_of(corpus_of(path)) == ["with a mark"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_is_refused_or_replaced(tmp_path: Path, name: str) -> None:
    rows = [{"text": "whole: 🌙"}, {"text": "half: \ud83c."}]
    path = tmp_path / name
    dumps = [json.dumps(row) for row in rows]
    path.write_text("\n".join(dumps) if name == "a.jsonl" else f"[{','.join(dumps)}]")
    line = problem_of(lambda: texts_of(corpus_of(path)))
    assert "half a character (\\ud83c) at character 6" in line and "on_bad_bytes=replace" in line
    corpus = corpus_of(path, on_bad_bytes="replace")
    assert texts_of(corpus) == ["whole: 🌙", "half: \ufffd."] and corpus.replaced == 1


def test_a_table_without_a_text_left_says_which_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", as_lines([{"text": ""}, {"text": None}, {"text": ""}]))
    line = problem_of(lambda: survey(corpus_of(path)))
    assert line.startswith(f'{path}: no rows left: all 3 have nothing in the column "text"')
    for name, content in (("b.jsonl", "\n \n"), ("b.csv", "text,id\n"), ("b.json", "[]")):
        empty = write(tmp_path / name, content)
        line = problem_of(lambda empty=empty: survey(corpus_of(empty)))  # type: ignore[misc]
        assert "it has no text: the table has no rows" in line


@pytest.mark.parametrize(
    ("content", "who"),
    [
        (struct.pack("<9H", 464, 3290, 13, 50256, 11, 262, 198, 1, 50255) * 500, "nanoGPT"),
        (bytes(n for i in range(5000) for n in (i % 65, 0)), "nanoGPT"),  # by characters
        (struct.pack("<3i", 20240520, 1, 9) + bytes(1012) + b"\x10\x27" * 9, "llm.c"),
    ],
)
def test_ids_of_another_trainer_are_named(tmp_path: Path, content: bytes, who: str) -> None:
    path = tmp_path / "train.bin"
    path.write_bytes(content)
    line = problem_of(lambda: corpus_of(path))
    assert line.startswith(f"{path}: is a file of token ids, as {who}'s ")
    assert line.endswith(": use the text that it was made from")


def test_a_text_that_is_called_bin_is_read(tmp_path: Path) -> None:
    for text in ("plain text in a file of that name", "été 🌙 " * 2000, "ab"):
        assert texts_of(corpus_of(write(tmp_path / "a.bin", text))) == [text]


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    path = write(tmp_path / "a.parquet", "PAR1")
    assert "pip install 'hairpin[parquet]'" in problem_of(lambda: corpus_of(path))
    for name in ("a.pq", "a.arrow", "a.feather", "A.Feather"):
        table = write(tmp_path / name, "ARROW1")
        line = problem_of(lambda table=table: corpus_of(table))  # type: ignore[misc]
        assert line == f"{table}: reading it needs pyarrow; type: pip install 'hairpin[parquet]'"
    saved = tmp_path / "saved"
    write(saved / "state.json", "{}")
    write(saved / "dataset_info.json", "{}")
    assert f"{saved}: " in (line := problem_of(lambda: corpus_of(saved))) and "hairpin[" in line


def test_a_saved_dataset_without_rows_is_a_line(tmp_path: Path) -> None:
    for folder in (tmp_path / "saved", tmp_path / "splits" / "train"):
        write(folder / "state.json", '{"_data_files": [], "_split": null}')
        write(folder / "dataset_info.json", "{}")
    write(tmp_path / "splits" / "dataset_dict.json", '{"splits": ["train"]}')
    for name in ("saved", "splits"):
        line = problem_of(lambda name=name: corpus_of(tmp_path / name))  # type: ignore[misc]
        assert line.startswith(f"{tmp_path / name}: the saved dataset has no rows")
    write(tmp_path / "none" / "dataset_dict.json", '{"splits": []}')
    assert "has no split" in problem_of(lambda: corpus_of(tmp_path / "none"))


def test_a_row_without_end_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("csv", "json", "table"):
        monkeypatch.setattr(f"hairpin.data.tables.{module}.MAX_ROW_CHARS", 1000)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 100)
    long = "x" * 5000
    for name, text in {
        "a.jsonl": as_lines([{"text": "a"}, {"text": long}]),
        "a.json": json.dumps([{"text": "a"}, {"text": long}]),
        "a.tsv": f"text\na\n{long}\n",
    }.items():
        path = write(tmp_path / name, text)
        assert "million characters" in problem_of(lambda p=path: texts_of(corpus_of(p)))  # type: ignore[misc]
    path = write(tmp_path / "a.csv", 'text\na\n"' + "x y\n" * 2000)
    assert ":3: unbalanced quotes" in problem_of(lambda: texts_of(corpus_of(path)))
    assert tables.MAX_ROW_CHARS == 1000


# --- any text, in any blocks ---

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ANY_ROWS = st.lists(
    st.fixed_dictionaries({"text": ANY_TEXT, "n": st.integers() | st.none() | st.booleans()}),
    min_size=1,
    max_size=8,
)


def in_blocks(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


@given(
    rows=ANY_ROWS,
    size=st.integers(1, 40),
    layout=st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}]),
    ascii_only=st.booleans(),
)
def test_json_is_read_as_python_reads_it_however_it_is_cut(
    rows: list[dict[str, Any]], size: int, layout: dict[str, Any], ascii_only: bool
) -> None:
    for table_type, text in (
        (JsonArray, json.dumps(rows, ensure_ascii=ascii_only, **layout)),
        (JsonLines, "".join(json.dumps(row, ensure_ascii=ascii_only) + "\r\n" for row in rows)),
    ):
        table = table_type(Path("a.json"), "error")
        table.blocks = lambda text=text: in_blocks(text, size)  # type: ignore[method-assign,misc]
        found = [text for _, text in table.texts("text")]
        assert found == [row["text"] for row in rows]


@given(text=st.text("ab\r\n\u2028", max_size=60), size=st.integers(1, 9))
def test_lines_are_those_of_the_whole_text(text: str, size: int) -> None:
    for newline in ("", "\n"):
        whole = io.StringIO(text, newline=newline).readlines()
        assert list(Csv(Path("a.csv")).lines(newline, in_blocks(text, size))) == whole


def test_a_long_csv_is_what_csv_makes_of_it(tmp_path: Path) -> None:
    draw = random.Random(3)
    cells = ["".join(draw.choices('ab ,"\r\n;\té', k=draw.randint(0, 40))) for _ in range(30_000)]
    rows = [{"text": cell, "id": number} for number, cell in enumerate(cells)]
    path = write(tmp_path / "a.csv", as_csv(rows))
    assert path.stat().st_size > 2 * reading.BLOCK_BYTES
    assert texts_of(corpus_of(path)) == [cell for cell in cells if cell]


# --- Python's own rows ---


def test_rows_that_python_holds_are_written_once_by_their_content(tmp_path: Path) -> None:
    path = spool(iter(["a", "", "b\nc"]), None)
    assert texts_of(corpus_of(path)) == ["a", "b\nc"]
    assert spool([{"text": t, "id": 3} for t in ("a", "", "b\nc")], None) == path
    assert spool(["a"], None) != path
    other = spool([{"body": "b", "n": 1}, {"n": 2}], None)
    corpus = corpus_of(other)
    assert (corpus.data.column, texts_of(corpus), corpus.empty) == ("body", ["b"], 1)
    assert not list(path.parents[1].glob(".stream*"))


@pytest.mark.parametrize(
    ("rows", "column", "expected"),
    [
        ({"train": ["a"]}, None, "a dict of train is not a text: pass one of its values"),
        (7, None, "a int is not a text: name a file, or pass an iterable"),
        (["a", 7], None, 'row 2: "the row" is a int, not a text'),
        ([{"a": "x", "b": "y"}], None, "row 1: several columns hold text"),
        ([{"text": "x"}], "txet", 'no column "txet" (did you mean "text"'),
        ([{"text": "x"}, {"text": 3}], None, 'row 2: "text" is a int'),
    ],
)
def test_rows_of_another_kind_are_refused(rows: Any, column: str | None, expected: str) -> None:
    assert expected in problem_of(lambda: spool(rows, column))


def test_a_list_of_files_is_not_taken_for_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text")
    assert "hairpin.train(*names)" in problem_of(lambda: spool([str(path)], None))


# --- on the command line ---


@pytest.mark.usefixtures("no_plots")
def test_a_run_remembers_what_was_read(hairpin: Hairpin, tmp_path: Path) -> None:
    rows = [{"body": some_text(600, seed), "id": seed} for seed in range(20)] + [{"body": ""}]
    write(tmp_path / "a.jsonl.gz", as_lines(rows))
    done = hairpin("train", "a.jsonl.gz", "--out", "run", *TINY_FLAGS)
    assert done.code == 0
    said = 'column "body" of 2 is read; not used: "id"; 1 of 21 rows has no text and was left out'
    assert done.out.count(said) == 1 and 'plan: a.jsonl.gz (column "body"); ' in done.out
    config = Path("run/config.toml").read_text()
    assert 'column = "body"' in config and 'format = "jsonl"' in config
    assert hairpin("train", "--config", "run/config.toml", "--out", "again").code == 0
    records = [Path(run, "metrics.jsonl").read_text().splitlines() for run in ("run", "again")]
    losses = [[json.loads(line).get("val_loss") for line in record] for record in records]
    assert losses[0] == losses[1]
    assert hairpin("evaluate", "run").code == 0
    write(tmp_path / "other.csv", "body,note\nsome words,x\n")
    assert hairpin("evaluate", "run", "other.csv").code == 0
    by_note = hairpin("evaluate", "run", "other.csv", "--set", "data.column=note")
    assert 'column "note" of 2 is read; not used: "body"' in by_note.err
    whole = hairpin("evaluate", "run", "other.csv", "--data.format=text")
    assert whole.code == 0 and whole.out != by_note.out and not whole.err
    refused = hairpin("evaluate", "run", "other.csv", "--column", "bdy")
    assert refused.code == 2 and 'did you mean "body"' in refused.err
    plan = hairpin("plan", "a.jsonl.gz", "--no-probe", *TINY_FLAGS)
    assert plan.code == 0 and said in plan.out
    made = hairpin("prepare", "a.jsonl.gz", "--column", "body", "--out", "shards")
    assert made.code == 0 and said in made.out


def test_a_mistake_with_a_table_ends_with_a_line(hairpin: Hairpin, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "one,two\na,b\n")
    for verb in ("train", "plan", "find-lr"):
        done = hairpin(verb, "a.csv", *TINY_FLAGS)
        assert done.code == 2
        assert done.err.count("\n") == 1 and "several columns hold text" in done.err
