"""Text <-> token ids: plain bytes, a BPE learned from the corpus, GPT-2's vocabulary.

    Tokenizer            the base class; ids are 0 … vocabulary - 1, one of them is end-of-text
    ├── ByteTokenizer    256 bytes
    └── RankedTokenizer  tiktoken's byte-level BPE, GPT-2's regular expression
        ├── BpeTokenizer     learned here or brought in; kept as a Hugging Face tokenizer.json
        └── Gpt2Tokenizer    GPT-2's 50,257

End-of-text is never made from text: `<|endoftext|>` in a document is thirteen ordinary characters.
Other added tokens of a vocabulary (`<|im_start|>`) are one id wherever they occur.
"""

import base64
import hashlib
import importlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hairpin.data import bpe
from hairpin.data.added_tokens import END_OF_TEXT, Added, AddedTokens
from hairpin.errors import RunError, UserError
from hairpin.system.access import reading
from hairpin.system.files import shown, write_atomically

Ids = npt.NDArray[np.uint32]

_FORMAT = 1


class Tokenizer(ABC):
    """Text <-> ids. Every text that is valid Unicode is decoded exactly.

    Attributes:
        kind: "bytes", "bpe" or "gpt2".
        vocabulary: number of ids, end-of-text included.
        end_of_text: the id before each document; the last id in hairpin's own vocabularies.
    """

    kind: str
    vocabulary: int
    end_of_text: int

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Return the ids of a text, uint32 [tokens]; never end-of-text."""

    @abstractmethod
    def _files(self) -> dict[str, bytes]:
        """Return file name -> content of the tokenizer's files besides its description."""

    @abstractmethod
    def _token(self, index: int) -> bytes:
        """Return the bytes of one id that is not end-of-text."""

    def added_tokens(self) -> tuple[Added, ...]:
        """Return the tokens that no merge makes."""
        return (Added(END_OF_TEXT, self.end_of_text),)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, on all cores if that is faster."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the ids; end-of-text has none.

        Raises:
            ValueError: an id is negative, or not below `vocabulary`.
        """
        parts = []
        for index in ids:
            if not 0 <= index < self.vocabulary:
                raise ValueError(f"token id {index} is not in a vocabulary of {self.vocabulary}")
            if index != self.end_of_text:
                parts.append(self._token(int(index)))
        return b"".join(parts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; invalid UTF-8 (a partial character) becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def pieces(self) -> list[bytes]:
        """Return the bytes of each id, [vocabulary]; end-of-text has none."""
        ids = range(self.vocabulary)
        return [b"" if index == self.end_of_text else self._token(index) for index in ids]

    def token_bytes(self) -> npt.NDArray[np.int32]:
        """Return the number of bytes of each id, int32 [vocabulary]; 0 for end-of-text."""
        return np.array([len(piece) for piece in self.pieces()], dtype=np.int32)

    def _description(self) -> bytes:
        fields = {
            "format": _FORMAT,
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "end_of_text": self.end_of_text,
            "sha256": {
                name: hashlib.sha256(content).hexdigest() for name, content in self._files().items()
            },
        }
        return json.dumps(fields, indent=1).encode() + b"\n"

    def hash(self) -> str:
        """SHA-256, in hex, of everything that decides ids."""
        return hashlib.sha256(self._description()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write hairpin.json and the tokenizer's own file into a folder, made if missing."""
        for name, content in self._files().items():
            write_atomically(folder / name, content)
        write_atomically(folder / "hairpin.json", self._description())


class ByteTokenizer(Tokenizer):
    """One id for each byte of UTF-8, and end-of-text: 257 ids."""

    kind = "bytes"
    vocabulary = 257
    end_of_text = 256

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)

    def _files(self) -> dict[str, bytes]:
        return {}

    def _token(self, index: int) -> bytes:
        return bytes((index,))


