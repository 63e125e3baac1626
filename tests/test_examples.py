"""From rows to examples and batches: template, instructions, labelled texts, padding, tallies."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.tables.records import Row
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import CorpusError
from hairpin.machine.numerics import Numerics
from hairpin.model.shape import Shape
from hairpin.tasks.classification import (
    LabelTally,
    labelled_examples,
    labels_of,
    lonely_labels,
    names_of_labels,
)
from hairpin.tasks.examples import Example, ExampleBatches, ExampleSet, collate
from hairpin.tasks.instructions import (
    instruction_examples,
    prompt_of,
    question_of,
    read_instructions,
)
from hairpin.tasks.template import render
from hairpin.training.evaluate import Evaluator, TextTally
from helpers import lively_model

END = 256  # of the byte tokenizer
TEMPLATE = Config().finetune.template


def config(context: int = 64, **finetune: Any) -> Config:
    """A config with a context and some keys of the table finetune."""
    values = {f"finetune.{name}": value for name, value in finetune.items()}
    return with_values(Config(), {"model.context": context, **values})


# --- the template ---


def test_the_template_with_and_without_an_input() -> None:
    assert render(TEMPLATE, "Add.", "1 2") == (
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    )
    assert render(TEMPLATE, "Say hi.") == "### Instruction:\nSay hi.\n\n### Response:\n"
    assert render("Q: {instruction} {input}\nA:", "Add", "1 2") == "Q: Add 1 2\nA:"
    assert render("Q: {instruction} {input}\nA:", "Hello") == "Q: Hello \nA:"
    assert render("{instruction}{instruction}", "ab") == "abab"


def test_what_a_user_writes_is_text_and_never_a_template() -> None:
    prompt = render(TEMPLATE, "Use {input} and {instruction} {x} {}", "{instruction} {input} {0}")
    assert prompt == (
        "### Instruction:\nUse {input} and {instruction} {x} {}\n\n"
        "### Input:\n{instruction} {input} {0}\n\n### Response:\n"
    )
    # An instruction of several paragraphs loses none, even one that mentions an input.
    assert render("{instruction}\n\n{input}\n\nA:", "one\n\n{input}\n\ntwo") == (
        "one\n\n{input}\n\ntwo\n\nA:"
    )


TEXTS = st.text(st.sampled_from("ab {}\ninput") | st.characters(exclude_categories=["Cs"]))
PIECES = st.sampled_from(["{", "}", "{input}", "{instruction}", "\n\n", "x"])
TRICKY = TEXTS | st.lists(PIECES, max_size=6).map("".join)


@given(TRICKY, TRICKY.filter(str.strip))
def test_the_texts_stand_in_the_prompt_as_they_are(instruction: str, input_text: str) -> None:
    assert render(TEMPLATE, instruction, input_text) == (
        f"### Instruction:\n{instruction}\n\n### Input:\n{input_text}\n\n### Response:\n"
    )
    assert render(TEMPLATE, instruction) == f"### Instruction:\n{instruction}\n\n### Response:\n"


# --- instructions ---


def instruction_row(instruction: str, response: str, input_text: str = "", number: int = 2) -> Row:
    fields = {"instruction": instruction, "input": input_text, "response": response}
    return Row(f"tasks.csv:{number}", fields)


def examples_of(rows: Sequence[Row], asked: Config) -> tuple[list[Example], int]:
    made = instruction_examples(rows, ByteTokenizer(), asked)
    assert [example.place for example in made.examples] == [row.place for row in made.rows]
    return made.examples, made.cut


def test_an_instruction_is_an_end_its_prompt_its_response_and_an_end() -> None:
    asked = config(template="{instruction}>")
    (example,), cut = examples_of([instruction_row("ab", "xyz")], asked)
    assert example.inputs.tolist() == [END, *b"ab>xyz"]
    # The last token of the prompt tells the first of the response, the last of it the end.
    assert example.targets.tolist() == [IGNORED, IGNORED, IGNORED, *b"xyz", END]
    assert (example.place, cut) == ("tasks.csv:2", 0)
    assert example.inputs.dtype == example.targets.dtype == np.int64


def test_without_the_mask_the_prompt_is_learned_as_well() -> None:
    asked = config(template="{instruction}>", mask_prompt=False)
    (example,), _ = examples_of([instruction_row("ab", "xyz")], asked)
    assert example.inputs.tolist() == [END, *b"ab>xyz"]
    assert example.targets.tolist() == [*b"ab>xyz", END]


@pytest.mark.parametrize(("too_long", "kept"), [("keep-start", b"abcd"), ("keep-end", b"defg")])
def test_a_long_input_is_cut_and_all_else_stays_whole(too_long: str, kept: bytes) -> None:
    asked = config(context=12, template="{instruction} {input}>", too_long=too_long)
    rows = [
        instruction_row("do", "xyz", "abcdefg"),
        instruction_row("do", "xyz", "abcd", number=3),
    ]
    (cut_one, whole), cut = examples_of(rows, asked)
    assert cut_one.inputs.tolist() == [END, *b"do ", *kept, *b">xyz"]
    assert cut_one.targets.tolist() == [IGNORED] * 8 + [*b"xyz", END]
    assert whole.inputs.tolist() == [END, *b"do abcd>xyz"]  # 12 inputs: just as long as the context
    assert cut == 1


def test_what_is_too_long_is_an_error_with_its_place() -> None:
    rows = [instruction_row("abcdefg", "xyz"), instruction_row("a", "0123456", number=3)]
    with pytest.raises(CorpusError) as raised:
        examples_of(rows, config(context=8, template="{instruction}>"))
    long_prompt, long_response = raised.value.problems
    assert long_prompt.startswith("tasks.csv:2: prompt and response have 12 tokens, and the model")
    assert "context is 8" in long_prompt and "too_long" in long_prompt
    assert long_response.startswith("tasks.csv:3: the response alone has 7 tokens")
    # Only an input is ever cut, and here there is none.
    with pytest.raises(CorpusError) as raised:
        examples_of(rows, config(context=8, template="{instruction}>", too_long="keep-end"))
    assert raised.value.problems[0].startswith("tasks.csv:2: ")
    assert all("even without the input" in line for line in raised.value.problems)
    assert len(raised.value.problems) == 2


@given(st.text(max_size=200), st.text(min_size=1, max_size=12), st.sampled_from(["start", "end"]))
def test_template_and_response_are_whole_whatever_the_input(
    input_text: str, response: str, kept: str
) -> None:
    asked = config(context=128, too_long=f"keep-{kept}")
    (example,), cut = examples_of([instruction_row("Go", response, input_text)], asked)
    prompt = render(TEMPLATE, "Go", input_text).encode()
    n = len(response.encode())
    text = bytes(example.inputs[1:].tolist())
    assert text.startswith(b"### Instruction:\nGo\n\n")
    assert text.endswith(b"### Response:\n" + response.encode())
    assert example.targets[-n - 1 :].tolist() == [*response.encode(), END]
    assert (example.targets[: -n - 1] == IGNORED).all()
    assert len(example.inputs) <= 128
    assert cut == (1 + len(prompt) + n > 128)
    if not cut:
        assert text == prompt + response.encode()


def test_records_without_an_input_have_no_paragraph_for_it(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(
        '{"instruction": "Go.", "output": "gone"}\n'
        '{"instruction": "Go.", "input": "  ", "output": "gone"}\n'
        '{"instruction": "Go.", "input": "home", "output": "gone"}\n'
    )
    found = read_instructions(file, Config())
    rows = found.rows
    assert found.columns == {"instruction": "instruction", "input": "input", "response": "output"}
    asked = Config().finetune
    assert prompt_of(rows[0], asked) == prompt_of(rows[1], asked) == render(TEMPLATE, "Go.")
    assert prompt_of(rows[2], asked) == render(TEMPLATE, "Go.", "home")
    assert [question_of(row) for row in rows] == ["Go.\n", "Go.\n", "Go.\nhome\n"]


# --- labelled texts ---


def labelled_row(text: str, label: str, number: int = 2) -> Row:
    return Row(f"spam.csv:{number}", {"text": text, "label": label})


def test_a_labelled_text_has_its_label_at_its_last_token() -> None:
    rows = [labelled_row("ab", " spam"), labelled_row("c", "ham\n", 3)]  # as after a comma
    assert labels_of(rows, "label") == ("ham", "spam")
    made = labelled_examples(rows, ("ham", "spam"), ByteTokenizer(), config())
    examples = made.examples
    assert [example.inputs.tolist() for example in examples] == [[END, *b"ab"], [END, *b"c"]]
    assert [example.targets.tolist() for example in examples] == [
        [IGNORED, IGNORED, 1],
        [IGNORED, 0],
    ]
    assert [example.place for example in examples] == ["spam.csv:2", "spam.csv:3"]
    assert made.rows == rows and (made.cut, made.dropped) == (0, 0)


@pytest.mark.parametrize(("too_long", "kept"), [("keep-start", b"abc"), ("keep-end", b"def")])
def test_a_long_text_is_cut_where_asked_and_refused_where_not(too_long: str, kept: bytes) -> None:
    rows = [labelled_row("abcdef", "a"), labelled_row("abc", "b", 3)]
    labels = labels_of(rows, "label")
    made = labelled_examples(rows, labels, ByteTokenizer(), config(context=4, too_long=too_long))
    example, whole = made.examples
    assert example.inputs.tolist() == [END, *kept] and example.targets[-1] == 0
    assert whole.inputs.tolist() == [END, *b"abc"]
    assert made.cut == 1
    with pytest.raises(CorpusError) as raised:
        labelled_examples(rows, labels, ByteTokenizer(), config(context=4))
    (line,) = raised.value.problems
    assert (
        line.startswith("spam.csv:2: 7 tokens, and the model's context is 4") and "too_long" in line
    )


def test_every_row_that_cannot_be_learned_is_named() -> None:
    rows = [labelled_row("", "a"), labelled_row("x", "c", 3), labelled_row("", "c", 4)]
    with pytest.raises(CorpusError) as raised:
        labelled_examples(rows, ("a", "b"), ByteTokenizer(), config())
    assert [line.split(": ")[0] for line in raised.value.problems] == [
        "spam.csv:2",
        "spam.csv:3",
        "spam.csv:4",
    ]
    assert "the text is empty" in raised.value.problems[0]
    assert "'c' is not one" in raised.value.problems[1] and "a, b" in raised.value.problems[1]
    many = [labelled_row("", "a", number) for number in range(40)]
    with pytest.raises(CorpusError) as raised:
        labelled_examples(many, ("a", "b"), ByteTokenizer(), config())
    assert len(raised.value.problems) == 11
    assert raised.value.problems[-1] == "… and 30 more like these"


def test_labels_that_teach_nothing_are_refused_or_named() -> None:
    with pytest.raises(CorpusError, match="every example has the label 'a'"):
        labels_of([labelled_row("x", "a"), labelled_row("y", "a", 3)], "label")
    with pytest.raises(CorpusError, match=r"spam\.csv:3: the label is empty"):
        labels_of([labelled_row("x", "a"), labelled_row("y", " ", 3)], "label")
    assert lonely_labels(["a", "a", "b", "b"], ["1", "2", "3", "4"]) == []
    # Several examples with one text cannot be divided either.
    assert lonely_labels(["a", "a", "b", "b", "c"], ["1", "2", "3", "3", "4"]) == ["b", "c"]
    line = names_of_labels([str(number) for number in range(100)])
    assert line.startswith("'0', '1', ") and line.endswith(" and 92 more") and len(line) < 80


# --- batches ---


def some_examples(count: int, seed: int = 0, below: int = 50) -> list[Example]:
    """Token ids of lengths from 2 to 15, some of them targets."""
    draw = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        ids = draw.integers(0, below, draw.integers(3, 17))
        targets = ids[1:].copy()
        targets[: draw.integers(0, len(targets))] = IGNORED
        examples.append(Example(ids[:-1], targets, f"file:{number}"))
    return examples


def test_a_batch_is_padded_on_the_right_to_its_longest() -> None:
    short = Example(np.array([7, 8]), np.array([IGNORED, 1]), "a:1")
    long = Example(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 5]), "a:2")
    inputs, targets = collate([short, long])
    assert inputs.dtype == targets.dtype == torch.int64
    assert targets.tolist() == [[IGNORED, 1, IGNORED, IGNORED], [2, 3, 4, 5]]
    assert inputs.tolist() == [[7, 8, 0, 0], [1, 2, 3, 4]]


@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 200), st.integers(1, 9))
def test_a_batch_is_a_function_of_seed_and_position(
    count: int, seed: int, position: int, size: int
) -> None:
    examples = some_examples(count)
    batches = ExampleBatches(examples, seed)
    inputs, targets = batches.at(position, size)
    again = ExampleBatches(examples, seed)
    again.at(0, 3)
    assert torch.equal(again.at(position, size)[0], inputs)
    # However the positions are cut into batches, the same examples stand at them.
    for row in range(size):
        alone, its_targets = again.at(position + row, 1)
        n = alone.size(1)
        assert torch.equal(inputs[row, :n], alone[0]) and torch.equal(
            targets[row, :n], its_targets[0]
        )
        assert (targets[row, n:] == IGNORED).all()


@given(st.integers(1, 40), st.integers(0, 2**40))
def test_an_epoch_has_every_example_once(count: int, seed: int) -> None:
    batches = ExampleBatches(some_examples(count), seed)
    epochs = [
        [batches.where(position, 1) for position in range(epoch * count, (epoch + 1) * count)]
        for epoch in range(3)
    ]
    for places in epochs:
        assert Counter(places) == Counter(f"file:{number}" for number in range(count))
    if count > 12:  # two orders of so many are the same once in a long time
        assert len({tuple(places) for places in epochs}) == 3


def test_where_names_the_places_and_few_of_many() -> None:
    batches = ExampleBatches(some_examples(30), 4)
    places = [batches.where(position, 1) for position in range(30)]
    assert batches.where(5, 3) == ", ".join(places[5:8])
    many = batches.where(0, 30)
    assert many.startswith(", ".join(places[:8])) and len(many) < 120
    assert many.endswith("and 22 more")


def test_an_evaluation_set_is_spread_evenly_and_has_the_short_ones_first() -> None:
    examples = some_examples(100)

    def chosen(most: int | None) -> list[Any]:
        found = ExampleSet(examples, most)
        rows = [row for batch, _ in found.batches(1) for row in batch.tolist()]
        assert len(rows) == found.count
        return rows

    assert [len(row) for row in chosen(None)] == sorted(len(e.inputs) for e in examples)
    assert sorted(chosen(10)) == sorted(e.inputs.tolist() for e in examples[::10])
    assert ExampleSet(examples, 0).count == 1
    assert ExampleSet(examples, 1000).count == 100
    assert sum(len(batch) for batch, _ in ExampleSet(examples, 33).batches(8)) == 33


def test_the_loss_of_a_set_is_that_of_its_examples_one_by_one() -> None:
    examples = some_examples(23)
    model = lively_model(Shape(50, 16, layers=2, heads=2, width=16))
    nats, count = 0.0, 0
    with torch.no_grad():
        for example in examples:
            logits = model.logits(torch.from_numpy(example.inputs)[None])[0].double()
            for position, target in enumerate(example.targets.tolist()):
                if target != IGNORED:
                    nats -= float(F.log_softmax(logits[position], dim=-1)[target])
                    count += 1
    token_bytes = np.full(50, 2, np.int32)
    for sequences in (1, 4, 7, 100):
        evaluator = Evaluator(
            model, lambda: TextTally(token_bytes, "cpu"), Numerics("cpu"), sequences
        )
        measured = evaluator.measure(ExampleSet(examples))
        assert measured and measured.tokens == count
        assert measured.loss == pytest.approx(nats / count, abs=1e-6)
        assert measured.bits_per_byte == pytest.approx(nats / count / math.log(2) / 2, abs=1e-6)


# --- the tally of labels ---


class FixedScores:
    """A classifier that scores by the token that a text ends with."""

    def label_logits(self, inputs_BT: torch.Tensor, labelled_BT: torch.Tensor) -> torch.Tensor:
        scores = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 3]])
        return scores[inputs_BT[labelled_BT]]


def test_a_tally_of_labels_is_what_it_is_by_hand() -> None:
    # (token that it ends with, label): the model says 0, 0, 1, 2, and 0 where all are equal.
    pairs = [(1, 0), (1, 1), (2, 1), (3, 2), (0, 2)]
    examples = [
        Example(np.array([9] * n + [token]), np.array([IGNORED] * n + [label]), "")
        for n, (token, label) in enumerate(pairs)
    ]
    nats = [
        math.log(math.exp(2) + 2) - 2,
        math.log(math.exp(2) + 2),
        math.log(math.e + 2) - 1,
        math.log(math.exp(3) + 2) - 3,
        math.log(3),
    ]
    for size in (1, 2, 5):
        tally = LabelTally(3, "cpu")
        for first in range(0, 5, size):
            tally.add(FixedScores(), *collate(examples[first:][:size]))
        measured = tally.measured()
        assert measured.loss == pytest.approx(sum(nats) / 5, abs=1e-6)
        assert measured.tokens == 5 and measured.accuracy == 3 / 5
        assert measured.confusion == ((1, 0, 0), (1, 1, 0), (1, 0, 1))
        assert measured.bits_per_byte is None


def test_a_matrix_too_large_to_read_is_left_out() -> None:
    tally = LabelTally(51, "cpu")

    class Always:
        def label_logits(self, inputs: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
            return F.one_hot(inputs[labelled], 51).float()

    tally.add(Always(), torch.tensor([[3, 4]]), torch.tensor([[IGNORED, 4]]))
    measured = tally.measured()
    assert measured.accuracy == 1.0 and measured.confusion is None
