"""lm-evaluation-harness measures an exported model on a task of one's own, without a network."""

import json
import math
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.tasks import TaskManager

import hairpin
from ecosystem.small_runs import ARCHITECTURES, small_run
from hairpin.tasks.inference import Trained
from helpers import some_text

# docs/huggingface.md shows the first of them.
CHOICE = """\
task: next_word
dataset_path: json
dataset_kwargs:
  data_files:
    test: DATA
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
"""
ROLLING = """\
task: held_out
dataset_path: json
dataset_kwargs:
  data_files:
    test: DATA
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
"""


def questions() -> list[dict[str, object]]:
    lines = some_text(3000, seed=9).splitlines()[:30]
    rows = []
    for number, line in enumerate(line for line in lines if len(line.split()) > 3):
        start, _, last = line.rpartition(" ")
        choices = [f" {last}", " zebra.", " 42"]
        label = number % 3
        choices[0], choices[label] = choices[label], choices[0]
        rows.append({"text": start[-30:], "choices": choices, "label": label})
    return rows


def log_likelihood(trained: Trained, before: list[int], text: str) -> float:
    """The natural logarithm of the probability of a text after some tokens."""
    ids = trained.tokenizer.encode(text).tolist()
    with torch.no_grad():
        logits = trained.model.logits(torch.tensor([before + ids]))[0]
    rows = logits.double().log_softmax(-1)[len(before) - 1 : -1]
    return math.fsum(float(row[token]) for row, token in zip(rows, ids, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_figures_are_hairpins(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    run = small_run(architecture)
    folder = hairpin.export(run.path, tmp_path / "out").path
    texts = [line[:60] for line in some_text(2500, seed=11).splitlines()[:20]]
    sets = {"next_word": (CHOICE, questions()), "held_out": (ROLLING, [{"text": t} for t in texts])}
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, (yaml, rows) in sets.items():
        data = tasks / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tasks / f"{name}.yaml").write_text(yaml.replace("DATA", str(data)), encoding="utf-8")
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=list(sets),
        device="cpu",
        batch_size=4,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )["results"]

    trained = run.trained(device="cpu")
    end = trained.tokenizer.end_of_text
    right = 0
    for row in questions():
        before = trained.tokenizer.encode(str(row["text"])).tolist()
        scores = [log_likelihood(trained, before, choice) for choice in row["choices"]]  # type: ignore[attr-defined]
        right += scores.index(max(scores)) == row["label"]
    assert found["next_word"]["acc,none"] == pytest.approx(right / len(questions()))
    nats = -math.fsum(log_likelihood(trained, [end], text) for text in texts)
    size_bytes = sum(len(text.encode()) for text in texts)
    expected = nats / math.log(2) / size_bytes
    assert found["held_out"]["bits_per_byte,none"] == pytest.approx(expected, abs=1e-4)
