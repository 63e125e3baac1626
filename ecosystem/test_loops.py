"""hairpin's parts in Lightning and in transformers' Trainer: the examples, run."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hairpin import schedules
from helpers import text_file

sys.path.insert(0, str(Path(__file__).parents[1]))

pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own

UPDATES, STOP = 30, 23


def curve() -> list[float]:
    """The rates by hand: warmup over 1 update, then half a cosine down to a tenth."""
    low, high, last = 3e-4, 3e-3, UPDATES - 2
    heights = [0.5 * (1 + math.cos(math.pi * n / last)) for n in range(last + 1)]
    return [high, *(low + (high - low) * height for height in heights)]


def assert_same_weights(left: Any, right: Any) -> None:
    for a, b in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lightning_has_the_rates_and_resumes_in_the_same_bits(tmp_path: Path) -> None:
    from examples import lightning_loop

    text = text_file(tmp_path)
    whole = lightning_loop.train(text, tmp_path / "whole", UPDATES)
    assert whole.lrs == pytest.approx(curve(), rel=1e-12)
    first = lightning_loop.train(text, tmp_path / "stopped", UPDATES, stop_after=STOP)
    assert first.lrs == whole.lrs[:STOP]
    resumed = lightning_loop.train(text, tmp_path / "stopped", UPDATES)
    assert resumed.lrs == whole.lrs[20:]  # the checkpoint after 20 updates
    assert_same_weights(whole, resumed)
    assert not torch.equal(first.net[0].weight, whole.net[0].weight)


def test_transformers_has_the_rates_and_resumes_in_the_same_bits(tmp_path: Path) -> None:
    from examples import transformers_trainer

    text = text_file(tmp_path)
    whole, clip = transformers_trainer.train(text, tmp_path / "whole", UPDATES)
    assert clip.lrs == pytest.approx(curve(), rel=1e-12)
    schedule = schedules.cosine(updates=UPDATES, warmup=1, peak_lr=3e-3, min_lr=3e-4)
    assert clip.lrs == [schedule(update) for update in range(UPDATES)]
    assert len(clip.norms) == UPDATES and max(clip.norms) > 1.0
    _, first = transformers_trainer.train(text, tmp_path / "stopped", UPDATES, stop_after=STOP)
    resumed, last = transformers_trainer.train(text, tmp_path / "stopped", UPDATES)
    assert first.lrs == clip.lrs[:STOP] and last.lrs in (clip.lrs[STOP:], clip.lrs[20:])
    assert_same_weights(whole, resumed)


def test_transformers_own_cosine_begins_at_zero() -> None:
    """Why the example gives a scheduler: the first update of the Trainer's own is lost."""
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=3e-3)
    theirs = get_cosine_schedule_with_warmup(optimizer, 1, UPDATES)
    assert theirs.get_last_lr() == [0.0]
