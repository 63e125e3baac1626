import csv
import gzip
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from hairpin.data.tables.records import Wanted, read_records, read_rows, read_texts
from hairpin.errors import CorpusError

COLUMNS = ("label", "text")
PRINTABLE = st.text(st.characters().filter(str.isprintable), max_size=30)
# What a file can hold: no NUL, no half pairs.
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def records_of(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, texts)), min_size=1, max_size=8)


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fields_of(path: Path, *optional: str) -> list[dict[str, str]]:
    return [dict(row.fields) for row in read_rows(path, COLUMNS, optional)]


def problems_of(path: Path, *optional: str) -> list[str]:
    """The lines of the error, each without the folder."""
    with pytest.raises(CorpusError) as caught:
        read_rows(path, COLUMNS, optional)
    return [line.removeprefix(f"{path.parent}{os.sep}") for line in caught.value.problems]


def written(records: list[dict[str, str]], **dialect: Any) -> str:
    with io.StringIO(newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, **dialect)
        writer.writeheader()
        writer.writerows(records)
        return file.getvalue()


# --- what writers write is read back ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t"),
        "lineterminator": st.sampled_from(["\n", "\r\n"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    }
)


@given(records=records_of(ANY), dialect=DIALECTS, mark=st.sampled_from(["", "\ufeff"]))
@example([{"label": "", "text": "\r\n\n\r"}], {}, "")
@example([{"label": "\ufeff", "text": '";,\t"'}], {"delimiter": ";"}, "\ufeff")
def test_csv_comes_back(
    folder: Path, records: list[dict[str, str]], dialect: dict[str, Any], mark: str
) -> None:
    if dialect.get("lineterminator") == "\n":  # then Python's writer puts \r outside of quotes
        records = [
            {name: text.replace("\r", "") for name, text in record.items()} for record in records
        ]
    path = file_of(folder, "x.csv", mark + written(records, **dialect))
    assert fields_of(path) == records


