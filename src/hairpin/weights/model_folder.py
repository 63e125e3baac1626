"""A model as transformers writes it: config.json, safetensors, a tokenizer's files.

GPT-2, and NanoChat and Qwen3 if hairpin supports their settings, as for those that it exports.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hairpin.checkpoints.tensors import read_tensors
from hairpin.data.gpt2_files import FoundTokenizer, read_tokenizer
from hairpin.data.tokenizers import Gpt2Tokenizer, Tokenizer
from hairpin.errors import CheckpointError, RunError
from hairpin.model.gpt import GPT
from hairpin.model.shape import Shape
from hairpin.weights.model_config import json_object, read_shape
from hairpin.weights.transformers_weights import (
    HEAD,
    embedding_name,
    from_transformers,
    misfit,
    other_heads,
    plain_names,
)

_GPT2_IDS = 50_257
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model saved by transformers, converted to hairpin's form.

    Args:
        shape: of its network.
        tokenizer: its ids are the rows of the embedding.
        tensors: hairpin's, float32.
        kind: of network, in a word.
        notices: lines about parts that were changed or left out.
    """

    shape: Shape
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    kind: str
    notices: tuple[str, ...]


def read_model(folder: Path) -> LoadedModel:
    """Read a folder of transformers.

    The embedding has a row for each id of the tokenizer; rows behind those are left out.

    Raises:
        RunError: something is missing, damaged or unsupported; each such setting has its line.
    """
    shape_in_file, kind = read_shape(folder / "config.json")
    found = _tokenizer(folder, shape_in_file.vocabulary)
    file, state = _state(folder)
    try:
        plain = plain_names(state, shape_in_file)
    except RunError as error:
        raise RunError(f"{file}: {error}") from None
    _retie(plain, shape_in_file)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT(shape_in_file).named_parameters()}
    problem = misfit(plain, shapes, shape_in_file) or _not_numbers(plain)
    if problem:
        raise RunError(f"{file}: {problem}")
    rows = found.tokenizer.vocabulary
    shape = replace(
        shape_in_file,
        vocabulary=rows,
        tied=shape_in_file.tied and _head_is_embedding(plain, shape_in_file, rows),
    )
    tensors = from_transformers({name: t.float() for name, t in plain.items()}, shape)
    for name in {"token_embedding.weight", "head.weight"} & tensors.keys():
        tensors[name] = tensors[name][:rows].clone()
    notices = tuple(
        f"{folder}: {notice}"
        for notice in (
            *_token_notices(folder, found, shape_in_file.vocabulary),
            *_weight_notices(state, plain, shape_in_file, shape),
        )
    )
    return LoadedModel(shape, found.tokenizer, tensors, kind, notices)


def _retie(plain: dict[str, Tensor], shape: Shape) -> None:
    """Use the head as the embedding if a tied folder has only the head."""
    name = embedding_name(shape)
    if shape.tied and name not in plain and HEAD in plain:
        plain[name] = plain[HEAD]


def _head_is_embedding(plain: dict[str, Tensor], shape: Shape, rows: int) -> bool:
    head = plain.get(HEAD)
    return head is None or torch.equal(head[:rows], plain[embedding_name(shape)][:rows])


def _token_notices(folder: Path, found: FoundTokenizer, rows: int) -> Iterator[str]:
    tokenizer = found.tokenizer
    if kept := [t.content for t in tokenizer.added_tokens() if t.id != tokenizer.end_of_text]:
        yield (
            f"{_counted(kept, 'added token')} kept with their embedding rows; each is one id "
            "wherever its text occurs"
        )
    if found.plain:
        yield (
            f"{_counted(found.plain, 'added token')} matched exactly as written; in "
            "tokenizer.json they also strip white space, or match only whole words"
        )
    if found.without_row:
        yield f"{_counted(found.without_row, 'added token')} left out: they have no embedding row"
    if spare := rows - tokenizer.vocabulary:
        yield f"left out {spare:,} row{'s' * (spare > 1)} of the embedding that no token has"
    if _has_template(folder):
        yield "its chat template is left out: a run has an instruction template, or none"
    config = json_object(folder / "config.json")
    ends = config.get("eos_token_id")
    if ends not in (None, tokenizer.end_of_text, [tokenizer.end_of_text]):
        yield f"its eos_token_id is {json.dumps(ends)}; hairpin ends at {tokenizer.end_of_text}"


def _has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or bool(
        config.is_file() and json_object(config).get("chat_template")
    )


def _weight_notices(
    state: dict[str, Tensor], plain: dict[str, Tensor], shape_in_file: Shape, shape: Shape
) -> Iterator[str]:
    if shape.tied != shape_in_file.tied:
        yield (
            f"its config.json ties the head to the embedding, but {HEAD} differs: read as untied, "
            "like transformers"
        )
    if heads := other_heads(state, shape):
        yield f"left out {', '.join(heads)}: not part of a language model"


def _counted(texts: Sequence[str], what: str) -> str:
    """Return the first few of some texts after their number: "2 added tokens (<a>, <b>)"."""
    few = ", ".join(texts[:5]) + (", …" if len(texts) > 5 else "")
    return f"{len(texts):,} {what}{'s' * (len(texts) > 1)} ({few})"


def _not_numbers(state: dict[str, Tensor]) -> str | None:
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"{name} is {kind}; save the weights as float32, float16 or bfloat16"
    return None


def _tokenizer(folder: Path, rows: int) -> FoundTokenizer:
    found = read_tokenizer(folder, rows)
    if found is None:
        if rows != _GPT2_IDS:
            raise RunError(
                f"{folder}: no tokenizer in it, and {rows:,} ids are not GPT-2's; add "
                "tokenizer.json, or vocab.json and merges.txt"
            )
        found = FoundTokenizer(Gpt2Tokenizer.fetch())
    if found.tokenizer.vocabulary > rows:
        raise RunError(
            f"{folder}: its tokenizer has {found.tokenizer.vocabulary:,} ids, and its config.json "
            f"has a vocab_size of {rows:,}; add the tokenizer that belongs to the weights"
        )
    return found


def _state(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file that names the weights, and all of them under their names there."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return whole, _load(whole)
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        if pickles:
            raise RunError(
                f"{folder}: its weights are a pickle ({pickles[0]}), which can run any program and "
                "is never read; convert them where you trust them: from transformers import "
                f"AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained({str(folder)!r})"
                f".save_pretrained({str(folder)!r})"
            )
        raise RunError(f"{folder}: no model.safetensors and no model.safetensors.index.json in it")
    part_of = json_object(index).get("weight_map")
    if not isinstance(part_of, dict) or not all(
        isinstance(part, str) and Path(part).name == part for part in part_of.values()
    ):
        raise RunError(f"{index}: its weight_map does not say which file has which tensor")
    parts = {part: _load(folder / part) for part in sorted(set(part_of.values()))}
    for name, part in part_of.items():
        if name not in parts[part]:
            raise RunError(f"{folder / part}: {name} is missing, and {index.name} says it is there")
    return index, {name: parts[part][name] for name, part in part_of.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except CheckpointError as error:
        words = str(error).removeprefix(f"{path}: ")
        reason = words.removeprefix("cannot be read as safetensors (").removesuffix(")")
        raise RunError(f"{path}: cannot be read ({reason}); get the file again") from None
