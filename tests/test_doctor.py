"""What `hairpin doctor` finds: on a healthy machine, and where something was broken for it."""

import errno
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hairpin.doctor import devices, machine, numbers
from hairpin.doctor.findings import Finding
from hairpin.doctor.plain import plain_adamw
from hairpin.machine.numerics import Numerics
from hairpin.model import gpt
from hairpin.model.generate import Sampling
from hairpin.optim import muon, optimizers
from helpers import Hairpin
from test_lock import no_flock

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks at the folder that it was started in, nor measures how fast this machine is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "measure_flops", lambda device, precision, **_: 1e9)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.what: finding for finding in findings}
    assert len(found) == len(findings), "two lines of one name"
    return found


# --- the plain networks ---


@pytest.mark.parametrize("architecture", list(numbers.SHAPES))
def test_the_plain_network_and_the_model_are_one_function(architecture: str) -> None:
    # Two ways to the same numbers, neither of which uses the other: by hand and by autograd.
    sample = numbers.make_sample(architecture)
    agrees, text = numbers.compare_gradients(sample, Numerics("cpu"))
    assert agrees, text
    assert len(sample.gradients) == len(list(sample.model("cpu").parameters()))
    assert all(gradient.norm() > 0 for gradient in sample.gradients.values())


def test_plain_adamw_is_pytorchs() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    parameter = nn.Parameter(weight.clone())
    group = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}
    optimizer = torch.optim.AdamW([parameter], foreach=False, **group)  # type: ignore[arg-type]
    state: dict[str, Tensor] = {}
    for update in range(1, 4):
        gradient = torch.randn(3, 4, dtype=torch.float64, generator=generator)
        parameter.grad = gradient
        optimizer.step()
        weight = plain_adamw(weight, gradient, state, group, update)
    torch.testing.assert_close(weight, parameter.detach(), rtol=1e-12, atol=1e-12)


# --- a healthy machine ---


def test_a_healthy_cpu_passes_and_says_so_line_by_line(hairpin: Hairpin, tmp_path: Path) -> None:
    done = hairpin("doctor", "--device", "cpu")
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert all(line.startswith(("OK ", "note ")) for line in lines), done.out
    assert any(line.startswith("OK ") and "gpt2 in float32 on cpu" in line for line in lines)
    assert not list(tmp_path.glob(".hairpin-doctor-*")), "it leaves nothing behind"


def test_its_json_has_every_finding_once(hairpin: Hairpin) -> None:
    done = hairpin("doctor", "--json", "--device", "cpu")
    assert done.code == 0
    found = json.loads(done.out)
    assert found.keys() == {"wrong", "findings"} and found["wrong"] is False
    for finding in found["findings"]:
        assert finding.keys() == {"what", "state", "text", "is_wrong"}
        assert finding["state"] in ("ok", "note") and finding["text"] and not finding["is_wrong"]
    names = [finding["what"] for finding in found["findings"]]
    assert len(set(names)) == len(names)
    for architecture in ("gpt2", "modern", "qwen3"):
        for precision in ("float32", "bfloat16"):
            assert f"{architecture} in {precision} on cpu" in names
        assert f"{architecture} generating on cpu" in names
    assert {"Python", "torch", "cache", "lock", "adamw on cpu", "muon on cpu"} <= set(names)


