import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

import hairpin
from hairpin.config.settings import Data
from hairpin.data.bpe import byte_of_character, choose_vocabulary, sample_evenly
from hairpin.data.corpus import open_corpus
from hairpin.data.pieces import recut
from hairpin.data.tokenizers import (
    BpeTokenizer,
    ByteTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    load_tokenizer,
    train_bpe,
)
from hairpin.errors import RunError, UserError

# Text that looks for trouble: contractions, runs of white space of several kinds, digits, marks,
# letters beyond ASCII, a composed and a decomposed é, the end-of-text marker, NUL.
TRICKY = st.text("ab 'lsrevdtm1.\n\r\t\x0b\x1c\x85\xa0\u180e\u3000é我。<|>\0", max_size=60)
FRAGMENTS = ("        ", "\n\n\n", " \n", "def", " self", "'ll", "n't", "12", "=====", "  x", "é")
WORDS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)
TEXT = st.one_of(WORDS, st.text(max_size=60), TRICKY, st.just("e\u0301<|endoftext|>\U0001f600"))


def python_docs() -> Iterator[str]:
    for document in open_corpus(Data(corpus="python-docs")).documents():
        yield from document.pieces()


# Help topics have few contractions; the tests of cuts need tokens for them.
CONTRACTIONS = "it's we'll don't they've you're I'm he'd\n\n\n" * 500


@cache
def bpe() -> BpeTokenizer:
    return train_bpe([*python_docs(), CONTRACTIONS], 1500)


@pytest.fixture(scope="module")
def gpt2(gpt2_vocabulary: Path) -> Gpt2Tokenizer:
    return Gpt2Tokenizer.fetch()


def plain_merges(tokenizer: BpeTokenizer, word: str) -> list[int]:
    """BPE as Sennrich et al. describe it: apply each merge, in order, wherever it fits."""
    names = json.loads(tokenizer._files()["tokenizer.json"])["model"]
    symbol = {byte: char for char, byte in byte_of_character().items()}
    tokens = [symbol[byte] for byte in word.encode()]
    for left, right in names["merges"]:
        merged: list[str] = []
        for token in tokens:
            if merged and (merged[-1], token) == (left, right):
                merged[-1] += token
            else:
                merged.append(token)
        tokens = merged
    return [names["vocab"][token] for token in tokens]


# --- every text comes back ---


@given(TEXT)
def test_bytes_round_trip(text: str) -> None:
    ids = ByteTokenizer().encode(text)
    assert ids.tolist() == list(text.encode())
    assert ids.dtype == np.uint32
    assert ByteTokenizer().decode(ids) == text


@given(TEXT)
@example("<|endoftext|>")
def test_bpe_round_trip_without_end_of_text(text: str) -> None:
    ids = bpe().encode(text)
    assert bpe().decode(ids.tolist()) == text
    assert ids.dtype == np.uint32
    assert bpe().end_of_text not in ids
    lengths = bpe().token_bytes()
    assert int(lengths[ids].sum()) == len(text.encode())


@settings(max_examples=50)
@given(data=st.data())
def test_gpt2_round_trip(gpt2: Gpt2Tokenizer, data: st.DataObject) -> None:
    text = data.draw(TEXT)
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    assert 50256 not in ids


# --- ids are what others say they are ---


def test_gpt2_ids_are_the_known_ones(gpt2: Gpt2Tokenizer, verdict_file: Path) -> None:
    assert gpt2.encode("Every effort moves you").tolist() == [6109, 3626, 6100, 345]
    assert (gpt2.vocabulary, gpt2.end_of_text) == (50257, 50256)
    text = verdict_file.read_text(encoding="utf-8")
    ids = gpt2.encode(text)
    assert len(ids) == 5145
    assert ids.tolist() == tiktoken.get_encoding("gpt2").encode_ordinary(text)


def test_bpe_ids_are_those_of_plain_merging() -> None:
    for word in ("module", " documentation", "aaaaaaa", "=======", "é", " classmethods"):
        assert bpe().encode(word).tolist() == plain_merges(bpe(), word)


@cache
def hugging_face() -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer.from_str(bpe()._files()["tokenizer.json"].decode())


@settings(max_examples=300)
@given(TEXT)
@example("aaa aaaa aaaaa  ======= ")
def test_bpe_ids_are_those_of_hugging_face(text: str) -> None:
    assert bpe().encode(text).tolist() == hugging_face().encode(text).ids


def test_bpe_ids_of_a_corpus_are_those_of_hugging_face() -> None:
    text = "".join(python_docs())[:100_000]
    assert bpe().encode(text).tolist() == hugging_face().encode(text).ids
    assert hugging_face().decode(bpe().encode(text).tolist()) == text


