"""A folder's text, the files that are left out of it, and the lines that say so."""

import hashlib
import json
import lzma
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import hairpin as library
from corpora import corpus_of, problem_of, texts_of
from hairpin.config.load import build_config
from hairpin.data.corpus import split_stream
from hairpin.data.recognising import recognise
from hairpin.data.split import survey
from hairpin.data.tables import choosing
from hairpin.errors import ConfigError, CorpusError, UserError
from helpers import TINY_FLAGS, Hairpin, some_text
from test_formats import as_lines, write

PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def files(root: Path, **contents: str | bytes) -> Path:
    """A folder of files; in names `__` is a slash and `_` a dot."""
    for name, content in contents.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


# --- said by every verb ---


def test_all_that_is_wrong_with_tables_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "broken.jsonl").write_text('{"b": "a text"}\n{"b": \n')
    with pytest.raises(CorpusError) as caught:
        corpus_of(tmp_path, column="b")
    assert {Path(line.split(":")[0]).name for line in caught.value.problems} == {
        "numbers.csv",
        "broken.jsonl",
    }


def test_train_plan_prepare_and_evaluate_say_what_was_left_out(
    hairpin: Hairpin, tmp_path: Path, no_plots: None
) -> None:
    text = some_text().encode()
    files(tmp_path / "notes", a_txt=text[:3000] + b"\xff" + text[3000:], b_png=PICTURE)
    files(tmp_path / "notes", c_png=PICTURE, _gitignore="*.o", d_pdf="%PDF-1.4", e_csv="a,b\n1,2")
    lenient = "data.on_bad_bytes=replace"
    said = [
        "left out: 2 pictures (b.png, c.png), 1 hidden file or folder (.gitignore)",
        "left out: 1 PDF (d.pdf): save its text, as with `pdftotext`",
        "left out: 1 table next to texts (e.csv): --column NAME includes them, --set "
        "data.format=text reads them as plain text",
        "bytes that are not text were replaced by 1 U+FFFD character",
    ]
    flags = (*TINY_FLAGS, "--set", lenient)
    plan = hairpin("plan", "notes", *flags, "--no-probe", "--json")
    facts = json.loads(plan.out)["text"]
    assert facts["left_out"]["picture"] == 2 and facts["left_out"]["PDF"] == 1
    assert facts["replaced"] == 1 and set(facts["notices"]) == set(said)
    plan_out = hairpin("plan", "notes", *flags, "--no-probe").out
    prepared = hairpin("prepare", "notes", "--out", "shards", "--set", lenient).out
    trained = hairpin("train", "notes", *flags, "--out", "run")
    assert trained.code == 0
    for line in said:
        assert line in plan_out and line in prepared and line in trained.out
    files(tmp_path / "other", a_txt=text, b_png=PICTURE)
    assert "left out: 1 picture" in hairpin("evaluate", "run", "other").err


def test_a_separator_is_typed_as_in_a_program_and_the_config_has_what_it_means() -> None:
    for typed, meant in {
        r"\n\n": "\n\n",
        r"\r\n": "\r\n",
        r"a\tb": "a\tb",
        r"\\n": r"\n",
        r"\d|<end>": r"\d|<end>",
        "\n": "\n",
        r'"\n"': "\n",
        "<|endoftext|>": "<|endoftext|>",
    }.items():
        config = build_config(overrides=[f"data.separator={typed}"])
        assert config.data.separator == meant, typed
    flags = {"data.separator": r"\n"}  # not typed in a shell
    assert build_config(flags=flags).data.separator == r"\n"


@given(
    st.lists(st.text("ab\r\n-", max_size=8), max_size=8),
    st.sampled_from(["\n\n", "-\n", "\r\n\r\n", "\n-", "\n"]),
)
def test_line_ends_of_windows_are_found_wherever_blocks_end(
    blocks: list[str], separator: str
) -> None:
    lines = separator.replace("\r\n", "\n").split("\n")
    expected = re.split("\r?\n".join(map(re.escape, lines)), "".join(blocks))
    assert ["".join(part) for part in split_stream(blocks, separator)] == expected


