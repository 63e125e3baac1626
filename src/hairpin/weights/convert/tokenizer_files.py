"""hairpin's tokenizers in the form of transformers and llama.cpp: byte-level BPE.

Plain bytes are a BPE without merges. All split text by GPT-2's expression, and end-of-text is a
special token, which those programs also make from its thirteen characters in a text (transformers
does not with `split_special_tokens=True`).
"""

import json
from dataclasses import dataclass
from typing import Any

from hairpin.config.settings import Config
from hairpin.data import bpe
from hairpin.data.added_tokens import END_OF_TEXT, Added
from hairpin.data.tokenizers import BpeTokenizer, RankedTokenizer, Tokenizer
from hairpin.system.files import as_json
from hairpin.tasks.template import render


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a byte-level BPE.

    Args:
        names: of all tokens in id order: the text of added ones, for the others their bytes in
            GPT-2's notation.
        merges: pairs of tokens in the order in which they were learned.
        added: the tokens that no merge makes, including end-of-text.
    """

    names: list[str]
    merges: list[tuple[str, str]]
    added: tuple[Added, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Return the vocabulary that gives the same ids for the same text."""
        characters = {byte: character for character, byte in bpe.byte_of_character().items()}
        names = ["".join(characters[byte] for byte in piece) for piece in tokenizer.pieces()]
        added = tokenizer.added_tokens()
        for token in added:
            names[token.id] = token.content
        if isinstance(tokenizer, BpeTokenizer):
            return cls(names, tokenizer.merges, added)
        if isinstance(tokenizer, RankedTokenizer):
            return cls(names, bpe.merges_of(tokenizer.tokens), added)
        return cls(names, [], added)


def tokenizer_files(tokenizer: Tokenizer, config: Config, context: int) -> dict[str, bytes]:
    """Return file name -> content for `AutoTokenizer.from_pretrained`.

    Args:
        tokenizer: the run's.
        config: the run's, for the template of instructions.
        context: the model's context in tokens.
    """
    whole = _tokenizer_json(tokenizer)
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "unk_token": None,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token.id): token.as_json() for token in tokenizer.added_tokens()
        },
    }
    if template := chat_template(config):
        settings["chat_template"] = template
    return {
        "tokenizer.json": whole,
        "tokenizer_config.json": as_json(settings).encode(),
        "special_tokens_map.json": as_json(names).encode(),
    }


def _tokenizer_json(tokenizer: Tokenizer) -> bytes:
    whole = Vocabulary.of(tokenizer)
    all_ids = {name: index for index, name in enumerate(whole.names)}
    ids = bpe.of_merges(all_ids, whole.merges, whole.added)
    return bpe.tokenizer_json(ids, whole.merges, whole.added)


def chat_template(config: Config) -> str | None:
    """Return the run's instruction template in Jinja: a user's message is an instruction without
    an input, an assistant's the response. None if the run does not follow instructions.

    Training saw one instruction and one response, between two end-of-texts.
    """
    if config.finetune.kind != "instruct":
        return None
    mark = "\0"
    around = render(config.finetune.template, mark).split(mark)
    prompt = " + message['content'] + ".join(map(_literal, around))
    return (
        "{%- for message in messages -%}"
        "{%- if message['content'] is not string -%}"
        "{{- raise_exception('this model reads messages whose content is one text, and no lists "
        "of parts') -}}"
        "{%- endif -%}"
        "{%- if message['role'] == 'user' -%}"
        "{%- if loop.first -%}{{- bos_token -}}{%- endif -%}"
        f"{{{{- {prompt} -}}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        "{{- message['content'] + eos_token -}}"
        "{%- else -%}"
        "{{- raise_exception('this model learned instructions and responses, and no ' "
        "+ message['role'] + ' messages') -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    )


def _literal(text: str) -> str:
    """Return the text as a Jinja string literal, whose escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)
