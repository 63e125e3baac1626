"""What fine-tuning makes of a file of records: columns, answers, twins, and all that is told."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hairpin.config.load import build_config, to_toml, to_tree, validate, with_values
from hairpin.config.settings import Config
from hairpin.data.tables.records import read_rows
from hairpin.data.tables.spool import paths_of_records
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import ConfigError, CorpusError
from hairpin.reports.event_text import plan_text
from hairpin.runs import events
from hairpin.tasks.divided import Divided, divide_records, other_examples

Records = Sequence[dict[str, Any]]
END = 256  # of the byte tokenizer


def file_of(folder: Path, records: Records, name: str = "tasks.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def config_of(path: Path, kind: str = "instruct", context: int = 128, **finetune: Any) -> Config:
    template = "{instruction}|{input}|" if kind == "instruct" else Config().finetune.template
    values = {"finetune.kind": kind, "finetune.template": template}
    values |= {f"finetune.{name}": value for name, value in finetune.items()}
    settings = {"data.texts": [str(path)], "start.path": "/base", "model.context": context}
    return build_config(flags=settings | values)


def divided(path: Path, kind: str = "instruct", context: int = 128, **finetune: Any) -> Divided:
    return divide_records(config_of(path, kind, context, **finetune), ByteTokenizer())


def texts_of(found: Divided) -> set[str]:
    """Every example as text, its end-of-text in front left out."""
    return {bytes(e.inputs[1:].tolist()).decode() for e in (*found.train, *found.val)}


def problems_of(path: Path, kind: str = "instruct", **finetune: Any) -> tuple[str, ...]:
    with pytest.raises((CorpusError, ConfigError)) as raised:
        divided(path, kind, **finetune)
    return tuple(line.removeprefix(f"{path.parent}/") for line in raised.value.problems)


def plan_of(found: Divided) -> str:
    plan = events.Plan("tasks.jsonl", 1, 1, 0, 8, 8, 8, 1.0, 1.0, 1.0, records=found.used.as_json())
    return plan_text(plan)


# --- columns ---


def tasks(count: int = 4, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"instruction": f"do {n}", "response": f"did {n}"}
        | {name: value[n] if isinstance(value, list) else value for name, value in columns.items()}
        for n in range(count)
    ]


def test_context_is_the_input_of_records_without_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, tasks(context=["a", "b", "", "d"], category="qa"))
    found = divided(path)
    assert texts_of(found) == {"do 0|a|did 0", "do 1|b|did 1", "do 2||did 2", "do 3|d|did 3"}
    assert found.used.columns == {
        "instruction": "instruction",
        "input": "context",
        "response": "response",
    }
    assert found.used.unused == {"category": 4}
    assert "; instruction and context → response (not used: category in 4 of 4 records); " in (
        plan_of(found)
    )


def test_columns_that_are_not_used_are_told_with_their_records(tmp_path: Path) -> None:
    history = [[["a", "b"]], [], [["c", "d"]], None]
    columns: dict[str, Any] = {"history": history, "system": ["s", " ", "", None], "empty": ""}
    path = file_of(tmp_path, tasks(input="x", **columns))
    found = divided(path)
    assert found.used.unused == {"history": 2, "system": 1}
    assert "(not used: history in 2, system in 1 of 4 records)" in plan_of(found)
    # An input goes before a context, which then is one of them.
    both = divided(file_of(tmp_path, tasks(input="x", context="y"), "both.jsonl"))
    assert both.used.columns["input"] == "input" and both.used.unused == {"context": 4}
    asked = divided(tmp_path / "both.jsonl", input_column="context")
    assert asked.used.columns["input"] == "context" and asked.used.unused == {"input": 4}
    labels = [{"text": f"t{n}", "label": n % 2, "id": n} for n in range(8)]
    classified = divided(file_of(tmp_path, labels, "labels.jsonl"), "classify")
    assert classified.used.unused == {"id": 8}
    assert "; text → label (not used: id in 8 of 8 records); " in plan_of(classified)


def test_a_template_without_a_place_for_it_leaves_a_context_out_and_says_so(tmp_path: Path) -> None:
    path = file_of(tmp_path, tasks(context="c"))
    found = divided(path, template="{instruction}:")
    assert "do 1:did 1" in texts_of(found)
    assert found.used.unused == {"context": 4} and "input" not in found.used.columns
    (line,) = problems_of(path, template="{instruction}:", input_column="context")
    assert line.startswith('tasks.jsonl:1: it has a text in "context"') and "{input}" in line


def test_an_input_column_that_was_asked_for_is_there(tmp_path: Path) -> None:
    path = file_of(tmp_path, tasks(context=["", " ", None, ""], passage="p"))
    for column in ("context", "pasage"):
        (line,) = problems_of(path, input_column=column)
        assert line.startswith(f"tasks.jsonl: no record has a text in '{column}'")
    assert divided(path).used.unused == {"passage": 4}


def test_a_response_may_be_an_output_in_some_records(tmp_path: Path) -> None:
    mixed = [
        {"instruction": "a", "output": "A"},
        {"instruction": "b", "response": "B"},
        {"instruction": "c", "response": "C", "output": "C "},
        {"instruction": "d", "response": "D", "output": "other"},
        {"instruction": "e", "response": "", "output": "E"},
    ]
    path = file_of(tmp_path, mixed)
    found = divided(path)
    assert texts_of(found) == {"a||A", "b||B", "c||C", "d||D", "e||E"}
    assert found.used.columns["response"] == "response or output"
    assert found.used.unused == {"output": 1}  # "other": a second answer, which is not learned
    (line,) = problems_of(path, response_column="output")
    assert line.startswith("tasks.jsonl:2: there is no output")


def test_columns_of_other_names_are_named_all_at_once(tmp_path: Path) -> None:
    pairs = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(40)]
    (line,) = problems_of(file_of(tmp_path, pairs))
    assert line.startswith(
        'tasks.jsonl: no record has "instruction"; they have "question", "answer"'
    )
    assert "finetune.instruction_column=question --set finetune.response_column=answer" in line
    columns: dict[str, Any] = {"instruction_column": "question", "response_column": "answer"}
    assert "q7||a7" in texts_of(divided(tmp_path / "tasks.jsonl", **columns))


CHATS: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    },
    "sharegpt": {"id": "x", "conversations": [{"from": "human", "value": "a"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    "prompt": {"prompt": [{"role": "user", "content": "a"}], "completion": "b"},
    "in a cell": {"conversation": "[{'role': 'user', 'content': 'a'}]"},
}


@pytest.mark.parametrize("kind", ["instruct", "classify"])
@pytest.mark.parametrize("chat", CHATS)
def test_chats_are_refused_by_name_in_one_line(tmp_path: Path, chat: str, kind: str) -> None:
    path = file_of(tmp_path, [CHATS[chat]] * 12)
    column = next(name for name in CHATS[chat] if name not in ("id", "completion"))
    named = "instruction_column" if kind == "instruct" else "text_column"
    for settings in ({}, {named: column}):  # as asked for, and as once was advised
        (line,) = problems_of(path, kind, **settings)
        assert line.startswith("tasks.jsonl: its records are chats") and f'"{column}"' in line
        assert '"instruction"' in line if kind == "instruct" else '"label"' in line
        assert "--set" not in line


MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
NODES = {"1": {"id": "1", "message": None}, "2": {"id": "2", "message": {"content": {}}}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps([MESSAGES] * 3), "chats, lists of messages,"),
        (json.dumps(MESSAGES), "messages of a chat,"),
        (json.dumps({"messages": MESSAGES}), "messages of a chat,"),
        (json.dumps([{"title": "t", "mapping": NODES}] * 3), 'lists of messages in "mapping",'),
    ],
)
def test_chats_in_other_forms_are_named_too(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content, encoding="utf-8")
    (line,) = problems_of(path)
    assert line.startswith("chat.json: its records are ") and words in line
    # A list of messages beside what is wanted is a column like others.
    found = divided(file_of(tmp_path, tasks(messages=MESSAGES[0], history=[MESSAGES] * 4)))
    assert found.used.unused == {"messages": 4, "history": 4}


def test_names_of_columns_are_shown_harmlessly_and_not_without_end(tmp_path: Path) -> None:
    odd = {"a\nb": 1, "\x1b[31m": 2} | {f"column {n}": n + 1 for n in range(100)}
    line = plan_of(divided(file_of(tmp_path, tasks(**odd))))
    assert "not used: a\\nb in 4, \\x1b[31m in 4, column 0 in 4" in line
    assert "column 5 in 4, 94 more columns in some of 4 records" in line and line.isprintable()


# --- too long, and without an answer ---


def test_records_that_are_too_long_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    records = tasks(6, input=["x" * 200, "", "y", "", "", ""])
    records[5]["response"] = "z" * 200
    path = file_of(tmp_path, records)
    found = divided(path, too_long="drop")
    assert {e.place.rpartition(":")[2] for e in (*found.train, *found.val)} == set("2345")
    assert len(found.val_rows) == len(found.val)
    assert found.notices == (
        "2 of 6 examples were longer than the context and were dropped (finetune.too_long = drop)",
    )
    assert found.used.as_json()["dropped"] == 2
    assert all("drop" in line for line in problems_of(path))
    labels = [{"text": "ab" * n, "label": n % 2} for n in range(1, 9)]
    found = divided(file_of(tmp_path, labels, "l.jsonl"), "classify", context=12, too_long="drop")
    assert sorted(len(e.inputs) for e in (*found.train, *found.val)) == [3, 5, 7, 9, 11]
    assert found.used.dropped == 3 and len(found.notices) == 1
    (line,) = problems_of(tmp_path / "l.jsonl", "classify", context=2, too_long="drop")
    assert line.startswith("l.jsonl: no record is left: 8 of 8 examples were longer")


NO_ANSWERS = (None, "", "  \n")


@pytest.mark.parametrize("kind", ["instruct", "classify"])
def test_records_without_an_answer_are_dropped_where_that_is_asked(
    tmp_path: Path, kind: str
) -> None:
    answer = "response" if kind == "instruct" else "label"
    question = "instruction" if kind == "instruct" else "text"
    records: list[dict[str, Any]] = [{question: f"q{n}", answer: f"a{n % 2}"} for n in range(8)]
    records += [{question: f"x{n}", answer: nothing} for n, nothing in enumerate(NO_ANSWERS)]
    records.append({question: "without the column"})
    path = file_of(tmp_path, records)
    found = divided(path, kind, no_answer="drop")
    assert {e.place.rpartition(":")[2] for e in (*found.train, *found.val)} == set("12345678")
    assert found.notices == (
        f"4 of 12 records have no {answer} and were dropped (finetune.no_answer = drop)",
    )
    assert found.used.as_json()["unanswered"] == 4
    assert problems_of(path, kind)
    # Where none has an answer, the column is named wrongly.
    path = file_of(tmp_path, [{question: "q", "reply": "a"}] * 3)
    assert "no record has " in problems_of(path, kind, no_answer="drop")[0]


def test_the_refusal_of_a_record_without_an_answer_says_how_to_drop_it(tmp_path: Path) -> None:
    (line,) = problems_of(file_of(tmp_path, [*tasks(), {"instruction": "x", "response": ""}]))
    assert line.startswith("tasks.jsonl:5: there is no response") and "no_answer=drop" in line
    rows = [{"text": f"t{n}", "label": "ab"[n % 2] if n else " "} for n in range(6)]
    (line,) = problems_of(file_of(tmp_path, rows), "classify")
    assert line.startswith("tasks.jsonl:1: the label is empty") and "no_answer=drop" in line


def test_bad_bytes_can_be_replaced_as_in_training_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes(b"text,label\n" + b"".join(b"caf\xe9 %d,%d\n" % (n, n % 2) for n in range(6)))
    (line,) = problems_of(path, "classify")
    assert line.startswith("l.csv: byte 0xe9 at offset 14") and "on_bad_bytes=replace" in line
    config = with_values(config_of(path, "classify"), {"data.on_bad_bytes": "replace"})
    found = divide_records(config, ByteTokenizer())
    assert found.used.replaced == 6 and "caf\ufffd 3" in texts_of(found)
    assert found.notices[0].startswith("6 characters of the file replace bytes that are not UTF-8")


# --- twins ---


def twins(count: int = 60) -> list[dict[str, Any]]:
    """Each prompt three times, with white space of different kinds."""
    forms = ("a task {}", "a  task\u00a0{} ", "\r\na task {}\n")
    return [
        {"instruction": form.format(n), "response": "r"} for n in range(count) for form in forms
    ]


def sides(found: Divided) -> tuple[set[str], set[str]]:
    def prompts(examples: Sequence[Any]) -> set[str]:
        return {"".join(bytes(e.inputs[1:].tolist()).decode().split()) for e in examples}

    return prompts(found.train), prompts(found.val)


def test_prompts_that_differ_in_white_space_stay_on_one_side(tmp_path: Path) -> None:
    path = file_of(tmp_path, twins())
    found = divided(path)
    train, val = sides(found)
    assert not train & val and len(train | val) == 60 and len(found.val) == 18
    assert found.config.finetune.same_prompts == "white-space"
    train, val = sides(divided(path, same_prompts="exact"))
    assert train & val


def test_a_run_of_before_keeps_its_split_and_its_config(tmp_path: Path) -> None:
    path = file_of(tmp_path, twins())
    exact = divided(path, same_prompts="exact")
    tree = to_tree(exact.config)
    del tree["finetune"]["same_prompts"]  # what a run of before has in its config
    before = validate(tree)
    again = divide_records(before, ByteTokenizer())
    assert again.config == before
    assert [e.place for e in again.val] == [e.place for e in exact.val]
    # Without twins nothing moves.
    path = file_of(tmp_path, tasks(50, input=[f"i{n} \n" for n in range(50)]))
    new, old = divided(path), divided(path, same_prompts="exact")
    assert [e.place for e in new.val] == [e.place for e in old.val]


def test_another_file_is_compared_anew_with_the_settings_of_a_run_of_before(tmp_path: Path) -> None:
    run = divided(file_of(tmp_path, twins()))
    file = tmp_path / "config.toml"
    file.write_text(to_toml(run.config), encoding="utf-8")
    other = build_config(file=file, flags={"data.texts": ["/other.jsonl"]})
    assert other.finetune.same_prompts is None and other.data.hash is None


# --- words ---


def test_too_few_is_told_from_labels_of_one_text_each(tmp_path: Path) -> None:
    unlike = [{"text": f"t {n // 2}", "label": f"l{n // 2}"} for n in range(20)]  # each text twice
    (line,) = problems_of(file_of(tmp_path, unlike), "classify")
    assert line.startswith(
        "tasks.jsonl: no record is left for validation: each label has only one text"
    )
    assert "'l0', 'l1'" in line and "and 2 more" in line and "finetune.label_column" in line
    assert "too few" not in line
    (line,) = problems_of(file_of(tmp_path, tasks(1)))
    assert "a different one is needed" in line
    some = [*unlike, {"text": "another", "label": "l0"}]
    found = divided(file_of(tmp_path, some), "classify")
    assert found.notices[0].startswith("labels with one text, which cannot be in both training and")


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{instruction} {context}", "{context}"),
        ("{Instruction} {instruction}\n{output}", "{Instruction}, {output}"),
        ("{instruction}{{input_text}}", "{input_text}"),
    ],
)
def test_a_template_with_an_unknown_name_is_refused(
    tmp_path: Path, template: str, names: str
) -> None:
    path = file_of(tmp_path, tasks())
    (line,) = problems_of(path, template=template)
    assert line.startswith(f"finetune.template: {names} would appear")
    assert line.endswith("{instruction} and {input}")
    # A run that was made with it goes on with it.
    made = with_values(config_of(path, template=template), {"data.hash": _hash(path)})
    assert divide_records(made, ByteTokenizer()).train
    assert divided(path, template="{} {0} {instruction} {input} }{ { a } {}").train


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- other ways in ---


def test_records_that_python_holds_are_those_of_a_file(tmp_path: Path) -> None:
    rows: list[dict[Any, Any]] = [
        {"text": f"t{n} é \ud83c", "label": np.int64(n % 2), "score": np.float32(0.5)}
        for n in range(4)
    ]
    rows[3] |= {"label": float("nan"), "text": "last", 3: [np.int8(1)]}
    (path,) = paths_of_records(iter(rows))
    assert path.name == "records.jsonl.zst" and paths_of_records(rows) == (path,)
    with pytest.raises(CorpusError, match=r'records.jsonl.zst:1: "text" has half a character'):
        read_rows(path, ["text"])
    for row in rows:
        row["text"] = str(row["text"]).removesuffix("\ud83c")
    (path,) = paths_of_records(rows)
    found = [dict(row.fields) for row in read_rows(path, ["text"], ["label", "score"])]
    assert found[:2] == [
        {"text": "t0 é ", "label": "0", "score": "0.5"},
        {"text": "t1 é ", "label": "1", "score": "0.5"},
    ]
    assert found[3]["label"] == ""
    assert paths_of_records("a.csv") == paths_of_records(Path("a.csv")) == (Path("a.csv"),)
    assert paths_of_records(None) == paths_of_records("") == ()


class Frame:
    """Gone over as data frames are: by the names of its columns."""

    def __iter__(self) -> Any:
        return iter(["text", "label"])

    def to_dict(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no records in it"),
        (["a.csv"], "row 1: a str is not a record; give a list of dicts"),
        ([{"text": "a"}, None], "row 2: a NoneType is not a record"),
        ({"text": ["a"]}, "a dict is not a list of records"),
        (b"text", "a bytes is not a list of records"),
        (5, "a int is not a list of records"),
        ([{"text": {1, 2}}], "row 1: cannot be written as JSON (a set is neither"),
        (Frame(), r"of a data frame give frame.to_dict('records')"),
    ],
)
def test_what_is_no_list_of_records_is_said(rows: Any, words: str) -> None:
    with pytest.raises(CorpusError) as raised:
        paths_of_records(rows)
    (line,) = raised.value.problems
    assert words in line


def test_other_records_are_measured_with_their_own_columns(tmp_path: Path) -> None:
    run = divided(file_of(tmp_path, tasks(input="x")))
    other = file_of(tmp_path, tasks(context="c"), "other.jsonl")
    examples, _ = other_examples(other, run.config, ByteTokenizer())
    assert bytes(examples[0].inputs[1:].tolist()) == b"do 0|c|did 0"