def test_a_separator_that_is_never_found_and_one_that_is_plainly_there_are_said(
    tmp_path: Path,
) -> None:
    story = "One day a fox ran.\r\n<|endoftext|>\r\n"
    path = files(tmp_path, a_txt=story * 50) / "a.txt"
    whole = survey(corpus_of(path))
    (line,) = whole.notices
    assert line == (
        "<|endoftext|> stands 50 times in the text, and no separator is set: "
        "--data.separator '<|endoftext|>' makes each part a document"
    )
    assert survey(corpus_of(path)).notices == whole.notices  # from the cache, too
    (line,) = survey(corpus_of(path, separator="\n\n")).notices
    assert line == 'data.separator "\\n\\n" is never found: each file is one document'
    divided = survey(corpus_of(path, separator="<|endoftext|>\n"))
    assert (divided.documents, divided.notices) == (50, ())
    code = files(tmp_path, b_py='END = "<|endoftext|>"\n' * 9) / "b.py"
    assert not survey(corpus_of(code)).notices
    table = write(tmp_path / "a.jsonl", as_lines([{"text": "row"}]))
    assert "it is not used" in survey(corpus_of(table, separator="~~~")).notices[0]


# --- nothing is the text that nobody meant ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", ""),
        ("train", "a.txt", ""),
        ("plan", ""),
        ("prepare", "", "--out", "x"),
        ("evaluate", ""),
        ("compare", "", "--vary", "train.seed=1,2"),
        ("train", "a.txt", "--out", ""),
        ("train", "--corpus", ""),
        ("train", "--set", 'data.texts=[""]'),
        ("finetune", "instruct", "--data", ""),
    ],
)
def test_an_empty_name_is_not_this_folder(
    hairpin: Hairpin, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    files(tmp_path, a_txt=some_text())
    done = hairpin(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "empty" in done.err or "got ''" in done.err
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_python_refuses_an_empty_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files(tmp_path, a_txt=some_text())
    act: Callable[[], object]
    for act in (lambda: library.train(""), lambda: library.plan("a.txt", "")):
        with pytest.raises(UserError) as caught:
            act()
        assert "name is empty" in str(caught.value)


def test_a_runs_own_folder_is_not_its_text(
    hairpin: Hairpin, tmp_path: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path / "w", book_txt=some_text())
    monkeypatch.chdir(tmp_path / "w")
    assert survey(corpus_of(tmp_path / "w")).documents == 1
    hash_ = survey(corpus_of(tmp_path / "w")).hash
    for number in (1, 2):
        assert hairpin("train", ".", *TINY_FLAGS).code == 0
        corpus = corpus_of(tmp_path / "w")
        assert survey(corpus).hash == hash_
        assert corpus.left_out.counts() == {"run folder": number}
    assert "left out: 2 run folders (runs/w-1, runs/w-2)" in corpus.notices()
    line = hairpin("train", "runs/w-1", *TINY_FLAGS).refusal
    assert "runs/w-1: is the folder of a hairpin run, not text" in line
    assert "(left out: 2 run folders (w-1, w-2))" in problem_of(lambda: corpus_of("runs"))


def test_the_cache_and_trackers_and_experiments_are_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = files(
        tmp_path / "project",
        a_txt="A text.",
        cache__notes_txt="no text",
        experiments__x__experiment_json="{}",
        experiments__x__results_json="{}",
        experiments__x__report_md="no text",
        wandb__run1_txt="a text",
        node_modules="a text, whatever its name",
        target__CACHEDIR_TAG="Signature: 8a477f597d28d172789f06886806bc55",
        target__notes_txt="no text",
    )
    (root / "target" / "CACHEDIR.TAG").touch()
    monkeypatch.setenv("HAIRPIN_CACHE", str(root / "cache"))
    corpus = corpus_of(root)
    assert texts_of(corpus) == ["A text.", "a text, whatever its name", "a text"]
    assert corpus.left_out.counts() == {"cache": 2, "run folder": 1}
    files(root, wandb__offline__notes_txt="no text")
    (root / "wandb" / "offline").rename(root / "wandb" / "offline-run-1")
    corpus = corpus_of(root)
    assert len(texts_of(corpus)) == 2 and corpus.left_out.counts()["tracker's folder"] == 1


def test_a_pattern_does_not_reach_into_a_run(tmp_path: Path) -> None:
    event = as_lines([{"text": "event"}])
    files(tmp_path, notes__a_txt="A text.", b_txt="B text.", runs__x__config_toml="")
    files(tmp_path, runs__x__metrics_jsonl=event, runs__x__plots__c_txt="plotted")
    files(tmp_path, venv__pyvenv_cfg="", venv__d_txt="installed")
    corpus = corpus_of(tmp_path / "**" / "*.*")
    assert texts_of(corpus) == ["B text.", "A text."]
    assert corpus.left_out.counts() == {"run folder": 1, "virtual environment": 1}
    named = corpus_of(tmp_path / "runs" / "x" / "*.jsonl")  # asked for, whatever it is
    assert texts_of(named) == ["event"]


# --- tables among texts ---

ROW = as_lines([{"body": "A row.", "id": 1}])


def test_tables_do_not_stop_a_folder_of_texts(tmp_path: Path) -> None:
    root = files(
        tmp_path / "repo",
        a_py="def f(): ...\n",
        tests__broken_csv="a,b\n1,2,3\n",
        tests__rows_json='[{"id": 1, "title": "x", "body": "y"}]',
        tests__settings_json='{"id": 1}',
        tests__users_csv="id,name,email\n1,Anna,a@b\n",
    )
    corpus = corpus_of(root)
    assert texts_of(corpus) == ["def f(): ...\n", '{"id": 1}']
    (line,) = corpus.notices()
    assert "3 tables next to texts (tests/broken.csv, tests/rows.json, tests/users.csv)" in line
    assert "--column NAME" in line and "data.format=text" in line
    assert len(texts_of(corpus_of(root, format="text"))) == 5
    corpus = corpus_of(root, column="body")
    assert texts_of(corpus) == ["def f(): ...\n", "y", '{"id": 1}']
    unread, lacking = corpus.notices()
    assert "1 table that cannot be read" in unread and "broken.csv:2: 3 cells" in unread
    assert '1 table without the column "body"' in lacking and "users.csv" in lacking
    with pytest.raises(CorpusError) as caught:
        corpus_of(root, column="nope")
    *missing, broken = caught.value.problems
    assert len(missing) == 2 and all('no column "nope"' in line for line in missing)
    assert "broken.csv:2: 3 cells" in broken


def test_of_a_folder_of_tables_all_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    files(tmp_path, a_jsonl=ROW, b_jsonl="{", c_csv="body,b\n1,2,3\n", d_jsonl=ROW)
    with pytest.raises(CorpusError) as caught:
        corpus_of(tmp_path)
    first, second = caught.value.problems
    assert "b.jsonl:1: not valid JSON" in first and "c.csv:2: 3 cells" in second
    many = files(tmp_path / "many", **{f"t{n}_jsonl": "{" for n in range(30)})
    with pytest.raises(CorpusError) as caught:
        corpus_of(many)
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1] == "and 20 more tables like these"


def test_a_table_without_the_text_column_of_the_others_is_left_out(tmp_path: Path) -> None:
    files(
        tmp_path,
        channels_json='[{"id": "C1", "name": "general", "creator": "U1"}]',
        general__1_json='[{"user": "U1", "text": "Hello."}]',
    )
    for fields in ({}, {"column": "text"}):
        corpus = corpus_of(tmp_path, **fields)
        assert texts_of(corpus) == ["Hello."]
        assert 'left out: 1 table without the column "text"' in corpus.notices()[0]
    named = tmp_path / "channels.json"
    assert 'no column "text"' in problem_of(lambda: texts_of(corpus_of(named, column="text")))


def test_of_a_dataset_with_splits_the_train_split_is_read(tmp_path: Path) -> None:
    row = {name: as_lines([{"text": name}]) for name in ("train", "test", "val", "extra")}
    hub = files(tmp_path / "hub", README_md="---\nlicense: mit\n---\n", LICENSE="MIT")
    write(hub / "dataset_infos.json", "{}")
    for number in (0, 1):
        write(hub / "data" / f"train-0000{number}-of-00002.jsonl", row["train"])
    write(hub / "data" / "test-00000-of-00001.jsonl", row["test"])
    write(hub / "validation" / "1.jsonl.gz", row["val"])
    write(hub / "extra.jsonl", row["extra"])
    corpus = corpus_of(hub)
    assert texts_of(corpus) == ["train", "train", "extra"]
    about, splits = corpus.notices()
    assert "3 texts about the tables (LICENSE, README.md, dataset_infos.json)" in about
    assert "2 tables of the splits test and validation (data/test-00000-of-00001.jsonl" in splits
    assert "only the split train is read" in splits
    assert texts_of(corpus_of(hub / "data" / "test-00000-of-00001.jsonl")) == ["test"]
    assert texts_of(corpus_of(hub / "validation")) == ["val"]  # no train beside it
    assert len(texts_of(corpus_of(hub / "**" / "*.jsonl*"))) == 5  # each is named
    assert texts_of(corpus_of(hub, column="text")) == ["train", "train", "extra"]


def test_a_card_of_a_data_set_says_that_its_tables_are_the_text(tmp_path: Path) -> None:
    card = "---\nlicense: mit\ndataset_info:\n  features: []\n---\nStories.\n"
    root = files(tmp_path / "hub", README_md=card, stories_py="a script", all_txt="the same")
    write(root / "data" / "train-0.jsonl", as_lines([{"text": "row"}]))
    corpus = corpus_of(root)
    assert texts_of(corpus) == ["row"]
    assert "3 texts about the tables" in corpus.notices()[0]
    files(root, README_md="---\ntitle: My notes\n---\ndataset_info: no card\n")
    assert "a script" in texts_of(corpus_of(root))


def test_of_the_hubs_cache_the_snapshot_is_read(tmp_path: Path) -> None:
    root = files(tmp_path / "datasets--x", refs__main="c0ffee")
    write(root / "blobs" / "1", as_lines([{"text": "row"}]))
    write(root / "blobs" / "2", "About the data.")
    (root / "snapshots" / "c0ffee").mkdir(parents=True)
    (root / "snapshots" / "c0ffee" / "train.jsonl").symlink_to("../../blobs/1")
    (root / "snapshots" / "c0ffee" / "README.md").symlink_to("../../blobs/2")
    assert texts_of(corpus_of(root)) == ["row"]


def test_of_very_many_tables_the_first_says_which_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_MAX_CHECKED", 2)
    files(tmp_path, a_jsonl=ROW, b_jsonl=ROW, c_jsonl=ROW)
    assert texts_of(corpus_of(tmp_path)) == ["A row."] * 3


def test_of_several_bad_files_each_is_named(tmp_path: Path) -> None:
    files(tmp_path, a_txt="good", b_txt=b"b\xff", c_txt="good", d_txt=b"long \xff")
    with pytest.raises(CorpusError) as caught:
        survey(corpus_of(tmp_path))
    first, second = caught.value.problems
    assert "b.txt: byte 0xff at offset 1 " in first and "d.txt: byte 0xff at offset 5 " in second
    many = files(tmp_path / "many", **{f"t{n}_txt": b"\xff" for n in range(30)})
    with pytest.raises(CorpusError) as caught:
        survey(corpus_of(many))
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1] == "20 more files were not checked"


