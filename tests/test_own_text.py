"""Forty kinds of file that people have: docs/own-text.md says what hairpin does with each."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from corpora import corpus_of, texts_of
from hairpin.data.split import survey
from hairpin.errors import CorpusError

TEXT = "The river was high that spring, and nobody crossed it.\n"
LONG = TEXT * 40
BESIDE = "A text of its own, beside the others.\n"
Make = Callable[[Path], Path]

MAKERS: dict[str, Make] = {}


def kind(row: str, name: str, content: bytes | str) -> None:
    """A row of the page, and a file with this name and content for it."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    MAKERS[row] = make


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, LONG)
    return file.getvalue()


def tarred(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(LONG)
        archive.addfile(entry, io.BytesIO(LONG.encode()))
    return file.getvalue()


def rows(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(1000), allow_pickle=False)
    return file.getvalue()


NOISE = np.random.default_rng(0).bytes(4000)
CYRILLIC = "Все счастливые семьи похожи друг на друга.\n" * 20
CHAT = {"messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]}
NODE = {"message": {"author": {"role": "user"}, "content": {"parts": [TEXT]}}}

kind("plain text, UTF-8", "a.txt", LONG)
kind("UTF-8 with a byte-order mark", "a.txt", "\ufeff" + LONG)
kind("UTF-16 with a mark, as Notepad writes", "a.txt", ("\ufeff" + LONG).encode("utf-16-le"))
kind("UTF-32 with a mark", "a.txt", ("\ufeff" + LONG).encode("utf-32-be"))
kind("UTF-16 without a mark", "a.txt", LONG.encode("utf-16-le"))
kind("Windows-1252 or Latin-1", "a.txt", ("Le café était fermé.\n" * 9).encode("cp1252"))
kind("Shift-JIS", "a.txt", ("吾輩は猫である。名前はまだ無い。\n" * 9).encode("cp932"))
kind("GBK", "a.txt", ("我们在北京的学校里学习中文,他是一个很好的老师。\n" * 9).encode("gbk"))
kind("KOI8-R", "a.txt", CYRILLIC.encode("koi8-r"))
kind("line ends of Windows", "a.txt", TEXT.replace("\n", "\r\n") + TEXT)
kind("Markdown, as of Obsidian", "a.md", f"---\ntags: [river]\n---\n# River\n\n[[Spring]]\n{TEXT}")
kind("Org", "a.org", f"* River\n:PROPERTIES:\n:END:\n{TEXT}")
kind(
    "LaTeX", "a.tex", f"\\documentclass{{article}}\n\\begin{{document}}\n{TEXT}\\end{{document}}\n"
)
kind("HTML", "a.html", f"<!doctype html>\n<html><body><p>\n{TEXT}</p></body></html>\n")
kind("XML", "a.xml", f'<?xml version="1.0"?>\n<text>\n{TEXT}</text>\n')
kind("subtitles (.srt, .vtt)", "a.srt", f"1\n00:00:01,000 --> 00:00:03,000\n{TEXT}\n")
kind("source code", "a.py", f'def river():\n    """{TEXT}"""\n')
kind("a log with a terminal's colours", "a.log", f"\x1b[31mERROR\x1b[0m\r\n{LONG}\f\b\n")
kind("a log with a NUL in the middle", "a.log", TEXT * 400 + "\0" + TEXT * 400)
kind("an empty file", "a.txt", "")
kind("a chat of WhatsApp", "_chat.txt", f"[01.12.25, 10:00:00] Anna: \u200e{TEXT}" * 9)
kind(
    "a chat of Telegram (result.json)",
    "result.json",
    json.dumps({"name": "Anna", "messages": [{"id": 1, "text": TEXT.strip()}]}),
)
kind(
    "a chat of Discord (.json)",
    "general.json",
    json.dumps({"guild": {"id": "1"}, "messages": [{"id": "2", "content": TEXT.strip()}]}),
)
kind(
    "ChatGPT's export (conversations.json)",
    "conversations.json",
    json.dumps([{"title": "River", "id": "a-1", "create_time": 1.5, "mapping": {"a": NODE}}]),
)
kind(
    "a mailbox (.mbox)", "a.mbox", f"From a@b Mon Dec  1 10:00:00 2025\nSubject: River\n\n{TEXT}\n"
)
kind("a mail (.eml)", "a.eml", f"From: a@b\nMIME-Version: 1.0\nSubject: River\n\n{TEXT}")
kind("`.jsonl` with a column of texts", "a.jsonl", rows({"id": 1, "text": TEXT}))
kind("chats in `.jsonl`", "chats.jsonl", rows(CHAT, CHAT))
kind("`.csv`", "a.csv", f'id,text\n1,"{TEXT}"\n')
kind("`.tsv`", "a.tsv", f"id\ttext\n1\t{TEXT}")
kind("text in `.gz`", "a.txt.gz", gzip.compress(LONG.encode()))
kind("text in `.xz`", "a.txt.xz", lzma.compress(LONG.encode()))
kind("text in `.bz2`", "a.txt.bz2", bz2.compress(LONG.encode()))
kind("text in `.zst`", "a.txt.zst", zstandard.compress(LONG.encode()))
kind("`.tar`", "a.tar", tarred("w"))
kind("`.tar.gz`", "a.tar.gz", tarred("w:gz"))
kind("`.zip`", "a.zip", zipped("a.txt"))
kind("`.7z`", "a.7z", b"7z\xbc\xaf\x27\x1c\0\4" + NOISE)
kind("gzip under another name", "a.txt", gzip.compress(LONG.encode()))
kind("PDF", "a.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\nstream\n" + NOISE)
kind("Word (.docx)", "a.docx", zipped("[Content_Types].xml", "word/document.xml"))
kind("Word of old (.doc)", "a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + NOISE)
kind("Excel (.xlsx)", "a.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"))
kind("PowerPoint (.pptx)", "a.pptx", zipped("[Content_Types].xml", "ppt/presentation.xml"))
kind("Pages, Numbers or Keynote", "a.pages", zipped("Index/Document.iwa", "preview.jpg"))
kind(
    "hairpin's settings (config.toml)",
    "a.toml",
    "# hairpin train --config THIS-FILE repeats the run; docs/config.md explains the keys.\n",
)
kind("LibreOffice (.odt)", "a.odt", zipped("mimetype", "content.xml", "META-INF/manifest.xml"))
kind("PostScript", "a.ps", f"%!PS-Adobe-3.0\n/Times findfont\n({TEXT}) show\n")
kind("RTF", "a.rtf", f"{{\\rtf1\\ansi {TEXT}}}")
kind("EPUB", "a.epub", zipped("mimetype", "META-INF/container.xml", "OEBPS/1.xhtml"))
kind("e-book for Kindle (.mobi)", "a.mobi", b"River".ljust(60, b"\0") + b"BOOKMOBI" + NOISE)
kind(
    "Jupyter notebook",
    "a.ipynb",
    json.dumps({"cells": [{"cell_type": "code", "source": [TEXT]}], "nbformat": 4}, indent=1),
)
kind("picture", "a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + NOISE)
kind("sound or film", "a.mp3", b"ID3\x04\0\0\0\0" + NOISE)
kind("font", "a.ttf", b"\0\1\0\0\0\x0c" + NOISE)
kind("program", "a.out", b"\x7fELF\2\1\1" + bytes(9) + NOISE)
kind("NumPy array", "a.npy", array())
kind("pickle", "a.pkl", pickle.dumps([TEXT] * 3, protocol=4))
kind(
    "weights of a model (.safetensors)",
    "a.safetensors",
    struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}' + bytes(45),
)
kind("mostly NULs", "a.log", bytes(5000) + TEXT.encode())
kind(
    "a page that hairpin wrote",
    "report.html",
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="default-src; trusted-types">\n',
)


def made(row: str) -> Callable[[Make], Make]:
    """The row of the page that a function makes files for."""

    def keep(make: Make) -> Make:
        MAKERS[row] = make
        return make

    return keep


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@made("SQLite")
def sqlite(folder: Path) -> Path:
    path = folder / "a.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("create table river (text)")
        database.execute("insert into river values (?)", (TEXT,))
    database.close()
    return path


@made("`.parquet`")
def parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table({"text": [TEXT]}), folder / "a.parquet")
    return folder / "a.parquet"


@made("a run of hairpin")
def run(folder: Path) -> Path:
    event = rows({"event": "start", "text": TEXT})
    return folder_of(folder / "runs", {"config.toml": "recipe = 'gpt2'\n", "metrics.jsonl": event})


@made("what prepare made of a text")
def shards(folder: Path) -> Path:
    return folder_of(folder / "shards", {"shards.json": "{}", "tokenizer/tokenizer.json": "{}"})


@made("an exported model")
def exported(folder: Path) -> Path:
    files = {"config.json": "{}", "README.md": TEXT, "model.safetensors": "", "vocab.json": "{}"}
    return folder_of(folder / "export", files)


@made("a virtual environment, a cache")
def environment(folder: Path) -> Path:
    return folder_of(folder / "venv", {"pyvenv.cfg": "home = /usr\n", "lib/a.py": TEXT})


@made("Slack's export")
def slack(folder: Path) -> Path:
    message = {"type": "message", "user": "U1", "text": TEXT, "ts": "1"}
    return folder_of(
        folder / "slack",
        {
            "channels.json": json.dumps([{"id": "C1", "name": "general", "creator": "U1"}]),
            "general/2025-12-01.json": json.dumps([message]),
            "users.json": json.dumps([{"id": "U1", "name": "anna", "real_name": "Anna"}]),
        },
    )


@made("a dataset from Hugging Face's hub")
def hub(folder: Path) -> Path:
    return folder_of(
        folder / "hub",
        {
            "README.md": "---\nlicense: mit\n---\nAbout the data.\n",
            "data/test-00000-of-00001.jsonl": rows({"text": "of the test"}),
            "data/train-00000-of-00001.jsonl": rows({"text": TEXT}),
        },
    )


def page() -> dict[str, tuple[str, str]]:
    """The table of docs/own-text.md: what people have, what happens to it named and in a folder."""
    text = (Path(__file__).parents[1] / "docs" / "own-text.md").read_text(encoding="utf-8")
    text = text.partition("| what you have |")[2].partition("\n\n")[0]
    cells = [re.split(r" ?\| ?", line)[1:4] for line in text.splitlines()[2:]]
    return {row: (named, beside) for row, named, beside in cells}


PAGE = page()


def test_every_row_of_the_page_has_a_test_and_there_are_forty() -> None:
    assert set(PAGE) == set(MAKERS)
    assert len(PAGE) >= 40


@pytest.mark.parametrize("row", PAGE)
def test_what_happens_to_a_file_that_is_named(row: str, tmp_path: Path) -> None:
    path = MAKERS[row](tmp_path)
    outcome, _, words = PAGE[row][0].partition(": ")
    if outcome == "refused":
        with pytest.raises(CorpusError) as caught:
            survey(corpus_of(path))
        (line,) = caught.value.problems
        assert str(path) in line and words in line and "\n" not in line
        if not words.startswith("it looks like"):
            assert "on_bad_bytes" not in line
        return
    corpus = corpus_of(path)
    texts = "".join(texts_of(corpus))
    assert TEXT.strip() in texts.replace("\r\n", "\n")
    assert (corpus.sources[0].format == "text") == outcome.startswith("read")
    assert bool(corpus.notices()) == ("left out" in words)


@pytest.mark.parametrize("row", PAGE)
def test_what_happens_to_a_file_in_a_folder_of_texts(row: str, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    MAKERS[row](folder)
    (folder / "zz.txt").write_text(BESIDE)
    outcome = PAGE[row][1]
    if outcome == "stops":
        with pytest.raises(CorpusError) as caught:
            survey(corpus_of(folder))
        assert "is not UTF-8" in caught.value.problems[0]
        return
    corpus = corpus_of(folder)
    texts = texts_of(corpus)
    assert texts[-1] == BESIDE
    if outcome == "adds nothing":
        assert texts == [BESIDE]
    elif outcome == "left out":
        assert not [text for text in texts if TEXT.strip() in text]
        assert corpus.notices() and all(line.startswith("left out: ") for line in corpus.notices())
    else:
        assert TEXT.strip() in "".join(texts).replace("\r\n", "\n")
        assert not corpus.notices()
