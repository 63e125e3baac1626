"""A tokenizer from the files that transformers keeps next to a GPT-2 checkpoint.

    tokenizer.json               all of it, or
    vocab.json and merges.txt    tokens and their ids; the merges in the order they were learned

Ids are the rows of the checkpoint's embedding, so a vocabulary is used unchanged or not at all.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.data import bpe
from hairpin.data.added_tokens import END_OF_TEXT, Added
from hairpin.data.tokenizers import BpeTokenizer, ByteTokenizer, Gpt2Tokenizer, Tokenizer
from hairpin.errors import RunError

# Of GPT-2's 50,256 tokens in id order, each preceded by its length: see `_digest`.
_GPT2_SHA256 = "3b27ee95684e28911415c6bcd8537b0d5b950f05a84053d4e6c63a26990f9617"

# Further features of tokenizers, and the settings that disable them.
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


@dataclass(frozen=True)
class FoundTokenizer:
    """A tokenizer of another program.

    Args:
        tokenizer: the tokenizer itself.
        without_row: texts of added tokens that were left out for lack of a row in the embedding.
        plain: texts of added tokens that are matched literally, though their settings ask to strip
            white space, or to match only whole words.
    """

    tokenizer: Tokenizer
    without_row: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


def read_tokenizer(folder: Path, rows: int | None = None) -> FoundTokenizer | None:
    """Read GPT-2's tokenizer, another byte-level BPE in its format, or plain bytes, which are a BPE
    without merges; return None if there are no files.

    Args:
        folder: with the files.
        rows: of the embedding; added tokens beyond them are left out. None: unlimited.

    Raises:
        RunError: the files are damaged, or hairpin would encode differently.
    """
    whole, vocab, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    file = whole if whole.is_file() else vocab
    if not file.is_file():
        return None
    try:
        config = _json_object(folder / "tokenizer_config.json")
        _refuse_other(_CONFIG, config)
        if file == whole:
            return _found(*_from_tokenizer_json(_json_object(whole)), rows)
        added = _added_beside(config, _json_object(folder / "added_tokens.json"))
        return _found(_json_object(vocab), _from_merges(merges), added, rows)
    except OSError as error:
        raise RunError(
            f"{error.filename}: cannot be read ({error.strerror}); a tokenizer is tokenizer.json, "
            "or vocab.json and merges.txt"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{file}: hairpin cannot use this tokenizer: {reason}; it takes GPT-2's, and other "
            "byte-level BPE of the same form"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}: not as transformers writes it ({type(error).__name__}: {error}); "
            "get the folder again"
        ) from None


def _json_object(path: Path) -> dict[str, Any]:
    """Return the contents of a file; empty if it is optional and missing."""
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


def _from_tokenizer_json(
    whole: dict[str, Any],
) -> tuple[dict[str, int], _Merges, list[dict[str, Any]]]:
    model = whole["model"]
    _refuse_other(_MODEL, model)
    _refuse_other({"normalizer": (None,)}, {"normalizer": _alone(whole, "normalizer")})
    _refuse_other(_PRE_TOKENIZER, _alone(whole, "pre_tokenizer") or {})
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return model["vocab"], [_pair(pair) for pair in pairs], whole.get("added_tokens") or []


def _alone(whole: dict[str, Any], part: str) -> Any:
    """Return a part of a tokenizer.json, unwrapped from sequences of one; None for an empty one."""
    found = whole.get(part)
    while isinstance(found, dict) and found.get("type") == "Sequence":
        parts = found[part.replace("_", "") + "s"]
        if len(parts) > 1:
            return found
        found = parts[0] if parts else None
    return found


def _added_beside(config: dict[str, Any], ids: dict[str, int]) -> list[dict[str, Any]]:
    """Return the added tokens of tokenizer_config.json, or those of added_tokens.json, as ids."""
    full = [
        {"id": int(index), **token}
        for index, token in config.get("added_tokens_decoder", {}).items()
    ]
    known = {token["content"] for token in full}
    return full + [{"id": ids[name], "content": name} for name in ids if name not in known]


def _from_merges(path: Path) -> _Merges:
    lines = path.read_text(encoding="utf-8").split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    return [_pair(line.rstrip("\r").split(" ")) for line in lines[first:] if line.strip()]


def _pair(parts: Sequence[str]) -> tuple[str, str]:
    if len(parts) != 2:
        raise ValueError(f"a merge of {len(parts)} tokens, not of two")
    return parts[0], parts[1]


def _found(
    vocab: dict[str, int], merges: _Merges, listed: list[dict[str, Any]], rows: int | None
) -> FoundTokenizer:
    if END_OF_TEXT in vocab:
        listed = [{"content": END_OF_TEXT, "id": vocab[END_OF_TEXT]}, *listed]
    tokens = {token["content"]: token for token in listed}
    if END_OF_TEXT not in tokens:
        raise ValueError(f"it has no {END_OF_TEXT}, which separates texts")
    in_order = sorted(tokens.values(), key=lambda token: token["id"])
    of_merges = bpe.of_merges(vocab, merges, map(_added, in_order))
    ids = sorted({*of_merges.values(), *(token["id"] for token in in_order)})
    if ids != list(range(len(ids))):
        raise ValueError("its ids are not 0, 1, 2 and so on")
    missing = set(bpe.byte_of_character()) - of_merges.keys()
    if missing:
        raise ValueError(
            f"{len(missing)} of the 256 bytes have no token, so it cannot encode every text (to "
            "train one that can: initial_alphabet=ByteLevel.alphabet())"
        )
    if "" in tokens:
        raise ValueError("one of its added tokens is empty")
    needed = max(tokens[END_OF_TEXT]["id"], *of_merges.values())
    limit = len(ids) if rows is None else max(rows, needed + 1)
    has_row = [token for token in in_order if token["id"] < limit]
    return FoundTokenizer(
        _tokenizer(of_merges, merges, [_added(token) for token in has_row]),
        tuple(token["content"] for token in in_order[len(has_row) :]),
        tuple(token["content"] for token in has_row if _is_unlike_its_text(token)),
    )


def _added(token: dict[str, Any]) -> Added:
    return Added(token["content"], token["id"], token.get("special", True))


def _is_unlike_its_text(token: dict[str, Any]) -> bool:
    """True if other programs do not match it literally; end-of-text is never matched here."""
    flags = ("lstrip", "rstrip", "single_word")
    return token["content"] != END_OF_TEXT and any(token.get(flag) for flag in flags)


def _tokenizer(vocab: dict[str, int], merges: _Merges, added: Sequence[Added]) -> Tokenizer:
    names = sorted(vocab, key=vocab.__getitem__)
    if [(token.content, token.id) for token in added] == [(END_OF_TEXT, len(names))]:
        tokens = bpe.tokens_of_merges(names, merges)
        if _digest(tokens) == _GPT2_SHA256:
            return Gpt2Tokenizer(tokens)
        if tokens == [bytes((byte,)) for byte in range(256)]:
            return ByteTokenizer()
        added = ()
    return BpeTokenizer(vocab, merges, added)


def _digest(tokens: Sequence[bytes]) -> str:
    behind_lengths = b"".join(len(token).to_bytes(2, "little") + token for token in tokens)
    return hashlib.sha256(behind_lengths).hexdigest()