# --- compressed, and told from text ---


def test_a_long_window_of_zstd_is_read(tmp_path: Path) -> None:
    text = "".join(random.Random(0).choices("abc \n", k=5000))
    frame = bytearray(zstandard.ZstdCompressor(write_content_size=False).compress(text.encode()))
    assert not frame[4] & 0x20  # not one segment: the window's descriptor follows
    frame[5] = (31 - 10) << 3
    path = tmp_path / "a.txt.zst"
    path.write_bytes(frame)
    with pytest.raises(zstandard.ZstdError, match="too much memory"):
        zstandard.ZstdDecompressor().decompressobj().decompress(bytes(frame))
    assert texts_of(corpus_of(path)) == [text]
    frame[5] = (35 - 10) << 3
    path.write_bytes(frame)
    line = problem_of(lambda: texts_of(corpus_of(path)))
    assert "unpack it first, as with `zstd -d --long=31`" in line and "damaged" not in line


def test_links_to_nothing_and_pointers_are_said(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    files(tmp_path, a_txt="text", b_txt=pointer)
    (tmp_path / "c.txt").symlink_to("nowhere")
    corpus = corpus_of(tmp_path)
    assert texts_of(corpus) == ["text"]
    assert corpus.notices() == (
        "left out: 1 Git LFS pointer (b.txt): fetch it, as with `git lfs pull`",
        "left out: 1 broken link or special file (c.txt)",
    )
    table = files(tmp_path / "hub", train_jsonl=pointer) / "train.jsonl"
    assert "is a Git LFS pointer, not the file itself: fetch it" in problem_of(
        lambda: corpus_of(table)
    )


def test_what_a_crash_left_is_told_by_its_middle_and_its_end(tmp_path: Path) -> None:
    text = some_text(9000).encode()
    path = files(tmp_path / "logs", a_log=text + bytes(500_000), b_log=text) / "a.log"
    assert "mostly NULs" in problem_of(lambda: corpus_of(path))
    corpus = corpus_of(tmp_path / "logs")
    assert len(texts_of(corpus)) == 1 and corpus.left_out.counts() == {"binary file": 1}
    path.write_bytes(text * 40 + bytes(1000) + text * 40)  # a hole that a crash left
    assert len(texts_of(corpus_of(tmp_path / "logs"))) == 2
    wide = files(tmp_path / "wide", a_txt=("\ufeff" + some_text(90_000)).encode("utf-32")[4:])
    assert texts_of(corpus_of(wide)) == [some_text(90_000)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_text_is_never_taken_for_anything_else(text: str) -> None:
    content = text.encode()
    shortened = len(content.translate(None, bytes(range(32))))
    if shortened * 2 > len(content) and not text.startswith(("%PDF-", "{\\rtf")):
        assert recognise(Path("a.txt"), content) is None


@pytest.mark.parametrize(
    "opening", ["BM", "MZ", "ID3", "RIFF", "ORC", "OTTO", "Obj", "GGUF", "FORM", "PK\x03\x04"[:2]]
)
def test_letters_that_some_formats_begin_with_are_text(opening: str) -> None:
    for encoding in ("utf-8", "latin-1"):
        content = f"{opening} était là, et voilà.\n".encode(encoding) * 20
        assert recognise(Path("a.txt"), content) is None


def test_a_config_says_all_empty_paths() -> None:
    with pytest.raises(ConfigError, match="a path is empty"):
        build_config(flags={"data.texts": [""]})


# --- runs that began when files were told by their names ---


def test_a_run_that_began_with_the_text_of_then_goes_on_with_it(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    files(root, a_txt="plain", b_ipynb='{"cells": [{"cell_type": "code"}], "nbformat": 4}')
    files(root, c_rtf="{\\rtf1 old}", d_jsonl=as_lines([{"text": "row"}]), e_txt=b"a\0")
    files(
        root,
        f_txt="\ufefftext".encode("utf-16-le"),
        runs__x__config_toml="",
        g_txt_xz=lzma.compress(b"new"),
    )
    files(root, runs__x__metrics_jsonl=as_lines([{"text": "event"}]), h_txt=b"a\r\n\r\nb")
    then = [
        "plain",
        '{"cells": [{"cell_type": "code"}], "nbformat": 4}',
        "{\\rtf1 old}",
        "row",
        "a\r\n\r\nb",
        "event",
    ]
    overall = hashlib.sha256()
    for text in then:
        overall.update(hashlib.sha256(text.encode()).digest())
    written = {"column": "text", "separator": "\n\n"}
    corpus = corpus_of(root, hash=overall.hexdigest(), **written)
    found = survey(corpus)
    assert (found.hash, found.documents) == (overall.hexdigest(), len(then))
    assert texts_of(corpus) == then
    new = survey(corpus_of(root, **written))
    assert new.hash != found.hash
    assert survey(corpus_of(root, hash=new.hash, **written)) == new
    line = problem_of(lambda: survey(corpus_of(root, hash="0" * 64, **written)))
    assert "the text has changed" in line and new.hash[:12] in line


def test_a_named_notebook_that_was_text_then_is_still(tmp_path: Path) -> None:
    text = '{"cells": [{"cell_type": "code"}], "nbformat": 4}'
    path = files(tmp_path, b_ipynb=text) / "b.ipynb"
    hash_ = hashlib.sha256(hashlib.sha256(text.encode()).digest()).hexdigest()
    assert survey(corpus_of(path, hash=hash_)).hash == hash_
    assert "is a Jupyter notebook" in problem_of(lambda: corpus_of(path))
    assert "is a Jupyter notebook" in problem_of(lambda: survey(corpus_of(path, hash="0" * 64)))
