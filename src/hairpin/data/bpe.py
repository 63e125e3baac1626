"""Learn a byte-level BPE vocabulary (Sennrich et al. 2016; GPT-2) from text.

Hugging Face `tokenizers` does the learning and defines the file format; encoding is tiktoken's
(see tokenizers.py). The result depends only on the text, not on threads or the run.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hairpin.data.added_tokens import END_OF_TEXT, Added
from hairpin.data.pieces import recut

TRAINING_BYTES = 64_000_000
# The learner holds each distinct word, in about 85 bytes for each of its own: 250 MB for this.
DISTINCT_BYTES = 3_000_000

# Bytes of training text up to which a vocabulary of this size is chosen. A larger vocabulary
# packs more text into a token, and needs more text before its rare tokens are learned.
_VOCABULARIES = (
    (50_000, 512),
    (300_000, 1024),
    (2_000_000, 2048),
    (20_000_000, 4096),
    (200_000_000, 8192),
    (2_000_000_000, 16_384),
)
_MAX_VOCABULARY = 32_768
# Nearly the words of GPT-2's expression: enough for an estimate of memory.
_WORDS = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+")
# Longer words (a genome is one) slow down learning and add nothing.
_LEARNING_PIECE_CHARS = 2 * 1024
_REPORT_BYTES = 256 * 1024


def choose_vocabulary(train_bytes: int) -> int:
    """Return a vocabulary size, including end-of-text, for this many bytes of training text."""
    for limit_bytes, vocabulary in _VOCABULARIES:
        if train_bytes <= limit_bytes:
            return vocabulary
    return _MAX_VOCABULARY


def sample_evenly(
    texts: Iterable[str],
    total_bytes: int,
    limit_bytes: int = TRAINING_BYTES,
    distinct_bytes: int = DISTINCT_BYTES,
) -> Iterator[str]:
    """Yield small pieces from all over `total_bytes` bytes of text, as many as learning can hold:
    `limit_bytes` bytes, and distinct words of `distinct_bytes` bytes in total.
    """
    share = min(1.0, limit_bytes / max(total_bytes, 1))
    seen_bytes = taken_bytes = held_bytes = 0
    held: set[str] = set()
    for piece in recut_each(texts):
        size_bytes = len(piece.encode())
        seen_bytes += size_bytes
        # New words get rarer: their number grows about as the root of the length (Heaps' law).
        held_share = (seen_bytes / max(total_bytes, 1)) ** 0.5
        fits = taken_bytes + size_bytes <= max(seen_bytes * share, size_bytes)
        if fits and held_bytes <= distinct_bytes * held_share:
            taken_bytes += size_bytes
            new = set(_WORDS.findall(piece)) - held
            held |= new
            held_bytes += len("".join(new).encode())
            yield piece


def recut_each(texts: Iterable[str]) -> Iterator[str]:
    """Yield small pieces of each text: the learner holds hundreds at once."""
    for text in texts:
        yield from recut((text,), _LEARNING_PIECE_CHARS, _LEARNING_PIECE_CHARS)


def train_merges(
    texts: Iterable[str], size: int, on_bytes: Callable[[int], None] | None = None
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn the vocabulary and the merges of a BPE of up to `size` tokens, including the 256 bytes.

    Tokens are in GPT-2's notation, a printable character for each byte. Merge i makes token
    256 + i. A small text yields fewer merges. At most `TRAINING_BYTES` are read.
    """
    # Set to keep a later fork (a data loader's) from printing a warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(_counted(texts, on_bytes), trainer=trainer)
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _counted(texts: Iterable[str], on_bytes: Callable[[int], None] | None) -> Iterator[str]:
    done_bytes = reported_bytes = 0
    for piece in recut_each(texts):
        if done_bytes >= TRAINING_BYTES:
            break
        yield piece
        done_bytes += len(piece.encode())
        if on_bytes and done_bytes >= reported_bytes + _REPORT_BYTES:
            on_bytes(done_bytes)
            reported_bytes = done_bytes
    if on_bytes:
        on_bytes(done_bytes)


def tokenizer_json(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], added: Sequence[Added] = ()
) -> bytes:
    """Return a vocabulary in the format of Hugging Face tokenizers, version 1.0.

    An added token is also in the vocabulary unless it comes after it: otherwise `tokenizers` would
    give it another id.
    """
    behind = max(vocab.values(), default=-1)
    among = {token.content: token.id for token in added if token.id < behind}
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(sorted({**vocab, **among}.items(), key=lambda pair: pair[1])),
        "merges": merges,
    }
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token.id, **token.as_json()} for token in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **level},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **level},
        "model": model,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1).encode()


def of_merges(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], added: Iterable[Added]
) -> dict[str, int]:
    """Return the vocabulary without those added tokens that no merge makes. One that a merge makes
    keeps its id, and is found in texts before merging; none makes end-of-text.
    """
    made = {*byte_of_character(), *(left + right for left, right in merges)} - {END_OF_TEXT}
    contents = {token.content for token in added}
    return {name: i for name, i in vocab.items() if name in made or name not in contents}


def tokens_of_merges(names: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[bytes]:
    """Return the bytes of tokens in GPT-2's notation, in the order in which they were learned.

    Raises:
        ValueError: they are not 256 bytes and then one token for each merge.
    """
    if list(names[256:]) != [left + right for left, right in merges]:
        raise ValueError("its ids are not 256 bytes followed by one token for each merge")
    table = byte_of_character()
    if set(names[:256]) != set(table):
        raise ValueError("its first 256 ids are not the 256 bytes")
    return [bytes(table[character] for character in name) for name in names]


def merges_of(tokens: Sequence[bytes]) -> list[tuple[str, str]]:
    """Return the merge that made each token after the 256 bytes, in GPT-2's notation.

    Args:
        tokens: in the order in which they were learned, so that all merges before a token's own
            leave two parts of its bytes.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    characters = {byte: character for character, byte in byte_of_character().items()}
    merges = []
    for token in tokens[256:]:
        parts = [bytes((byte,)) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(left + right, len(tokens)) for left, right in pairwise(parts)]
            first = joined.index(min(joined))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        left, right = ("".join(characters[byte] for byte in part) for part in parts)
        merges.append((left, right))
    return merges


def byte_of_character() -> dict[str, int]:
    """Return GPT-2's printable character -> its byte (`bytes_to_unicode`, inverted)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table
