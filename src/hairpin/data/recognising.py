"""Recognising files that are not text.

recognise(path, opening)   by the first bytes; None: it may be text, or a table
by_suffix(path)            by the name alone, for files found in a folder
token_ids(path, opening)   files of token ids
"""

import codecs
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hairpin.data.other_encodings import control_share, encoding_by_mark, encoding_by_nuls, is_utf8

OPENING_BYTES = 8192
_MOSTLY = 0.5  # NULs and control characters in the opening of a file that is not text
_SOME = 0.005  # of them, without which a few letters at the beginning prove nothing
_SHORT_BYTES = 4
_SAVE = "save it as plain text"
COMPRESSED = "compressed file"
_GPT2_TOKENS = 50257
_LLMC = (20240520, 20240801)  # the first number of llm.c's files, of 16 and of 32 bits an id


@dataclass(frozen=True)
class Kind:
    """A kind of file or folder that is not text.

    Args:
        name: its name in counts, such as "PDF".
        words: its name in a sentence, such as "a PDF".
        advice: the way out.
        has_text: whether it contains text, so that the advice is worth repeating for found files.
        many: the plural; "": the name with an s.
    """

    name: str
    words: str
    advice: str
    has_text: bool = True
    many: str = ""

    def counted(self, count: int) -> str:
        """`1 PDF`, `2 PDFs`."""
        return f"{count:,} {self.name if count == 1 else self.many or f'{self.name}s'}"


def useless(name: str, words: str) -> Kind:
    """Return a kind without any text in it."""
    return Kind(name, words, "name a text file", has_text=False)


def _packed(words: str) -> Kind:
    return Kind("archive", f"{words} archive", "unpack it first")


def _compressed(how: str, suffix: str) -> Kind:
    return Kind(COMPRESSED, f"compressed with {how}", f"rename it to end in {suffix}")


PICTURE = useless("picture", "a picture")
SOUND = useless("sound or film file", "a sound or film file")
FONT = useless("font", "a font")
PROGRAM = useless("program", "a program or compiler output")
MODEL = useless("model file", "a file of a model's weights")
BINARY = useless("binary file", "binary data, mostly NULs or control characters")
ARCHIVE = Kind("archive", "an archive", "unpack it first")
OFFICE = Kind("office document", "an office document (.doc, .xls, .ppt or .msg)", _SAVE)
WORD = Kind("Word document", "a Word document", _SAVE)
EXCEL = Kind("Excel workbook", "an Excel workbook", "save it as .csv")
POWERPOINT = Kind("presentation", "a PowerPoint presentation", _SAVE)
OPEN_DOCUMENT = Kind("OpenDocument file", "an OpenDocument file (.odt, .ods, .odp)", _SAVE)
IWORK = Kind("iWork document", "a Pages, Numbers or Keynote document", _SAVE)
EPUB = Kind("e-book", "an e-book (EPUB)", f"{_SAVE}, as with `pandoc -t plain`")
EBOOK = Kind("e-book", "an e-book", f"{_SAVE}, as with Calibre's `ebook-convert`")
PDF = Kind("PDF", "a PDF", "save its text, as with `pdftotext`")
POSTSCRIPT = Kind("PostScript file", "a PostScript file", "save its text, as with `ps2ascii`")
RTF = Kind("RTF document", "an RTF document", f"{_SAVE}, or as with `pandoc -t plain`")
NOTEBOOK = Kind("notebook", "a Jupyter notebook", "save it as a script, as with `jupytext --to py`")
DATABASE = Kind("database", "a database", "write its texts to .jsonl or .csv")
PICKLE = Kind("data file", "a Python pickle", "write its texts to .jsonl")
ARRAY = useless("data file", "an array of numbers (NumPy, HDF5, MATLAB)")
PARQUET = Kind("table", "a Parquet file", "rename it to end in .parquet")
ARROW = Kind("table", "an Arrow or Feather file", "save it as .parquet")
TABLE = Kind("table", "a table (Avro, ORC)", "save it as .parquet or .jsonl")
POINTER = Kind(
    "Git LFS pointer",
    "a Git LFS pointer, not the file itself",
    "fetch it, as with `git lfs pull`",
    many="Git LFS pointers",
)
SETTINGS = useless("hairpin settings file", "a hairpin settings file")
PAGE = useless("hairpin page", "a page that hairpin wrote")

