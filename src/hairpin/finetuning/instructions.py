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
from hairpin.data.tokenizers import Ids, Tokenizer
from hairpin.errors import CorpusError
from hairpin.finetuning.examples import Example, refuse
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
    _require_used_inputs(path, rows, asked)
    return rows, column


def _require_used_inputs(path: Path, rows: Sequence[Row], asked: Finetune) -> None:
    """Refuse what would leave every input out without a word."""
    with_input = next((row for row in rows if row.fields[asked.input_column].strip()), None)
    if with_input is None and asked.input_column != Finetune().input_column:
        raise CorpusError(
            f"{path}: no record has a text in {asked.input_column!r}; mend "
            "finetune.input_column, or remove it"
        )
    if with_input and "{input}" not in asked.template:
        raise CorpusError(
            f"{with_input.place}: it has an input, and finetune.template has no {{input}} to put "
            "it in; add one, or remove the column"
        )


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
    asked = config.finetune
    prompts = tokenizer.encode_batch([prompt_of(row, asked) for row in rows])
    responses = tokenizer.encode_batch([row.fields[response_column] for row in rows])
    end = np.array([tokenizer.end_of_text])
    problems, examples, cut = [], [], 0
    for row, prompt, response in zip(rows, prompts, responses, strict=True):
        # A sequence of `context` inputs has one id more; the last is a target only.
        room = context + 1 - len(response) - 2
        fitted = _fitted_prompt(row, prompt, room, tokenizer, asked)
        if fitted is None:
            counts = (len(prompt), len(response), context)
            problems.append(_too_long(row.place, *counts, may_cut=asked.too_long != "error"))
            continue
        ids = np.concatenate([end, fitted, response, end]).astype(np.int64)
        targets = ids[1:].copy()
        if asked.mask_prompt:
            targets[: len(fitted)] = IGNORED
        examples.append(Example(ids[:-1], targets, row.place))
        cut += fitted is not prompt
    refuse(problems)
    return examples, cut


def _fitted_prompt(
    row: Row, prompt: Ids, room: int, tokenizer: Tokenizer, asked: Finetune
) -> Ids | None:
    """The prompt, or one with a shorter input that has at most `room` ids: instruction and template
    stay whole, as they are when the model is asked. None where that is not to be, or cannot be.
    """
    if len(prompt) > room and asked.too_long == "error":
        return None
    kept, ids = tokenizer.encode(row.fields[asked.input_column]), prompt
    while len(ids) > room:
        # Joined to other text, so many tokens fewer may be a few more or less.
        left = len(kept) - (len(ids) - room)
        if left < 1:
            return None
        kept = kept[:left] if asked.too_long == "keep-start" else kept[-left:]
        text = tokenizer.decode(kept.tolist()).strip("\ufffd")  # what a cut character leaves
        ids = tokenizer.encode(render(asked.template, row.fields[asked.instruction_column], text))
    return ids


def _too_long(place: str, prompt: int, response: int, context: int, *, may_cut: bool) -> str:
    if may_cut:
        return (
            f"{place}: instruction and response are longer than the {context:,} tokens that the "
            "model sees, even without the input; shorten them, or remove the record"
        )
    if response + 2 > context:
        return (
            f"{place}: the response alone has {response:,} tokens, and the model sees {context:,}; "
            "shorten it, or remove the record"
        )
    return (
        f"{place}: prompt and response have {prompt + response + 1:,} tokens, and the model sees "
        f"{context:,}; shorten it, or set finetune.too_long=keep-start (or keep-end)"
    )
