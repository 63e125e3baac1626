"""A tokenizer from the files that transformers keeps beside a GPT-2 checkpoint.

    tokenizer.json               all of it, or
    vocab.json and merges.txt    tokens and their ids; the merges in the order they were learned

Ids are the rows of the checkpoint's embedding, so a vocabulary is taken as it is or not at all.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hairpin.data import bpe
from hairpin.data.tokenizers import BpeTokenizer, ByteTokenizer, Gpt2Tokenizer, Tokenizer
from hairpin.errors import RunError

END_OF_TEXT = "<|endoftext|>"

# Of GPT-2's 50,256 tokens in the order of their ids, each behind its length: see `_digest`.
_GPT2_SHA256 = "3b27ee95684e28911415c6bcd8537b0d5b950f05a84053d4e6c63a26990f9617"

# What else tokenizers can do, and the settings under which it is not done.
_MODEL: dict[str, Sequence[Any]] = {
    "type": ("BPE", None),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}
_PRE_TOKENIZER: dict[str, Sequence[Any]] = {
    "type": ("ByteLevel",),
    "add_prefix_space": (False,),
    "use_regex": (None, True),
}
_CONFIG: dict[str, Sequence[Any]] = {"add_prefix_space": (None, False)}

_Merges = list[tuple[str, str]]


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """GPT-2's tokenizer, another byte-level BPE in its format, or plain bytes, which are such a one
    without merges; None where there are no files.

    Tokens that were added behind end-of-text are left out: no text becomes one of them.

    Raises:
        RunError: the files are damaged, or hairpin would not encode as they say.
    """
    whole, vocab, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    file = whole if whole.is_file() else vocab
    if not file.is_file():
        return None
    try:
        _refuse_other(_CONFIG, _json_object(folder / "tokenizer_config.json"))
        if file == whole:
            return _tokenizer(*_from_tokenizer_json(_json_object(whole)))
        added = _json_object(folder / "added_tokens.json")
        return _tokenizer(_with_end(_json_object(vocab), added), _from_merges(merges))
    except OSError as error:
        raise RunError(
            f"{error.filename}: cannot be read ({error.strerror}); a tokenizer is tokenizer.json, "
            "or vocab.json and merges.txt"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{file}: hairpin cannot use this tokenizer: {reason}; it takes GPT-2's, and other "
            "byte-level BPE that is made like it"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}: not as transformers writes it ({type(error).__name__}: {error}); "
            "get the folder again"
        ) from None


def _json_object(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where only an optional file is missing."""
    if path.name in ("tokenizer_config.json", "added_tokens.json") and not path.exists():
        return {}
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value


def _refuse_other(allowed: dict[str, Sequence[Any]], there: dict[str, Any]) -> None:
    for key, values in allowed.items():
        if there.get(key) not in values:
            raise ValueError(f"{key} is {json.dumps(there.get(key))}")


def _from_tokenizer_json(whole: dict[str, Any]) -> tuple[dict[str, int], _Merges]:
    model = whole["model"]
    _refuse_other(_MODEL, model)
    _refuse_other({"normalizer": (None,)}, whole)
    _refuse_other(_PRE_TOKENIZER, whole["pre_tokenizer"] or {})
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", ())}
    return _with_end(model["vocab"], added), [_pair(pair) for pair in pairs]


def _with_end(vocab: dict[str, int], added: dict[str, int]) -> dict[str, int]:
    return {END_OF_TEXT: added[END_OF_TEXT], **vocab} if END_OF_TEXT in added else vocab


def _from_merges(path: Path) -> _Merges:
    lines = path.read_text(encoding="utf-8").split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    return [_pair(line.rstrip("\r").split(" ")) for line in lines[first:] if line.strip()]


def _pair(parts: Sequence[str]) -> tuple[str, str]:
    if len(parts) != 2:
        raise ValueError(f"a merge of {len(parts)} tokens, not of two")
    return parts[0], parts[1]


def _tokenizer(vocab: dict[str, int], merges: _Merges) -> Tokenizer:
    names = sorted(vocab, key=vocab.__getitem__)
    if [vocab[name] for name in names] != list(range(len(names))):
        raise ValueError("its ids are not 0, 1, 2 and so on")
    if not names or names.pop() != END_OF_TEXT:
        raise ValueError(f"{END_OF_TEXT} is not its last token")
    table = bpe.byte_of_character()
    if set("".join(names)) <= set(table):
        tokens = [bytes(table[char] for char in name) for name in names]
        if _digest(tokens) == _GPT2_SHA256:
            return Gpt2Tokenizer(tokens)
        if not merges and tokens == [bytes((byte,)) for byte in range(256)]:
            return ByteTokenizer()
    return BpeTokenizer({name: vocab[name] for name in names}, merges)


def _digest(tokens: Sequence[bytes]) -> str:
    behind_lengths = b"".join(len(token).to_bytes(2, "little") + token for token in tokens)
    return hashlib.sha256(behind_lengths).hexdigest()
