import bz2
import codecs
import gzip
import hashlib
import lzma
import os
import shutil
import sys
import tempfile
import time
import tokenize
import urllib.error
import urllib.request
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpora import corpus_of, texts_of
from hairpin.config.settings import Data
from hairpin.data import embedded, split
from hairpin.data.corpus import open_corpus, split_stream
from hairpin.data.other_encodings import encoding_by_mark
from hairpin.data.pieces import first_cut, last_cut, recut
from hairpin.data.recognising import recognise
from hairpin.data.split import Survey, divide_text, survey
from hairpin.errors import CorpusError


def problems_of(act: Callable[[], object]) -> list[str]:
    """The lines of the CorpusError that `act` raises; each is one line."""
    with pytest.raises(CorpusError) as caught:
        act()
    assert all(line and "\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


# --- finding files ---


def test_a_folder_gives_its_text_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    for name in ("b.txt", "a/z.md", "a/b/c.py", "Z.unknown", ".hidden", ".git/config", "a.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "picture.png").write_text("text in disguise")
    (root / "blob").write_bytes(b"text\0more")
    (root / "late").write_bytes(b"t" * 9000 + b"\0")  # text as far as 8 KiB can tell
    corpus = corpus_of(root)
    names = [Path(source.name).relative_to(root).as_posix() for source in corpus.sources]
    assert names == ["Z.unknown", "a.txt", "a/b/c.py", "a/z.md", "b.txt", "late"]
    assert corpus.left_out.counts() == {"hidden file or folder": 2, "picture": 1, "binary file": 1}
    assert corpus.skipped == 4
    assert texts_of(corpus)[:2] == ["Z.unknown", "a.txt"]


def test_a_named_file_is_always_taken_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "notes.pdf"
    path.write_text("plain text")
    other = tmp_path / "other.txt"
    other.write_text("more")
    assert texts_of(corpus_of(path, tmp_path, path)) == ["plain text", "more"]
    assert texts_of(corpus_of(other, other)) == ["more"]
    (tmp_path / "only").mkdir()
    inner = tmp_path / "only" / "inner.txt"
    inner.write_text("inner")
    assert texts_of(corpus_of(inner, inner.parent)) == ["inner"]


def test_links_that_lead_back_are_walked_once(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.txt").write_text("a")
    (root / "inner" / "back").symlink_to(root)
    (root / "nowhere").symlink_to(root / "missing")
    assert texts_of(corpus_of(root)) == ["a"]


def test_all_bad_paths_are_listed_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"\x89PNG")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    odd = tmp_path / "new\nline"
    lines = problems_of(lambda: corpus_of(tmp_path / "gone.txt", empty, pictures, fifo, odd))
    assert len(lines) == 5
    assert "gone.txt: no such file" in lines[0]
    assert "empty: no text files" in lines[1]
    assert "no text files in this folder (left out: 1 picture (a.png))" in lines[2]
    assert "neither a file nor a folder" in lines[3]
    assert "new\\nline: no such file" in lines[4]


def test_no_text_named_says_so() -> None:
    assert "--corpus stdlib" in problems_of(lambda: open_corpus(Data()))[0]


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    corpus = corpus_of(path)
    real_open = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "secret.txt":
            raise PermissionError(13, "Permission denied", str(self))
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything: chmod proves nothing
    for act in (lambda: texts_of(corpus), lambda: corpus_of(path), lambda: corpus_of(tmp_path)):
        (line,) = problems_of(act)
        assert "secret.txt" in line
        assert "Permission denied" in line


# --- bytes to text ---


def test_text_is_kept_exactly_but_for_a_leading_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(codecs.BOM_UTF8 + "one\r\ntwo\rthree\n\ufeffé\U0001f600".encode())
    assert texts_of(corpus_of(path)) == ["one\r\ntwo\rthree\n\ufeffé\U0001f600"]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_files_are_streamed_and_checked(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    text = "".join(f"line {number} of the text\n" for number in range(40_000))
    path = tmp_path / f"a.txt{suffix}"
    packed = pack(text.encode())
    path.write_bytes(packed + pack(b"a second member"))
    assert texts_of(corpus_of(path)) == [text + "a second member"]
    for damaged in (packed[: len(packed) // 2], packed[:-3], b"no such format at all"):
        path.write_bytes(damaged)
        (line,) = problems_of(lambda: texts_of(corpus_of(path)))
        assert f"a.txt{suffix}" in line
        assert "damaged or cut short" in line


def test_a_bad_byte_in_a_compressed_file_has_its_offset_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a" * 1_000_003 + b"\xff"))
    assert "offset 1000003 " in problems_of(lambda: texts_of(corpus_of(path)))[0]


def test_zstd_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"text"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install zstandard" in problems_of(lambda: texts_of(corpus_of(path)))[0]


@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        (b"abc\xffdef", "0xff", 3),
        (b"\xef\xbb\xbfabc\x80", "0x80", 6),
        (b"a" * 262_143 + "é".encode() + b"\xc3(", "0xc3", 262_145),  # across a block's end
        (b"caf\xc3", "0xc3", 3),  # cut inside a character
        (b"\xed\xa0\x80", "0xed", 0),  # a surrogate is no character
    ],
)
def test_a_bad_byte_names_file_and_offset(
    tmp_path: Path, content: bytes, byte: str, offset: int
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    (line,) = problems_of(lambda: texts_of(corpus_of(path)))
    assert line.startswith(f"{path}: byte {byte} at offset {offset} is not UTF-8")
    assert "--set data.on_bad_bytes=replace" in line


WIDE = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("codec", WIDE)
def test_utf16_and_utf32_with_a_mark_are_the_same_text(tmp_path: Path, codec: str) -> None:
    text = "Ärger, 川, \U0001f600.\r\n" * 30_000 + "end"  # more than a block
    plain, wide = tmp_path / "plain.txt", tmp_path / "wide.txt"
    plain.write_text(text, encoding="utf-8", newline="")
    wide.write_bytes(WIDE[codec] + text.encode(codec))
    assert texts_of(corpus_of(wide)) == [text]
    assert survey(corpus_of(wide)).hash == survey(corpus_of(plain)).hash
    (tmp_path / "wide.gz").write_bytes(gzip.compress(wide.read_bytes()))
    assert texts_of(corpus_of(tmp_path / "wide.gz")) == [text]


@pytest.mark.parametrize("codec", WIDE)
def test_a_bad_place_in_utf16_and_utf32_is_named_or_replaced(tmp_path: Path, codec: str) -> None:
    width, lone = int(codec[4:6]) // 8, "\ud800".encode(codec, "surrogatepass")
    path = tmp_path / "bad.txt"
    head = WIDE[codec] + ("a" * 300_000).encode(codec)
    path.write_bytes(head + lone + "\ufffdb".encode(codec))
    (line,) = problems_of(lambda: texts_of(corpus_of(path)))
    assert f"at offset {len(head)} is not {codec[:6].upper()}; fix the file" in line
    corpus = corpus_of(path, on_bad_bytes="replace")
    assert texts_of(corpus) == ["a" * 300_000 + "\ufffd\ufffdb"]
    assert corpus.replaced == 1
    path.write_bytes(WIDE[codec] + "abc".encode(codec)[: -width + 1])  # cut inside a character
    assert "is not UTF-" in problems_of(lambda: texts_of(corpus_of(path)))[0]


@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize(
    "text",
    [
        "Plain words, in lines.\n",
        "吾輩は猫である。 名前はまだ無い。\n",
        "Все счастливые семьи.\n",
        "一个人在船上，一天一天。\n",  # U+4E00 has a NUL of its own
        "　字下げのある段落。\r\n",  # and so has U+3000
    ],
)
def test_utf16_and_utf32_without_a_mark_are_named(tmp_path: Path, codec: str, text: str) -> None:
    path = tmp_path / "texts" / "wide.txt"
    path.parent.mkdir()
    path.write_bytes((text * 500).encode(codec))
    name = codec.upper()[:6] + codec.upper()[7:]
    what = f"is {name} without a byte-order mark: save it as UTF-8, as with `iconv -f {name} -t"
    assert what in problems_of(lambda: corpus_of(path))[0]
    (path.parent / "plain.txt").write_text("plain")
    corpus = corpus_of(path.parent)
    assert texts_of(corpus) == ["plain"]
    (line,) = corpus.notices()
    assert line.startswith(
        "left out: 1 file in UTF-16 or UTF-32 without a byte-order mark (wide.txt): save"
    )


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_what_is_compressed_twice_is_not_told_to_be_called_so(tmp_path: Path, suffix: str) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
    }
    pack = packers.get(suffix) or zstandard.ZstdCompressor().compress
    path = tmp_path / f"twice.txt{suffix}"
    path.write_bytes(pack(gzip.compress(b"a text\n" * 100)))
    assert problems_of(lambda: corpus_of(path)) == [f"{path}: is compressed twice: unpack it once"]


ACCENTS = "Le café était fermé à l’époque, voilà. Ça va très bien.\n"
CYRILLIC = "Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"


@pytest.mark.parametrize(
    ("codec", "name", "text"),
    [
        ("cp1252", "WINDOWS-1252", ACCENTS),
        ("latin-1", "WINDOWS-1252", "Straße, Grüße, hätte, größer\n"),
        ("koi8-r", "KOI8-R", CYRILLIC),
        ("cp1251", "WINDOWS-1251", CYRILLIC),
        ("cp866", "CP866", CYRILLIC),
        ("koi8-r", "KOI8-R", f'<a href="https://example.com/" class="main">{CYRILLIC[:20]}</a>\n'),
        ("iso8859-5", "ISO-8859-5", CYRILLIC),
        ("cp1250", "WINDOWS-1250", "Zażółć gęślą jaźń, był chłopak z miasta\n"),
        ("cp1253", "WINDOWS-1253", "Στην αρχή ο Θεός δημιούργησε τον ουρανό και τη γη.\n"),
        ("cp1255", "WINDOWS-1255", "בראשית ברא אלהים את השמים ואת הארץ\n"),
        ("cp1256", "WINDOWS-1256", "في البدء خلق الله السماوات والأرض وكانت\n"),
        ("cp874", "CP874", "ในปฐมกาลพระเจ้าทรงเนรมิตสร้างฟ้าและแผ่นดิน\n"),
        ("cp932", "SHIFT_JIS", JAPANESE),
        ("euc-jp", "EUC-JP", JAPANESE),
        ("gbk", "GB18030", "我们在北京的学校里学习中文,他是一个很好的老师。今天天气很好。\n"),
        ("big5", "BIG5", "我們在台北的學校裡學習中文,他是一個很好的老師。今天天氣很好。\n"),
        ("cp949", "EUC-KR", "모든 행복한 가정은 서로 닮았고 불행한 가정은 제각각이다.\n"),
    ],
)
def test_older_encodings_are_named_with_what_to_do(
    tmp_path: Path, codec: str, name: str, text: str
) -> None:
    path = tmp_path / "old.txt"
    content = (text * 200).encode(codec)
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError) as bad:
        content.decode()
    first = bad.value.start
    (line,) = problems_of(lambda: texts_of(corpus_of(path)))
    assert line.startswith(f"{path}: byte 0x{content[first]:02x} at offset {first} is not UTF-8; ")
    assert f"it looks like {name}: save it as UTF-8, as with `iconv -f {name} -t UTF-8`" in line
    assert ("on_bad_bytes" in line) == (name == "WINDOWS-1252")


def test_a_bad_byte_alone_is_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(("été à Noël. " * 100).encode() + b"\xe9 " + b"more")
    (line,) = problems_of(lambda: texts_of(corpus_of(path)))
    assert "; fix the file, or continue without such bytes" in line
    path.write_bytes(b"a few letters, then " + bytes(range(256)) * 20)
    (line,) = problems_of(lambda: texts_of(corpus_of(path)))
    assert "look like binary data" in line and "on_bad_bytes" not in line


@given(st.binary(max_size=300), st.integers(0, 40))
@example(b"\xef\xbf\xbd\xff\xef\xbf", 0)
def test_any_bytes_are_text_or_one_line(content: bytes, padding: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any")
        # The padding moves the interesting bytes across the end of a block.
        whole = b"x" * (256 * 1024 - padding) + content if padding else content
        path.write_bytes(whole)
        if recognise(path, whole[:8192]) or encoding_by_mark(whole):
            return
        replaced = corpus_of(path, on_bad_bytes="replace")
        text = "".join(texts_of(replaced))
        assert text == whole.decode(errors="replace").removeprefix("\ufeff")
        own = whole.count("\ufffd".encode())
        assert replaced.replaced == whole.decode(errors="replace").count("\ufffd") - own
        try:
            expected = whole.decode()
        except UnicodeDecodeError as error:
            (line,) = problems_of(lambda: texts_of(corpus_of(path)))
            assert f"at offset {error.start} is not UTF-8" in line
        else:
            assert "".join(texts_of(corpus_of(path))) == expected.removeprefix("\ufeff")
        for suffix in PACKERS:
            packed = path.with_suffix(suffix)
            packed.write_bytes(content)
            try:
                texts_of(corpus_of(packed))
            except CorpusError as error:
                assert len(error.problems) == 1


# --- documents ---


@given(
    st.lists(st.text("ab-\n", max_size=8), max_size=8), st.sampled_from(["-", "--", "-a-", "\n\n"])
)
def test_splitting_a_stream_is_splitting_the_text(blocks: list[str], separator: str) -> None:
    parts = ["".join(part) for part in split_stream(blocks, separator)]
    assert parts == "".join(blocks).split(separator)


@given(st.lists(st.text("ab-", max_size=8), max_size=8), st.integers(0, 3))
def test_a_part_that_is_not_read_does_not_spoil_the_next(blocks: list[str], skip: int) -> None:
    kept = [
        "".join(part) if number % 4 != skip else None
        for number, part in enumerate(split_stream(blocks, "--"))
    ]
    expected = "".join(blocks).split("--")
    assert len(kept) == len(expected)
    assert all(part in (None, text) for part, text in zip(kept, expected, strict=True))


def test_a_separator_divides_a_file_and_empty_documents_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    filler = "x" * (256 * 1024 - 3)  # the separator lies across two blocks
    path.write_text(f"<END>one{filler[3:]}<END><END>two<END>")
    corpus = corpus_of(path, separator="<END>")
    assert texts_of(corpus) == ["one" + filler[3:], "two"]
    names = [document.name for document in corpus.documents()]
    assert names == [f"{path} (document 2)", f"{path} (document 4)"]


# --- pieces ---


@given(st.text("ab1 .\n'", max_size=200), st.lists(st.integers(1, 50)), st.integers(2, 20))
def test_pieces_are_the_text_whatever_the_blocks(text: str, sizes: list[int], size: int) -> None:
    blocks, start = [], 0
    for length in sizes:
        blocks.append(text[start : start + length])
        start += length
    blocks.append(text[start:])
    pieces = list(recut(blocks, size, 4 * size))
    assert "".join(pieces) == text
    assert pieces == list(recut([text], size, 4 * size))
    assert all(0 < len(piece) <= 4 * size for piece in pieces)


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("ab cd", [2]),
        ("ab  cd", [2]),  # not between the spaces: `  cd` is a space and ` cd`
        ("a\n\nb", [1]),
        ("don't", [3]),  # before the apostrophe, never after it
        ("x1.y", [1, 2, 3]),
        ("a\x1c b", []),  # Python calls it white space, the expression does not
        ("a\u3000b", []),
        ("我。你", [1, 2]),
    ],
)
def test_safe_cuts_by_hand(text: str, cuts: list[int]) -> None:
    assert [i for i in range(len(text) + 1) if first_cut(text, i, i + 1) == i] == cuts
    assert last_cut(text, len(text)) == (cuts[-1] if cuts else None)
    assert last_cut("abc" * 5000 + " " + "d" * 5000, 20_000) == 15_000


def test_a_run_without_a_cut_stays_bounded() -> None:
    pieces = [len(piece) for piece in recut(["a" * 300_000] * 10)]
    assert pieces == [2**20, 2**20, 3_000_000 - 2**21]


def test_a_run_without_a_cut_is_read_once_and_not_once_a_piece() -> None:
    start_time = time.process_time()
    assert sum(len(piece) for piece in recut(["a" * 2_000_000], 500, 500)) == 2_000_000
    assert time.process_time() - start_time < 10  # quadratic, it takes minutes


# --- named corpora ---


def test_the_standard_library_is_python_without_tests() -> None:
    corpus = open_corpus(Data(corpus="stdlib"))
    names = [source.name for source in corpus.sources]
    assert names == sorted(names)
    assert {"argparse.py", "json/decoder.py"} <= set(names)
    left_out = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages"}
    assert not [name for name in names if left_out & set(name.split("/"))]
    document = next(corpus.documents())
    with tokenize.open(corpus.sources[0].path or "") as file:
        assert "".join(document.pieces()) == file.read()


def test_source_in_its_declared_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\n# caf\xe9\n")
    (tmp_path / "bad.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "empty.py").write_bytes(b"")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    corpus = open_corpus(Data(corpus="stdlib"))
    assert texts_of(corpus) == ["# coding: latin-1\n# café\n"]
    assert corpus.skipped == 1
    assert survey(corpus).files == 2


def test_python_docs_are_the_help_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydoc_data.topics import topics

    corpus = open_corpus(Data(corpus="python-docs"))
    documents = [(document.name, "".join(document.pieces())) for document in corpus.documents()]
    assert documents == sorted(topics.items())
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert "pydoc_data" in problems_of(lambda: open_corpus(Data(corpus="python-docs")))[0]


class _Answer:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, limit: int) -> bytes:
        return self.content[:limit]


def test_the_verdict_is_downloaded_once(
    verdict_file: Path, hairpin_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(address: str, timeout: float) -> _Answer:
        asked.append(address)
        return _Answer(verdict_file.read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    for _ in range(2):
        (text,) = texts_of(open_corpus(Data(corpus="verdict")))
        assert text == verdict_file.read_text(encoding="utf-8")
        assert len(text) == 20_479
    assert len(asked) == 1
    # A damaged copy is downloaded again.
    (hairpin_cache / "texts" / "the-verdict.txt").write_bytes(b"damaged")
    open_corpus(Data(corpus="verdict"))
    assert len(asked) == 2


def test_the_verdict_offline_or_changed(
    hairpin_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(address: str, timeout: float) -> _Answer:
        raise urllib.error.URLError(OSError("no\nnetwork"))

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    (line,) = problems_of(lambda: open_corpus(Data(corpus="verdict")))
    assert str(hairpin_cache / "texts" / "the-verdict.txt") in line
    monkeypatch.setattr(urllib.request, "urlopen", lambda address, timeout: _Answer(b"other"))
    assert "SHA-256" in problems_of(embedded.verdict)[0]
    assert not (hairpin_cache / "texts" / "the-verdict.txt").exists()


# --- survey and split ---


def folder_of(root: Path, texts: list[str]) -> Path:
    root.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (root / f"{number:04d}.txt").write_text(text)
    return root


def test_the_survey_counts_and_hashes(tmp_path: Path) -> None:
    texts = ["héllo\n", "second", "", "third text"]
    found = survey(corpus_of(folder_of(tmp_path / "t", texts)))
    kept = [text.encode() for text in texts if text]
    overall = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in kept))
    assert found.hash == overall.hexdigest()
    assert (found.files, found.documents, found.bytes) == (4, 3, sum(map(len, kept)))
    assert list(found.document_bytes) == [len(text) for text in kept]


def test_documents_go_to_a_side_by_their_content(tmp_path: Path) -> None:
    texts = [f"This is document {number}.\n" * 20 for number in range(300)]
    root = folder_of(tmp_path / "t", texts + texts[:50])
    found = survey(corpus_of(root))
    by_hand = [
        int(hashlib.sha256(text.encode()).hexdigest(), 16) / 2**256 < 0.1
        for text in texts + texts[:50]
    ]
    assert found.split == "documents"
    assert [bool(side) for side in found.in_validation] == by_hand
    assert found.in_validation[300:] == found.in_validation[:50]
    assert found.val_bytes == sum(
        len(text) for text, side in zip(texts + texts[:50], by_hand, strict=True) if side
    )


def test_few_documents_are_divided_at_their_tails(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "t", ["word " * 2000, "x"])
    found = survey(corpus_of(root))
    assert (found.split, found.val_bytes) == ("tails", 1000)
    assert not any(found.in_validation)
    line = problems_of(lambda: survey(corpus_of(root, split="documents")))[0]
    assert "leaves validation empty" in line
    assert "data.split=tails" in line
    assert survey(corpus_of(root, split="tails", validation_fraction=0.5)).val_bytes == 5000


def test_an_explicit_split_is_obeyed(tmp_path: Path) -> None:
    texts = [f"text {number}" * (1 + 999 * (number == 3)) for number in range(100)]
    root = folder_of(tmp_path / "t", texts)
    assert survey(corpus_of(root)).split == "tails"
    assert survey(corpus_of(root, split="documents")).split == "documents"


@given(
    st.lists(st.text("ab .é\n", min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(0, 100),
)
def test_a_tail_is_the_end_of_its_document(pieces: list[str], percent: int) -> None:
    whole = "".join(pieces)
    size_bytes = len(whole.encode())
    tail = size_bytes * percent // 200
    divided = list(
        divide_text(iter(pieces), in_validation=False, tail_bytes=tail, document_bytes=size_bytes)
    )
    head_text = "".join(text for side, text in divided if not side)
    tail_text = "".join(text for side, text in divided if side)
    assert head_text + tail_text == whole
    assert head_text
    assert all(text for _, text in divided)
    # Within a quarter of the tail, counted in characters of up to two bytes.
    assert abs(len(tail_text.encode()) - tail) <= 2 * (tail // 4) + 2
    if not tail:
        assert not tail_text


def test_a_tail_begins_at_a_word_where_it_can() -> None:
    text = "several words of text " * 50
    divided = list(
        divide_text(iter([text]), in_validation=False, tail_bytes=110, document_bytes=len(text))
    )
    assert divided[1][1].startswith((" several", " words", " of", " text"))


def test_a_text_without_words_has_a_tail_too() -> None:
    text = "acgt" * 1000
    divided = divide_text(iter([text]), in_validation=False, tail_bytes=400, document_bytes=4000)
    assert [(side, len(part)) for side, part in divided] == [(False, 3600), (True, 400)]


def aged(root: Path) -> None:
    for path in root.rglob("*.txt"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


def test_a_second_survey_of_the_same_files_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(tmp_path / "t", ["one text", "another text"])
    aged(root)
    first = survey(corpus_of(root))
    monkeypatch.setattr(split, "_read", lambda *_: pytest.fail("the text was read again"))
    again = survey(corpus_of(root))
    assert again == first
    assert again.document_bytes == first.document_bytes == array("Q", [8, 12])
    assert again.in_validation == first.in_validation
    monkeypatch.undo()
    (root / "0001.txt").write_text("different text")
    assert survey(corpus_of(root)).bytes == 8 + 14


def test_a_file_that_just_changed_is_read_again(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "t", ["one text"])
    survey(corpus_of(root))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_damaged_survey_is_made_again(tmp_path: Path, hairpin_cache: Path, damage: bytes) -> None:
    root = folder_of(tmp_path / "t", ["one text"])
    aged(root)
    first = survey(corpus_of(root))
    (kept,) = hairpin_cache.rglob("*.npz")
    kept.write_bytes(damage)
    assert survey(corpus_of(root)) == first


def test_changed_text_needs_a_new_run(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "t", ["one text", "another"])
    found = survey(corpus_of(root))
    assert survey(corpus_of(root, hash=found.hash)) == found
    (root / "0000.txt").write_text("One text")
    line = problems_of(lambda: survey(corpus_of(root, hash=found.hash)))[0]
    assert "changed" in line
    assert "as a new run" in line


def test_files_without_any_text_are_an_error(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "t", ["", ""])
    assert "no text" in problems_of(lambda: survey(corpus_of(root)))[0]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "t", ["a b " * 200_000, "c " * 10])
    (root / "packed.gz").write_bytes(gzip.compress(b"d " * 500_000))
    calls: list[tuple[str, int, int]] = []
    found = survey(corpus_of(root), on_progress=lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"reading"}
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1] == calls[-1][2] == found.bytes
    assert len(calls) >= 6


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12))
def test_any_folder_is_surveyed_or_refused_in_a_line(contents: list[bytes]) -> None:
    folder = tempfile.mkdtemp()
    try:
        for number, content in enumerate(contents):
            Path(folder, str(number)).write_bytes(content)
        found: Survey = survey(corpus_of(Path(folder)), cache=Path(folder, ".cache"))
        assert found.documents <= len(contents)
        assert 0 <= found.val_bytes <= found.bytes
    except CorpusError as error:
        assert all("\n" not in line for line in error.problems)
    finally:
        shutil.rmtree(folder)
