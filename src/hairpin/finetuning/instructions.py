"""Instructions: from rows of a file to examples of a prompt and its response.

An example is an end-of-text, the prompt that the template makes, the response, and an end-of-text
that ends it. What is learned is the response; the prompt's own tokens too, if asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hairpin.config.finetune import Finetune
from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.records import Row, read_rows
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import CorpusError
from hairpin.finetuning.examples import Example, fit, refuse
from hairpin.finetuning.template import render

_RESPONSES = ("response", "output")


def read_instructions(path: Path, asked: Finetune) -> tuple[list[Row], str]:
    """The rows of a file, and which of their columns is the response.

    Raises:
        CorpusError: it cannot be read, or a record lacks an instruction or a response.
    """
    columns = _RESPONSES if asked.response_column is None else (asked.response_column,)
    wanted = (asked.instruction_column, asked.input_column)
    advice = "name yours with --set finetune.instruction_column=…"
    rows = read_rows(path, [wanted[0]], [wanted[1], *columns], advice)
    column = next((name for name in columns if any(row.fields[name] for row in rows)), None)
    if column is None:
        raise CorpusError(
            f"{path}: no record has a {' or '.join(columns)}; put the responses there, or name "
            "their column with --set finetune.response_column=…"
        )
    refuse(
        [
            f"{row.place}: there is no {name}; every record has an instruction and a response"
            for row in rows
            for name in (asked.instruction_column, column)
            if not row.fields[name].strip()
        ]
    )
    return rows, column


def prompt_of(row: Row, asked: Finetune) -> str:
    """The prompt that a row's instruction and input make."""
    fields = row.fields
    return render(asked.template, fields[asked.instruction_column], fields[asked.input_column])


def question_of(row: Row, config: Config) -> str:
    """A row's instruction and input as people read them, without the template around them."""
    asked = config.finetune
    parts = (row.fields[asked.instruction_column], row.fields[asked.input_column])
    return "".join(f"{part.rstrip()}\n" for part in parts if part.strip())


def instruction_examples(
    rows: Sequence[Row], response_column: str, tokenizer: Tokenizer, config: Config
) -> tuple[list[Example], int]:
    """The examples, and how many prompts were cut so that their response fits.

    Raises:
        CorpusError: a record is longer than the context.
    """
    context = config.model.context or 0
    prompts = tokenizer.encode_batch([prompt_of(row, config.finetune) for row in rows])
    responses = tokenizer.encode_batch([row.fields[response_column] for row in rows])
    end = np.array([tokenizer.end_of_text])
    problems, examples, cut = [], [], 0
    for row, prompt, response in zip(rows, prompts, responses, strict=True):
        # A sequence of `context` inputs has one id more; the last is a target only.
        room = context + 1 - len(response) - 2
        fitted = fit(prompt.astype(np.int64), room, config)
        if fitted is None:
            problems.append(_too_long(row.place, len(prompt), len(response), context))
            continue
        ids = np.concatenate([end, fitted.ids, response.astype(np.int64), end])
        targets = ids[1:].copy()
        if config.finetune.mask_prompt:
            targets[: len(fitted.ids)] = IGNORED
        examples.append(Example(ids[:-1], targets, row.place))
        cut += fitted.cut
    refuse(problems)
    return examples, cut


def _too_long(place: str, prompt: int, response: int, context: int) -> str:
    if response + 2 > context:
        return (
            f"{place}: the response alone has {response:,} tokens, and the model sees {context:,}; "
            "shorten it, or remove the record"
        )
    return (
        f"{place}: prompt and response have {prompt + response + 1:,} tokens, and the model sees "
        f"{context:,}; shorten it, or set finetune.too_long=keep-start (or keep-end)"
    )
