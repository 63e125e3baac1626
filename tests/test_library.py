"""hairpin's parts outside of hairpin's own loop."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import hairpin
from examples import plain_pytorch
from hairpin import schedules
from hairpin.optim.lr_scheduler import ScheduleLR
from helpers import text_file

EXAMPLE = Path(plain_pytorch.__file__)
COSINE = schedules.cosine(updates=20, warmup=5, peak_lr=0.01, min_lr=0.001)


def an_optimizer(*lrs: float, **group: Any) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr, **group} for lr in lrs]
    return torch.optim.SGD(groups, lr=0.1)


def trace(optimizer: torch.optim.Optimizer, scheduler: ScheduleLR, updates: int) -> list[Any]:
    """The rates of each group in each of the next updates."""
    found = []
    for _ in range(updates):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


@given(
    st.sampled_from(["constant", "linear", "cosine", "inverse-sqrt"]),
    st.integers(0, 8),
    st.floats(1e-5, 1.0),
)
def test_every_update_has_exactly_the_schedules_rate(kind: str, warmup: int, peak: float) -> None:
    schedule = schedules.Schedule(kind, updates=16, warmup=warmup, peak_lr=peak)
    optimizer = an_optimizer(0.3)
    scheduler = ScheduleLR(optimizer, schedule)
    assert trace(optimizer, scheduler, 16) == [[schedule(update)] for update in range(16)]
    assert scheduler.get_last_lr() == [schedule(16)]  # past the end


def test_groups_keep_their_ratios() -> None:
    optimizer = an_optimizer(0.02, 0.005, 0.0)
    found = trace(optimizer, ScheduleLR(optimizer, COSINE), 20)
    assert found == [[COSINE(u), COSINE(u) * 0.25, 0.0] for u in range(20)]
    scaled = an_optimizer(0.0, 0.0, lr_scale=3.0)
    assert trace(scaled, ScheduleLR(scaled, COSINE), 2)[1] == [3 * COSINE(1), 3 * COSINE(1)]
    same = an_optimizer(0.0, 0.0)  # as hairpin makes them
    assert trace(same, ScheduleLR(same, COSINE), 2)[1] == [COSINE(1), COSINE(1)]


@pytest.mark.parametrize("done", [1, 4, 19])
def test_what_it_saves_goes_on_as_it_would_have(done: int, tmp_path: Path) -> None:
    whole = an_optimizer(0.02, 0.005)
    expected = trace(whole, ScheduleLR(whole, COSINE), 20)
    first = an_optimizer(0.02, 0.005)
    scheduler = ScheduleLR(first, COSINE)
    begun = trace(first, scheduler, done)
    torch.save([first.state_dict(), scheduler.state_dict()], tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)  # no code in it

    for load_optimizer_first in (False, True):
        second = an_optimizer(0.02, 0.005)
        if load_optimizer_first:
            second.load_state_dict(saved[0])
        again = ScheduleLR(second, COSINE)
        again.load_state_dict(saved[1])
        if not load_optimizer_first:
            second.load_state_dict(saved[0])
        second.step()
        assert begun + trace(second, again, 20 - done) == expected


def test_a_rate_that_is_a_tensor_stays_one() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=torch.tensor(0.01), foreach=False, fused=True)
    scheduler = ScheduleLR(optimizer, COSINE)
    optimizer.step()
    scheduler.step()
    scheduler.load_state_dict(scheduler.state_dict())
    lr = optimizer.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor) and float(lr) == pytest.approx(COSINE(1))


def test_any_function_of_the_update_will_do() -> None:
    optimizer = an_optimizer(0.1)
    assert trace(optimizer, ScheduleLR(optimizer, lambda u: 1 / (u + 1)), 3) == [
        [1.0], [0.5], [1 / 3],
    ]  # fmt: skip
    assert hairpin.ScheduleLR is ScheduleLR


def test_the_plain_loop_resumes_in_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_file(tmp_path)
    whole = plain_pytorch.train(text, tmp_path / "whole", 60)
    plain_pytorch.train(text, tmp_path / "stopped", 60, stop_after=47)
    capsys.readouterr()
    resumed = plain_pytorch.train(text, tmp_path / "stopped", 60)
    (line,) = capsys.readouterr().out.splitlines()  # from 40 on
    assert line.startswith("60  loss ") and line.endswith("lr 3.0e-04")
    for left, right in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)
    with torch.no_grad():
        ids = torch.tensor(list(text.read_bytes()[:1000]))
        loss = nn.functional.cross_entropy(whole(ids[:-1]), ids[1:])
    assert loss < math.log(256) - 2, "it learns"


def test_the_plain_loop_is_a_program(tmp_path: Path) -> None:
    arguments = [text_file(tmp_path), "--out", tmp_path / "run", "--updates", "20"]
    done = subprocess.run(
        [sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("20  loss ")
    assert (tmp_path / "run" / "checkpoints" / "step-00000020").is_dir()