class RankedTokenizer(Tokenizer):
    """Byte-level BPE with GPT-2's regular expression; `tokens[i]` are the bytes of id i."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = list(tokens)
        self.vocabulary = len(self.tokens) + 1
        self.end_of_text = len(self.tokens)

    @cached_property
    def _merging(self) -> "Merging":
        return Merging(self.kind, self.tokens)

    def encode(self, text: str) -> Ids:
        return self._merging.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        _ = self._merging  # made once, before there are threads
        with ThreadPoolExecutor(_cores()) as pool:
            return list(pool.map(self.encode, texts))

    def _token(self, index: int) -> bytes:
        return self.tokens[index]


def _cores() -> int:
    """Return the cores that this process may use, which a batch system can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class BpeTokenizer(RankedTokenizer):
    """Byte-level BPE learned from a corpus, here or elsewhere.

    Args:
        vocab: token, as GPT-2 writes bytes -> id.
        merges: pairs of tokens in the order in which they were learned.
        added: tokens besides those, end-of-text among them; none: end-of-text, the last id.

    Raises:
        ValueError: `vocab` is not 256 bytes and one token for each merge, or an id is missing.
    """

    kind = "bpe"

    def __init__(
        self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], added: Sequence[Added] = ()
    ) -> None:
        self._vocab = dict(sorted(vocab.items(), key=lambda pair: pair[1]))
        self.merges = list(merges)
        super().__init__(bpe.tokens_of_merges(list(self._vocab), self.merges))
        self._added = tuple(added) or super().added_tokens()
        ids = sorted({*vocab.values(), *(token.id for token in self._added)})
        if ids != list(range(len(ids))):
            raise ValueError("its ids are not 0, 1, 2 and so on")
        (self.end_of_text,) = (token.id for token in self._added if token.content == END_OF_TEXT)
        self.vocabulary = len(ids)
        self._ids = np.array(list(self._vocab.values()), dtype=np.uint32)  # of each rank
        self._marks = AddedTokens(self._added)
        self._bytes = {token.id: token.content.encode() for token in self._added}
        self._bytes |= dict(zip(self._vocab.values(), self.tokens, strict=True))

    def encode(self, text: str) -> Ids:
        if self._is_plain():
            return super().encode(text)
        parts = [np.empty(0, dtype=np.uint32)]
        for piece, mark in self._marks.split(text):
            ids = self._ids[super().encode(piece)] if mark is None else np.array([mark])
            parts.append(ids.astype(np.uint32))
        return np.concatenate(parts)

    def added_tokens(self) -> tuple[Added, ...]:
        return self._added

    def _is_plain(self) -> bool:
        """True if ids are ranks, and end-of-text is the only added token."""
        return self._added == (Added(END_OF_TEXT, len(self.tokens)),)

    def _token(self, index: int) -> bytes:
        return self._bytes[index]

    def _files(self) -> dict[str, bytes]:
        added = () if self._is_plain() else self._added
        return {"tokenizer.json": bpe.tokenizer_json(self._vocab, self.merges, added)}


class Gpt2Tokenizer(RankedTokenizer):
    """GPT-2's vocabulary (Radford et al. 2019): 50,257 ids."""

    kind = "gpt2"

    @classmethod
    def fetch(cls) -> "Gpt2Tokenizer":
        """Load it from tiktoken's cache, or download it there.

        Raises:
            UserError: it is not in the cache and there is no network.
        """
        try:
            encodings = importlib.import_module("tiktoken_ext.openai_public")
            ranks: dict[bytes, int] = encodings.gpt2()["mergeable_ranks"]
        except Exception as error:
            # Whatever failed between here and a server, the remedy is the same.
            raise UserError(
                f"tokenizer gpt2: its vocabulary cannot be downloaded ({type(error).__name__}); "
                "set TIKTOKEN_CACHE_DIR to a folder that has it, or train a tokenizer on the "
                "text: --set tokenizer.kind=bpe"
            ) from error
        return cls(sorted(ranks, key=ranks.__getitem__))

    def _files(self) -> dict[str, bytes]:
        ranks = [base64.b64encode(token).decode() for token in self.tokens]
        return {"ranks.json": json.dumps(ranks, indent=0).encode()}