@given(
    records=records_of(ANY),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
@example([{"label": '"', "text": '""'}, {"label": '"a" b', "text": 'a "b"'}], "\n", 0)
@example([{"label": "a\tb\nc\td", "text": '"\n"'}, {"label": "", "text": "\r\n"}], "\n", 0)
def test_tsv_comes_back(
    folder: Path, records: list[dict[str, str]], lineterminator: str, quoting: Any
) -> None:
    if lineterminator == "\n":  # then Python's writer puts \r outside of quotes
        records = [
            {name: text.replace("\r", "") for name, text in record.items()} for record in records
        ]
    text = written(records, delimiter="\t", lineterminator=lineterminator, quoting=quoting)
    assert fields_of(file_of(folder, "x.tsv", text)) == records


@given(records=records_of(ANY), ascii_only=st.booleans())
def test_json_comes_back(folder: Path, records: list[dict[str, str]], ascii_only: bool) -> None:
    whole = json.dumps(records, ensure_ascii=ascii_only, indent=1)
    assert fields_of(file_of(folder, "x.json", whole)) == records
    wrapped = json.dumps({"version": 1, "data": records}, ensure_ascii=ascii_only)
    assert fields_of(file_of(folder, "y.json", wrapped)) == records


@given(records=records_of(ANY), ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n"]))
def test_json_lines_come_back(
    folder: Path, records: list[dict[str, str]], ascii_only: bool, end: str
) -> None:
    lines = end.join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
    for name in ("x.jsonl", "x.NDJSON"):
        assert fields_of(file_of(folder, name, lines + end)) == records


@given(st.text(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_refused(folder: Path, content: str) -> None:
    for suffix in ("csv", "tsv", "json", "jsonl"):
        path = file_of(folder, f"any.{suffix}", ("label,text\n" + content).encode(errors="replace"))
        try:
            rows = read_rows(path, ["text"])
        except CorpusError as error:
            assert all(str(path) in line for line in error.problems)
        else:
            assert rows


def test_quotes_in_tabs_are_text_as_in_a_corpus_of_messages(tmp_path: Path) -> None:
    lines = 'label\ttext\nham\t"Hello" he said\nham\t"and left\n'
    lines += 'spam\the said "win"\n\nspam\t"all of it"'
    assert fields_of(file_of(tmp_path, "x.tsv", lines)) == [
        {"label": "ham", "text": '"Hello" he said'},
        {"label": "ham", "text": '"and left'},
        {"label": "spam", "text": 'he said "win"'},
        {"label": "spam", "text": "all of it"},
    ]


def test_quotes_inside_plain_cells_of_csv_are_text(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x.csv", 'label,text\nham,he said "win"\n')
    assert fields_of(path) == [{"label": "ham", "text": 'he said "win"'}]


def test_the_place_is_the_line_on_which_a_record_begins(tmp_path: Path) -> None:
    content = '\nlabel,text\nham,"two\r\nlines"\n\n\nspam,"one\n\n"\nham,last'
    rows = read_rows(file_of(tmp_path, "x.csv", content), COLUMNS)
    assert [row.place.rpartition(":")[2] for row in rows] == ["3", "7", "10"]
    rows = read_rows(file_of(tmp_path, "x.tsv", "label\ttext\n\nham\tx"), COLUMNS)
    assert [row.place for row in rows] == [f"{tmp_path / 'x.tsv'}:3"]
    lines = '\n{"label": "ham", "text": "x"}\n\n{"label": "ham", "text": "x"}\n'
    rows = read_rows(file_of(tmp_path, "x.jsonl", lines), COLUMNS)
    assert [row.place.rpartition(":")[2] for row in rows] == ["2", "4"]
    whole = f"[{lines.strip().replace(chr(10) * 2, ',')}]"
    rows = read_rows(file_of(tmp_path, "x.json", whole), COLUMNS)
    assert [row.place for row in rows] == [f"{tmp_path / 'x.json'}: record {n}" for n in (1, 2)]


def test_the_header_says_what_divides_cells(tmp_path: Path) -> None:
    for content in (
        "text;label\na,b;c\n",
        "text\tlabel\na,b\tc\n",
        '"text","label"\n"a,b",c\n',
        ' text , label,"a;b;c;text;label"\n"a,b",c,\n',
    ):
        path = file_of(tmp_path, "x.csv", content)
        assert fields_of(path) == [{"label": "c", "text": "a,b"}], content


def test_columns_nobody_asked_for_are_left_out_and_optional_ones_may_lack(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x.csv", "n,text,label,,\n1,a,b,,\n")
    assert fields_of(path, "input") == [{"label": "b", "text": "a", "input": ""}]
    assert fields_of(path, "n") == [{"label": "b", "text": "a", "n": "1"}]
    records = [
        {"label": "b", "text": "a", "input": None, "history": [[]]},
        {"label": "b", "text": "a", "input": "c"},
    ]
    path = file_of(tmp_path, "x.json", json.dumps(records))
    assert [fields["input"] for fields in fields_of(path, "input")] == ["", "c"]
    assert "history" not in fields_of(path)[0]


def test_numbers_and_booleans_are_the_text_that_json_has_for_them(tmp_path: Path) -> None:
    numbers = ["1", "-0", "1.50", "1e3", "1E400", "9" * 5000, "true", "false"]
    lines = "\n".join(f'{{"label": {number}, "text": ""}}' for number in numbers)
    fields = fields_of(file_of(tmp_path, "x.jsonl", lines))
    assert [each["label"] for each in fields] == numbers
    halves = file_of(tmp_path, "y.jsonl", '{"label": "", "text": "\\ud83c\\udfbc"}')
    assert fields_of(halves)[0]["text"] == "\U0001f3bc"


def test_a_long_cell_is_read_and_the_limit_is_what_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    records = [{"label": "ham", "text": "x" * 300_000}] * 2
    assert fields_of(file_of(tmp_path, "x.csv", written(records))) == records
    assert csv.field_size_limit() == before


# --- as training reads tables ---


def packed(path: Path, content: bytes, suffix: str) -> Path:
    """The same file, compressed."""
    made = path.with_name(path.name + suffix)
    made.write_bytes(gzip.compress(content) if suffix == ".gz" else zstandard.compress(content))
    return made


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    records = [{"label": "ham", "text": "a, b"}, {"label": "spam", "text": "é"}]
    contents = {
        "x.csv": written(records),
        "x.tsv": written(records, delimiter="\t"),
        "x.json": json.dumps(records),
        "x.JSONL": "\n".join(map(json.dumps, records)),
    }
    for name, content in contents.items():
        path = packed(tmp_path / name, content.encode(), suffix)
        assert fields_of(path) == records
        assert [row.fields["text"] for row in read_texts(path, "text")] == ["a, b", "é"]
    broken = tmp_path / f"broken.csv{suffix}"
    broken.write_bytes(path.read_bytes()[:-4])
    (line,) = problems_of(broken)
    assert line.startswith(f"broken.csv{suffix}: its ") and "damaged or cut short" in line


class FakeTable:
    """As much of pyarrow as is read with: a file's batches of rows."""

    class ArrowException(Exception):  # noqa: N818 - pyarrow's name
        """Of damaged files."""

    def __init__(self, path: Path, **_: Any) -> None:
        if path.read_bytes() != b"PAR1":
            raise self.ArrowException("no magic\nbytes")
        self.schema_arrow = [FakeField(name) for name in FAKE_COLUMNS]

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def iter_batches(self, size: int, columns: list[str], use_threads: bool) -> Iterator[Any]:
        del size, use_threads
        arrays = [FakeArray(FAKE_COLUMNS[name]) for name in columns]
        yield SimpleNamespace(num_rows=2, columns=arrays, schema=SimpleNamespace(names=columns))


FAKE_COLUMNS: dict[str, list[Any]] = {
    "text": ["one", "two"],
    "label": [1, 0],
    "score": [0.5, math.nan],
    "ok": [True, None],
    "when": [date(2024, 1, 2), ["x"]],
}


class FakeField:
    """A column's name and type, which is here the type of Python's values."""

    def __init__(self, name: str) -> None:
        self.name, self.type = name, type(FAKE_COLUMNS[name][0])


class FakeArray:
    """The values of a column."""

    def __init__(self, values: list[Any]) -> None:
        self.values, self.type = values, type(values[0])

    def cast(self, _: Any) -> "FakeArray":
        return FakeArray([value.encode() for value in self.values])

    def to_pylist(self) -> list[Any]:
        return self.values


class FakeTypes:
    """Tests of types: text is the only one that is told from others here."""

    is_string = staticmethod(lambda type_: type_ is str)

    def __getattr__(self, name: str) -> Any:
        return lambda type_: False


def test_parquet_is_a_table_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, "x.parquet", "PAR1")
    fake = ModuleType("pyarrow")
    fake.__dict__.update(ArrowException=FakeTable.ArrowException, parquet=ModuleType("parquet"))
    fake.__dict__.update(types=FakeTypes(), large_binary=lambda: None)
    fake.parquet.ParquetFile = FakeTable
    monkeypatch.setitem(sys.modules, "pyarrow", fake)
    rows = read_rows(path, ["text", "label"], ["score", "ok"])
    assert [dict(row.fields) for row in rows] == [
        {"text": "one", "label": "1", "score": "0.5", "ok": "true"},
        {"text": "two", "label": "0", "score": "", "ok": ""},
    ]
    assert [row.place for row in rows] == [f"{path} (row 1)", f"{path} (row 2)"]
    with pytest.raises(CorpusError) as raised:
        read_rows(path, ["when"])
    assert raised.value.problems == (f'{path} (row 2): "when" should be a text, but is a list',)
    (line,) = problems_of(file_of(tmp_path, "y.parquet", "PAR2"))
    assert line.startswith("y.parquet: is not Parquet, or is damaged (no magic bytes)")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'hairpin[parquet]'" in problems_of(path)[0]


def test_columns_are_counted_where_there_is_something_in_them(tmp_path: Path) -> None:
    lines = ['{"a": "x", "b": null, "c": []}', '{"a": " ", "b": 0, "d": {}}', '{"b": [1]}']
    records = read_records(file_of(tmp_path, "x.jsonl", "\n".join(lines)), ["a"])
    assert records.columns == {"a": 1, "b": 2, "c": 0, "d": 0}
    assert records.unused({"a"}) == {"b": 2} and records.unused({"a", "b"}) == {}
    table = read_records(file_of(tmp_path, "x.csv", "a,b,,\n1,,,\n2, ,,\n"), ["a"])
    assert table.columns == {"a": 2, "b": 0, "": 0} and len(table) == 2


def test_what_all_records_lack_is_one_line(tmp_path: Path) -> None:
    lines = "\n".join(['{"label": "a", "txt": "b", "n": 1}'] * 30)
    line, other = problems_of(file_of(tmp_path, "x.jsonl", lines + "\n{"))
    assert line == (
        'x.jsonl: no record has "text"; they have "label", "txt", "n" (did you mean "txt" for '
        '"text"?)'
    )
    assert other.startswith("x.jsonl:31: not valid JSON")


# --- every line that says what is wrong ---

HEADER = "label,text\n"

WRONG: list[tuple[str, str | bytes, list[str]]] = [
    (
        "x.txt",
        "ham",
        [
            "x.txt: its name does not tell its format; records are read from files that end in "
            ".jsonl, .ndjson, .json, .csv, .psv, .tsv, .parquet, .pq, .arrow, .feather, and from "
            "compressed ones"
        ],
    ),
    ("x.csv", "", ['x.csv: the file is empty; it should hold "label", "text"']),
    ("x.json", b"\xef\xbb\xbf \n", ['x.json: the file is empty; it should hold "label", "text"']),
    ("x.csv", HEADER, ['x.csv: no records in it; add some, with "label", "text"']),
    ("x.json", '{"a": []}', ['x.json: no records in it; add some, with "label", "text"']),
    (
        "x.csv",
        "v1,v2,\nham,hello,\n",
        [
            'x.csv:1: no column "label", "text"; the first line has "v1", "v2", ""; if that is a '
            "record, put a line with the columns' names first"
        ],
    ),
    (
        "x.tsv",
        f"ham\tGo until jurong point,{'.' * 80}\n",
        [
            'x.tsv:1: no column "label", "text"; the first line has "ham", '
            '"Go until jurong point,..................…"; if that is a record, put a line with '
            "the columns' names first"
        ],
    ),
    (
        "x.csv",
        "\nLABEL;txt\nham;x\n",
        [
            'x.csv:2: no column "label", "text"; the first line has "LABEL", "txt" (did you mean '
            '"LABEL" for "label", "txt" for "text"?)'
        ],
    ),
    (
        "x.csv",
        "label,text,text\na,b,c\n",
        ['x.csv:1: two columns are called "text"; rename one'],
    ),
    (
        "x.csv",
        HEADER + "ham,a,b\nham,ok\nham\n",
        [
            "x.csv:2: 3 cells, and the header has 2; put a cell that holds the delimiter or a "
            "line break in quotes",
            "x.csv:4: 1 cell, and the header has 2; put a cell that holds the delimiter or a "
            "line break in quotes",
        ],
    ),
    (
        "x.csv",
        HEADER + 'ham,ok\nham,"a "b" c"\n',
        [
            "x.csv:3: unbalanced quotes in this record (',' expected after "
            "'\"'); inside a quoted cell, double each quote"
        ],
    ),
    (
        "x.csv",
        HEADER + 'ham,ok\n\nham,"never\nclosed\n\n',
        [
            "x.csv:4: unbalanced quotes in this record (unexpected end of "
            "data); inside a quoted cell, double each quote"
        ],
    ),
    (
        "x.csv",
        '"label,text\nham,ok\n',
        [
            "x.csv:1: unbalanced quotes in this record (unexpected end of "
            "data); inside a quoted cell, double each quote"
        ],
    ),
    ("x.csv", HEADER + "ham,a\0b\n", ['x.csv:2: "text" has a NUL at character 1; remove it']),
    (
        "x.json",
        '[{"label": "a",\n "text": "b"}\n {}]',
        ['x.json:3: not valid JSON: "{}]" instead of a comma or the end of the list'],
    ),
    (
        "x.json",
        '{"label": "a", "text": "b"}\n{"label": "a", "text": "b"}\n',
        [
            "x.json:2: not valid JSON: Extra data (column 1); name the file .jsonl if each of its "
            "lines is a record"
        ],
    ),
    (
        "x.json",
        '"label"',
        [
            "x.json: should be a list of objects, or an object with one such list, and is a single "
            "value"
        ],
    ),
    (
        "x.json",
        '{"a": [], "b": [], "c": 1}',
        [
            "x.json: should be a list of objects, or an object with one such list, and is an "
            "object with 2 lists in it"
        ],
    ),
    (
        "x.json",
        '{"a": [], "a": []}',
        [
            "x.json: should be a list of objects, or an object with one such list, and is an "
            'object in which "a" stands twice'
        ],
    ),
    ("x.json", "[" * 200_000, ["x.json: record 1: lists nested too deeply; fix the file"]),
    ("x.jsonl", "[" * 200_000, ["x.jsonl:1: lists nested too deeply; fix the file"]),
    (
        "x.json",
        '[["a", "b"], null, {"label": "a", "text": "b", "text": "c"}]',
        [
            'x.json: record 1: should be an object with "label", "text", and is a list',
            'x.json: record 2: should be an object with "label", "text", and is null',
            'x.json: record 3: should be an object with "label", "text", and is an object in '
            'which "text" stands twice',
        ],
    ),
    (
        "x.jsonl",
        '{"label": "a"}\n{"txt": "a", "n": 1, "label": null}\n{"label": [1], "text": {}}\n{',
        [
            'x.jsonl:1: no "text"; it has "label"',
            'x.jsonl:2: no "text"; it has "txt", "n", "label" (did you mean "txt" for "text"?)',
            'x.jsonl:2: "label" should be a text, but is null',
            'x.jsonl:3: "label" should be a text, but is a list',
            'x.jsonl:3: "text" should be a text, but is an object',
            "x.jsonl:4: not valid JSON: Expecting property name enclosed in double quotes "
            "(column 2); each line holds one object",
        ],
    ),
    (
        "x.jsonl",
        '{"label": NaN, "text": -Infinity}\n{"label": "a", "text": "\\ud800b\\u0000"}\n'
        '{"label": "\\u0000", "text": ""}',
        [
            'x.jsonl:1: "label" should be a text, but is NaN, which is not valid JSON',
            'x.jsonl:1: "text" should be a text, but is -Infinity, which is not valid JSON',
            'x.jsonl:2: "text" has half a character (\\ud800) at character 0; remove it',
            'x.jsonl:3: "label" has a NUL at character 0; remove it',
        ],
    ),
]


@pytest.mark.parametrize(("name", "content", "lines"), WRONG)
def test_what_is_wrong_is_said(
    tmp_path: Path, name: str, content: str | bytes, lines: list[str]
) -> None:
    assert problems_of(file_of(tmp_path, name, content)) == lines


def test_bytes_that_are_not_utf_8_are_named_as_in_training(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x.csv", "label,text\nham,caf\xe9\n".encode("latin-1"))
    (line,) = problems_of(path)
    assert line.startswith("x.csv: byte 0xe9 at offset 18 is not UTF-8; ")
    assert "--set data.on_bad_bytes=replace" in line
    rows = read_records(path, ["text"], "replace")
    assert rows.rows(Wanted(("text",)))[0].fields == {"text": "caf\ufffd"} and rows.replaced == 1
    with pytest.raises(CorpusError) as raised:  # for those who have no such setting
        read_texts(path, "text")
    assert "0xe9" in raised.value.problems[0] and "--set" not in raised.value.problems[0]


def test_halves_of_characters_are_replaced_where_bad_bytes_are(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x.jsonl", '{"text": "a\\ud83c"}\n{"text": "\\ud83c\\udfbc"}\n')
    records = read_records(path, ["text"], "replace")
    texts = [row.fields["text"] for row in records.rows(Wanted(("text",)))]
    assert texts == ["a\ufffd", "\U0001f3bc"] and records.replaced == 1


def test_what_follows_a_list_is_refused(tmp_path: Path) -> None:
    record = '{"label": "a", "text": "b"}'
    assert problems_of(file_of(tmp_path, "x.json", f"[{record}]\n[{record}]")) == [
        'x.json:2: not valid JSON: "[{"label":" after the end of the list; name the file .jsonl '
        "if each of its lines is a record"
    ]


def test_a_wrong_optional_field_is_wrong(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x.json", '[{"label": "a", "text": "b", "input": ["c"]}]')
    assert problems_of(path, "input") == [
        'x.json: record 1: "input" should be a text, but is a list'
    ]


def test_after_ten_lines_the_rest_is_counted(tmp_path: Path) -> None:
    def lines(wrong: int) -> list[str]:
        return problems_of(file_of(tmp_path, "x.csv", HEADER + "ham,ok\n" + "ham\n" * wrong))

    assert len(lines(10)) == 10
    found = lines(12)
    assert found[:10] == lines(10)
    assert found[10:] == ["x.csv: and 2 more"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "none.csv") == ["none.csv: no such file; check the path"]
    (tmp_path / "folder.csv").mkdir()
    assert problems_of(tmp_path / "folder.csv") == ["folder.csv: is a folder; name a file in it"]
    (line,) = problems_of(tmp_path / ("x" * 300 + ".csv"))
    assert "cannot be read (" in line
    (line,) = problems_of(tmp_path / "a\0b.csv")
    assert "a\\x00b.csv: cannot be read (embedded null byte)" in line
