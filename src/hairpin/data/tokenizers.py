"""Text <-> token ids: plain bytes, a BPE learned from the corpus, GPT-2's vocabulary.

    Tokenizer            what all have; ids are 0 … vocabulary - 1, the last is end-of-text
    ├── ByteTokenizer    256 bytes
    └── RankedTokenizer  tiktoken's byte-level BPE, GPT-2's regular expression
        ├── BpeTokenizer     learned here; kept as a Hugging Face tokenizer.json
        └── Gpt2Tokenizer    GPT-2's 50,257

End-of-text is never made from text: `<|endoftext|>` in a document is thirteen ordinary characters.
A learned BPE is encoded by tiktoken, which merges by the rank of the bytes that result and takes
a twentieth of the memory of `tokenizers`. For a vocabulary in the order in which it was learned
that is the same as merging pair by pair: when token T = (x, y) is learned, all text of T's bytes
between cuts is divided as x, y by the merges before, so no other pair can make T.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hairpin.data import bpe
from hairpin.data.cache import shown
from hairpin.errors import RunError, UserError
from hairpin.files import write_atomically
from hairpin.reading import reading

if TYPE_CHECKING:
    import tiktoken

Ids = npt.NDArray[np.uint32]

_FORMAT = 1
# GPT-2's expression as tiktoken writes it: the same words, with less backtracking.
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_WHITE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


class Tokenizer(ABC):
    """Text <-> ids. Every text that is valid Unicode comes back exactly.

    Attributes:
        kind: "bytes", "bpe" or "gpt2".
        vocabulary: number of ids, end-of-text included.
        end_of_text: the id that stands before each document; always the last.
    """

    kind: str
    vocabulary: int
    end_of_text: int

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, uint32 [tokens]; never end-of-text."""

    @abstractmethod
    def _files(self) -> dict[str, bytes]:
        """File name -> content of what the tokenizer needs besides its description."""

    @abstractmethod
    def _token(self, index: int) -> bytes:
        """The bytes of one id below end-of-text."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, on all cores where that is faster."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for; end-of-text stands for none.

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
        """The text of the ids; bytes that are not UTF-8 (half a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def pieces(self) -> list[bytes]:
        """The bytes of each id, [vocabulary]; end-of-text has none."""
        return [*(self._token(index) for index in range(self.vocabulary - 1)), b""]

    def token_bytes(self) -> npt.NDArray[np.int32]:
        """How many bytes each id stands for, int32 [vocabulary]; 0 for end-of-text."""
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
        self._made: tiktoken.Encoding | None = None

    @property
    def _encoding(self) -> "tiktoken.Encoding":
        if self._made is None:
            import tiktoken

            ranks = {token: rank for rank, token in enumerate(self.tokens)}
            self._made = tiktoken.Encoding(
                self.kind, pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={}
            )
        return self._made

    def encode(self, text: str) -> Ids:
        try:
            return self._encoding.encode_to_numpy(text)
        except ValueError:
            # The expression backtracks through white space, and gives up on about a million.
            parts = [self._encoding.encode_to_numpy(part) for part in _tame(text)]
            return np.concatenate(parts)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        _ = self._encoding  # made once, before there are threads
        with ThreadPoolExecutor(_cores()) as pool:
            return list(pool.map(self.encode, texts))

    def _token(self, index: int) -> bytes:
        return self.tokens[index]


def _cores() -> int:
    """Cores that this process may use, which a batch system can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tame(text: str) -> Iterator[str]:
    r"""The text cut before the last character of each long run of white space.

    The expression always divides there: `\s+(?!\S)` takes all of a run but its last character.
    """
    start = 0
    for run in re.finditer(rf"{_WHITE}{{1000,}}+", text):
        # A run at the very end is one word, and the expression takes it in one go.
        if run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]


class BpeTokenizer(RankedTokenizer):
    """Byte-level BPE learned from a corpus.

    Args:
        vocab: token, as GPT-2 writes bytes -> id.
        merges: pairs of tokens in the order in which they were learned.

    Raises:
        ValueError: the vocabulary is not 256 bytes and then one token for each merge.
    """

    kind = "bpe"

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        names = sorted(vocab, key=vocab.__getitem__)
        ids_in_order = [vocab[name] for name in names] == list(range(len(names)))
        if not ids_in_order or names[256:] != [left + right for left, right in merges]:
            raise ValueError("its ids are not 256 bytes followed by one token for each merge")
        table = bpe.byte_of_character()
        if set(names[:256]) != set(table):
            raise ValueError("its first 256 ids are not the 256 bytes")
        super().__init__([bytes(table[char] for char in name) for name in names])
        self._vocab, self.merges = {name: vocab[name] for name in names}, list(merges)

    def _files(self) -> dict[str, bytes]:
        return {"tokenizer.json": bpe.tokenizer_json(self._vocab, self.merges)}


class Gpt2Tokenizer(RankedTokenizer):
    """GPT-2's vocabulary (Radford et al. 2019): 50,257 ids."""

    kind = "gpt2"

    @classmethod
    def fetch(cls) -> "Gpt2Tokenizer":
        """From tiktoken's cache, or downloaded into it.

        Raises:
            UserError: it is not in the cache and there is no network.
        """
        try:
            encodings = importlib.import_module("tiktoken_ext.openai_public")
            ranks: dict[bytes, int] = encodings.gpt2()["mergeable_ranks"]
        except Exception as error:
            # Whatever went wrong between here and a server, the way out is the same.
            raise UserError(
                f"tokenizer gpt2: its vocabulary cannot be downloaded ({type(error).__name__}); "
                "set TIKTOKEN_CACHE_DIR to a folder that has it, or train one on the text: "
                "--set tokenizer.kind=bpe"
            ) from error
        return cls(sorted(ranks, key=ranks.__getitem__))

    def _files(self) -> dict[str, bytes]:
        ranks = [base64.b64encode(token).decode() for token in self.tokens]
        return {"ranks.json": json.dumps(ranks, indent=0).encode()}


def train_bpe(
    texts: Iterable[str], vocabulary: int, on_bytes: Callable[[int], None] | None = None
) -> BpeTokenizer:
    """A BPE of up to `vocabulary` ids, end-of-text included, learned from the first 64 MB of text.

    The same text gives the same files, byte by byte. Very little text gives fewer ids.

    Args:
        texts: pieces of text (see `bpe.sample_evenly` for more than 64 MB of it).
        vocabulary: at least 257.
        on_bytes: called with the bytes read so far.
    """
    return BpeTokenizer(*bpe.learn(texts, vocabulary - 1, on_bytes))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` left in a folder.

    Raises:
        RunError: a file is missing, damaged, or of a format that this version does not know.
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
            raise ValueError("hairpin.json does not describe the files beside it")
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
    model = files["tokenizer.json"]["model"]
    return BpeTokenizer(model["vocab"], [(left, right) for left, right in model["merges"]])
