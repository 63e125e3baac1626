"""What the peers of `benchmarks.peers_to_loss` are given is what hairpin itself trains on."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import hairpin
from benchmarks.peers_to_loss import as_given, page_of
from benchmarks.speed.job import Clock, Job
from hairpin.model.gpt import GPT
from helpers import of_kind, text_file

ASKED = argparse.Namespace(size="nano", precision="float32", seeds=2)


def test_tokens_and_validation_are_hairpins_own(tmp_path: Path) -> None:
    file = text_file(tmp_path)
    text = as_given(str(file), tmp_path / "given", ASKED)
    ids = text.ids(1, 3)
    assert ids.shape == (3, text.sequences, text.shape.context + 1)
    assert (ids != text.ids(0, 3)).any(), "another seed, another order"

    flags = {"recipe": "gpt2", "model.size": "nano", "train.seed": 1, "train.updates": 2}
    run = hairpin.train(
        file, out=tmp_path / "run", settings=flags | {"execution.precision": "float32",
        "train.tokens_per_update": 2048, "schedule.kind": "cosine", "evaluate.tokens": 65_536,
        "evaluate.sample_tokens": 0, "schedule.warmup_updates": 0}, watcher=hairpin.Quiet(),
    )  # fmt: skip
    (first, *_) = of_kind(run.record(), "evaluation")
    model = GPT(text.shape, 1).eval()
    job = Job({}, "", "", 0.0, "float32", "cpu", {}, 0.0, validation=str(text.validation))
    clock = Clock()
    clock.validate(job, model.logits)
    assert clock.val_nats
    bits = clock.val_nats / math.log(2) / text.validation_bytes
    assert bits == pytest.approx(first["val_bits_per_byte"], rel=1e-5)

    (update, *_) = of_kind(run.record(), "update")
    rows = torch.from_numpy(ids[0])
    total, count = model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    assert float(total.detach() / count) == pytest.approx(update["loss"], rel=1e-5)


def test_differences_are_to_the_better_peer() -> None:
    row = {
        "text": "a/b.txt",
        "peers": {
            "transformers": {"bits": [2.0, 2.2, 2.1], "updates": 10, "lr": 1e-3},
            "litgpt": {"bits": [1.9, 2.0, 2.1], "updates": 9, "lr": 5e-3},
        },
        "hairpin": [{"bits": [1.8, 1.9, 2.0], "updates": 7}] * 2,
    }
    line = list(page_of([row], 30.0))[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "b.txt" and cells[2] == "2.000 ± 0.248 (9 at 0.005)"
    assert cells[3] == "1.900 ± 0.248 (7)" and cells[4] == "0.100 ± 0.000"
    assert np.isclose(0.1 * 4.303 / math.sqrt(3), 0.248, atol=1e-3)
