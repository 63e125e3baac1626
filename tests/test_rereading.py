"""A text that is measured for a run is read as the run read its own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from corpora import problem_of, texts_of
from hairpin.cli.verbs.evaluate import evaluate
from hairpin.config.load import build_config
from hairpin.config.settings import Data, Source
from hairpin.data.corpus import open_corpus
from hairpin.data.rereading import READING, open_like_run, reading_settings
from hairpin.data.split import survey
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import ConfigError, CorpusError
from hairpin.model.shape import Shape
from hairpin.tasks.inference import Trained
from helpers import TINY, lively_model, some_text

DOCUMENTS = [some_text(150, seed) for seed in range(60)]


def trained_on(text: Path, **data: Any) -> Trained:
    """A model that has seen nothing, with the config of a run on this text."""
    flags = TINY | {"data.texts": [str(text)]} | {f"data.{key}": data[key] for key in data}
    model = lively_model(Shape(257, 16, layers=1, heads=2, width=16))
    return Trained(build_config(flags=flags), model, ByteTokenizer(), "last weights", "cpu")


def read(own: Data, *texts: Path, **said: Any) -> list[str]:
    """The documents of texts that are read for a run."""
    asked = reading_settings((), {f"data.{key}": value for key, value in said.items()})
    return [text for corpus in open_like_run(own, texts, asked) for text in
            texts_of(corpus)]  # fmt: skip


def file_of(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def own_of(*texts: Path, **data: Any) -> Data:
    """The settings that a run on these texts has in the end."""
    return open_corpus(Data(texts=tuple(map(str, texts)), **data)).data


# --- the same text is the same number ---


@pytest.mark.parametrize("kind", ["separated", "table"])
def test_the_validation_documents_are_measured_as_the_run_measures_them(
    tmp_path: Path, kind: str
) -> None:
    def write(name: str, documents: list[str]) -> Path:
        if kind == "separated":
            return file_of(tmp_path / f"{name}.txt", "<|endoftext|>".join(documents))
        rows = [{"head": f"Of chapter {n}", "body": d} for n, d in enumerate(documents)]
        return file_of(tmp_path / f"{name}.jsonl", lines_of(rows))

    how: dict[str, Any] = {"split": "documents"}
    how |= {"separator": "<|endoftext|>"} if kind == "separated" else {"column": "body"}
    whole = write("whole", DOCUMENTS)
    found = survey(open_corpus(Data(texts=(str(whole),), **how)))
    kept = [d for d, side in zip(DOCUMENTS, found.in_validation, strict=True) if side]
    trained = trained_on(whole, **how)
    recorded = trained.measure([])
    again = trained.measure([write("validation", kept)])
    assert again.loss == recorded.loss
    assert again.bits_per_byte == recorded.bits_per_byte
    assert again.tokens == recorded.tokens


def test_a_separator_of_the_call_stands_in_place_of_the_runs(tmp_path: Path) -> None:
    text = file_of(tmp_path / "a.txt", "one~two~three|four")
    own = own_of(text, separator="~")
    assert read(own, text) == ["one", "two", "three|four"]
    assert read(own, text, separator="|") == ["one~two~three", "four"]


def test_bad_bytes_are_treated_as_in_the_run_and_counted(tmp_path: Path) -> None:
    latin = file_of(tmp_path / "latin.txt", "caf\xe9 ".encode("latin-1") * 9)
    trained = trained_on(latin, on_bad_bytes="replace")
    notices: list[str] = []
    assert trained.measure([latin], on_notice=notices.append).tokens > 0
    assert any(re.search(r"\b9\b", line) for line in notices)
    strict = trained_on(latin)
    assert "on_bad_bytes=replace" in problem_of(lambda: strict.measure([latin]))
    assert strict.measure([latin], overrides=["data.on_bad_bytes=replace"]).tokens > 0


# --- formats and columns ---


def test_a_text_named_like_the_runs_is_read_as_those_were(tmp_path: Path) -> None:
    rows = [{"body": "one", "note": "a b"}, {"body": "two", "note": "c d"}]
    log = file_of(tmp_path / "a.log", lines_of(rows))
    own = own_of(log, format="jsonl", column="body")
    assert read(own, file_of(tmp_path / "b.log", lines_of(rows))) == ["one", "two"]
    assert read(own, file_of(tmp_path / "b.csv", "body,note\nthree,x\n")) == ["three"]
    as_text = own_of(file_of(tmp_path / "a.jsonl", lines_of(rows)), format="text")
    assert read(as_text, tmp_path / "a.jsonl") == [lines_of(rows)]


def test_a_text_named_otherwise_says_itself_what_it_is(tmp_path: Path) -> None:
    rows = lines_of([{"body": "one", "note": "a b"}])
    folder = tmp_path / "wiki"
    folder.mkdir()
    inside = file_of(folder / "a.jsonl", rows)
    plain = file_of(tmp_path / "b.txt", "plain text")
    table = file_of(tmp_path / "c.csv", "note,body\na b,two\n")
    for own in (own_of(folder, column="body"), own_of(inside, column="body")):
        assert own.format == "jsonl"
        assert read(own, plain, inside, table) == ["plain text", "one", "two"]
        assert read(own, inside, column="note") == ["a b"]
    inside.unlink()  # the run's own text may be gone
    assert read(own_of(plain), plain) == ["plain text"]


def test_of_a_mixture_a_text_is_read_as_the_source_that_has_it(tmp_path: Path) -> None:
    tables, texts = tmp_path / "tables", tmp_path / "texts"
    tables.mkdir()
    texts.mkdir()
    table = file_of(tables / "a.jsonl", lines_of([{"body": "one", "note": "a b"}]))
    text = file_of(texts / "a.txt", "two~three")
    own = Data(
        sources=(
            Source(name="tables", texts=(str(tables),), column="body"),
            Source(name="texts", texts=(str(texts),), separator="~"),
        )
    )
    assert read(own, text, table) == ["two", "three", "one"]
    other = file_of(tmp_path / "b.txt", "four~five")
    assert read(own, other) == ["four~five"]  # the sources differ: as the whole says
    alike = Data(
        sources=tuple(
            Source(name=name, texts=(str(texts),), separator="~") for name in ("one", "two")
        )
    )
    assert read(alike, other) == ["four", "five"]


def test_python_gives_paths_and_rows(tmp_path: Path) -> None:
    text = file_of(tmp_path / "a.txt", "a text to measure " * 9)
    trained = trained_on(text)
    expected = trained.measure([text])
    for given in (text, str(text), [str(text)], (text,), [["a text to measure " * 9]]):
        assert trained.measure(given).loss == expected.loss
    rows = [{"id": 1, "body": "a text to measure " * 9}]
    assert trained.measure([rows]).loss == expected.loss
    both = [{"head": "a b", "body": "a text to measure " * 9}]
    assert "name one with column=" in problem_of(lambda: trained.measure([both]))
    assert trained.measure([both], column="body").loss == expected.loss
    of_tables = trained_on(text, column="body")
    assert of_tables.measure([both]).loss == expected.loss
    assert of_tables.measure([["a text to measure " * 9]]).loss == expected.loss
    assert "name is empty" in problem_of(lambda: trained.measure(""))


def test_a_run_without_a_text_of_its_own_asks_for_one() -> None:
    model = lively_model(Shape(257, 16, layers=1, heads=2, width=16))
    trained = Trained(build_config(), model, ByteTokenizer(), "last weights", "cpu")
    line = problem_of(trained.measure)
    assert line == "no text given, and the run has no validation text; name a text"


# --- what a call says ---


def test_what_does_not_say_how_a_text_is_read_is_refused(tmp_path: Path) -> None:
    text = file_of(tmp_path / "a.txt", "a text to measure")
    trained = trained_on(text)
    for overrides, expected in (
        (["train.updates=3"], "train.updates: does not change how a text is read"),
        (["data.seperator=x"], "did you mean data.separator?"),
        (["data.format=xml"], "data.format"),
        (["separator"], "write it as --set table.key=value"),
    ):
        with pytest.raises(ConfigError) as caught:
            trained.measure([text], overrides=overrides)
        assert expected in caught.value.problems[0]
    with pytest.raises(ConfigError, match="name a text"):
        trained.measure([], overrides=["data.separator=x"])
    with pytest.raises(ConfigError, match="name a text"):
        trained.measure([], column="body")
    assert "none of the texts is a table" in problem_of(
        lambda: trained.measure([text], column="body")
    )


def test_a_fine_tuned_run_takes_the_names_of_columns(tmp_path: Path) -> None:
    known = ("finetune.text_column", "data.on_bad_bytes")
    assert reading_settings(["finetune.text_column=body"], {}, known) == {
        "finetune.text_column": "body"
    }
    with pytest.raises(ConfigError, match="does not change how a text is read"):
        reading_settings(["data.separator=x"], {}, known)


BAD: dict[str, bytes] = {
    "latin.txt": b"caf\xe9",
    "utf16.txt": ("a caf\xe9 by the sea " * 20).encode("utf-16-le"),
    "half.jsonl": b'{"text": "\\ud83c"}\n',
    "several.csv": b"one,two\na b,c d\n",
    "chats.jsonl": b'{"messages": [{"role": "user", "content": "a"}]}\n',
    "ids.jsonl": b'{"id": "x-1", "n": 1}\n' * 3,
    "numbers.jsonl": b'{"n": 1}\n',
    "lists.jsonl": b'{"text": [1]}\n',
    "mixed.jsonl": b'{"text": "a"}\n' * 120 + b'{"text": 3}\n',
    "object.json": b'{"text": "a"}',
    "cut.json": b'[{"text": "a"}',
    "ragged.csv": b"text,n\na\n",
    "unclosed.csv": b'text,n\n"a,1\n',
    "train.bin": b"\x10\x27\x01\x00" * 99,
    "empty.txt": b"",
    "empty.csv": b"",
    "rows.csv": b"text,n\n,1\n,2\n",
    "short.txt.gz": b"\x1f\x8b\x08",
    "table.parquet": b"PAR1",
}


@pytest.mark.parametrize("name", [*BAD, "missing.txt", "no-*.txt", "folder"])
def test_a_line_of_evaluate_advises_what_evaluate_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    text = tmp_path / name
    if name in BAD:
        file_of(text, BAD[name])
    trained = trained_on(tmp_path / "own.txt")
    with pytest.raises(CorpusError) as caught:
        trained.measure([text])
    options = {option for param in evaluate.params for option in param.opts}
    for line in caught.value.problems:
        assert "\n" not in line
        assert set(re.findall(r"--[a-z-]+", line)) <= options
        assert set(re.findall(r"data\.[a-z_]+", line)) <= set(READING)
        assert "column=…" not in line