def test_every_learned_token_is_reachable() -> None:
    texts = [bpe().decode_bytes([index]) for index in range(256, bpe().end_of_text)]
    words = [(index, text) for index, text in enumerate(texts, 256) if text.isascii()]
    assert len(words) > 1000
    assert all(bpe().encode(text.decode()).tolist() == [index] for index, text in words)


# --- cuts ---


@settings(max_examples=300)
@given(TEXT, st.integers(2, 12))
@example("a  b", 2)
@example("don't we'll", 4)
@example("\n\n\n x", 2)
def test_pieces_encode_as_the_whole_by_bpe(text: str, size: int) -> None:
    # No forced cut: the limit is longer than any text here.
    pieces = list(recut([text], size, 1000))
    assert "".join(pieces) == text
    ids = [index for piece in bpe().encode_batch(pieces) for index in piece.tolist()]
    assert ids == bpe().encode(text).tolist()


@settings(max_examples=300)
@given(data=st.data())
def test_pieces_encode_as_the_whole_by_gpt2(gpt2: Gpt2Tokenizer, data: st.DataObject) -> None:
    text, size = data.draw(TEXT), data.draw(st.integers(2, 12))
    encode = tiktoken.get_encoding("gpt2").encode_ordinary
    assert [i for piece in recut([text], size, 1000) for i in encode(piece)] == encode(text)


def test_real_text_encodes_the_same_in_pieces() -> None:
    text = "".join(python_docs())[:60_000]
    pieces = list(recut([text], 97, 10_000))
    assert len(pieces) > 500
    ids = np.concatenate(bpe().encode_batch(pieces))
    assert ids.tolist() == bpe().encode(text).tolist()