def train_bpe(
    texts: Iterable[str], vocabulary: int, on_bytes: Callable[[int], None] | None = None
) -> BpeTokenizer:
    """Learn a BPE of up to `vocabulary` ids, with end-of-text, from the first 64 MB of text.

    The same text gives the same files, byte by byte. Very little text gives fewer ids.

    Args:
        texts: pieces of text (see `bpe.sample_evenly` for more than 64 MB of it).
        vocabulary: at least 257.
        on_bytes: called with the bytes read so far.
    """
    return BpeTokenizer(*bpe.train_merges(texts, vocabulary - 1, on_bytes))


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer that `Tokenizer.save` wrote to a folder.

    Raises:
        RunError: a file is missing, damaged, or of a format unknown to this version.
        UnreadableError: a file cannot be read now.
    """
    try:
        description = json.loads(_content(folder / "hairpin.json"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format {description['format']} is not {_FORMAT}")
        files = {}
        for name in _FILE_OF_KIND[description["kind"]]:
            content = _content(folder / name)
            if hashlib.sha256(content).hexdigest() != description["sha256"][name]:
                raise ValueError(f"{name} is not the file that was saved")
            files[name] = json.loads(content)
        tokenizer = _build(description["kind"], files)
        if json.loads(tokenizer._description()) != description:
            raise ValueError("hairpin.json does not match the files next to it")
    except FileNotFoundError as error:
        raise RunError(
            f"{shown(error.filename or folder)}: cannot be read ({error.strerror}); the tokenizer "
            "belongs to its run: restore the folder from a copy, or start a new run"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{shown(folder)}: the tokenizer is damaged ({reason}); "
            "restore the folder from a copy, or start a new run"
        ) from error
    return tokenizer


def _content(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


_FILE_OF_KIND: dict[str, tuple[str, ...]] = {
    "bytes": (),
    "bpe": ("tokenizer.json",),
    "gpt2": ("ranks.json",),
}


def _build(kind: str, files: dict[str, Any]) -> Tokenizer:
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "gpt2":
        return Gpt2Tokenizer([base64.b64decode(token) for token in files["ranks.json"]])
    whole = files["tokenizer.json"]
    added = [
        Added(token["content"], token["id"], token["special"]) for token in whole["added_tokens"]
    ]
    merges = [(left, right) for left, right in whole["model"]["merges"]]
    return BpeTokenizer(bpe.of_merges(whole["model"]["vocab"], merges, added), merges, added)


# --- byte-level merging ---

# GPT-2's expression as tiktoken writes it: the same words, with less backtracking.
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_WHITE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


class Merging:
    """Text -> ranks of tokens: merges by tiktoken, in the words that GPT-2's expression finds.

    It merges by the rank of the resulting bytes, and takes a twentieth of the memory of
    `tokenizers`. For a vocabulary in the order in which it was learned that is the same as merging
    pair by pair: when token T = (x, y) is learned, all text of T's bytes between cuts is split as
    x, y by the merges before, so no other pair can make T.

    Args:
        name: of the vocabulary.
        tokens: the bytes of each rank.
    """

    def __init__(self, name: str, tokens: Sequence[bytes]) -> None:
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding(
            name, pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the ranks of a text, [tokens]."""
        try:
            return self._encoding.encode_to_numpy(text)
        except ValueError:
            # The expression backtracks through white space, and gives up on about a million.
            return np.concatenate(
                [self._encoding.encode_to_numpy(part) for part in _normalised(text)]
            )


def _normalised(text: str) -> Iterator[str]:
    r"""Yield the text cut before the last character of each long run of white space.

    The expression always splits there: `\s+(?!\S)` takes all of a run but its last character.
    """
    start = 0
    for run in re.finditer(rf"{_WHITE}{{1000,}}+", text):
        # A run at the very end is one word, and the expression matches it at once.
        if run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]
