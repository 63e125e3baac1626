"""The look at a corpus before training: copies, leaks, boilerplate, odd bytes."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.config.settings import Data
from hairpin.data.checking.check import CorpusCheck, check_corpus
from hairpin.data.checking.lines import LineCounter
from hairpin.data.checking.near import (
    SHINGLE_BYTES,
    WINDOW_BYTES,
    SharedWindows,
    Signature,
    similar_groups,
    similarity,
    window_hashes,
)
from hairpin.data.checking.oddities import OddityFinder
from hairpin.planning.plan.checked import check_lines, check_problems

STARTS = ("ba", "de", "fi", "go", "lu", "mo", "na", "pe", "ri", "sa", "to", "vu", "xe", "zi")
ENDS = ("lan", "mer", "tic", "dow", "rst", "nel", "pau", "gis")
WORDS = [start + end for start in STARTS for end in ENDS]


def prose(characters: int, seed: int) -> str:
    """Lines of words that have nothing in common with those of another seed."""
    draw = random.Random(seed)
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(" ".join(draw.choices(WORDS, k=draw.randint(6, 12))) + ".\n")
    return "".join(lines)[:characters]


def jaccard(one: str, other: str) -> float:
    """Of their windows, by brute force."""
    a, b = (
        {text[i : i + SHINGLE_BYTES] for i in range(len(text) - SHINGLE_BYTES + 1)}
        for text in (one, other)
    )
    return len(a & b) / len(a | b)


def signed(text: str, piece: int = 10**9) -> Signature:
    signature = Signature()
    content = text.encode()
    for start in range(0, len(content), piece):
        signature.add(content[start : start + piece])
    return signature


def folder_of(path: Path, texts: dict[str, str | bytes]) -> Data:
    folder = path / "texts"
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Data(texts=(str(folder),))


def clean(count: int = 30, characters: int = 3000) -> dict[str, str | bytes]:
    return {f"{n:02d}.txt": prose(characters, 100 + n) for n in range(count)}


def problems(check: CorpusCheck) -> str:
    return "\n".join(check_problems(check))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 16, 50])
def test_windows_have_one_hash_if_they_are_one_text(window: int) -> None:
    draw = random.Random(window)
    content = bytes(draw.choices(b"abc", k=400))
    hashes = window_hashes(np.frombuffer(content, np.uint8), window)
    windows = [content[i : i + window] for i in range(len(content) - window + 1)]
    assert len(hashes) == len(windows)
    assert len({*zip(windows, hashes.tolist(), strict=True)}) == len(set(windows))
    assert len(set(hashes.tolist())) == len(set(windows))
    assert len(window_hashes(np.frombuffer(content[: window - 1], np.uint8), window)) == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), piece=st.sampled_from([7, 100, 10**9]))
def test_the_estimate_is_near_jaccards_similarity(seed: int, share: float, piece: int) -> None:
    common = prose(4000, seed)
    cut = int(share * 4000)
    one, other = common, common[:cut] + prose(4000 - cut, seed + 1)
    # 128 bins: a standard deviation of at most 0.045.
    estimate = similarity(signed(one, piece).least, signed(other).least)
    assert estimate == pytest.approx(jaccard(one, other), abs=0.2)


def test_groups_are_those_of_brute_force() -> None:
    texts = [prose(3000, seed) for seed in range(12)]
    texts += [texts[0][:2900] + prose(100, 77), texts[0][50:], texts[5] + "x" * 20, texts[7]]
    groups = similar_groups([signed(text).least for text in texts], 0.8)
    expected = [[0, 12, 13], [5, 14], [7, 15]]
    assert groups == expected
    for one in range(len(texts)):
        for other in range(one):
            together = any({one, other} <= set(group) for group in groups)
            assert together == (jaccard(texts[one], texts[other]) >= 0.8), (one, other)


def test_texts_that_are_too_short_are_like_nothing() -> None:
    nothing = [Signature().least, signed("short").least]
    assert similar_groups(nothing, 0.8) == []
    assert similarity(*nothing) == 0.0
    assert similar_groups([], 0.8) == []


def test_clean_text_gives_no_alarm(tmp_path: Path) -> None:
    check = check_corpus(folder_of(tmp_path, clean()))
    assert list(check_problems(check)) == []
    assert "no problems found" in "\n".join(check_lines(check))
    assert check.checked_documents == check.survey.documents == 30
    assert check.checked_bytes == check.survey.bytes
    assert not check.is_sample


def test_near_copies_are_found_with_how_much_they_are(tmp_path: Path) -> None:
    texts = clean()
    texts["copy.txt"] = str(texts["03.txt"])[:-60] + "Another end.\n"
    texts["again.txt"] = str(texts["03.txt"])
    check = check_corpus(folder_of(tmp_path, texts))
    assert (check.near.groups, check.near.copies) == (1, 2)
    # The first by name stays: 03.txt; the copies have 3000 and 3000 - 60 + 13 bytes.
    assert check.near.bytes == 3000 + 2953
    assert "near copies of others" in problems(check)
    assert "03.txt" in problems(check)


def test_validation_text_that_is_in_training_is_measured(tmp_path: Path) -> None:
    """A copied page in both halves of one long text that is split by its tail."""
    page = prose(6000, 1)
    text = prose(20_000, 2) + page + prose(30_000, 3) + page
    check = check_corpus(folder_of(tmp_path, {"one.txt": text}))
    assert check.survey.split == "tails"
    # The last tenth of 62,000 bytes, 6,200: 200 of prose and the page, less windows at its edge.
    assert check.verbatim.share == pytest.approx(6000 / 6200, abs=0.03)
    assert "is verbatim in the training text" in problems(check)


def test_windows_by_brute_force() -> None:
    draw = random.Random(4)
    validation = prose(2000, 5)
    training = prose(5000, 6) + validation[300:1000] + prose(500, 7) + validation[1500:1550]
    windows = SharedWindows()
    windows.want(validation.encode(), 0)
    windows.begin_search()
    content, start = training.encode(), 0
    while start < len(content):  # in pieces of any length
        size = draw.randint(1, 700)
        windows.search(content[start : start + size], opens=start == 0)
        start += size
    wanted = [validation[i : i + WINDOW_BYTES] for i in range(0, 2000 - WINDOW_BYTES + 1, 25)]
    count, found, each = windows.result()
    assert count == len(wanted)
    assert found == sum(window in training for window in wanted) > 25
    assert each == {0: (count, found)}


def test_rows_of_dashes_are_no_leak() -> None:
    windows = SharedWindows()
    windows.want(b"-" * 500, 0)
    windows.begin_search()
    windows.search(b"-" * 500, opens=True)
    assert windows.result() == (0, 0, {})


def test_odd_bytes_are_found_with_file_and_line(tmp_path: Path) -> None:
    texts = clean()
    texts["a-nul.txt"] = "fine\nfine\nbad \x00 byte\n" + prose(500, 1)
    texts["b-escape.txt"] = "fine\n\x1b[31mred\x1b[0m\n" + prose(500, 2)
    texts["c-bom.txt"] = prose(500, 3) + "\n\ufeffjoined\n"
    texts["d-ends.txt"] = "one\r\ntwo\nthree\r\n" + prose(500, 4)
    texts["e-latin.txt"] = ("naïve\n" * 3).encode() + "caf\xe9\n".encode("latin-1")
    texts["f-broken.txt"] = "one\ntwo \ufffd two\n" + prose(500, 6)
    texts["g-empty.txt"] = ""
    texts["h-white.txt"] = "  \n\n  \n"
    data = folder_of(tmp_path, texts)
    # A folder leaves out what has a null byte; a file that is named is taken.
    data = data.model_copy(update={"texts": (*data.texts, f"{data.texts[0]}/a-nul.txt")})
    check = check_corpus(data)
    found = {odd.kind: (Path(odd.file).name, odd.line, odd.count) for odd in check.oddities}
    bom_line = prose(500, 3).count("\n") + 2
    assert found == {
        "null": ("a-nul.txt", 3, 1),
        "control": ("b-escape.txt", 2, 2),
        "bom": ("c-bom.txt", bom_line, 1),
        "mixed_ends": ("d-ends.txt", 1, 1),
        "encoding": ("e-latin.txt", 4, 1),
        "replacement": ("f-broken.txt", 2, 1),
    }
    assert check.empty_documents == 2
    said = problems(check)
    assert "1 files with bytes that are not UTF-8, the first in" in said
    assert "e-latin.txt, line 4" in said
    assert "\x1b" not in said and "\x00" not in said


def test_line_ends_are_seen_across_pieces() -> None:
    finder = OddityFinder()
    finder.open("x")
    for piece in ("one\r", "\ntwo\r", "\n"):
        finder.add(piece)
    finder.close()
    assert list(finder.found()) == []
    finder.open("y")
    for piece in ("one\r", "\ntwo", "\n"):
        finder.add(piece)
    finder.close()
    assert [odd.kind for odd in finder.found()] == ["mixed_ends"]


def test_boilerplate_is_found(tmp_path: Path) -> None:
    licence = "Permission is hereby granted, free of charge, to any person.\n"
    texts: dict[str, str | bytes] = {
        name: licence + str(text) if name < "15" else text for name, text in clean().items()
    }
    check = check_corpus(folder_of(tmp_path, texts))
    (line,) = check.boilerplate
    assert (line.text, line.count, line.documents) == (licence.strip(), 15, 15)
    assert check.repeated_bytes == 14 * len(licence.strip())
    assert "boilerplate" in problems(check)
    assert "Permission is hereby" in "\n".join(check_lines(check))


def test_a_document_that_is_most_of_the_text_is_named(tmp_path: Path) -> None:
    texts = {**clean(12), "long.txt": prose(60_000, 9)}
    check = check_corpus(folder_of(tmp_path, texts))
    assert "data.separator" in problems(check)
    assert check.longest[1] == 60_000


def test_lines_that_are_frequent_survive_when_there_are_too_many_kinds() -> None:
    counter = LineCounter(most_kinds=200)
    for document in range(50):
        lines = [f"a line that comes once only, {document} {n}" for n in range(20)]
        counter.add("\n".join(["this line comes in every document", *lines]))
        counter.add(" the last goes on\n")
        counter.close()
    first = next(counter.repeated())
    assert first.text == "this line comes in every document"
    assert first.count == first.documents == 50


def test_of_much_text_a_sample_is_looked_at_and_said(tmp_path: Path) -> None:
    data = folder_of(tmp_path, clean(60))
    check = check_corpus(data, sampled_bytes=60_000)
    assert check.is_sample
    assert 20_000 < check.checked_bytes < 120_000  # a third of 180,000
    assert "a sample of" in "\n".join(check_lines(check))
    again = check_corpus(data, sampled_bytes=60_000)
    assert again.checked_bytes == check.checked_bytes


def test_progress_goes_to_its_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    check_corpus(folder_of(tmp_path, clean(5)), on_progress=lambda *at: seen.append(at))
    checking = [(done, total) for stage, done, total in seen if stage == "checking"]
    assert checking[-1][0] == checking[-1][1] == 2 * 15_000
