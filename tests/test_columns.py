"""Which column of a table is the text, in files and in what Python holds."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corpora import corpus_of, problem_of, texts_of
from hairpin import api
from hairpin.data.blend import text_notices
from hairpin.data.split import survey
from hairpin.data.tables.json import JsonLines
from hairpin.data.tables.spool import spool
from hairpin.launch.request import CheckedRequest
from hairpin.runs.watcher import Quiet
from helpers import some_text

Rows = list[dict[str, Any]]

PROSE = [some_text(200, seed) for seed in range(12)]


def rows_of(**columns: Any) -> Rows:
    """Twelve rows: a list has a value for each, a function makes one of a number, else the same."""
    return [
        {
            name: made[n] if isinstance(made, list) else made(n) if callable(made) else made
            for name, made in columns.items()
        }
        for n in range(12)
    ]


def as_csv(rows: Rows) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def column_of(path: Path, rows: Rows, name: str) -> str | None:
    """The column that is read of these rows: in a file of this name, or from Python itself."""
    if name == "Python":
        return corpus_of(spool(rows, None)).data.column
    content = {
        "a.jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows),
        "a.json": lambda: json.dumps(rows),
        "a.csv": lambda: as_csv(rows),
    }[name]()
    (path / name).write_text(content, encoding="utf-8")
    return corpus_of(path / name).data.column


WITH_LISTS = ["a.jsonl", "a.json", "Python"]
EVERYWHERE = [*WITH_LISTS, "a.csv"]

SHARE_GPT = [
    {"from": "human", "value": "Where does the road go?"},
    {"from": "gpt", "value": "To the river."},
]
OPEN_AI = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
CHAT_GPT = {
    "a1": {"message": {"author": {"role": "user"}, "content": {"parts": ["Where?"]}}},
    "b2": {"message": None},
}


@pytest.mark.parametrize("name", WITH_LISTS)
@pytest.mark.parametrize(
    ("column", "chat"),
    [
        ("conversations", SHARE_GPT),
        ("messages", OPEN_AI),
        ("mapping", CHAT_GPT),
        ("items", [{"human": "Where?", "assistant": "There."}]),
        ("dialog", ["Hello.", "Hello to you."]),
    ],
)
@pytest.mark.parametrize(
    "beside",
    [
        {"id": lambda n: f"identity_{n}"},
        {"title": lambda n: f"A talk about the road, number {n}"},
        {"system": "You are a helpful assistant who says what is there in a few plain words."},
        {},
    ],
)
def test_nothing_beside_a_chat_is_the_text_by_accident(
    tmp_path: Path, name: str, column: str, chat: Any, beside: dict[str, Any]
) -> None:
    rows = rows_of(**beside, **{column: lambda n: chat})
    line = problem_of(lambda: column_of(tmp_path, rows, name))
    assert f'"{column}" holds chats, not text; write each as one text into a column "text"' in line
    names_one = "name a column with" in line
    assert names_one == bool({"title", "system"} & beside.keys())


def test_without_a_column_to_name_no_line_says_to_name_one(tmp_path: Path) -> None:
    for rows in (
        rows_of(messages=lambda n: OPEN_AI),
        rows_of(n=lambda n: n, points=lambda n: [n, 2 * n]),
        rows_of(texts=lambda n: [PROSE[n]]),
    ):
        line = problem_of(lambda rows=rows: column_of(tmp_path, rows, "a.jsonl"))  # type: ignore[misc]
        assert "--column" not in line and 'into a column "text"' in line
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": OPEN_AI}), encoding="utf-8")
    line = problem_of(lambda: texts_of(corpus_of(path, column="messages")))
    assert 'the column "messages" holds chats, not text; write each as one text' in line
    assert "--column" not in line


NO_TEXTS: dict[str, Callable[[int], str]] = {
    "id": lambda n: f"conversation-{n:06d}",
    "docId": lambda n: "QWJhYvA" + "abcdefghijkl"[n],
    "sample": lambda n: f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}-{n}"[:16].rjust(16, "0"),
    "key": lambda n: f"d95bafc8-f2a4-d27b-dcf4-{n * 7919:012x}",
    "where": lambda n: f"https://example.org/page/{n}?q=1",
    "home_url": lambda n: "example.org",
    "mail": lambda n: f"reader{n}@example.org",
    "day": lambda n: f"2024-03-{n + 1:02d}T10:20:30Z",
    "created_at": lambda n: f"{n + 1}. March",
    "when": lambda n: f"{n + 1:02d}/03/2024",
    "sent": lambda n: f"Mon, {n + 1} Mar 2024 10:20:30 +0100",
    "born": lambda n: f"March {n + 1}, 1924",
    "price": lambda n: f"${n}.50",
    "image": lambda n: f"pictures/cat-{n}.jpg",
    "role": lambda n: "user" if n % 2 else "assistant",
    "author": lambda n: "Some Body " + "abcdefghijkl"[n],
    "lang": lambda n: "en" if n % 3 else "de",
    "anything": lambda n: "good" if n % 3 else "bad",
    "is_new": lambda n: "yes" if n % 2 else "no",
    "license": lambda n: "CC BY 4.0",
}


@pytest.mark.parametrize("column", NO_TEXTS)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_ids_links_dates_and_labels_are_not_the_text_by_accident(
    tmp_path: Path, name: str, column: str
) -> None:
    alone = rows_of(**{column: NO_TEXTS[column]}, score=lambda n: n)
    line = problem_of(lambda: column_of(tmp_path, alone, name))
    assert "no column is clearly the text; name one with" in line and f'"{column}" (' in line
    beside = rows_of(**{column: NO_TEXTS[column]}, body=PROSE)
    assert column_of(tmp_path, beside, name) == "body"


def test_what_no_other_column_can_be_is_the_text(tmp_path: Path) -> None:
    for rows, column in (
        (rows_of(name=lambda n: "emma"), "name"),  # all that there is
        (
            rows_of(source=lambda n: f"def f{n}(x):\n    return x + {n}\n" * 3, path="a.py"),
            "source",
        ),
        (rows_of(smiles=lambda n: "CC(=O)" + "C" * n, mass=lambda n: n), "smiles"),
        (rows_of(body=PROSE, tags=lambda n: ["a", "b"]), "body"),
        (rows_of(prompt=PROSE, url=lambda n: f"https://example.org/{n}"), "prompt"),
        (
            rows_of(本文=lambda n: "吾輩は猫である。名前はまだ無い。" * 3, id=lambda n: f"x{n}"),
            "本文",
        ),
        (rows_of(id="same", text=lambda n: f"t{n}", story=PROSE), "text"),  # its name says it
    ):
        assert column_of(tmp_path, rows, "a.jsonl") == column


@pytest.mark.parametrize("as_text", [json.dumps, repr, lambda chat: json.dumps({"messages": chat})])
def test_a_chat_that_is_written_in_a_cell_is_one(tmp_path: Path, as_text: Any) -> None:
    for beside in ({}, {"id": lambda n: f"x-{n}"}):
        rows = rows_of(**beside, conversations=lambda n: as_text(SHARE_GPT))
        for name in EVERYWHERE:
            line = problem_of(lambda name=name, rows=rows: column_of(tmp_path, rows, name))  # type: ignore[misc]
            assert '"conversations" holds chats, not text' in line
    assert corpus_of(tmp_path / "a.csv", column="conversations").data.column == "conversations"


def test_long_rows_are_looked_at_until_they_are_enough(tmp_path: Path) -> None:
    rows = [{"body": "x y" * 2_000_000}] + [{"body": "x", "n": "not a text"}] * 3
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert list(JsonLines(path, "error").columns()) == ["body"]


@pytest.mark.parametrize("name", WITH_LISTS)
def test_half_of_a_pair_is_not_the_text_by_accident(tmp_path: Path, name: str) -> None:
    for rows in (
        rows_of(question=PROSE, choices=lambda n: ["yes", "no"], answer=lambda n: n % 2),
        rows_of(instruction=PROSE, context=PROSE, response=PROSE),
        rows_of(question=PROSE, answer=lambda n: "yes" if n % 2 else "no"),
    ):
        line = problem_of(lambda rows=rows: column_of(tmp_path, rows, name))  # type: ignore[misc]
        assert "hold text" in line and "finetune instruct" in line


def test_a_column_that_nothing_is_in_is_not_in_the_way(tmp_path: Path) -> None:
    rows = rows_of(note="", body=PROSE)
    assert [column_of(tmp_path, rows, name) for name in EVERYWHERE] == ["body"] * 4


def test_a_first_record_is_not_taken_for_the_names_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for first in (PROSE[0], "I went to the shop and bought bread."):
        texts = [first, *PROSE]
        content = "".join(f'{n},"{text}"\n' for n, text in enumerate(texts))
        path.write_text(content, encoding="utf-8")
        line = problem_of(lambda: corpus_of(path))
        assert "looks like a record" in line
        assert "put a line with the columns' names first" in line


def test_lists_with_as_much_text_are_named(tmp_path: Path) -> None:
    rows = rows_of(summary=PROSE, sections=lambda n: [PROSE[n], PROSE[-n]])
    line = problem_of(lambda: column_of(tmp_path, rows, "a.jsonl"))
    assert 'the text may be in "sections" (lists)' in line
    assert 'name a column with --column: it has "summary" (text)' in line


def test_more_than_the_first_row_is_looked_at(tmp_path: Path) -> None:
    late: Rows = [{"title": None, "body": "b" * n} for n in range(1, 5)]
    for name in WITH_LISTS:
        several = [*late, {"title": "A title in words", "body": "b"}]
        line = problem_of(lambda name=name, rows=several: column_of(tmp_path, rows, name))  # type: ignore[misc]
        assert "several columns hold text" in line
        assert column_of(tmp_path, [{"n": 1}, *late], name) == "body"


# --- what Python holds ---


def test_training_on_rows_says_what_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []

    def train_new(checked: CheckedRequest, *given: Any) -> Any:
        told.extend(checked.notes)
        return SimpleNamespace(path=tmp_path)

    monkeypatch.setattr(api, "train_new", train_new)
    rows = [{"id": n, "body": text} for n, text in enumerate(PROSE)]
    api.train(rows, out=tmp_path / "run", watcher=Quiet())
    assert told == ['column "body" of 2 is read; not used: "id"']


class Frame:
    """What hairpin sees of a data frame of pandas: gone over, it gives the columns' names."""

    def __init__(self, rows: list[tuple[Any, ...]], columns: list[Any]) -> None:
        self.rows, self.columns = rows, columns

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def itertuples(self, index: bool, name: None) -> Iterator[tuple[Any, ...]]:
        assert not index and name is None
        return iter(self.rows)


