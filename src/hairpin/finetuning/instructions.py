"""Instructions: from rows of a file to examples of a prompt and its response.

An example is an end-of-text, the prompt that the template makes, the response, and an end-of-text
that ends it. What is learned is the response; the prompt's own tokens too, if asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hairpin.config.finetune import Finetune
from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.naming import quoted
from hairpin.data.records import Records, Row, Wanted, read_records
from hairpin.data.tokenizers import Ids, Tokenizer
from hairpin.errors import CorpusError
from hairpin.finetuning.examples import Example, Examples, refuse
from hairpin.finetuning.template import render

_INPUTS = ("input", "context")
_RESPONSES = ("response", "output")
# What other programs call an instruction and its response.
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("q", "a"))
_EXAMPLE = '{"instruction": "…", "response": "…"}'


@dataclass(frozen=True)
class Instructions:
    """The instructions of a file.

    Args:
        rows: with the fields `instruction`, `input` ("" where there is none) and `response`.
        unanswered: records that were dropped because they have no response.
        columns: where instruction, input and response were found.
        unused: columns that are not used though something is in them, and in how many records.
        replaced: U+FFFD characters that stand in the place of bad bytes.
    """

    rows: list[Row]
    unanswered: int
    columns: Mapping[str, str]
    unused: Mapping[str, int]
    replaced: int


def read_instructions(path: Path, config: Config) -> Instructions:
    """Read a file of instructions.

    Raises:
        CorpusError: it cannot be read, or a record lacks an instruction or a response.
    """
    asked = config.finetune
    instruction = asked.instruction_column
    responses = _RESPONSES if asked.response_column is None else (asked.response_column,)
    inputs = _inputs(asked)
    expected = (instruction, *inputs, *responses)
    records = read_records(path, expected, config.data.on_bad_bytes)
    input_ = next((name for name in inputs if records.columns.get(name)), inputs[0])
    optional = tuple(dict.fromkeys((input_, *responses)))
    rows = records.rows(Wanted((instruction,), optional, _advice(records, asked), _EXAMPLE))
    columns = [name for name in responses if any(row.fields[name].strip() for row in rows)]
    if not columns:
        raise CorpusError(
            f"{path}: no record has a {' or '.join(responses)}; put the responses there, or name "
            "their column with --set finetune.response_column=…"
        )
    _require_used_inputs(path, rows, input_, asked)
    found = [_instruction(row, instruction, input_, columns) for row in rows]
    unused = records.unused({instruction, input_, *columns})
    for name in columns[1:]:
        spare = sum(_is_spare(row, name, columns[0]) for row in rows)
        unused |= {name: spare} if spare else {}
    has_input = any(row.fields["input"].strip() for row in found)
    used = {"instruction": instruction, **({"input": input_} if has_input else {})}
    used["response"] = " or ".join(columns)
    return Instructions(*_answered(found, asked, columns[0]), used, unused, records.replaced)


def _inputs(asked: Finetune) -> tuple[str, ...]:
    """Return the columns that the input may stand in, the likeliest first."""
    if asked.input_column is not None:
        return (asked.input_column,)
    # Other programs' context is an input only where the template has a place for one.
    return _INPUTS if "{input}" in asked.template else _INPUTS[:1]


def _instruction(row: Row, instruction: str, input_: str, responses: Sequence[str]) -> Row:
    """Return a row with the fields under names that do not depend on the file."""
    answers = (row.fields[name] for name in responses)
    fields = {
        "instruction": row.fields[instruction],
        "input": row.fields[input_],
        "response": next((answer for answer in answers if answer.strip()), ""),
    }
    return Row(row.place, fields)


def _is_spare(row: Row, column: str, first: str) -> bool:
    """Tell whether a row has another text in a column than in the one that is learned."""
    text = row.fields[column].strip()
    return bool(text and row.fields[first].strip()) and text != row.fields[first].strip()


def _answered(rows: Sequence[Row], asked: Finetune, column: str) -> tuple[list[Row], int]:
    """Return the rows with an instruction and a response, and how many had no response.

    Raises:
        CorpusError: some lack one of them, and are not to be dropped.
    """
    kept = [row for row in rows if row.fields["response"].strip() or asked.no_answer == "error"]
    names = {"instruction": asked.instruction_column, "response": column}
    advice = {"instruction": "", "response": ", or set finetune.no_answer=drop"}
    refuse(
        [
            f"{row.place}: there is no {names[field]}; every record has an instruction and a "
            f"response: add it{advice[field]}"
            for row in kept
            for field in names
            if not row.fields[field].strip()
        ]
    )
    return kept, len(rows) - len(kept)


def _advice(records: Records, asked: Finetune) -> str:
    """Return how the columns of this file can be named."""
    for question, answer in _PAIRS:
        if {question, answer} <= records.columns.keys():
            return (
                f"name yours with --set finetune.instruction_column={question} "
                f"--set finetune.response_column={answer}"
            )
    return "name yours with --set finetune.instruction_column=… and finetune.response_column=…"


def _require_used_inputs(path: Path, rows: Sequence[Row], column: str, asked: Finetune) -> None:
    """Refuse what would leave every input out without a word."""
    with_input = next((row for row in rows if row.fields[column].strip()), None)
    # Runs of before have `input` in their configs, whatever their files have.
    if with_input is None and asked.input_column not in (None, _INPUTS[0]):
        raise CorpusError(
            f"{path}: no record has a text in {asked.input_column!r}; mend "
            "finetune.input_column, or remove it"
        )
    if with_input and "{input}" not in asked.template:
        raise CorpusError(
            f"{with_input.place}: it has a text in {quoted(column)}, and finetune.template has no "
            "{input} to put it in; add one, or remove the column"
        )


def prompt_of(row: Row, asked: Finetune) -> str:
    """The prompt that a row's instruction and input make."""
    return render(asked.template, row.fields["instruction"], row.fields["input"])


