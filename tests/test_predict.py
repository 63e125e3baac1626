"""What a fine-tuned run is good for from the command line: labels, measurements, and refusals."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hairpin as package
from hairpin.config.load import build_config
from hairpin.errors import CorpusError, RunError
from hairpin.reports.charts import accuracy_chart, lr_chart
from hairpin.reports.event_text import plan_text
from hairpin.reports.figures import draw
from hairpin.reports.plots import confusion_figure, write_plots
from hairpin.reports.terminal.tables import confusion_lines, measured_lines, prediction_lines
from hairpin.run import Run
from hairpin.runs.watcher import Quiet
from hairpin.tasks.prediction import Prediction
from hairpin.training.evaluate import Measured
from helpers import (
    FINETUNE,
    TEMPLATE,
    Done,
    Hairpin,
    finetune,
    labels_file,
    of_kind,
    tasks_file,
    telling_texts,
)

FLAGS = [argument for key, value in FINETUNE.items() for argument in ("--set", f"{key}={value}")]
TEXTS = ["the cat sat", "under a hill the boat then ran on it", "it saw the moon", "a//b"]


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Any:
    """Drawing takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_plots", lambda self: [])
        yield


@pytest.fixture(scope="module")
def classifier(base: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that tells labels; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("classifier")
    return package.finetune(
        "classify",
        labels_file(folder),
        start=base.path,
        out=folder / "run",
        settings=finetune(train__updates=120, evaluate__every_updates=60),
        watcher=Quiet(),
    )


@pytest.fixture(scope="module")
def answering(base: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that follows instructions, a little."""
    folder = tmp_path_factory.mktemp("answering")
    return package.finetune(
        "instruct",
        tasks_file(folder, 60),
        start=base.path,
        out=folder / "run",
        settings=finetune(finetune__template=TEMPLATE),
        watcher=Quiet(),
    )


def only(done: Done) -> str:
    """The one line of a command that worked."""
    assert done.code == 0, done
    (line,) = done.out.splitlines()
    return line


# --- predictions ---


def test_probabilities_are_of_all_labels_in_their_order(classifier: Run) -> None:
    trained = classifier.classifier()
    assert trained.labels == ("animal", "sea", "sky")
    for prediction in trained.predict(TEXTS):
        assert tuple(prediction.probabilities) == trained.labels
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.probability
    found = trained.predict(TEXTS[:3])
    assert [prediction.label for prediction in found] == ["animal", "sea", "sky"]
    assert trained.predict([]) == []
    with pytest.raises(TypeError, match="list of texts"):
        trained.predict("the cat")


def test_many_texts_at_once_are_each_by_itself(classifier: Run) -> None:
    trained = classifier.classifier()
    texts = [text[: 2 + n] for n, (text, _) in enumerate(telling_texts(40, seed=9))]
    together = trained.predict(texts)
    for text, prediction in zip(texts, together, strict=True):
        (alone,) = trained.predict([text])
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
    # The logits are the head's at the last token of end-of-text and the text's bytes.
    ids = torch.tensor([[256, *b"the cat"]])
    with torch.no_grad():
        logits = trained.model.class_head(trained.model.hidden(ids)[0, -1]).double()
    (found,) = trained.predict(["the cat"])
    assert list(found.probabilities.values()) == pytest.approx(logits.softmax(-1).tolist())


def test_texts_that_cannot_be_classified_are_named(classifier: Run) -> None:
    trained = classifier.classifier()
    with pytest.raises(CorpusError) as raised:
        trained.predict(["fine", "", "x" * 60])
    empty, long = raised.value.problems
    assert empty.startswith("text 2: the text is empty")
    assert long.startswith("text 3: 61 tokens, and the model's context is 48")
    with pytest.raises(CorpusError, match=r"a\.csv:7: the text is empty"):
        trained.predict([""], ["a.csv:7"])


# --- hairpin predict ---


def test_predict_shows_a_table(hairpin: Hairpin, classifier: Run) -> None:
    done = hairpin("predict", classifier.path, *TEXTS)
    assert done.code == 0 and done.err.startswith("best weights, update ")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["animal", "sea", "sky"]
    assert [line[15:] for line in lines] == TEXTS
    assert all(0.33 < float(line[8:13]) <= 1 for line in lines)


def test_predict_gives_strict_json(hairpin: Hairpin, classifier: Run) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = only(hairpin("predict", classifier.path, *TEXTS, "--json"))
    facts = json.loads(line, parse_constant=refuse)
    assert (facts["run"], len(facts["predictions"])) == (str(classifier.path), 4)
    assert [row["text"] for row in facts["predictions"]] == TEXTS
    expected = classifier.classifier().predict(TEXTS)
    for row, prediction in zip(facts["predictions"], expected, strict=True):
        assert list(row["probabilities"]) == ["animal", "sea", "sky"]
        assert row["label"] == prediction.label
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-9)


def test_predict_reads_lines_and_columns(hairpin: Hairpin, classifier: Run, tmp_path: Path) -> None:
    Path("lines.txt").write_text(
        "the cat sat\n\nthe boat\u2028ran\r\n", encoding="utf-8", newline=""
    )
    Path("some.csv").write_text('id,text\n1,"the moon, then"\n2,a cat\n', encoding="utf-8")
    shutil.copytree(classifier.path, "runs/mine-1")
    facts = json.loads(only(hairpin("predict", "--json", "lines.txt", "some.csv", "a boat")))
    assert facts["run"] == "runs/mine-1"
    for verb in ("predict", "evaluate"):  # and not a text, for the newest run
        assert hairpin(verb, "runs/mine-2", "some.csv").refusal.startswith("runs/mine-2: not a run")
    only(hairpin("predict", "a/b", "/no/such/folder", "--json"))
    assert "text 1: 5,000 tokens" in hairpin("predict", f"{'very/' * 999}long").refusal
    assert [row["text"] for row in facts["predictions"]] == [
        "the cat sat",
        "the boat\u2028ran",
        "the moon, then",
        "a cat",
        "a boat",
    ]


def test_predict_reads_standard_input(
    hairpin: Hairpin, classifier: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    piped("\ufeffthe cat sat\r\n\n  \na boat é".encode())
    facts = json.loads(only(hairpin("predict", classifier.path, "-", "the moon", "--json")))
    assert [row["text"] for row in facts["predictions"]] == ["the cat sat", "a boat é", "the moon"]
    piped(b"the cat\n\na \xff boat\n")
    line = hairpin("predict", classifier.path, "-").refusal
    assert line == "standard input:3: byte 0xff is not UTF-8; fix the text"
    piped(b"the cat\n" + b"x" * 60)
    line = hairpin("predict", classifier.path, "-").refusal
    assert line.startswith("standard input:2: 61 tokens, and the model's context is 48")
    piped(b"\n")
    assert "no text to classify" in hairpin("predict", classifier.path, "-").refusal


def test_predict_advises_only_what_it_has(
    hairpin: Hairpin, classifier: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"the cat\nthe \xff\n")
    (tmp_path / "other.csv").write_text("message\nthe cat\n", encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}]}\n', encoding="utf-8"
    )
    bad = b"the \xff".decode("utf-8", "surrogateescape")
    for text in ("bad.txt", "other.csv", "chats.jsonl", "x" * 60, bad):
        line = hairpin("predict", classifier.path, text).refusal
        assert "--set" not in line and "finetune." not in line
    assert hairpin("predict", classifier.path, bad).refusal.startswith("text 1: byte 0xff at char")


# --- hairpin evaluate, hairpin sample ---


def test_evaluate_measures_a_classifier(hairpin: Hairpin, classifier: Run, tmp_path: Path) -> None:
    Path("few.csv").write_text(
        "text,label\nthe cat sat,animal\na boat ran,sea\nthe cat ran,sky\n", encoding="utf-8"
    )
    facts = json.loads(only(hairpin("evaluate", classifier.path, "few.csv", "--json")))
    found = classifier.classifier().predict(["the cat sat", "a boat ran", "the cat ran"])
    numbers = [["animal", "sea", "sky"].index(prediction.label) for prediction in found]
    expected = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    for label, number in enumerate(numbers):
        expected[label][number] += 1
    assert facts["confusion"] == expected
    assert facts["accuracy"] == sum(expected[i][i] for i in range(3)) / 3
    assert facts["labels"] == ["animal", "sea", "sky"]
    assert facts["examples"] == 3 and not {"tokens", "perplexity", "bits_per_byte"} & facts.keys()
    nats = [
        -torch.tensor(p.probabilities[label]).log().item()
        for p, label in zip(found, ["animal", "sea", "sky"], strict=True)
    ]
    assert facts["loss"] == pytest.approx(sum(nats) / 3, abs=1e-5)
    lines = hairpin("evaluate", classifier.path).out.splitlines()
    assert lines[1].startswith("accuracy       ") and lines[1].endswith("% of 30 examples")
    assert lines[4].split() == ["true", "\\", "predicted", "animal", "sea", "sky"]
    assert [sum(map(int, line.split()[1:])) for line in lines[5:]] == [10, 10, 10]


def test_a_run_that_answers_writes_below_the_instruction(hairpin: Hairpin, answering: Run) -> None:
    done = hairpin("sample", answering.path, "--prompt", "the cat", "--tokens", "5")
    assert done.code == 0
    assert done.out.startswith("the cat\n") and ": " not in done.out.splitlines()[0]
    facts = json.loads(only(hairpin("evaluate", answering.path, "--json")))
    assert facts["bits_per_byte"] > 0 and "accuracy" not in facts


# --- refusals ---


def test_a_run_is_refused_what_it_cannot_do(
    hairpin: Hairpin, base: Run, classifier: Run, answering: Run, tmp_path: Path
) -> None:
    text = tmp_path / "book.txt"
    text.write_text("Once", encoding="utf-8")
    for run in (base, answering):
        line = hairpin("predict", run.path, "x").refusal
        assert line.startswith(f"{run.path}: not a classifier; make one with `hairpin finetune")
    line = hairpin("sample", classifier.path, "--prompt", "x").refusal
    assert "does not generate text" in line and f"hairpin predict {classifier.path} TEXT" in line
    with pytest.raises(RunError, match="does not generate text"):
        classifier.trained().write("x")
    assert "no text to classify" in hairpin("predict", classifier.path).refusal
    assert "Missing argument" in hairpin("predict").refusal
    assert "book.txt: its name does not tell" in hairpin("evaluate", classifier.path, text).refusal
    (tmp_path / "o.csv").write_text("text,label\nthe cat,fish\n", encoding="utf-8")
    line = hairpin("evaluate", classifier.path, "o.csv").refusal
    assert line.startswith("o.csv:2: label 'fish' is not one") and "animal, sea, sky" in line
    (tmp_path / "empty.csv").write_text("text\n", encoding="utf-8")
    assert "no records" in hairpin("predict", classifier.path, "empty.csv").refusal


def test_a_changed_file_is_no_longer_the_runs_validation(
    hairpin: Hairpin, base: Run, tmp_path: Path
) -> None:
    file = labels_file(tmp_path, 60)
    assert (
        hairpin(
            *("finetune", "classify", "--from", base.path, "--data", file, "--out", "run", *FLAGS)
        ).code
        == 0
    )
    with file.open("a", encoding="utf-8") as lines:
        lines.write("one more cat,animal\n")
    for verb in (["evaluate", "run"], ["train", "--config", "run/config.toml", "--out", "again"]):
        line = hairpin(*verb).refusal
        assert "labels.csv: not the file" in line and "data.hash" in line
    assert not Path("again").exists()
    file.unlink()
    assert "labels.csv: no such file" in hairpin("evaluate", "run").refusal


CSV = "text,label\nthe cat,animal\na boat,sea\nmy cat,animal\nour boat,sea\n"
TASKS = '{"instruction": "Go", "response": "gone"}\n{"instruction": "Sit", "response": "sat"}\n'


@pytest.mark.parametrize(
    ("kind", "name", "content", "more", "words"),
    [
        ("classify", "d.csv", CSV.replace("my cat", ""), [], ["d.csv:4: the text is empty"]),
        ("classify", "d.csv", CSV.replace("sea", "animal"), [], ["label 'animal'", "at least two"]),
        ("classify", "d.csv", CSV.replace(",sea", ","), [], ["d.csv:3: the label is empty", ":5"]),
        (
            "classify",
            "d.csv",
            CSV.replace("label", "v1"),
            [],
            ['no column "label"', "label_column"],
        ),
        ("classify", "d.csv", CSV.replace("boat", "b" * 60), [], ["d.csv:3: 63 tokens", ":5: 65"]),
        ("classify", "d.csv", "text,label\na,x\nb,y\n", [], ["no record is left for validation"]),
        ("classify", "d.txt", CSV, [], ["d.txt: its name does not tell"]),
        ("classify", "d.csv", "", [], ["d.csv: the file is empty"]),
        ("classify", "d.csv", CSV, ["--set", "finetune.labels=['a']"], ["finetune.labels"]),
        ("classify", "d.csv", CSV, ["--set", "finetune.layers=3"], ["finetune.layers: 3 blocks"]),
        (
            "classify",
            "d.csv",
            CSV,
            ["--set", "finetune.examples_per_update=2", "--set", "train.tokens_per_update=48"],
            ["2 examples of 48 are not 48 tokens"],
        ),
        (
            "instruct",
            "d.jsonl",
            TASKS.replace("gone", " "),
            [],
            ["d.jsonl:1: there is no response"],
        ),
        ("instruct", "d.jsonl", TASKS.replace("response", "answer"), [], ["response_column"]),
        ("instruct", "d.jsonl", TASKS.replace("Sit", ""), [], ["d.jsonl:2: there is no instruct"]),
        ("instruct", "d.jsonl", TASKS.replace("instruction", "task"), [], ["instruction_column"]),
        (
            "instruct",
            "d.jsonl",
            TASKS.replace("gone", "g" * 50),
            [],
            ["d.jsonl:1: the response al"],
        ),
        (
            "instruct",
            "d.jsonl",
            TASKS,
            ["--set", "finetune.template=Hello"],
            ["finetune.template: it has no {instruction}"],
        ),
    ],
)
def test_records_that_cannot_be_learned_are_refused_and_nothing_is_left(
    hairpin: Hairpin,
    base: Run,
    kind: str,
    name: str,
    content: str,
    more: list[str],
    words: list[str],
) -> None:
    Path(name).write_text(content, encoding="utf-8")
    short = (
        [] if "finetune.template=Hello" in more else ["--set", "finetune.template={instruction}:"]
    )
    done = hairpin("finetune", kind, "--from", base.path, "--data", name, *short, *more)
    assert (done.code, done.out) == (2, ""), done
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err
    assert not list(Path("runs").glob("*"))


def test_a_folder_with_a_run_in_it_is_refused_with_what_finetune_has(
    hairpin: Hairpin, base: Run, answering: Run
) -> None:
    command = ("finetune", "instruct", "--from", base.path, "--data", "x.jsonl")
    Path("x.jsonl").write_text(TASKS, encoding="utf-8")
    line = hairpin(*command, "--out", answering.path).refusal
    assert line.startswith(
        f"{answering.path}: a run already exists; resume it with `hairpin resume"
    )
    assert "--or-resume" not in line and line.endswith(", or name another folder with --out")


def test_records_that_python_holds_are_refused_as_those_of_a_file(
    base: Run, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError) as raised:
        package.finetune(
            "classify", [{"text": "a", "label": "x"}, {"text": "b"}], start=base.path,
            out=tmp_path / "run", watcher=Quiet(),
        )  # fmt: skip
    (line,) = raised.value.problems
    assert 'records.jsonl.zst:2: no "label"; it has "text"' in line
    assert not (tmp_path / "run").exists()


def test_what_fine_tuning_needs_is_asked_for(hairpin: Hairpin, base: Run, tmp_path: Path) -> None:
    file = labels_file(tmp_path, 60)
    done = hairpin("finetune", "classify")
    assert done.code == 2
    start, data = done.err.splitlines()
    assert "--from" in start and "--data" in data
    assert "--from" in hairpin("finetune", "classify", "--data", file).refusal
    assert "--data" in hairpin("finetune", "classify", "--from", base.path).refusal
    assert "classify" in hairpin("finetune", "label", "--data", file).refusal
    line = hairpin("finetune", "classify", "--data", file, "--from", tmp_path).refusal
    assert "neither a run nor a model in safetensors" in line
    assert not list(Path("runs").glob("*"))


# --- labels of any kind, shown ---

ODD = (
    "two\nlines",
    "tab\there",
    "\x1b[31mred",
    "\U0001f600 joy",
    "$x^",
    "$\\frac$",
    "正面",
    "\u202eleft",
)
MATRIX = tuple(tuple(9 if i == j else i + j for j in range(len(ODD))) for i in range(len(ODD)))


def test_odd_labels_are_learned_and_shown_harmlessly(
    hairpin: Hairpin, base: Run, tmp_path: Path
) -> None:
    rows = [
        {"text": f"{text} {number}", "label": ODD[number % len(ODD)]}
        for number, (text, _) in enumerate(telling_texts(64))
    ]
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    done = hairpin(
        *("finetune", "classify", "--from", base.path, "--data", file, "--out", "run", *FLAGS)
    )
    assert done.code == 0
    shown = [
        done,
        hairpin("predict", "run", "the cat"),
        hairpin("evaluate", "run"),
    ]
    for each in shown:
        assert "\x1b" not in each.out and "\u202e" not in each.out and "\t" not in each.out
    assert len(shown[1].out.splitlines()) == 1
    assert len(shown[2].out.splitlines()) == 4 + 1 + len(ODD)
    facts = json.loads(hairpin("predict", "run", "the cat", "--json").out)
    assert sorted(facts["predictions"][0]["probabilities"]) == sorted(ODD)


def test_a_table_keeps_its_columns_whatever_the_labels(tmp_path: Path) -> None:
    from rich.cells import cell_len

    lines = confusion_lines(MATRIX, ODD)
    assert len(lines) == 1 + len(ODD)
    assert len({cell_len(line) for line in lines}) == 1
    assert all(line.isprintable() for line in lines)
    predictions = [Prediction(label, dict.fromkeys(ODD, 0.125)) for label in ODD]
    table = prediction_lines(["some\ttext\n"] * len(ODD), predictions)
    assert len({cell_len(line) for line in table}) == 1
    assert all(line.isprintable() and line.endswith("0.125  some text") for line in table)
    assert prediction_lines(["x" * 99], predictions[:1])[0].endswith("  " + "x" * 79 + "…")


def test_plots_of_odd_labels(tmp_path: Path) -> None:
    figure = confusion_figure(MATRIX, ODD)
    figure.savefig(tmp_path / "odd.png")  # a warning would fail the test
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names[:2] == ["two\\nlines", "tab\\there"] and names[4] == "$x^"
    assert names[6] == "\\u6b63\\u9762"


# --- figures of a run ---


def record(confusions: list[Any], losses: list[float], labels: tuple[str, ...]) -> list[Any]:
    plan = {"event": "plan", "labels": list(labels), "parameters": 1, "updates": 8}
    evaluated = [
        {
            "event": "evaluation",
            "update": 4 * n,
            "tokens": 32 * n,
            "train_loss": loss,
            "val_loss": loss,
            "train_accuracy": 0.5,
            "val_accuracy": sum(m[i][i] for i in range(len(m))) / sum(map(sum, m)),
            "val_confusion": m,
        }
        for n, (m, loss) in enumerate(zip(confusions, losses, strict=True))
    ]
    return [plan, *evaluated]


def test_the_plots_of_a_classifier_say_what_the_record_says(tmp_path: Path) -> None:
    first, second, third = [[5, 1], [2, 0]], [[6, 0], [1, 1]], [[0, 6], [0, 2]]
    events = record([first, second, third], [1.0, 0.25, 0.5], ("ham", "spam"))
    written = write_plots(events, tmp_path, build_config())
    assert [path.name for path in written[3:]] == ["accuracy.png", "confusion.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)

    chart = accuracy_chart(events)
    assert chart
    (ax,) = draw(chart).axes
    lines = {str(line.get_label()): list(map(float, line.get_ydata())) for line in ax.lines}  # type: ignore[arg-type]
    assert lines["validation"] == [5 / 8, 7 / 8, 2 / 8] and lines["training"] == [0.5] * 3
    assert lines["lowest validation loss"] == [7 / 8]
    assert lines["always the most common label"] == [6 / 8] * 2
    assert ax.get_title("left").startswith("Accuracy: 87.5%")

    update = {"event": "update", "update": 0, "lr": 0.1, "loss": 1.0, "grad_norm": 1.0, "tokens": 8}
    (top,) = draw(lr_chart([*events, update], build_config())).axes[0].child_axes
    assert top.get_xlabel() == "examples"

    figure = confusion_figure(second, ("ham", "spam"))
    ax = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "6", (1, 0): "0", (0, 1): "1", (1, 1): "1"}
    assert ax.get_title().startswith("87.5% of 8 validation labels")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true label")


def test_without_a_matrix_the_accuracy_is_still_drawn(tmp_path: Path) -> None:
    events = record([[[1, 0], [0, 1]]], [1.0], ("a", "b"))
    del events[1]["val_confusion"]
    written = write_plots(events, tmp_path, build_config())
    assert written[-1].name == "accuracy.png"
    chart = accuracy_chart(events)
    assert chart
    (ax,) = draw(chart).axes
    assert "always the most common label" not in {line.get_label() for line in ax.lines}
    # Nothing was evaluated: still no error.
    write_plots(events[:1], tmp_path, build_config())


def test_a_measurement_of_labels_in_lines() -> None:
    measured = Measured(0.25, 1234, accuracy=0.875, confusion=((1000, 34), (120, 80)))
    assert measured_lines(measured, ("ham", "spam")) == [
        "accuracy       87.5% of 1,234 examples",
        "loss           0.2500 nats per example",
        "",
        "true \\ predicted    ham  spam",
        "ham               1,000    34",
        "spam                120    80",
    ]


def test_the_plan_counts_examples(classifier: Run, hairpin: Hairpin, base: Run) -> None:
    from hairpin.runs import events

    facts = of_kind(classifier.record(), "plan")[0]
    plan = events.Plan(**{key: value for key, value in facts.items() if key != "event"})
    line = plan_text(plan)
    assert line.startswith("plan: labels.csv with 3 labels, from the best weights, update 60, of ")
    assert "120 updates of 8 examples (3 of warmup)" in line
    assert "passes over 270 training examples" in line
    file = labels_file(Path(), 60)
    done = hairpin(
        *("finetune", "classify", "--from", base.path, "--data", file, "--out", "run", *FLAGS)
    )
    (shown,) = [row for row in done.out.splitlines() if row.startswith("evaluation after 12 up")]
    assert " examples/s" in done.out and " tok/s" not in done.out
    listed = hairpin("runs", ".").out.splitlines()
    assert listed[0].split()[-1] == "accuracy" and listed[1].endswith("%")
    assert "% accuracy (" in shown and "% in training)" in shown and "bits per byte" not in shown
    assert "hairpin predict run TEXT" in done.out


@pytest.mark.parametrize("name", ["tset.csv", "missing.TXT", "no/such.jsonl"])
def test_the_name_of_a_file_that_is_not_there_is_no_text(
    hairpin: Hairpin, classifier: Run, name: str
) -> None:
    assert f"{name}: no such file" in hairpin("predict", classifier.path, name).refusal
    assert hairpin("predict", classifier.path, f"look into {name}").code == 0