# Offset, bytes, kind.
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (257, b"ustar", _packed("a tar")),
    (0, b"7z\xbc\xaf\x27\x1c", _packed("a 7z")),
    (0, b"Rar!\x1a\x07", _packed("a rar")),
    (0, b"!<arch>\n", _packed("an ar or .deb")),
    (0, b"\xed\xab\xee\xdb", _packed("an rpm")),
    (0, b"MSCF\0\0\0\0", _packed("a cab")),
    (0, b"xar!", _packed("a xar")),
    (0, b"LZIP", _packed("an lzip")),
    (0, b"\x04\x22\x4d\x18", _packed("an lz4")),
    (0, b"\x1f\x9d", _packed("a compress (.Z)")),
    (0, b"\x1f\x8b\x08", _compressed("gzip", ".gz")),
    (0, b"\xfd7zXZ\0", _compressed("xz", ".xz")),
    (0, b"\x5d\0\0", Kind(COMPRESSED, "compressed with lzma", "unpack it first")),
    (0, b"BZh91AY&SY", _compressed("bzip2", ".bz2")),
    (0, b"\x28\xb5\x2f\xfd", _compressed("zstd", ".zst")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OFFICE),
    (0, b"\xffWPC", OFFICE),
    (60, b"BOOKMOBI", EBOOK),
    (60, b"TEXtREAd", EBOOK),
    (0, b"ITOLITLS", EBOOK),
    (0, b"ITSF\x03", EBOOK),
    (0, b"AT&TFORM", EBOOK),
    (0, b"SQLite format 3\0", DATABASE),
    (0, b"\0\x01\0\0Standard ", DATABASE),
    (0, b"!BDN", DATABASE),
    (0, b"\x89PNG\r\n\x1a\n", PICTURE),
    (0, b"\xff\xd8\xff", PICTURE),
    (0, b"GIF87a", PICTURE),
    (0, b"GIF89a", PICTURE),
    (0, b"BM", PICTURE),
    (0, b"II*\0", PICTURE),
    (0, b"MM\0*", PICTURE),
    (8, b"WEBP", PICTURE),
    (4, b"ftypheic", PICTURE),
    (4, b"ftypavif", PICTURE),
    (4, b"ftypmif1", PICTURE),
    (0, b"\0\0\x01\0", PICTURE),
    (0, b"8BPS\0", PICTURE),
    (0, b"\0\0\0\x0cjP  ", PICTURE),
    (4, b"ftyp", SOUND),
    (0, b"ID3", SOUND),
    (0, b"\xff\xfb", SOUND),
    (0, b"\xff\xf3", SOUND),
    (0, b"\xff\xf2", SOUND),
    (0, b"\xff\xf1", SOUND),
    (0, b"OggS", SOUND),
    (0, b"fLaC", SOUND),
    (0, b"RIFF", SOUND),
    (0, b"MThd", SOUND),
    (0, b"FORM", SOUND),
    (0, b"#!AMR", SOUND),
    (0, b"FLV\x01", SOUND),
    (0, b"\x1aE\xdf\xa3", SOUND),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", SOUND),
    (0, b"\0\x01\0\0\0", FONT),
    (0, b"OTTO", FONT),
    (0, b"ttcf", FONT),
    (0, b"wOFF", FONT),
    (0, b"wOF2", FONT),
    (0, b"\x7fELF", PROGRAM),
    (0, b"MZ", PROGRAM),
    (0, b"\xca\xfe\xba\xbe", PROGRAM),
    (0, b"\xfe\xed\xfa", PROGRAM),
    (0, b"\xcf\xfa\xed\xfe", PROGRAM),
    (0, b"\0asm", PROGRAM),
    (2, b"\r\n\0\0", PROGRAM),  # Python's .pyc
    (0, b"\x93NUMPY", ARRAY),
    (0, b"\x89HDF\r\n\x1a\n", ARRAY),
    (0, b"MATLAB 5.0 MAT-file", ARRAY),
    (0, b"PAR1", PARQUET),
    (0, b"ARROW1\0\0", ARROW),
    (0, b"FEA1", ARROW),
    (0, b"Obj\x01", TABLE),
    (0, b"ORC", TABLE),
    (0, b"GGUF", MODEL),
    (0, b"ggjt", MODEL),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x03", PICKLE),
    (0, b"\x80\x04\x95", PICKLE),
    (0, b"\x80\x05\x95", PICKLE),
)
_SAFETENSORS = re.compile(rb'.{6}\0\0\{\s*"', re.DOTALL)
_NOTEBOOK = re.compile(rb'\s*\{.*"(?:cell_type|nbformat)"\s*:', re.DOTALL)
_OWN_SETTINGS = b"# hairpin train --config THIS-FILE repeats the run"
_OWN_PAGE = re.compile(
    rb"<!doctype html>\n.{0,120}Content-Security-Policy.*trusted-types", re.DOTALL
)
_NAME_IN_ZIP = re.compile(rb"PK\x03\x04.{22}(..)..", re.DOTALL)