def plain_prompt_of(row: Row, asked: Finetune) -> str:
    """The prompt that a row's instruction and input make, each with single blanks for white space:
    that of two rows is equal if they ask the same.
    """
    instruction, input_ = (" ".join(row.fields[name].split()) for name in ("instruction", "input"))
    return " ".join(render(asked.template, instruction, input_).split())


def question_of(row: Row) -> str:
    """A row's instruction and input as people read them, without the template around them."""
    parts = (row.fields["instruction"], row.fields["input"])
    return "".join(f"{part.rstrip()}\n" for part in parts if part.strip())


def instruction_examples(rows: Sequence[Row], tokenizer: Tokenizer, config: Config) -> Examples:
    """The examples of instructions; a prompt is cut so that its response fits.

    Raises:
        CorpusError: a record is longer than the context, and is not to be dropped.
    """
    context = config.model.context or 0
    asked = config.finetune
    prompts = tokenizer.encode_batch([prompt_of(row, asked) for row in rows])
    responses = tokenizer.encode_batch([row.fields["response"] for row in rows])
    end = np.array([tokenizer.end_of_text])
    problems, made = [], Examples()
    for row, prompt, response in zip(rows, prompts, responses, strict=True):
        # A sequence of `context` inputs has one id more; the last is a target only.
        room = context + 1 - len(response) - 2
        fitted = _fitted_prompt(row, prompt, room, tokenizer, asked)
        if fitted is None and asked.too_long == "drop":
            made.dropped += 1
            continue
        if fitted is None:
            counts = (len(prompt), len(response), context)
            problems.append(_too_long(row.place, *counts, may_cut=asked.too_long != "error"))
            continue
        ids = np.concatenate([end, fitted, response, end]).astype(np.int64)
        targets = ids[1:].copy()
        if asked.mask_prompt:
            targets[: len(fitted)] = IGNORED
        made.add(Example(ids[:-1], targets, row.place), row, is_cut=fitted is not prompt)
    refuse(problems)
    return made


def _fitted_prompt(
    row: Row, prompt: Ids, room: int, tokenizer: Tokenizer, asked: Finetune
) -> Ids | None:
    """The prompt, or one with a shorter input that has at most `room` ids: instruction and template
    stay whole, as they are when the model is asked. None where that is not to be, or cannot be.
    """
    if len(prompt) > room and asked.too_long in ("error", "drop"):
        return None
    kept, ids = tokenizer.encode(row.fields["input"]), prompt
    while len(ids) > room:
        # Joined to other text, so many tokens fewer may be a few more or less.
        left = len(kept) - (len(ids) - room)
        if left < 1:
            return None
        kept = kept[:left] if asked.too_long == "keep-start" else kept[-left:]
        text = tokenizer.decode(kept.tolist()).strip("\ufffd")  # what a cut character leaves
        ids = tokenizer.encode(render(asked.template, row.fields["instruction"], text))
    return ids


def _too_long(place: str, prompt: int, response: int, context: int, *, may_cut: bool) -> str:
    remedy = "shorten them, or drop such records with finetune.too_long=drop"
    if may_cut:
        return (
            f"{place}: instruction and response are longer than the {context:,} tokens that the "
            f"model sees, even without the input; {remedy}"
        )
    if response + 2 > context:
        return (
            f"{place}: the response alone has {response:,} tokens, and the model sees {context:,}; "
            "shorten it, or drop such records with finetune.too_long=drop"
        )
    return (
        f"{place}: prompt and response have {prompt + response + 1:,} tokens, and the model sees "
        f"{context:,}; shorten it, or set finetune.too_long=keep-start (or keep-end, drop)"
    )