@pytest.mark.parametrize("run", [" ", "\n", "\u3000", "a", "'", "我", " \n"])
@pytest.mark.parametrize("after", ["", "x", " x"])
def test_very_long_runs_are_encoded(run: str, after: str) -> None:
    text = "start" + run * (1_100_000 // len(run.encode())) + after
    assert bpe().decode(bpe().encode(text)) == text


def test_a_long_run_of_white_space_has_the_ids_of_a_short_one() -> None:
    # What is one word must stay one: its ids repeat with the longest token of newlines.
    long, short = ("\n" * count + "x y" for count in (1_200_000, 1_000))
    assert bpe().encode(long)[-2:].tolist() == bpe().encode(short)[-2:].tolist()
    tail = bpe().encode(long)[-40:].tolist()
    assert tail == bpe().encode("\n" * 400_000 + "x y")[-40:].tolist()


# --- decoding ---


def test_decoding_leaves_end_of_text_out_and_refuses_foreign_ids() -> None:
    for tokenizer in (ByteTokenizer(), bpe()):
        ids = [tokenizer.end_of_text, *tokenizer.encode("two words"), tokenizer.end_of_text]
        assert tokenizer.decode(ids) == "two words"
        for foreign in (-1, tokenizer.vocabulary):
            with pytest.raises(ValueError, match=f"{foreign} is not in a vocabulary"):
                tokenizer.decode_bytes([foreign])
    assert ByteTokenizer().decode("é".encode()[:1]) == "\ufffd"


def test_token_bytes_are_the_lengths_of_decoded_tokens() -> None:
    for tokenizer in (ByteTokenizer(), bpe()):
        lengths = tokenizer.token_bytes()
        assert lengths.dtype == np.int32
        assert len(lengths) == tokenizer.vocabulary
        assert lengths[tokenizer.end_of_text] == 0
        assert lengths.tolist() == [
            len(tokenizer.decode_bytes([index])) for index in range(tokenizer.vocabulary)
        ]


# --- learning ---


def test_little_text_gives_fewer_tokens() -> None:
    tokenizer = train_bpe(["ab ab ab"], 5000)
    # `ab`, ` a` or its like, ` ab`: then every word is a token.
    assert 257 < tokenizer.vocabulary <= 261
    assert tokenizer.decode(tokenizer.encode("xyz ab")) == "xyz ab"
    assert train_bpe([], 5000).vocabulary == 257
    assert train_bpe(["ab ab"], 257).vocabulary == 257


LEARN = """
import sys
from hairpin.config.settings import Data
from hairpin.data.corpus import open_corpus
from hairpin.data.tokenizers import train_bpe
documents = open_corpus(Data(corpus="python-docs")).documents()
texts = [*(piece for document in documents for piece in document.pieces()), sys.argv[1]]
print(train_bpe(texts, 1500).hash())
"""


@pytest.mark.parametrize(("threads", "parallel"), [("1", "false"), ("2", "true"), ("5", "true")])
def test_learning_does_not_depend_on_threads_or_process(threads: str, parallel: str) -> None:
    environment = {
        **os.environ,
        "RAYON_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": parallel,
        "PYTHONHASHSEED": threads,
        "PYTHONPATH": str(Path(hairpin.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", LEARN, CONTRACTIONS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == bpe().hash()


def test_learning_reports_bytes() -> None:
    calls: list[int] = []
    train_bpe(["word " * 100_000, "é" * 10], 300, calls.append)
    assert calls == sorted(calls)
    assert len(calls) >= 2
    assert calls[-1] == 500_020


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 500))
def test_an_even_sample_is_spread_and_bounded(sizes: list[int], limit: int) -> None:
    texts = ["x" * size for size in sizes]
    total = sum(sizes)
    taken = list(sample_evenly(texts, total, limit))
    assert taken[0] == texts[0]
    assert sum(map(len, taken)) <= max(limit, len(taken[0]))
    if limit >= total:
        assert taken == texts


def test_an_even_sample_reaches_the_end() -> None:
    taken = [int(text) for text in sample_evenly((f"{n:04d}" for n in range(1000)), 4000, 400)]
    assert len(taken) == 100
    assert taken[0] == 0
    assert taken[-1] >= 980
    assert max(after - before for before, after in pairwise(taken)) <= 20


def test_text_of_ever_new_words_is_sampled_less_and_still_evenly() -> None:
    letters = "abcdefghij"
    words = ["".join(letters[int(digit)] for digit in f"{n:06d}") for n in range(40_000)]
    texts = [" " + " ".join(words[n : n + 100]) for n in range(0, len(words), 100)]
    total_bytes = sum(map(len, texts))
    taken = list(sample_evenly(texts, total_bytes, total_bytes, distinct_bytes=28_000))
    # Each text is 700 new bytes, so 28,000 are 40 of the 400 texts.
    assert 40 <= len(taken) <= 41
    places = [texts.index(text) / len(texts) for text in taken]
    assert min(places) == 0
    assert max(places) > 0.95


def test_vocabularies_grow_with_the_text() -> None:
    sizes = [choose_vocabulary(10**power) for power in range(12)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[7], sizes[-1]) == (512, 4096, 32_768)


# --- saved and loaded ---


def test_saved_tokenizers_come_back(tmp_path: Path, gpt2: Gpt2Tokenizer) -> None:
    for tokenizer in (ByteTokenizer(), bpe(), gpt2):
        folder = tmp_path / tokenizer.kind
        tokenizer.save(folder)
        loaded = load_tokenizer(folder)
        assert type(loaded) is type(tokenizer)
        assert loaded.hash() == tokenizer.hash()
        assert loaded.vocabulary == tokenizer.vocabulary
        text = "It's 12 o'clock <|endoftext|>\n\n é"
        assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()
        assert {path.suffix for path in folder.iterdir()} == {".json"}


@pytest.mark.parametrize("damage", ["missing", "truncated", "edited", "described", "merges"])
@pytest.mark.parametrize("name", ["hairpin.json", "tokenizer.json"])
def test_a_damaged_tokenizer_is_refused_in_a_line(tmp_path: Path, damage: str, name: str) -> None:
    bpe().save(tmp_path)
    path = tmp_path / name
    content = path.read_text(encoding="utf-8")
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_text(content[: len(content) // 2], encoding="utf-8")
    elif damage == "edited":
        path.write_text(content.replace("1", "2", 1), encoding="utf-8")
    elif damage == "described":
        path.write_text("[]", encoding="utf-8")
    else:
        path.write_text(content.replace('"kind": "bpe"', '"kind": "x"') + " ", encoding="utf-8")
    with pytest.raises(RunError) as caught:
        load_tokenizer(tmp_path)
    (line,) = caught.value.problems
    assert "\n" not in line
    assert str(tmp_path) in line


def test_a_vocabulary_that_was_not_learned_in_order_is_refused() -> None:
    vocab, merges = dict(bpe()._vocab), list(bpe().merges)
    for bad in ((vocab, merges[:-1]), (vocab, merges[::-1]), ({**vocab, "new": 9999}, merges)):
        with pytest.raises(ValueError, match="256 bytes"):
            BpeTokenizer(*bad)
    swapped = {"ÿÿ" if name == "a" else name: index for name, index in vocab.items()}
    with pytest.raises(ValueError, match="256"):
        BpeTokenizer(swapped, merges)


def test_gpt2_without_a_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    load = importlib.import_module("tiktoken.load")

    def offline(path: str) -> bytes:
        raise ConnectionError("no network")

    monkeypatch.setattr(load, "read_file", offline)
    with pytest.raises(UserError) as caught:
        Gpt2Tokenizer.fetch()
    (line,) = caught.value.problems
    assert "TIKTOKEN_CACHE_DIR" in line
    assert "--set tokenizer.kind=bpe" in line


def test_kinds_have_different_hashes() -> None:
    tokenizers: list[Tokenizer] = [ByteTokenizer(), bpe(), train_bpe(["other text"], 300)]
    assert len({tokenizer.hash() for tokenizer in tokenizers}) == 3