class Polars(Frame):
    """The same of polars."""

    itertuples = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "itertuples":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def iter_rows(self, *, named: bool) -> Iterator[dict[str, Any]]:
        assert named
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


class ArrowTable:
    """What hairpin sees of a table of pyarrow, which nothing can go over."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.schema = rows, "id: int64, body: string"

    def to_batches(self) -> list[Any]:
        batch = ArrowTable(self.rows)
        batch.to_pylist = lambda: self.rows  # type: ignore[attr-defined]
        return [batch]


@pytest.mark.parametrize("frame_type", [Frame, Polars])
def test_a_data_frame_is_its_rows_and_not_the_names_of_its_columns(frame_type: Any) -> None:
    frame = frame_type([(1, "a text"), (2, None), (3, float("nan")), (4, "b")], ["id", "body"])
    corpus = corpus_of(spool(frame, None))
    assert (corpus.data.column, texts_of(corpus)) == ("body", ["a text", "b"])
    assert (corpus.rows, corpus.empty) == (4, 2)
    assert "several columns hold text; name one with column=" in problem_of(
        lambda: spool(frame_type([("a b", "c d")], ["head", "body"]), None)
    )
    numbered = frame_type([("a b", "c d")], [0, 1])
    assert texts_of(corpus_of(spool(numbered, "1"))) == ["c d"]


def test_tables_of_arrow_and_rows_that_are_tables_are_their_rows() -> None:
    rows = [{"id": 1, "body": "a text"}, {"id": 2, "body": "b"}]
    expected = spool(rows, None)
    assert spool(ArrowTable(rows), None) == expected  # type: ignore[arg-type]
    assert spool([ArrowTable([row]) for row in rows], None) == expected  # with_format("arrow")
    frames = [Frame([tuple(row.values())], list(row)) for row in rows]
    assert spool(frames, None) == expected  # with_format("pandas")


def test_values_of_numpy_are_pythons() -> None:
    rows = [
        {"id": np.int64(3), "x": np.float32(0.5), "on": np.True_, "body": np.str_("a"), "e": e}
        for e in (np.zeros(2), None)
    ]
    assert texts_of(corpus_of(spool(rows, None))) == ["a", "a"]
    assert texts_of(corpus_of(spool(np.array(["a", "b"]), None))) == ["a", "b"]
    assert 'row 1: "the row" is a int64' in problem_of(lambda: spool(np.array([1, 2]), None))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"text": "one"}, "put the one row into a list"),
        ({"text": ["one"], "n": [1]}, 'hairpin.train(dataset["text"])'),
        ([], "no rows in it (a list)"),
        (iter(()), "a generator can be read only once"),
        ([Path("a.txt"), Path("b.txt")], "hairpin.train(*names)"),
        (["boook.txt", "notes/one.txt"], "hairpin.train(*names)"),
        (["a", {"text": "b"}], 'row 2: "the row" is a dict'),
        ([{"text": "b"}, "a"], "row 2: is a str, but the first is a dict"),
        ([["a"], ["b"]], 'row 1: "the row" is a list'),
    ],
)
def test_what_holds_no_rows_of_text_is_a_line(rows: Any, expected: str) -> None:
    assert expected in problem_of(lambda: spool(rows, None))


# --- what is told ---


def test_the_column_and_those_that_are_not_used_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [*rows_of(id=lambda n: n, body=PROSE, url="https://example.org"), {"body": ""}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    expected = (
        'column "body" of 3 is read; not used: "id", "url"; 1 of 13 rows has no text and was left '
        "out"
    )
    assert [*text_notices(survey(corpus_of(path)))] == [expected]
    assert [*text_notices(survey(corpus_of(path)))] == [expected]  # from the cache
    notices: list[str] = []
    spool(rows, None, on_notice=notices.append)
    assert notices == ['column "body" of 3 is read; not used: "id", "url"']
    late = [{"body": "a text"}] * 200 + [{"body": "another", "note": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in late), encoding="utf-8")
    assert 'not used: "note"' in str([*text_notices(survey(corpus_of(path)))])
    plain = tmp_path / "a.txt"
    plain.write_text("no table", encoding="utf-8")
    assert [*text_notices(survey(corpus_of(plain)))] == []
    (unread,) = text_notices(survey(corpus_of(plain, column="body")))
    assert unread == 'none of the texts is a table with rows: column "body" is not read'