# A name in the zip → what the zip is.
_ZIPS: tuple[tuple[str, Kind], ...] = (
    (r"word/", WORD),
    (r"Index/.*\.iwa$", IWORK),
    (r"xl/", EXCEL),
    (r"ppt/", POWERPOINT),
    (r"META-INF/container\.xml$", EPUB),
    (r"mimetype$", OPEN_DOCUMENT),
    (r"(?:.*/)?data\.pkl$", MODEL),
    (r".*\.npy$", ARRAY),
)

_BY_SUFFIX = {
    f".{name}": kind
    for names, kind in (
        ("7z deb dmg egg iso jar rar rpm tar tbz tbz2 tgz txz whl zip", ARCHIVE),
        ("aac avi flac m4a mkv mov mp3 mp4 ogg wav webm", SOUND),
        ("bmp gif heic ico jpeg jpg png psd tif tiff webp", PICTURE),
        ("doc ppt xls", OFFICE),
        ("docx", WORD),
        ("xlsx", EXCEL),
        ("pptx", POWERPOINT),
        ("odt", OPEN_DOCUMENT),
        ("epub", EPUB),
        ("pdf", PDF),
        ("bin", BINARY),
        ("a class dll dylib exe lib o obj pyc pyd pyo so wasm", PROGRAM),
        ("db sqlite sqlite3", DATABASE),
        ("arrow feather", ARROW),
        ("h5 npy npz", ARRAY),
        ("pickle pkl", PICKLE),
        ("ckpt gguf onnx pt pth safetensors", MODEL),
        ("eot otf ttf woff woff2", FONT),
    )
    for name in names.split()
}


def by_suffix(path: Path) -> Kind | None:
    """Return the kind that a file's name stands for, if that is not text."""
    return _BY_SUFFIX.get(path.suffix.lower())


# Of formats that are written in letters; white space may come before.
_BEGINNINGS = (
    (b"%PDF-", PDF),
    (b"%!PS", POSTSCRIPT),
    (b"{\\rtf", RTF),
    (b"version https://git-lfs.github.com/spec/", POINTER),
)