def test_a_device_that_is_not_there_is_one_line(
    hairpin: Hairpin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "this machine has no mps" in hairpin("doctor", "--device", "mps").refusal


def test_an_examination_leaves_pytorchs_settings_alone() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        list(numbers.check_numbers("cpu", []))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


# --- a device that computes wrongly ---


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is 1% too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 1.01


def scale_the_last_norms_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.LayerNorm, x: Tensor) -> Tensor:
        weight = Scaled.apply(self.weight) if self is last[0] else self.weight  # type: ignore[no-untyped-call]
        return F.layer_norm(x, self.normalized_shape, weight, self.bias, self.eps)

    last: list[nn.Module] = []
    make = gpt.GPT.__init__

    def made(self: gpt.GPT, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        last[:] = [self.final_norm]

    monkeypatch.setattr(gpt.GPT, "__init__", made)
    monkeypatch.setattr(nn.LayerNorm, "forward", forward)


def test_one_gradient_that_is_off_by_a_hundredth_is_found_and_named(
    hairpin: Hairpin, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_the_last_norms_gradient(monkeypatch)
    done = hairpin("doctor", "--device", "cpu")
    (line,) = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert "gpt2 in float32 on cpu" in line
    assert "wrong results: final_norm.weight off by 1.0% (limit 1e-04)" in line
    assert done.code == 1
    said = "hairpin: wrong numbers: gpt2 in float32 on cpu; install another PyTorch\n"
    assert done.err == said


def test_wrong_numbers_are_in_the_json_too(
    hairpin: Hairpin, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_the_last_norms_gradient(monkeypatch)
    done = hairpin("doctor", "--json", "--device", "cpu")
    found = json.loads(done.out)
    assert done.code == 1 and found["wrong"] is True
    assert [f["what"] for f in found["findings"] if f["is_wrong"]] == ["gpt2 in float32 on cpu"]


@pytest.mark.parametrize("damage", ["zeros", "NaN", "no kernel"])
def test_any_other_damage_to_a_norm_is_a_problem_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def forward(self: nn.LayerNorm, x: Tensor) -> Tensor:
        if damage == "no kernel":
            raise NotImplementedError("aten::layer_norm is not for this device\nmore lines")
        return torch.full_like(x, 0.0 if damage == "zeros" else torch.nan)

    monkeypatch.setattr(nn.LayerNorm, "forward", forward)
    found = by_name(list(numbers.check_numbers("cpu", ["float32"])))
    finding = found["gpt2 in float32 on cpu"]
    assert finding.is_wrong and finding.state == "problem" and "\n" not in finding.text
    if damage == "no kernel":
        assert finding.text == "NotImplementedError: aten::layer_norm is not for this device"
    assert not found["modern in float32 on cpu"].is_wrong


def test_a_wrong_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Sampling.draw

    def second(self: Sampling, logits_V: Tensor, generator: torch.Generator) -> int:
        logits_V = logits_V.clone()
        logits_V[draw(self, logits_V, generator)] = -torch.inf
        return draw(self, logits_V, generator)

    monkeypatch.setattr(Sampling, "draw", second)
    agrees, text = numbers.compare_text(numbers.make_sample("modern"), "cpu")
    assert not agrees and text == "token 1 at temperature 0 is not the most likely"


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_learning_rate_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    step = optimizers.step_unless

    def faster(halted: Tensor, optimizer: torch.optim.Optimizer, lr: float, *rest: Any) -> None:
        step(halted, optimizer, lr * 1.01, *rest)
        for group in optimizer.param_groups:
            group["lr"] /= 1.01

    sample = numbers.make_sample("modern")
    assert numbers.compare_updates(sample, kind, "cpu")[0]
    monkeypatch.setattr(numbers, "step_unless", faster)
    agrees, text = numbers.compare_updates(sample, kind, "cpu")
    assert not agrees and "off by 1.0%" in text


def test_muon_in_bfloat16_that_turns_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = numbers.make_sample("modern")
    assert numbers.compare_updates(sample, "muon", "cpu", "bfloat16")[0]
    real = muon._iterate_rounded
    monkeypatch.setattr(muon, "_iterate_rounded", lambda *given: -real(*given))
    agrees, text = numbers.compare_updates(sample, "muon", "cpu", "bfloat16")
    assert not agrees and "off by 199" in text


def deaf_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused AdamW that does not read what it is given beside the gradients, as on MPS."""
    real = torch._fused_adamw_

    def deaf(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named | {"grad_scale": None, "found_inf": None})

    monkeypatch.setattr(torch, "_fused_adamw_", deaf)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimizer_that_ignores_divisor_and_guard_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    deaf_kernel(monkeypatch)
    sample = numbers.make_sample("modern")
    agrees, text = numbers.compare_skipped(sample, "cpu")
    assert not agrees and "in a skipped update" in text
    # And what hairpin does where a device's kernels are known for it.
    monkeypatch.setattr(optimizers, "DEVICES_IGNORING_FOUND_INF", ("cpu",))
    assert numbers.compare_skipped(sample, "cpu")[0]
    assert numbers.compare_updates(sample, kind, "cpu")[0]


def test_a_large_product_is_held_to_its_first_and_last_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert numbers.compare_large_product("cpu", (64, 96, 16))[0]

    def forgets_the_end(x: Tensor, weight: Tensor) -> Tensor:
        out = x @ weight.T
        out[32:] = 0
        return out

    monkeypatch.setattr(F, "linear", forgets_the_end)
    agrees, text = numbers.compare_large_product("cpu", (64, 96, 16))
    assert not agrees and "rows from 60 off by 100.0%" in text


# --- what is around it ---


def failing(error: OSError) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


def test_a_cache_that_cannot_be_written_says_what_to_do(
    hairpin_cache: Path, hairpin: Hairpin
) -> None:
    hairpin_cache.parent.mkdir(exist_ok=True)
    hairpin_cache.write_text("a file stands in its place", encoding="utf-8")
    done = hairpin("doctor", "--device", "cpu")
    (line,) = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert "cache" in line and str(hairpin_cache) in line and "set HAIRPIN_CACHE" in line
    assert done.code == 0, "it is no device's fault"


def test_a_full_disk_under_the_cache_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(machine, "sync_file", failing(full))
    (finding,) = machine.check_cache()
    assert finding.state == "problem" and "No space left on device" in finding.text


def test_a_cache_that_others_can_write_is_noted(hairpin_cache: Path) -> None:
    hairpin_cache.mkdir(parents=True)
    hairpin_cache.chmod(0o777)
    found = by_name(list(machine.check_cache()))
    assert found["cache"].state == "ok"
    assert found["cache is private"].state == "note"
    assert "chmod 700" in found["cache is private"].text


def test_no_flock_is_noted_with_what_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    finding = by_name(list(machine.check_working_folder(tmp_path)))["lock"]
    assert finding.state == "note" and ".lock.held" in finding.text


def test_no_hard_links_and_no_fsync_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = OSError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(Path, "hardlink_to", failing(refused))
    monkeypatch.setattr(machine, "sync_folder", failing(OSError(errno.EIO, "Input/output error")))
    found = by_name(list(machine.check_working_folder(tmp_path)))
    assert found["hard links"].state == "note" and "a copy" in found["hard links"].text
    assert found["durable writing"].state == "problem"


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    findings = list(machine.check_working_folder(gone))
    assert {finding.state for finding in findings} == {"problem"}
    assert all(str(gone) in finding.text for finding in findings)


def test_extras_that_are_missing_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    for finding in machine.check_extras():
        extra = finding.what.removeprefix("extra ")
        assert finding.state == "note"
        assert finding.text == f"not installed: pip install 'hairpin[{extra}]'"


def test_extras_that_are_there_have_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: object())
    monkeypatch.setattr(
        machine, "_version_of", lambda package: None if package == "mlflow-skinny" else "1.2"
    )
    assert {finding.text for finding in machine.check_extras()} == {"1.2"}


def test_extras_and_oldest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(machine.EXTRAS) == set(extras) - {"dev", "docs", "ecosystem"}
    for extra, (_, packages) in machine.EXTRAS.items():
        assert extras[extra][0].partition(">")[0] in packages
    assert project["requires-python"] == f">={'.'.join(map(str, machine.MIN_PYTHON))}"
    assert f"torch>={'.'.join(map(str, devices.MIN_TORCH))}" in project["dependencies"]


def test_what_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    monkeypatch.setattr(machine, "MIN_PYTHON", (99, 0))
    torch_line, python_line = next(devices.check_torch()), next(machine.check_versions())
    assert torch_line.text == "2.9.1+cpu is too old: pip install 'torch>=2.10'"
    assert (torch_line.state, python_line.state) == ("problem", "problem")


def test_a_pytorch_that_does_not_load_is_a_line(
    hairpin: Hairpin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = hairpin("doctor")
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert "torch" in line and "cannot be imported" in line


def test_emulated_formats_and_compilers_that_fail_are_notes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speeds = {"float32": 4e9, "bfloat16": 1e9}
    monkeypatch.setattr(devices, "measure_flops", lambda device, precision, **_: speeds[precision])
    fast, slow = devices.check_formats("cpu")
    assert fast.text == "4 GFLOP/s in a small model"
    assert slow.state == "note" and slow.text.startswith(
        "0.2 times as fast as float32: apparently emulated"
    )

    def no_compiler(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nat all")

    monkeypatch.setattr(devices, "compile_model", no_compiler)
    finding = devices.check_compiling("cpu")
    assert finding.state == "note" and not finding.is_wrong
    assert finding.text == "fails (RuntimeError: no C++ compiler); runs are eager"


@pytest.mark.parametrize(
    "setting",
    [
        "OMP_WAIT_POLICY=ACTIVE",
        "GOMP_SPINCOUNT=300000",
        "KMP_BLOCKTIME=200",
        "KMP_BLOCKTIME=infinite",
    ],
)
def test_waiting_without_sleep_is_noted(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(*setting.split("="))
    found = by_name(list(devices.check_torch()))["waiting"]
    assert found.state == "note" and found.text.startswith(setting) and "unset it" in found.text


@pytest.mark.parametrize("setting", ["OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=3000", "A=1"])
def test_threads_that_sleep_are_no_news(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(*setting.split("="))
    assert "waiting" not in by_name(list(devices.check_torch()))


def test_one_thread_is_advised_beside_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = by_name(list(devices.check_torch()))["threads"]
    assert found.state == "note" and "good next to other programs" in found.text


def test_a_terminal_that_is_not_utf8_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        encoding = "cp1252"

    monkeypatch.setattr("sys.stdout", Old())
    (finding,) = machine.check_terminal()
    assert finding.state == "note" and "output cp1252" in finding.text
