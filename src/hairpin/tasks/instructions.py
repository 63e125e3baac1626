"""Instructions: from rows of a file to examples of a prompt and its response.

An example is an end-of-text, the prompt that the template makes, the response, and a final
end-of-text. The loss covers the response; the prompt's own tokens too, if requested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hairpin.config.settings import Config, Finetune
from hairpin.data.batches import IGNORED
from hairpin.data.tables.columns import quoted
from hairpin.data.tables.records import Records, Row, Wanted, read_records
from hairpin.data.tokenizers import Ids, Tokenizer
from hairpin.errors import CorpusError
from hairpin.tasks.examples import Example, Examples, refuse_examples
from hairpin.tasks.template import render

_INPUTS = ("input", "context")
_RESPONSES = ("response", "output")
# Other programs' names for an instruction and its response.
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("q", "a"))
_EXAMPLE = '{"instruction": "…", "response": "…"}'


@dataclass(frozen=True)
class Instructions:
    """The instructions of a file.

    Args:
        rows: with the fields `instruction`, `input` ("" where there is none) and `response`.
        unanswered: records dropped for lack of a response.
        columns: those of instruction, input and response.
        unused: nonempty columns that are not used, and the number of records with a value there.
        replaced: U+FFFD characters that replace bad bytes.
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
    rows = records.rows(Wanted((instruction,), optional, _advice(records), _EXAMPLE))
    columns = [name for name in responses if any(row.fields[name].strip() for row in rows)]
    if not columns:
        raise CorpusError(
            f"{path}: no record has a {' or '.join(responses)}; rename their column, or name it "
            "with --set finetune.response_column=…"
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
    """Return the columns that may hold the input, the most likely first."""
    if asked.input_column is not None:
        return (asked.input_column,)
    # Other programs' `context` is an input only if the template has a place for one.
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
    """True if a row's text in a column differs from that in the column used for training."""
    text = row.fields[column].strip()
    return bool(text and row.fields[first].strip()) and text != row.fields[first].strip()


def _answered(rows: Sequence[Row], asked: Finetune, column: str) -> tuple[list[Row], int]:
    """Return the rows with an instruction and a response, and the number without a response.

    Raises:
        CorpusError: some lack one of them, and may not be dropped.
    """
    kept = [row for row in rows if row.fields["response"].strip() or asked.no_answer == "error"]
    names = {"instruction": asked.instruction_column, "response": column}
    advice = {"instruction": "", "response": ", or set finetune.no_answer=drop"}
    refuse_examples(
        [
            f"{row.place}: there is no {names[field]}; every record has an instruction and a "
            f"response: add it{advice[field]}"
            for row in kept
            for field in names
            if not row.fields[field].strip()
        ]
    )
    return kept, len(rows) - len(kept)


def _advice(records: Records) -> str:
    """Return advice on naming the columns of this file."""
    for question, answer in _PAIRS:
        if {question, answer} <= records.columns.keys():
            return (
                f"name yours with --set finetune.instruction_column={question} "
                f"--set finetune.response_column={answer}"
            )
    return "name yours with --set finetune.instruction_column=… and finetune.response_column=…"


def _require_used_inputs(path: Path, rows: Sequence[Row], column: str, asked: Finetune) -> None:
    """Refuse settings that would silently leave out every input."""
    with_input = next((row for row in rows if row.fields[column].strip()), None)
    # Older runs have `input` in their configs, whatever their files have.
    if with_input is None and asked.input_column not in (None, _INPUTS[0]):
        raise CorpusError(
            f"{path}: no record has a text in {asked.input_column!r}; correct "
            "finetune.input_column, or remove it"
        )
    if with_input and "{input}" not in asked.template:
        raise CorpusError(
            f"{with_input.place}: it has a text in {quoted(column)}, but finetune.template has no "
            "{input}; add it, or remove the column"
        )


def prompt_of(row: Row, asked: Finetune) -> str:
    """Return the prompt made from a row's instruction and input."""
    return render(asked.template, row.fields["instruction"], row.fields["input"])


def plain_prompt_of(row: Row, asked: Finetune) -> str:
    """Return the prompt made from a row's instruction and input, with runs of white space as one
    blank: equal for two rows that ask the same.
    """
    instruction, input_ = (" ".join(row.fields[name].split()) for name in ("instruction", "input"))
    return " ".join(render(asked.template, instruction, input_).split())


def question_of(row: Row) -> str:
    """Return a row's instruction and input for display, without the template."""
    parts = (row.fields["instruction"], row.fields["input"])
    return "".join(f"{part.rstrip()}\n" for part in parts if part.strip())


def instruction_examples(rows: Sequence[Row], tokenizer: Tokenizer, config: Config) -> Examples:
    """Return the examples of instructions; a prompt is cut so that its response fits.

    Raises:
        CorpusError: a record is longer than the context, and may not be dropped.
    """
    context = config.model.context or 0
    asked = config.finetune
    prompts = tokenizer.encode_batch([prompt_of(row, asked) for row in rows])
    responses = tokenizer.encode_batch([row.fields["response"] for row in rows])
    end = np.array([tokenizer.end_of_text])
    problems, made = [], Examples()
    for row, prompt, response in zip(rows, prompts, responses, strict=True):
        # A sequence of `context` inputs has one more id; the last is only a target.
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
    refuse_examples(problems)
    return made


def _fitted_prompt(
    row: Row, prompt: Ids, room: int, tokenizer: Tokenizer, asked: Finetune
) -> Ids | None:
    """Return the prompt, or one of at most `room` ids with a shorter input; instruction and
    template stay whole, as they are at inference. None if that is not allowed, or not possible.
    """
    if len(prompt) > room and asked.too_long in ("error", "drop"):
        return None
    kept, ids = tokenizer.encode(row.fields["input"]), prompt
    while len(ids) > room:
        # Joined to other text, the shortened input may make a few tokens more or less.
        left = len(kept) - (len(ids) - room)
        if left < 1:
            return None
        kept = kept[:left] if asked.too_long == "keep-start" else kept[-left:]
        text = tokenizer.decode(kept.tolist()).strip("\ufffd")  # the remains of a cut character
        ids = tokenizer.encode(render(asked.template, row.fields["instruction"], text))
    return ids


def _too_long(place: str, prompt: int, response: int, context: int, *, may_cut: bool) -> str:
    remedy = "shorten them, or drop such records with finetune.too_long=drop"
    if may_cut:
        return (
            f"{place}: instruction and response are longer than the {context:,} tokens of the "
            f"model's context, even without the input; {remedy}"
        )
    if response + 2 > context:
        return (
            f"{place}: the response alone has {response:,} tokens, and the model's context is "
            f"{context:,}; shorten it, or drop such records with finetune.too_long=drop"
        )
    return (
        f"{place}: prompt and response have {prompt + response + 1:,} tokens, and the model's "
        f"context is {context:,}; shorten it, or set finetune.too_long=keep-start (or keep-end, "
        "drop)"
    )