def recognise(path: Path, opening: bytes) -> Kind | None:
    """Return the kind of a file that is not text in UTF-8, UTF-16 or UTF-32, else None.

    Args:
        path: the file; the names in a zip are looked up.
        opening: its first `OPENING_BYTES`, decompressed.
    """
    if kind := _in_letters(path, opening):
        return kind
    if encoding_by_mark(opening) or _is_plain(opening):
        return None
    if kind := _signed(path, opening):
        return kind
    if name := encoding_by_nuls(opening):
        return Kind(
            "file in UTF-16 or UTF-32 without a byte-order mark",
            f"{name} without a byte-order mark",
            f"save it as UTF-8, as with `iconv -f {name} -t UTF-8`",
            many="files in UTF-16 or UTF-32 without a byte-order mark",
        )
    return BINARY if is_mostly_binary(opening) else None


def is_mostly_binary(part: bytes) -> bool:
    """Tell whether more than half the bytes are NULs and control characters."""
    return control_share(part) > _MOSTLY


def _in_letters(path: Path, opening: bytes) -> Kind | None:
    """Recognise formats that are written in plain letters."""
    start = opening.removeprefix(codecs.BOM_UTF8).lstrip()
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if start.startswith(b"{") and _is_notebook(path, opening):
        return NOTEBOOK
    if start.startswith(_OWN_SETTINGS):
        return SETTINGS
    return PAGE if _OWN_PAGE.match(opening) else None


def _signed(path: Path, opening: bytes) -> Kind | None:
    """Recognise formats that begin with a signature."""
    if opening.startswith(b"PK\x03\x04"):
        return _zip_kind(path, opening)
    is_odd = control_share(opening) >= _SOME
    for offset, magic, kind in _SIGNATURES:
        is_short = len(magic) <= _SHORT_BYTES or magic.isascii()
        if opening.startswith(magic, offset) and (is_odd or not is_short):
            return kind
    return MODEL if _SAFETENSORS.match(opening) else None


def _is_plain(opening: bytes) -> bool:
    """Tell whether it is UTF-8 without control characters, as signatures can be letters too."""
    return control_share(opening) == 0 and is_utf8(opening)


def _is_notebook(path: Path, opening: bytes) -> bool:
    is_one = path.suffix.lower() == ".ipynb" or b'"cells"' in opening[:200]
    is_rows = ".jsonl" in path.name.lower()  # notebooks as records
    return is_one and not is_rows and _NOTEBOOK.match(opening) is not None


def _zip_kind(path: Path, opening: bytes) -> Kind:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):  # cut short, or in a compressed file
        names = [
            opening[found.end() : found.end() + int.from_bytes(found[1], "little")].decode(
                "latin-1"
            )
            for found in _NAME_IN_ZIP.finditer(opening)
        ]
    for pattern, kind in _ZIPS:
        if any(re.match(pattern, name) for name in names):
            return kind
    return _packed("a zip")


# --- files of token ids, which other trainers prepare: no text can be had of them here ---


def token_ids(path: Path, opening: bytes) -> Kind | None:
    """Return the kind of a file of token ids, with who wrote it; None: it is something else.

    Args:
        path: the file.
        opening: its first bytes.
    """
    if not (words := _made_by(path.suffix, opening)):
        return None
    name, advice = "file of token ids", "use the text that it was made from"
    return Kind(name, words, advice, many="files of token ids")


def _made_by(suffix: str, opening: bytes) -> str | None:
    if suffix.lower() != ".bin" or len(opening) < 4:
        return None
    if int.from_bytes(opening[:4], "little") in _LLMC:
        return "a file of token ids, as llm.c's scripts write"
    is_text = b"\0" not in opening and is_utf8(opening)
    if is_text or opening[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None
    ids = np.frombuffer(opening[: len(opening) // 2 * 2], "<u2")
    is_one = len(np.unique(ids)) > 1 and int(ids.max()) < _GPT2_TOKENS
    return "a file of token ids, as nanoGPT's prepare.py writes" if is_one else None
